"""The drivers that the contract suite runs on, and how another one joins.

A driver joins by a function that makes a new, empty log and yields a :class:`Subject`::

    @asynccontextmanager
    async def kafka_one_broker(tmp_path: Path) -> AsyncIterator[Subject]: ...

    register("kafka-1", kafka_one_broker, pytest.mark.kafka)

in a module ``tests/contract/<name>_drivers.py``, which the suite finds by itself.
"""

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.log.segments import SegmentsLog
from streams.records import Record

LOG_ID = "ab" * 16


@dataclass
class Subject:
    """A new, empty log under test.

    open           another handle on the same log, as another process would have it; the caller closes it
    put_foreign    puts a record that is not ours at the log's end
    leave_hole     leaves a hole of at least so many offsets; None where the driver can't be made to
    trims_exactly  whether ``trim(n)`` makes ``first()`` n (else: n or less, whole files)
    persistent     whether it is still there after all handles were closed
    """

    open: Callable[[], Awaitable[Log]]
    put_foreign: Callable[[], Awaitable[None]]
    leave_hole: Callable[[int], Awaitable[None]] | None
    trims_exactly: bool
    persistent: bool


Factory = Callable[[Path], AbstractAsyncContextManager[Subject]]
DRIVERS: dict[str, tuple[Factory, tuple[Any, ...]]] = {}


def register(name: str, factory: Factory, *marks: Any) -> None:
    DRIVERS[name] = (factory, marks)


def parameters() -> list[Any]:
    """All drivers as pytest parameters; imports the modules of those that live beside this one."""
    for path in sorted(Path(__file__).parent.glob("*_drivers.py")):
        importlib.import_module(f"{__package__}.{path.stem}")
    return [pytest.param(factory, id=name, marks=marks) for name, (factory, marks) in DRIVERS.items()]


def record(seq: int, stream: str = "kv", text: str = "", writer: str = "kv@m1") -> Record:
    return Record(LOG_ID, stream, writer, 1, seq, 1_700_000_000_000 + seq, b'["%b"]' % text.encode())


@asynccontextmanager
async def memory(tmp_path: Path) -> AsyncIterator[Subject]:
    log = MemoryLog()

    async def open_() -> Log:
        return log

    async def put_foreign() -> None:
        log.put(b"hello from elsewhere")

    async def leave_hole(count: int) -> None:
        log.skip(count)

    yield Subject(open_, put_foreign, leave_hole, trims_exactly=True, persistent=False)


@asynccontextmanager
async def segments(tmp_path: Path) -> AsyncIterator[Subject]:
    folder = tmp_path / "log"

    async def open_() -> Log:
        # segments of a few records: rotation is under way in every test
        return await SegmentsLog.open(folder, {"segment_bytes": "4096"})

    async def put_foreign() -> None:
        log = await SegmentsLog.open(folder)
        await log.append_raw([b"hello from elsewhere"])
        await log.close()

    async def leave_hole(count: int) -> None:
        log = await SegmentsLog.open(folder)
        await log.leave_hole(count)
        await log.close()

    yield Subject(open_, put_foreign, leave_hole, trims_exactly=False, persistent=True)


register("memory", memory)
register("segments", segments)
