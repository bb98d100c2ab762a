"""etcd's members over three nodes on one log: added before they come, learners, a named leader, removed for good."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import free_port, until
from tests.cluster import parts
from tests.foreign import installs, servers

ROOT = Path(__file__).parents[2]


class Members:
    """Nodes started by etcd's flags, and etcdctl."""

    def __init__(self, folder: Path, log: str) -> None:
        self.folder, self.log = folder, log
        self.ports = {name: free_port() for name in ("n1", "n2", "n3")}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._etcdctl = str(servers.program("etcdctl", "3.7"))
        except installs.Unavailable as error:
            from tests import needs

            needs.missing(str(error))

    def peer(self, name: str) -> str:
        return f"http://127.0.0.1:1{name[1:]}"

    def start(self, name: str) -> None:
        words = ["--name", name, "--data-dir", str(self.folder / name)]
        words += ["--listen-client-urls", f"http://127.0.0.1:{self.ports[name]}"]
        words += ["--initial-advertise-peer-urls", self.peer(name)]
        with open(self.folder / f"{name}.log", "ab") as out:
            self.nodes[name] = subprocess.Popen(
                [sys.executable, "-m", "node.cli.main", "etcd", *words],
                env={**os.environ, "CORELOG_LOG": self.log, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def ctl(self, *words: str, at: str = "n1") -> tuple[bool, str]:
        """Whether it went well, and what it said."""
        command = [self._etcdctl, "--endpoints", f"127.0.0.1:{self.ports[at]}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr

    def listed(self, at: str = "n1") -> dict[str, dict[str, Any]]:
        """By the only peer URL."""
        well, text = self.ctl("member", "list", "-w", "json", at=at)
        return {one["peerURLs"][0]: one for one in json.loads(text)["members"]} if well else {}

    def joined(self, name: str) -> Callable[[], Any]:
        return lambda: self.listed().get(self.peer(name), {}).get("clientURLs")

    def close(self) -> None:
        for node in self.nodes.values():
            if node.poll() is None:
                node.terminate()
        for node in self.nodes.values():
            node.wait(30)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    made = Members(tmp_path, parts.address(parts.brokers(1).bootstrap))
    try:
        yield made
    finally:
        made.close()


def test_members_come_learn_lead_and_go(members: Members) -> None:
    members.start("n1")
    until(members.joined("n1"), timeout_s=60)
    added, said = members.ctl("member", "add", "n2", "--peer-urls", members.peer("n2"))
    assert added, said
    ident = members.listed()[members.peer("n2")]["ID"]
    refused = members.ctl("member", "add", "n3", "--peer-urls", members.peer("n3"))
    assert refused[0] is False
    assert "not enough started members" in refused[1]
    members.start("n2")
    until(members.joined("n2"), timeout_s=60)
    assert members.listed()[members.peer("n2")]["ID"] == ident

    assert members.ctl("member", "add", "n3", "--learner", "--peer-urls", members.peer("n3"))[0]
    members.start("n3")
    until(members.joined("n3"), timeout_s=60)
    assert members.ctl("put", "a", "b")[0]
    until(lambda: members.ctl("get", "a", "--consistency", "s", at="n3") == (True, "a\nb\n"))
    assert "rpc not supported for learner" in members.ctl("get", "a", at="n3")[1]
    third = f"{members.listed()[members.peer('n3')]['ID']:x}"
    leader = next(name for name in ("n1", "n2") if _leads(members, name))
    assert "bad leader transferee" in members.ctl("move-leader", third, at=leader)[1]
    assert members.ctl("member", "promote", third)[0]
    assert members.ctl("get", "a", at="n3") == (True, "a\nb\n")

    moved, said = members.ctl("move-leader", third, at=leader)
    assert moved, said
    until(lambda: _leads(members, "n3"))
    began_s = time.monotonic()
    assert members.ctl("member", "remove", third)[0]
    assert members.nodes["n3"].wait(30) == 4
    until(lambda: any(_leads(members, name) for name in ("n1", "n2")), timeout_s=30)
    assert time.monotonic() - began_s < 30
    assert members.peer("n3") not in members.listed()
    assert members.ctl("put", "a", "c")[0]
    # it never returns
    members.start("n3")
    assert members.nodes["n3"].wait(60) == 4
    assert "was removed from the cluster for good" in (members.folder / "n3.log").read_text()


def _leads(members: Members, name: str) -> bool:
    well, text = members.ctl("endpoint", "status", "-w", "json", at=name)
    if not well:
        return False
    status = json.loads(text)[0]["Status"]
    return bool(status["leader"] == status["header"]["member_id"])
