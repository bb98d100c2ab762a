"""A log in memory with a fault script: tests and the simulator use it; it is a full member of the contract suite."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence

from streams.log.port import LogTruncated, OutcomeUnknown, canonical
from streams.records import Entry, Record

#: Called before each append with the records; may raise a LogError (nothing written), or return one to raise
#: after they were written (a lost answer).
Fault = Callable[[Sequence[Record]], OutcomeUnknown | None]


class MemoryLog:
    """A list. Several handles on one log share ``MemoryLog.entries``: pass the same object around."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.entries: list[Entry] = []
        self.fault = fault
        self._first = 0
        self._next = 0
        self._changed = asyncio.Event()

    @property
    def address(self) -> str:
        return "memory://"

    @property
    def end_is_linearizable(self) -> bool:
        return True

    async def append(self, records: Sequence[Record]) -> list[int]:
        raws = canonical(records)
        lost_answer = self.fault(records) if self.fault else None
        offsets = [self.put(raw) for raw in raws]
        if lost_answer is not None:
            raise lost_answer
        return offsets

    def put(self, raw: bytes) -> int:
        """Append bytes as they are (foreign records in tests); returns the offset."""
        offset = self._next
        self.entries.append(Entry(offset, raw))
        self._next += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return offset

    def skip(self, count: int) -> None:
        """Leave a hole of ``count`` offsets, as a transactional or compacted topic would."""
        self._next += count

    async def append_raw(self, raws: list[bytes]) -> list[int]:
        return [self.put(raw) for raw in raws]

    async def leave_hole(self, count: int) -> None:
        self.skip(count)

    async def begin_at(self, first: int) -> None:
        self.skip(first - self._next)
        await self.trim(first)

    def check_raw(self, raw: bytes) -> None:
        """Any bytes can stand here."""

    async def tail(self, start: int, streams: Collection[str] | None = None) -> AsyncGenerator[list[Entry], None]:
        if not self._first <= start <= self._next:
            raise LogTruncated(f"offset {start} is outside of the log ({self._first} to {self._next})")
        at = start
        while True:
            changed = self._changed
            if at < self._first:
                raise LogTruncated(f"offset {at} was trimmed; the log starts at {self._first}")
            batch = [entry for entry in self.entries if entry.offset >= at]
            if batch:
                at = batch[-1].offset + 1
                kept = [entry for entry in batch if wanted(entry.raw, streams)]
                if kept:
                    yield kept
            else:
                await changed.wait()

    async def first(self) -> int:
        return self._first

    async def end(self) -> int:
        return self._next

    async def trim(self, before: int) -> None:
        before = min(before, self._next)
        self.entries = [entry for entry in self.entries if entry.offset >= before]
        self._first = max(self._first, before)

    async def close(self) -> None:
        return None


def wanted(raw: bytes, streams: Collection[str] | None) -> bool:
    """Whether a tail filtered by ``streams`` yields these canonical bytes: its streams, and all that is foreign."""
    if streams is None or raw[:8] != b"CORELOG ":
        return True
    fields = raw[:300].split(b" ", 4)
    return len(fields) < 5 or fields[3].decode("ascii", "replace") in streams
