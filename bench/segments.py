"""The embedded log beside raw write+fdatasync of the same bytes, in one run; wake-ups of another process; an idle one.

    python -m bench.segments

The two take turns in blocks, so that a disk that is slow for a moment is slow for both. Raw is what a careful program
without us does: append to a file, fdatasync, one at a time.
"""

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import uvloop

from bench.row import Row
from streams.log.segments import SegmentsLog
from streams.records import Record

BLOCKS = 15
EACH = 100
TASKS = 64
EACH_TASK = 40
WAKES = 500
IDLE_S = 10.0
READ = 1_000_000
PAYLOAD = b'["%s"]' % (b"x" * 180)


def record(seq: int) -> Record:
    return Record("ab" * 16, "kv", "kv@" + "c" * 32, 1, seq, time.time_ns() // 1_000_000, PAYLOAD)


class Raw:
    """A file that is appended to and synced."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.data = record(1_000).canonical()

    def append(self) -> None:
        os.write(self.fd, self.data)
        os.fdatasync(self.fd)


async def appends(folder: Path) -> list[Row]:
    log, raw = await SegmentsLog.open(folder / "log"), Raw(folder / "raw")
    ours_s: list[float] = []
    raw_s: list[float] = []
    many_s = 0.0
    seq = 0

    async def task() -> None:
        for _ in range(EACH_TASK):
            await log.append([record(1)])

    for block in range(BLOCKS + 1):
        mine: list[float] = []
        for _ in range(EACH):
            each = record(seq := seq + 1)
            before = time.perf_counter()
            await log.append([each])
            mine.append(time.perf_counter() - before)
        his: list[float] = []
        for _ in range(EACH):
            before = time.perf_counter()
            raw.append()
            his.append(time.perf_counter() - before)
        before = time.perf_counter()
        await asyncio.gather(*(task() for _ in range(TASKS)))
        together_s = time.perf_counter() - before
        if block:  # the first one warms up
            ours_s += mine
            raw_s += his
            many_s += together_s
    await log.close()
    os.close(raw.fd)
    lone, alone = statistics.median(ours_s), statistics.median(raw_s)
    rate, raw_rate = BLOCKS * TASKS * EACH_TASK / many_s, len(raw_s) / sum(raw_s)
    note = f"{len(raw.data)} bytes, {len(ours_s)} each, in turns"
    return [
        Row(
            "append on segments, one writer, p50",
            f"{lone * 1e6:.0f} µs",
            f"{alone * 1e6:.0f} µs raw write+fdatasync",
            f"{lone / alone:.2f}×",
            "≤ 1.5×",
            lone <= 1.5 * alone,
            note,
        ),
        Row(
            f"append on segments, {TASKS} tasks of a process",
            f"{rate:,.0f}/s",
            f"{raw_rate:,.0f}/s raw, one at a time",
            f"{rate / raw_rate:.1f}×",
            "≥ 8×",
            rate >= 8 * raw_rate,
            "group commit",
        ),
    ]


READER = """
import asyncio, sys, time, uvloop
from streams.log.segments import SegmentsLog

async def main():
    log = await SegmentsLog.open(sys.argv[1])
    tail = log.tail(await log.end())
    print("ready", flush=True)
    seen = []
    async for batch in tail:
        at = time.clock_gettime(time.CLOCK_MONOTONIC)
        seen += [(entry.offset, at) for entry in batch]
        if len(seen) >= int(sys.argv[2]):
            break
    for offset, at in seen:
        print(offset, at)
    await log.close()

uvloop.run(main())
"""


async def visibility(folder: Path) -> Row:
    """From the end of an append to the entry in the hands of a tail in another process."""
    log = await SegmentsLog.open(folder / "wake")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, str(folder / "wake"), str(WAKES), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await asyncio.sleep(0.2)
    ended: dict[int, float] = {}
    took: list[float] = []
    for seq in range(WAKES):
        before = time.perf_counter()
        (offset,) = await log.append([record(seq + 1)])
        ended[offset] = time.clock_gettime(time.CLOCK_MONOTONIC)
        took.append(time.perf_counter() - before)
        await asyncio.sleep(0.004)  # the other is asleep again: what counts is to be woken
    out, _ = await process.communicate()
    await log.close()
    lags = sorted(float(at) - ended[int(offset)] for offset, at in (line.split() for line in out.decode().splitlines()))
    p50, p99 = statistics.median(lags), lags[int(len(lags) * 0.99)]
    own = statistics.median(took)
    return Row(
        "another process sees an append, p50",
        f"{p50 * 1e3:.2f} ms",
        f"append itself {own * 1e3:.2f} ms",
        f"{p50 / own:.2f}×",
        "≤ 1 ms",
        p50 <= 0.001,
        f"after the append's own end; p99 {p99 * 1e3:.2f} ms",
    )


async def idle(folder: Path) -> Row:
    """Five handles, as a node's five processes have, each with a tail that waits."""
    logs = [await SegmentsLog.open(folder / "idle") for _ in range(5)]
    await logs[0].append([record(1)])
    tails = [asyncio.ensure_future(_drain(log)) for log in logs]
    await asyncio.sleep(0.5)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(IDLE_S)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / IDLE_S
    for tail in tails:
        tail.cancel()
    await asyncio.gather(*tails, return_exceptions=True)
    for log in logs:
        await log.close()
    return Row(
        "five idle tails of the embedded log",
        f"{used * 100:.3f} % of a core",
        "–",
        "–",
        "< 1 %",
        used < 0.01,
        "no polling: woken by a socket, one look at memory a second",
    )


async def _drain(log: SegmentsLog) -> None:
    async for _ in log.tail(0):
        pass


async def reading(folder: Path) -> Row:
    """A replay's share that is the log's own: every record as an entry, its checksum checked."""
    log = await SegmentsLog.open(folder / "long")
    raws = [record(seq).canonical() for seq in range(10_000)]
    for _ in range(READ // len(raws)):
        await log.append_raw(raws)
    paths = sorted((folder / "long").glob("*.seg"))
    best = plain = float("inf")
    for _ in range(3):
        before = time.perf_counter()
        seen = 0
        async with aclosing(log.tail(0)) as tail:
            async for batch in tail:
                seen += len(batch)
                if seen == READ:
                    break
        best = min(best, time.perf_counter() - before)
        before = time.perf_counter()
        for path in paths:
            path.read_bytes()
        plain = min(plain, time.perf_counter() - before)
    await log.close()
    size = sum(path.stat().st_size for path in paths)
    return Row(
        "1M records read from segments, checked",
        f"{best / READ * 1e6:.2f} µs a record",
        f"{plain / READ * 1e6:.2f} µs, the files' bytes alone",
        f"{best / plain:.1f}×",
        "< 1 µs",
        best < READ * 1e-6,
        f"{size / 1e6:.0f} MB, best of 3",
    )


def run() -> list[Row]:
    """All rows. Needs nothing but a local disk for temporary files (TMPDIR names another)."""
    sys.setswitchinterval(0.0005)  # as the node sets it
    with tempfile.TemporaryDirectory(prefix="corelog-bench-") as name:
        folder = Path(name)
        return [
            *uvloop.run(appends(folder)),
            uvloop.run(visibility(folder)),
            uvloop.run(idle(folder)),
            uvloop.run(reading(folder)),
        ]


if __name__ == "__main__":
    for row in run():
        print(row)
