"""``corelog up`` with all its real actors: it serves, lives through the death of each process, and leaves nothing."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealNode:
    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.etcd, self.gateway = free_port(), free_port()
        self.log = data.parent / "output"
        self.flags = flags

    def start(self) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CORELOG_")}
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "node.cli.main", "up", "--data", str(self.data)),
                    *("--etcd-listen", f"127.0.0.1:{self.etcd}", "--gateway-listen", f"127.0.0.1:{self.gateway}"),
                    *("--engine", "docker=none", *self.flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=clean,
                start_new_session=True,
            )
        before = self.log.read_text().count("Ctrl-C")
        self.until(lambda: self.log.read_text().count("Ctrl-C") > before)

    def named(self, name: str) -> list[int]:
        """Its processes whose name begins so."""
        return [pid for pid, command in self.mine().items() if command.startswith(name)]

    def until(self, what: Callable[[], object], timeout_s: float = 45.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until_s, self.log.read_text()
            time.sleep(0.02)

    def keys(self, path: str, value: str | None = None) -> dict[str, Any]:
        body = None if value is None else f"value={value}".encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.etcd}/v2/keys{path}", body, method="GET" if value is None else "PUT"
        )
        request.add_header("content-type", "application/x-www-form-urlencoded")
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def answers(self, path: str, value: str) -> bool:
        with contextlib.suppress(OSError, KeyError):
            return bool(self.keys(path)["node"]["value"] == value)
        return False

    def gateway_answers(self) -> bool:
        url = f"http://127.0.0.1:{self.gateway}/v1/cluster"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
        return False

    def mine(self) -> dict[int, str]:
        """pid → command name of the node's own processes (of what it started, only those forked from it)."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                    words = (entry / "cmdline").read_bytes()
                    if b"node.cli.main\0up\0" in words and str(self.data).encode() in words and state != b"Z":
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def end(self) -> None:
        """In order if it can; nothing of it is left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        self.process.kill()
        self.process.wait()
        self.gone()

    def gone(self) -> None:
        until_s = time.monotonic() + 10
        while left := self.mine():
            assert time.monotonic() < until_s, f"orphans: {left}"
            time.sleep(0.01)


@contextlib.contextmanager
def answering(data: Path, *flags: str) -> Iterator[RealNode]:
    """A node in one process, whose gateway answers."""
    made = RealNode(data, "--one-process", *flags)
    made.start()
    made.until(made.gateway_answers)
    yield made
    made.end()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RealNode]:
    made = RealNode(tmp_path / "data")
    made.start()
    yield made
    made.end()


def test_it_lives_through_the_death_of_each_of_its_processes(node: RealNode) -> None:
    node.keys("/a", "1")
    segment = node.data / "log" / "00000000000000000000.seg"
    said = 0
    # ps cuts names at 15 bytes
    for name in ("kv", "gateway", "schedul", "updater", "engine", "coordin", "root"):
        # one that is just made has its maker's name for a moment
        node.until(lambda name=name: len(node.named(f"corelog-{name}")) == 1)
        (victim,) = node.named(f"corelog-{name}")
        os.kill(victim, signal.SIGKILL)
        node.until(lambda gone=victim: gone not in node.mine())
        node.until(lambda: node.answers("/a", "1"))
        node.until(node.gateway_answers)
        said += 6 if name == "root" else 1  # with the root all six are replaced
        node.until(lambda enough=said: segment.read_bytes().count(b"actor.restarted.v1") == enough)
    node.until(lambda: sum(command.startswith("corelog-") for command in node.mine().values()) == 7)
    # what answered right after the root's death may have been an old process in its last moment
    node.until(lambda: node.answers("/a", "1"))
    node.keys("/b", "2")


def test_a_kill_of_the_whole_group_loses_nothing(node: RealNode) -> None:
    node.keys("/a", "1")
    machine = (node.data / "machine-id").read_text()
    os.killpg(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.gone()
    node.start()
    assert node.answers("/a", "1")
    assert (node.data / "machine-id").read_text() == machine


def test_sigterm_ends_it_in_order(node: RealNode) -> None:
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(30) == 0
    output = node.log.read_text()
    assert "killed" not in output
    assert "Traceback" not in output
    assert "Warning" not in output


def test_all_in_one_process(tmp_path: Path) -> None:
    node = RealNode(tmp_path / "data", "--one-process")
    node.start()
    try:
        node.keys("/a", "1")
        assert list(node.mine()) == [node.process.pid]
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(30) == 0
        assert "Traceback" not in node.log.read_text()
    finally:
        node.process.kill()
        node.process.wait()
    node.gone()
