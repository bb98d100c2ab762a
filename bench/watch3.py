"""Watches beside etcd's: how many events a second reach their watchers, and what a watcher costs in memory.

    python -m bench.watch3 [--rounds 5] [--seconds 3] [--rows 1,000]

bench/load3's mode ``watch``: the next put begins when all that watch its key have the last, and every watcher must get
every version of its key in order. Whole servers, one machine, one run, the others stopped while one is measured. CPU is
that of all processes of a server; memory their PSS before and while all watch.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from bench.kv3 import VALUE_BYTES, Server, serving, tool


class Work(NamedTuple):
    what: str
    connections: int
    streams: int
    keys: int

    @property
    def watchers(self) -> int:
        return self.connections * self.streams


WORK = (
    Work("1 put seen by 1,000 watchers", 10, 100, 1),
    Work("the same, each on a connection of its own", 1000, 1, 1),
    Work("10,000 watchers on 1,000 keys", 100, 100, 1000),
)


class Told(NamedTuple):
    """Events a second, and for a second of CPU; delay of an event; bytes a watcher."""

    rate: float
    per_cpu: float
    p99_ms: float
    bytes_each: float


def _members(server: Server) -> list[Path]:
    """``/proc`` of all processes of the server: what it forks keeps its command line, and that has its port."""
    port, found = f"127.0.0.1:{server.port}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and port in (entry / "cmdline").read_bytes():
                found.append(entry)
        except OSError:
            continue
    return found


def cpu_s(server: Server) -> float:
    total = 0
    for entry in _members(server):
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def pss_bytes(server: Server) -> int:
    total = 0
    for entry in _members(server):
        lines = (entry / "smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def turn(program: Path, server: Server, work: Work, seconds: float) -> Told:
    """One round at one server. Raises SystemExit: an event was missing, doubled or out of order."""
    server.go_on()
    try:
        time.sleep(1.0)
        before = pss_bytes(server)
        words = [server.port, "watch", work.connections, work.streams, seconds, work.keys, VALUE_BYTES]
        with subprocess.Popen([program, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            assert load.stdin is not None
            assert load.stdout is not None
            if load.stdout.readline() == b"watching\n":
                time.sleep(0.5)
                grown = pss_bytes(server) - before
                used_s = cpu_s(server)
                load.stdin.write(b"go\n")
                load.stdin.flush()
            last = json.loads(load.stdout.readline())
        if last["errors"]:
            raise SystemExit(f"{server.name}, {work.what}: {last['errors']} errors, first: {last['error']}")
        used_s = cpu_s(server) - used_s
        rate, each = last["done"] / last["seconds"], grown / work.watchers
        return Told(rate, last["done"] / max(used_s, 0.01), last["p99_us"] / 1000, each)
    finally:
        server.stop()


def row(program: Path, all_servers: list[Server], work: Work, rounds: int, seconds: float) -> str:
    found: dict[str, list[Told]] = {server.name: [] for server in all_servers}
    first: dict[str, float] = {}
    for number in range(rounds + 1):
        for server in all_servers:
            told = turn(program, server, work, seconds if number else seconds / 2)
            if number:  # the first warms up, and shows the memory: later ones find it there already
                found[server.name].append(told._replace(bytes_each=first[server.name]))
            else:
                first[server.name] = told.bytes_each
    medians = {
        name: Told(*(statistics.median(one) for one in zip(*all_told, strict=True))) for name, all_told in found.items()
    }
    ours = medians["ours"]
    peer = max((name for name in medians if name != "ours"), key=lambda name: medians[name].rate)
    cells = [work.what, _cell(ours), f"{peer}: {_cell(medians[peer])}"]
    cells += [f"{ours.rate / medians[peer].rate:.2f}×", f"{ours.per_cpu / medians[peer].per_cpu:.2f}×"]
    return "| " + " | ".join(cells) + " |"


def _cell(told: Told) -> str:
    text = f"{told.rate:,.0f} events/s, {told.per_cpu:,.0f} a CPU second, p99 {told.p99_ms:.1f} ms"
    return f"{text}, {told.bytes_each / 1024:.1f} KiB a watcher"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rows", default="", help="only those whose name has this")
    asked = parser.parse_args()
    program = tool()
    print("| what, 256 B values | ours | etcd | events/s | for CPU |\n|---|---|---|---|---|")
    for work in WORK:
        if asked.rows not in work.what:
            continue
        with serving(v2=False) as all_servers:
            print(row(program, all_servers, work, asked.rounds, asked.seconds), flush=True)


if __name__ == "__main__":
    main()
