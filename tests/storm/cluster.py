"""The members: three brokers, three nodes, and what can be done to them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deploy.kafka.brokers import Brokers
from tests.storm.places import DIE_WITH_PARENT, Place, switch

ROOT = Path(__file__).parents[2]
ETCD, GATEWAY = 2379, 7379
TOPIC = "corelog"
HEALTHY_S = 90.0


class Node:
    def __init__(self, place: Place, folder: Path, log: str) -> None:
        self.place, self.folder, self.name = place, folder, place.name
        self.etcd, self._log = f"{place.address}:{ETCD}", log
        self.process: subprocess.Popen[bytes] | None = None
        self._output = folder.with_suffix(".out")

    def start(self) -> None:
        """On the main thread: the node dies with the thread that started it."""
        words = [sys.executable, "-m", "node.cli.main", "up", "--data", str(self.folder), "--name", self.name]
        words += ["--log", self._log, "--etcd-listen", self.etcd, "--engine", "docker=none"]
        words += ["--gateway-listen", f"{self.place.address}:{GATEWAY}"]
        with self._output.open("ab") as out:
            self.process = subprocess.Popen(
                [*DIE_WITH_PARENT, *self.place.within, *words],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def pids(self) -> list[int]:
        """The node's first process and all that come from it."""
        assert self.process is not None
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> None:
        """SIGKILL to all at once, and wait until none is left."""
        assert self.process is not None
        pids = self.pids()
        self.signal(signal.SIGKILL)
        self.process.wait()
        await until(lambda: not any(_lives(pid) for pid in pids), 20, f"the end of {self.name}")

    async def ask(self, path: str, method: str = "GET", timeout_s: float = 1.0) -> Any:
        """JSON of the gateway, or None."""
        token = self.folder / "token"
        bearer = f"Authorization: Bearer {token.read_text().split()[0]}\r\n" if token.exists() else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.place.address}:{GATEWAY}\r\n{bearer}Content-Length: 0\r\n"
        with contextlib.suppress(OSError, TimeoutError, ValueError, EOFError):
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(self.place.address, GATEWAY)
                try:
                    writer.write((head + "Connection: close\r\n\r\n").encode())
                    answer = await reader.read()
                finally:
                    writer.close()
            first, _, rest = answer.partition(b"\r\n")
            return json.loads(rest.partition(b"\r\n\r\n")[2]) if b" 200 " in first else None
        return None


class Cluster:
    def __init__(self, folder: Path) -> None:
        switch()
        self.folder = folder
        self.broker_places = [Place(f"kafka{n}", n) for n in (1, 2, 3)]
        places = [Place(f"node{n}", 10 + n) for n in (1, 2, 3)]
        hosts = [one.address for one in self.broker_places]
        within = [[*DIE_WITH_PARENT, *one.within] for one in self.broker_places]
        self.brokers = Brokers(3, folder / "kafka", hosts=hosts, within=within)
        self.log = f"kafka://{self.brokers.bootstrap}/{TOPIC}"
        self.nodes = [Node(place, folder / place.name, self.log) for place in places]

    async def up(self) -> None:
        self.brokers.up()
        for node in self.nodes:
            node.start()
        await self.healthy()

    async def healthy(self) -> None:
        """All nodes run and see three machines alive and one master."""

        async def settled() -> bool:
            for node in self.nodes:
                if not node.running:
                    code = node.process.returncode if node.process else None
                    raise AssertionError(f"{node.name} ended by itself ({code}):\n{node.output()[-3000:]}")
            rows = await asyncio.gather(*(node.ask("/v1/cluster?consistency=serializable") for node in self.nodes))
            return all(row and row["alive"] == 3 for row in rows) and len({row["master_name"] for row in rows}) == 1

        await until(settled, HEALTHY_S, "three healthy nodes")

    async def master(self) -> Node | None:
        for node in self.nodes:
            row = await node.ask("/v1/cluster?consistency=serializable", timeout_s=0.5)
            if row:
                return next((one for one in self.nodes if one.name == row["master_name"]), None)
        return None

    async def in_sync(self) -> None:
        """All brokers run and have the whole log."""
        from confluent_kafka.admin import AdminClient

        def whole() -> bool:
            admin = AdminClient({"bootstrap.servers": self.brokers.bootstrap, "log_level": 0})
            return len(admin.list_topics(TOPIC, timeout=3).topics[TOPIC].partitions[0].isrs) == 3

        async def looked() -> bool:
            with contextlib.suppress(Exception):  # librdkafka's own type, and topics that aren't known yet
                return await asyncio.to_thread(whole)
            return False

        await until(looked, HEALTHY_S, "three brokers in sync")

    def leader(self) -> int:
        """Index of the broker that leads the log, or -1."""
        with contextlib.suppress(Exception):
            return self.brokers.leader(TOPIC)
        return -1

    def close(self) -> None:
        for node in self.nodes:
            if node.running:
                node.signal(signal.SIGCONT)
                node.signal(signal.SIGKILL)
                assert node.process is not None
                node.process.wait()
        self.brokers.close()
        for place in (*self.broker_places, *(node.place for node in self.nodes)):
            place.close()


async def until(what: Callable[[], Awaitable[bool] | bool], timeout_s: float, says: str) -> None:
    end_s = time.monotonic() + timeout_s
    while True:
        made = what()
        if made is True or (not isinstance(made, bool) and await made):
            return
        if time.monotonic() > end_s:
            raise AssertionError(f"{says} didn't come within {timeout_s:.0f} s")
        await asyncio.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
