"""Folders of a segments log as a crash would leave them."""

import shutil
from pathlib import Path

from streams.log.segments import SegmentsLog
from streams.log.segments.driver import _opened
from streams.log.segments.reader import Cursor
from streams.records import Entry
from tests.contract.drivers import record


def write(folder: Path, commits: int, each: int = 1, segment_bytes: int = 1 << 20) -> list[Entry]:
    """A log of ``commits`` commits with ``each`` records; returns the entries."""
    shared, writer = _opened(folder, segment_bytes)
    out = []
    for number in range(commits):
        raws = [record(number * each + index + 1, text="x" * (number % 7)).canonical() for index in range(each)]
        first = writer.commit(raws)
        out += [Entry(first + index, raw) for index, raw in enumerate(raws)]
    shared.close()
    return out


def read(folder: Path) -> list[Entry]:
    """All entries, as a process that opens the log now would see them."""
    shared, _ = _opened(folder, 1 << 20)
    try:
        start = min((int(path.stem) for path in folder.glob("*.seg")), default=0)
        cursor = Cursor(folder, shared, start)
        out = []
        while entries := cursor.read():
            out += entries
        return out
    finally:
        shared.close()


def forget_the_end(folder: Path) -> None:
    """As after a crash of the machine that lost what was published."""
    (folder / "end").unlink()


def copy_of(folder: Path, to: Path) -> Path:
    if to.exists():
        shutil.rmtree(to)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("wake"))
    return to


async def opened(folder: Path, **options: str) -> SegmentsLog:
    return await SegmentsLog.open(folder, options)
