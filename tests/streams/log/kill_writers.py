"""Eight writers, killed with -9 again and again: ``python -m tests.streams.log.kill_writers FOLDER SECONDS SEED``.

This process starts no thread; it forks the writers, kills one at random moments and forks another in its place. A
writer notes each acknowledged record in ``acks/<writer>``, one line ``offset seq``, in the kernel's hands when written.
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from streams.log.segments import SegmentsLog
from tests.contract.drivers import record

WRITERS = 8
SEGMENT_BYTES = 64 * 1024


async def write(folder: Path, writer: str) -> None:
    log = await SegmentsLog.open(folder / "log", {"segment_bytes": str(SEGMENT_BYTES)})
    acks = os.open(folder / "acks" / writer, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def task(first: int) -> None:
        for seq in range(first, 1_000_000, 4):
            (offset,) = await log.append([record(seq, text="x" * (seq % 300), writer=f"{writer}@m")])
            os.write(acks, f"{offset} {seq}\n".encode())

    await asyncio.gather(*(task(first) for first in (1, 2, 3, 4)))


def start(folder: Path, number: int, life: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(write(folder, f"w{number}.{life}"))
        finally:
            os._exit(70)  # a writer ends by being killed, or something is wrong
    return pid


def main(folder: Path, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    (folder / "acks").mkdir()
    pids = [start(folder, number, 0) for number in range(WRITERS)]
    until, lives = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.005, 0.08))
        number = chance.randrange(WRITERS)
        lives += 1
        os.kill(pids[number], signal.SIGKILL)
        _, status = os.waitpid(pids[number], 0)
        assert os.WIFSIGNALED(status), f"writer {number} ended by itself: {status}"
        pids[number] = start(folder, number, lives)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"a writer ended by itself: {status}"
    print(lives)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
