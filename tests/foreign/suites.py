"""The suites of four Python clients of etcd, as their authors wrote them, against an endpoint.

python -m tests.foreign.suites etcd3gw http://127.0.0.1:2379
python -m tests.foreign.suites python-etcd /usr/bin/etcd         starts servers itself, by that program
python -m tests.foreign.suites real                              all of them, against real etcds
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from tests.foreign import installs, servers

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Counts:
    """How the tests of a suite ended, and what was said about those that failed."""

    passed: int
    skipped: int
    failed: tuple[str, ...] = ()
    output: str = ""

    def __str__(self) -> str:
        total = self.passed + self.skipped + len(self.failed)
        told = f"{self.passed} of {total} passed, {self.skipped} skipped"
        return told + "".join(f"\n  failed: {name}" for name in self.failed)


@dataclass(frozen=True)
class Suite:
    """A client's tests: where they lie among the sources and what they want in the environment."""

    name: str
    folder: str
    tests: str
    path: str = "."
    options: tuple[str, ...] = ()
    environment: Callable[[str, Path], dict[str, str]] = lambda endpoint, programs: {}


def _gateway(endpoint: str, _: Path) -> dict[str, str]:
    return {"TOOZ_TEST_HTTP_URL": endpoint, "TOOZ_TEST_ETCD_PORT": str(urlsplit(endpoint).port)}


def _linked(programs: Path, name: str, target: Path) -> None:
    (programs / name).symlink_to(target)


def _with_ctl(variable: str) -> Callable[[str, Path], dict[str, str]]:
    def environment(endpoint: str, programs: Path) -> dict[str, str]:
        _linked(programs, "etcdctl", servers.program("etcdctl", "3.5.1"))
        port = str(urlsplit(endpoint).port)
        return {variable: endpoint, "TEST_ETCD_VERSION": "v3.5.1", "CORELOG_FOREIGN_PORT": port}

    return environment


def _server(program: str, programs: Path) -> dict[str, str]:
    _linked(programs, "etcd", Path(program))
    return {"ETCD_ENABLE_V2": "true", "ETCD_LOG_LEVEL": "error"}


SUITES = {
    suite.name: suite
    for suite in (
        Suite("etcd3gw", "etcd3gw-2.7.0", "etcd3gw/tests", environment=_gateway),
        Suite(
            "aetcd",
            "aetcd-1.0.0",
            "tests",
            options=("-p", "default_port", "-o", "addopts=", "-o", "asyncio_mode=auto"),
            environment=_with_ctl("TEST_ETCD_HTTP_URL"),
        ),
        Suite(
            "etcd3",
            "etcd3-0.12.0",
            "tests",
            options=("-p", "default_port"),
            environment=_with_ctl("PYTHON_ETCD_HTTP_URL"),
        ),
        Suite(
            "python-etcd",
            "python-etcd-0.4.5",
            "src/etcd/tests/integration/test_simple.py",
            path="src",
            options=("-p", "old_names"),
            environment=_server,
        ),
    )
}


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """What etcd3's tests stop and let go on, in the place of the members that a server alone doesn't have."""
    nap = [sys.executable, "-c", f"import time; time.sleep({TIMEOUT_S})", "--name"]
    processes = [subprocess.Popen([*nap, f"pifpaf{number}"]) for number in (1, 2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(name: str, against: str, *, alone: bool = False) -> Counts:
    """Run a suite against an endpoint (python-etcd: by a server's program). ``alone``: it has one member."""
    with stand_ins() if alone and name == "etcd3" else contextlib.nullcontext():
        return _run(name, against)


def _run(name: str, against: str) -> Counts:
    suite = SUITES[name]
    folder = installs.sources() / suite.folder
    python = installs.venv(name)
    with tempfile.TemporaryDirectory(prefix="corelog-foreign-") as scratch:
        programs, report = Path(scratch) / "bin", Path(scratch) / "report.xml"
        programs.mkdir()
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("ETCD", "PYTEST", "COV_"))}
        env = {
            **clean,
            **suite.environment(against, programs),
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": f"{folder / suite.path}{os.pathsep}{installs.HERE / 'shims'}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command: list[str | Path] = [
            python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *suite.options,
            f"--junitxml={report}",
        ]
        done = subprocess.run(
            [*command, suite.tests], cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        return _counts(report, done.stdout + done.stderr)


def _counts(report: Path, output: str) -> Counts:
    if not report.exists():
        return Counts(0, 0, ("the suite's pytest left no report",), output)
    passed, skipped, failed = 0, 0, []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.append(f"{(case.get('classname') or '').rpartition('.')[2]}::{case.get('name')}")
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return Counts(passed, skipped, tuple(failed), output)


def main(arguments: list[str]) -> None:
    if arguments == ["real"]:
        for name, members in (("etcd3gw", 1), ("aetcd", 1), ("etcd3", 3)):
            with servers.Etcd("3.5.1", members) as server:
                print(name, run(name, server.endpoint), flush=True)
        print("python-etcd", run("python-etcd", str(servers.program("etcd", "3.4"))))
        return
    counts = run(*arguments)
    print(counts.output if counts.failed else "", counts, sep="")


if __name__ == "__main__":
    main(sys.argv[1:])
