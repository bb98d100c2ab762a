"""A node alone at rest: how soon it serves, what it weighs, what it costs when nobody asks anything of it.

python -m bench node
"""

import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.row import Row
from tests.acceptance.harness import Node

STARTS = 5
REST_S = 30.0
SETTLE_S = 5.0


def run() -> list[Row]:
    """Three rows. The start is the first one on an empty folder, then ones that replay and restore."""
    with tempfile.TemporaryDirectory(prefix="corelog-bench-") as folder:
        node = Node(Path(folder) / "data")
        starts = []
        for number in range(STARTS):
            started = time.monotonic()
            node.start()
            starts.append(time.monotonic() - started)
            if number < STARTS - 1:
                node.stop()
        time.sleep(SETTLE_S)
        try:
            pids = processes(node)
            weight_mb = sum(map(pss_bytes, pids)) / 1e6
            before_s = sum(map(cpu_s, pids))
            time.sleep(REST_S)
            busy = (sum(map(cpu_s, processes(node))) - before_s) / REST_S
        finally:
            node.stop()
    worst_s = max(starts)
    return [
        Row(
            f"start of a node → serving, worst of {STARTS}",
            f"{worst_s:.2f} s",
            "",
            "",
            "≤ 1.5 s",
            worst_s <= 1.5,
            f"median {statistics.median(starts):.2f} s; both ports answer healthy",
        ),
        Row("node at rest, all processes, PSS", f"{weight_mb:.0f} MB", "", "", "≤ 250 MB", weight_mb <= 250),
        Row(
            "node at rest, CPU of all processes",
            f"{busy:.2%} of a core",
            "",
            "",
            "< 1%",
            busy < 0.01,
            f"{len(pids)} processes, over {REST_S:.0f} s",
        ),
    ]


def processes(node: Node) -> list[int]:
    """All that bear the data folder in their command line: forked ones keep their main process's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.fsencode(node.folder) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_s(pid: int) -> float:
    """User and system time so far. Ends of processes at rest don't happen: what they used would be lost."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
