"""The suites of test_foreign.py again, against the three nodes of docker-compose.yml, each on an emptied store."""

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.compose import NODES, Cluster, docker
from tests.acceptance.harness import ROOT
from tests.acceptance.test_foreign import QUICK, brought, same
from tests.cluster import parts
from tests.foreign import emptied, golang, jetcd, proxies, servers, suites, walk
from tests.foreign.walk import Where

#: A proxy spreads calls over members, and one that hasn't applied what made a token refuses it once, in etcd's cluster
#: and in ours: which of the calls that meets is chance. Its client tells of it, and asks again.
TOKEN_REFUSED = re.compile(r"\{[^\n]*retrying of unary invoker failed[^\n]*invalid auth token[^\n]*\}\n")
#: An answer of a watch with events, as JSON.
WATCHED = re.compile(r'(\{"Header":\{[^{}]*\},"Events":\[)(\{.*\})(\],"CompactRevision":.*\})')
ATTEMPT = re.compile(r'"attempt":\d+')
#: Which member a proxy asks for its state is chance, too, and so whether that is the leader.
IS_LEADER = re.compile(r"([,|│] )(?:true|false)(?=[,|│ ]+(?:true|false)\b)")

pytestmark = [pytest.mark.acceptance, pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def endpoints(cluster: Cluster) -> list[str]:
    """Those of the three nodes; what the cluster held is gone."""
    cluster.healthy()
    found = [f"http://127.0.0.1:{cluster.etcd(node)}" for node in NODES]
    emptied.emptied(found[0])
    return found


@contextlib.contextmanager
def three(version: str, endpoints: list[str]) -> Iterator[servers.Etcd]:
    """Three real members, whose store is as ours: empty, and at the same revision."""
    with servers.Etcd(version, 3, QUICK) as etcd:
        if version != "3.4":
            emptied.raised(etcd.endpoint, emptied.revisions(endpoints[0]))
        yield etcd


@pytest.mark.parametrize(
    ("version", "name", "real"),
    [("3.4", "v3", "3.7"), ("3.5.1", "v3", "3.7"), ("3.7", "v3", "3.7"), ("3.4", "v2", "3.4")],
)
def test_etcdctl_prints_what_it_prints_of_three_real_members(
    endpoints: list[str], version: str, name: str, real: str
) -> None:
    with brought(), three(real, endpoints) as etcd, servers.Etcd(real) as spare, servers.Etcd(real) as another:
        pairs = walk.both(
            version,
            name,
            Where(",".join(etcd.clients), spare.endpoint),
            Where(",".join(endpoints), another.endpoint),
        )
    same([(_joined(one), _joined(other)) for one, other in pairs])


@pytest.mark.slow
def test_etcdctl_prints_the_same_through_etcds_proxy_before_three_members(endpoints: list[str]) -> None:
    with contextlib.ExitStack() as stack, brought():
        etcd = stack.enter_context(three("3.7", endpoints))
        spare, another = (stack.enter_context(servers.Etcd("3.7")) for _ in range(2))
        to_etcd, to_ours = (
            stack.enter_context(proxies.Proxy("3.5.1", ",".join(at))) for at in (etcd.clients, endpoints)
        )
        pairs = walk.both(
            "3.5.1",
            "v3",
            Where(to_etcd.endpoint, spare.endpoint, etcd.endpoint),
            Where(to_ours.endpoint, another.endpoint, endpoints[0]),
        )
    same([(_calm(one), _calm(other)) for one, other in pairs])


def _joined(seen: walk.Seen) -> walk.Seen:
    """How many events a watch tells at once is chance: a member that is asked for the past may lag behind it."""
    lines: list[str] = []
    for line in seen.text.split("\n"):
        now, before = WATCHED.fullmatch(line), WATCHED.fullmatch(lines[-1]) if lines else None
        if now is not None and before is not None:
            lines[-1] = f"{now[1]}{before[2]},{now[2]}{now[3]}"
        else:
            lines.append(line)
    return dataclasses.replace(seen, text="\n".join(lines))


def _calm(seen: walk.Seen) -> walk.Seen:
    text = ATTEMPT.sub('"attempt":<n>', TOKEN_REFUSED.sub("", seen.text))
    return dataclasses.replace(seen, text=IS_LEADER.sub(r"\1<flag>", text))


@pytest.mark.parametrize(("suite", "passed", "skipped"), [("etcd3gw", 39, 0), ("aetcd", 91, 2)])
def test_a_suite(endpoints: list[str], suite: str, passed: int, skipped: int) -> None:
    with brought():
        counts = suites.run(suite, endpoints[1])
    assert (counts.passed, counts.skipped, counts.failed) == (passed, skipped, ()), counts.output[-20000:]


def test_etcd3s_suite_on_members_called_as_it_wants_them(cluster: Cluster, tmp_path: Path) -> None:
    """Its members are called pifpaf0 to 2, and it stops the last two: three more of ours, on the cluster's brokers."""
    program = tmp_path / "etcd-of-ours"
    log = f"kafka://{cluster.bootstrap}/{parts.topic()}"
    ours = f"CORELOG_LOG={log} PYTHONPATH='{ROOT}' exec '{sys.executable}' -m node.cli.main etcd"
    program.write_text(f'#!/bin/sh\n{ours} "$@"\n')
    program.chmod(0o755)
    with brought(), servers.Etcd("3.5.1", 3, other=program) as members:
        counts = suites.run("etcd3", members.endpoint)
    # it fails on etcd too: a patch of a module that isn't there
    assert counts.failed == ("TestClient::test_user_pwd_auth",), counts.output[-20000:]
    assert (counts.passed, counts.skipped) == (81, 0)


def test_java_client(endpoints: list[str]) -> None:
    with brought():
        counts = jetcd.run(endpoints)
    assert (counts.passed, counts.failed) == (jetcd.TESTS, ()), counts.output[-20000:]


def test_go_client_and_an_endpoint_killed_in_mid_watch(cluster: Cluster, endpoints: list[str]) -> None:
    state = json.loads(docker("inspect", cluster.container(NODES[-1])))[0]["State"]
    try:
        with brought():
            counts = golang.run(endpoints, state["Pid"])
    finally:
        cluster.healthy()
    assert (counts.passed, counts.skipped, counts.failed) == (golang.TESTS, 0, ()), counts.output[-20000:]
