"""Suites that nobody here wrote, against one embedded node: the counts that real etcd gets.

``CORELOG_FOREIGN_REAL=1`` puts real etcds in our place, to prove the runners.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.acceptance.harness import ROOT, Node
from tests.foreign import completeness, golang, installs, jetcd, proxies, servers, suites, walk
from tests.foreign.walk import Where

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

REAL = bool(os.environ.get("CORELOG_FOREIGN_REAL"))
#: v2's lists of members show the names that real etcds have here.
NAMED = ("--name", "pifpaf0", "--etcd", "initial-advertise-peer-urls=http://127.0.0.1:2380")


@contextlib.contextmanager
def brought() -> Iterator[None]:
    """What can't be installed here is missing, not wrong."""
    try:
        yield
    except installs.Unavailable as error:
        needs.missing(str(error))


@pytest.fixture
def server(make_node: Callable[..., Node]) -> Iterator[Callable[[str], str]]:
    """``server(version)``: the endpoint of a new, empty server (the version: of a real one in its place)."""
    with contextlib.ExitStack() as stack:

        def start(version: str) -> str:
            if REAL:
                return stack.enter_context(servers.Etcd(version)).endpoint
            folder = f"node-{os.urandom(4).hex()}"
            return f"http://127.0.0.1:{make_node(folder, *NAMED if version == '3.4' else ()).start().etcd}"

        yield start


@pytest.mark.parametrize(
    ("suite", "passed", "skipped", "failed"),
    [
        ("etcd3gw", 39, 0, ()),
        ("aetcd", 91, 2, ()),
        # the first fails on real etcd too (a patch of a module that isn't there); the second wants three members
        ("etcd3", 80, 0, ("TestEtcd3::test_member_list", "TestClient::test_user_pwd_auth")),
    ],
)
def test_a_suite(server: Callable[[str], str], suite: str, passed: int, skipped: int, failed: tuple[str, ...]) -> None:
    with brought():
        counts = suites.run(suite, server("3.5.1"), alone=True)
    assert (counts.passed, counts.skipped, counts.failed) == (passed, skipped, failed), counts.output[-20000:]


_WRAPPER = """\
#!/bin/sh
# the suite starts many clusters, each with test-node-0 first: each gets a log of its own
case " $* " in *" -name test-node-0 "*) date +%s%N >'{number}' ;; esac
CORELOG_LOG="{log}-$(cat '{number}')" PYTHONPATH='{root}' exec '{python}' -m node.cli.main etcd "$@"
"""


def _etcd_of_ours(folder: Path) -> Path:
    """A program that takes etcd's flags and is ours, on Kafka, for python-etcd's clusters have three members."""
    from tests.cluster import parts

    program, number = folder / "etcd-of-ours", folder / "number"
    log = parts.address(parts.brokers(1).bootstrap)
    program.write_text(_WRAPPER.format(number=number, log=log, root=ROOT, python=sys.executable))
    program.chmod(0o755)
    return program


def test_python_etcd_starts_its_servers_itself(tmp_path: Path) -> None:
    with brought():
        program = servers.program("etcd", "3.4") if REAL else _etcd_of_ours(tmp_path)
        counts = suites.run("python-etcd", str(program))
    assert (counts.passed, counts.skipped, counts.failed) == (17, 0, ()), counts.output[-20000:]


#: Passwords are quickly checked in a real one, which has to wait for it.
QUICK = ("--bcrypt-cost=4",)


#: The one thing that is printed differently: our cluster's version is 3.5, whose older neighbour is another.
LEFT = re.compile(r"line \d+: downgrade (validate 3|cancel|enable)")


def same(pairs: list[tuple[walk.Seen, walk.Seen]]) -> None:
    """Nothing differs in a walk."""
    assert len(pairs) > 150
    told = [one for one in walk.differences(pairs) if REAL or not LEFT.match(one)]
    assert not told, f"{len(told)} of {len(pairs)} steps differ\n" + "\n\n".join(told)


@pytest.mark.parametrize(
    ("version", "name", "real"),
    [("3.4", "v2", "3.4"), ("3.4", "v3", "3.7"), ("3.5.1", "v3", "3.7"), ("3.7", "v3", "3.7")],
)
def test_etcdctl_prints_what_it_prints_of_real_etcd(
    server: Callable[[str], str], version: str, name: str, real: str
) -> None:
    with brought(), servers.Etcd(real, 1, QUICK) as etcd, servers.Etcd(real) as spare, servers.Etcd(real) as another:
        where = Where(etcd.endpoint, spare.endpoint), Where(server(real), another.endpoint)
        pairs = walk.both(version, name, *where)
    same(pairs)


def test_etcdctl_prints_the_same_through_etcds_proxy(server: Callable[[str], str]) -> None:
    with contextlib.ExitStack() as stack, brought():
        etcd, spare, another = (stack.enter_context(servers.Etcd("3.7", 1, QUICK)) for _ in range(3))
        ours = server("3.7")
        to_etcd, to_ours = (stack.enter_context(proxies.Proxy("3.7", at)) for at in (etcd.endpoint, ours))
        where = (
            Where(to_etcd.endpoint, spare.endpoint, etcd.endpoint),
            Where(to_ours.endpoint, another.endpoint, ours),
        )
        pairs = walk.both("3.7", "v3", *where)
    same(pairs)


@pytest.mark.parametrize(("version", "name"), [("3.4", "v2"), ("3.4", "v3"), ("3.5.1", "v3"), ("3.7", "v3")])
def test_the_walks_leave_no_command_and_no_flag_out(version: str, name: str) -> None:
    with brought():
        assert len(completeness.commands(version, name)) > 30
        assert completeness.unused(version, name) == []


def test_go_client(server: Callable[[str], str], tmp_path: Path) -> None:
    with brought():
        counts = golang.run([server("3.7")])
    assert counts.failed == (), counts.output[-20000:]
    assert (counts.passed, counts.skipped) == (golang.TESTS - 1, 1), counts  # one endpoint can't be killed


def test_java_client(server: Callable[[str], str]) -> None:
    with brought():
        counts = jetcd.run([server("3.7")])
    assert (counts.passed, counts.failed) == (jetcd.TESTS, ()), counts.output[-20000:]
