"""Puts while the store is kept: how much slower they are while a snapshot, a compaction or a defragmentation runs.

    python -m bench.steady3 [--keys 1000000] [--rate 2000] [--seconds 20] [--only ours]

An open loop: so many puts a second begin whatever is under way, each counted from when it was due. One server at a time
with its keys, on an empty folder of this disk. etcdctl asks for the work again and again until the puts are over, four
times a second at most, for what is over at once would measure etcdctl's own starts; a compaction is one of all that was
before.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.kv3 import VALUE_BYTES, Server, Work, etcd_command, load, our_command, tool
from bench.million3 import fill
from tests.acceptance.harness import free_port
from tests.foreign import servers

REACH = 1.5
SERVERS = ("ours", "3.5.1", "3.7")
#: Streams of a connection: puts that were due wait for one when all are under way.
CONNECTIONS, STREAMS = 16, 64
#: Work begins no sooner after it began before.
EVERY_S = 0.25


class Told(NamedTuple):
    """``times``: how often the work was done meanwhile."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    times: int


class Kept:
    """A server that is asked for puts while it is asked for something else."""

    def __init__(self, name: str, folder: Path, keys: int, rate: float, seconds: float) -> None:
        self.folder, self.keys, self.rate, self.seconds = folder, keys, rate, seconds
        ports = free_port(), free_port()
        if name == "ours":
            self.server = Server(name, ports[0], our_command(folder / "data", ports[0]))
        else:
            self.server = Server(f"etcd {name}", ports[0], *etcd_command(name, folder / "data", *ports))
        self._program = tool()

    def measured(self) -> dict[str, Told]:
        """Without anything first, and last again."""
        self.server.ready()
        fill(self.server.port, self.keys, b"load/%011d")
        self._puts(lambda: False)
        found = {"nothing": self._puts(lambda: False)}
        found["a snapshot"] = self._puts(self._snapshot)
        found["a compaction"] = self._puts(self._compaction())
        found["a defragmentation"] = self._puts(lambda: self._etcdctl("defrag"))
        found["nothing, again"] = self._puts(lambda: False)
        return found

    def _puts(self, work: Callable[[], bool]) -> Told:
        """While ``work`` is done again and again, until it has nothing to do."""
        over, times = threading.Event(), [0]

        def working() -> None:
            while not over.is_set():
                began_s = time.monotonic()
                if not work():
                    return
                times[0] += 1
                over.wait(began_s + EVERY_S - time.monotonic())

        beside = threading.Thread(target=working)
        beside.start()
        try:
            put = Work("puts", "put", CONNECTIONS, STREAMS, REACH, True)
            told: dict[str, Any] = load(
                self._program, self.server, str(self.server.port), put, self.seconds, self.keys, self.rate
            )
        finally:
            over.set()
            beside.join()
        return Told(told["p50_us"] / 1000, told["p99_us"] / 1000, told["max_us"] / 1000, times[0])

    def _snapshot(self) -> bool:
        # in memory where there is such a folder: a client's disk isn't the server's
        apart = "/dev/shm" if os.path.isdir("/dev/shm") else self.folder
        with tempfile.TemporaryDirectory(dir=apart) as folder:
            return self._etcdctl("snapshot", "save", str(Path(folder) / "snapshot.db"))

    def _compaction(self) -> Callable[[], bool]:
        left = [self.server.revision(False)]

        def once() -> bool:
            return bool(left) and self._etcdctl("compaction", str(left.pop()), "--physical")

        return once

    def _etcdctl(self, *words: str) -> bool:
        here = ["--endpoints", f"127.0.0.1:{self.server.port}", "--command-timeout", "300s"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ETCDCTL_")}
        # a client has a machine of its own elsewhere: here it gives way to the server and those who put
        subprocess.run(
            ["nice", "-n", "19", servers.program("etcdctl", "3.5.1"), *here, *words],
            check=True,
            capture_output=True,
            env={**clean, "ETCDCTL_API": "3"},
        )
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=SERVERS)
    asked = parser.parse_args()
    load_words = f"{asked.rate:,.0f} puts a second, {asked.keys:,} keys of {VALUE_BYTES} B"
    print(f"| {load_words}, while there runs | p50 | p99 | max | p99 against nothing's | reach | met |")
    print("|---|---|---|---|---|---|---|")
    for name in [asked.only] if asked.only else SERVERS:
        folder = Path(tempfile.mkdtemp(dir=".", prefix=".bench-steady-")).absolute()
        kept = Kept(name, folder, asked.keys, asked.rate, asked.seconds)
        try:
            found = kept.measured()
        finally:
            kept.server.end()
            shutil.rmtree(folder, ignore_errors=True)
        for what, told in found.items():
            ratio = told.p99_ms / found["nothing"].p99_ms
            times = f" ({told.times} times)" if told.times else ""
            cells = [f"{kept.server.name}: {what}{times}"]
            cells += [f"{ms:.1f} ms" for ms in (told.p50_ms, told.p99_ms, told.max_ms)] + [f"{ratio:.2f}×"]
            held = name == "ours" and told.times
            cells += [f"≤ {REACH:g}×", "yes" if ratio <= REACH else "**no**"] if held else ["", ""]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
