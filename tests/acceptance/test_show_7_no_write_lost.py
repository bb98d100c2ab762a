"""Show 7: python-etcd and curl write and read by all three ports while the master's node is killed ten times."""

import itertools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from tests import needs
from tests.acceptance.checker import Op, violations
from tests.acceptance.compose import NODES, Cluster
from tests.acceptance.harness import until

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

KILLS = 10
FOLDER = "show7"
#: A client's patience: longer than the server's, so that nearly every answer is heard.
PATIENCE_S = 8.0
REST_S = 0.02


class Unknown(Exception):
    """No answer, or one that doesn't say what became of the request."""


class PythonEtcd:
    """python-etcd 0.4.5, as anybody uses it."""

    def __init__(self, port: int) -> None:
        import etcd

        self._errors = (etcd.EtcdException,)
        self._absent = etcd.EtcdKeyNotFound
        self._client = etcd.Client("127.0.0.1", port, read_timeout=PATIENCE_S, allow_reconnect=False)

    def write(self, key: str, value: int) -> None:
        try:
            self._client.write(key, str(value))
        except self._errors as error:
            raise Unknown(error) from error

    def read(self, key: str) -> int:
        try:
            return int(self._client.read(key, quorum=True).value)
        except self._absent:
            return 0
        except self._errors as error:
            raise Unknown(error) from error


class Curl:
    """The program curl."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/keys"

    def _run(self, key: str, *options: str) -> dict[str, object]:
        command = ["curl", "-sS", "-m", str(PATIENCE_S), *options, self._url + key]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unknown(done.stderr)
        answer: dict[str, object] = json.loads(done.stdout)
        if answer.get("errorCode") not in (None, 100):
            raise Unknown(done.stdout)
        return answer

    def write(self, key: str, value: int) -> None:
        if "action" not in self._run(key, "-XPUT", "-d", f"value={value}"):
            raise Unknown(f"no node in the answer to a write of {key}")

    def read(self, key: str) -> int:
        node = self._run(key).get("node")
        return int(node["value"]) if isinstance(node, dict) else 0


Client = PythonEtcd | Curl


class History:
    """What all clients did, told by one clock."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.stop = threading.Event()
        self.failed: list[BaseException] = []

    def write(self, client: Client, key: str) -> None:
        """One after another, growing numbers into a key of its own."""
        for value in itertools.count(1):
            if self.stop.is_set():
                return
            self._note("write", key, value, lambda value=value: client.write(key, value) or value)  # type: ignore[misc,func-returns-value]

    def read(self, client: Client, keys: list[str]) -> None:
        for key in itertools.cycle(keys):
            if self.stop.is_set():
                return
            self._note("read", key, 0, lambda key=key: client.read(key))  # type: ignore[misc]

    def _note(self, kind: str, key: str, value: int, ask: Callable[[], int]) -> None:
        start_s = time.monotonic()
        try:
            value, ok = ask(), True
        except Unknown:
            ok = False
        except BaseException as error:
            self.failed.append(error)
            self.stop.set()
            raise
        self.ops.append(Op(kind, key, value, start_s, time.monotonic(), ok))
        self.stop.wait(REST_S if ok else 10 * REST_S)

    def count(self, kind: str, ok: bool = True) -> int:
        return sum(op.kind == kind and op.ok is ok for op in self.ops)


@pytest.mark.timeout(900)
def test_no_acknowledged_write_is_lost_while_ten_masters_are_killed(cluster: Cluster) -> None:
    if shutil.which("curl") is None:
        needs.missing("curl isn't installed")
    cluster.healthy()
    history = History()
    kinds: list[type[PythonEtcd] | type[Curl]] = [PythonEtcd, Curl]
    keys = [f"/{FOLDER}/{node}-{kind.__name__}" for node in NODES for kind in kinds]
    work = [
        (history.write, kind(cluster.etcd(node)), f"/{FOLDER}/{node}-{kind.__name__}")
        for node in NODES
        for kind in kinds
    ]
    work += [(history.read, kind(cluster.etcd(node)), keys) for node in NODES for kind in kinds]  # type: ignore[misc]
    threads = [threading.Thread(target=do, args=(client, what)) for do, client, what in work]
    for thread in threads:
        thread.start()
    try:
        gaps = [_kill_the_master(cluster, history) for _ in range(KILLS)]
    finally:
        history.stop.set()
        for thread in threads:
            thread.join()
    assert not history.failed, history.failed
    gaps.sort()
    print(
        f"\n{KILLS} masters killed: {history.count('write')} writes acknowledged, {history.count('write', False)} "
        f"unknown; {history.count('read')} reads; another master seen after {gaps[0]:.2f} to {gaps[-1]:.2f} s, "
        f"p50 {gaps[KILLS // 2]:.2f} s"
    )

    cluster.healthy()
    for node in NODES:  # and what every node says at the end
        reader = Curl(cluster.etcd(node))
        for key in keys:
            start_s = time.monotonic()
            history.ops.append(Op("read", key, reader.read(key), start_s, time.monotonic()))
    assert violations(history.ops) == []
    assert history.count("write") > 20 * KILLS
    assert {op.key for op in history.ops if op.kind == "write" and op.ok} == set(keys)
    _would_be_found(history.ops)
    cluster.run("node1", "kv", "rm", "-r", f"/{FOLDER}")


def _kill_the_master(cluster: Cluster, history: History) -> float:
    """docker kill of the master's node; returns after how many seconds another was seen. Then it comes back."""
    old = cluster.settled_master()
    witness = next(node for node in NODES if node != old)
    written = history.count("write")
    killed_s = time.monotonic()
    cluster.kill(old)
    until(
        lambda: cluster.master(witness) not in (old, ""), timeout_s=60, every_s=0.02, says=f"a master in place of {old}"
    )
    gap_s = time.monotonic() - killed_s
    until(lambda: history.count("write") > written + 10, says="writes in the new term")
    cluster.start(old)
    return gap_s


def _would_be_found(history: list[Op]) -> None:
    """The checker is not blind to this very history: one acknowledged write undone in the last read is found."""
    last = max((op for op in history if op.kind == "read" and op.ok), key=lambda op: op.start_s)
    acknowledged = max(op.value for op in history if op.kind == "write" and op.key == last.key and op.ok)
    planted = [op for op in history if op is not last] + [last._replace(value=acknowledged - 1)]
    assert violations(planted)
