"""``corelog log copy``: record N of the copy is record N of the source, byte for byte, with its time; holes are holes.

So the chain hash is the same, and so is every state. A target can be on any driver: each can take bytes as they are
and leave holes (see :class:`~streams.log.port.Copyable`); bytes that it can't hold are refused before it is touched.
"""

import hashlib

import msgspec

from streams.log.port import Copyable, ForeignLog, Log
from streams.log.tools_read import stretch
from streams.records import CHAIN_START, Entry, chained


class Copied(msgspec.Struct, frozen=True):
    """Records copied by this call; the offsets that source and target have in common now; the chain over them.

    ``chain`` (hex) was computed from both, read again, and is equal; it starts anew at ``first``.
    """

    records: int
    first: int
    end: int
    chain: str


class Sum:
    """What two logs must have in common: the chain over their bytes, and where these stand."""

    def __init__(self) -> None:
        self.chain = CHAIN_START
        self._places = hashlib.blake2b(digest_size=32)

    def add(self, entry: Entry) -> None:
        self.chain = chained(self.chain, entry.raw)
        self._places.update(entry.offset.to_bytes(8, "big"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sum):
            return NotImplemented
        return self.chain == other.chain and self._places.digest() == other._places.digest()

    __hash__ = None  # type: ignore[assignment] # it changes


async def copy(source: Log, target: Log, *, until: int | None = None) -> Copied:
    """Copy records up to ``until`` (default: all that is there now); goes on where an earlier copy ended.

    Raises ForeignLog when the target holds something else or can't hold the same, before anything is written.
    """
    first, end = await source.first(), await source.end()
    end = end if until is None else min(until, end)
    copied = await carry(source, target, await begin(source, target, first, end), end)
    summed = await _sum(source, first, end)
    if summed != await _sum(target, first, end):
        raise ForeignLog(f"{target.address} differs from {source.address} after the copy: somebody else wrote to it")
    return Copied(copied, first, end, summed.chain.hex())


async def carry(source: Log, target: Log, at: int, end: int) -> int:
    """Write the source's records from ``at`` up to ``end`` to the target's end; returns how many."""
    into = _takes(target)
    copied = 0
    async for batch in stretch(source, at, end):
        for run in _runs(batch):
            if run[0].offset > at:
                await into.leave_hole(run[0].offset - at)
            await _put(into, run)
            at = run[-1].offset + 1
            copied += len(run)
    if at < end:
        await into.leave_hole(end - at)
    return copied


async def begin(source: Log, target: Log, first: int, end: int) -> int:
    """Where to go on: makes an empty target begin at ``first``, or checks that what it holds is the source's."""
    has_first, has_end = await target.first(), await target.end()
    if has_end <= first and await _holds_nothing(target, has_first, has_end):
        await _check_bytes(source, target, first, end)
        if (has_first, has_end) != (first, first):
            await _takes(target).begin_at(first)
        return first
    if has_first > first or has_end > await source.end():
        raise ForeignLog(
            f"{target.address} holds {has_first} to {has_end - 1}: it is no earlier copy of {source.address}"
        )
    if has_end < first:
        raise ForeignLog(
            f"{target.address} ends at {has_end}, but {source.address} begins at {first}: some are missing"
        )
    await _check_bytes(source, target, has_end, end)
    await same(source, target, min(has_end, end))
    return min(has_end, max(end, first))


async def same(source: Log, target: Log, end: int) -> None:
    """Raises ForeignLog unless both hold the same records from the source's first up to ``end``."""
    first = await source.first()
    if await target.first() > first or await _sum(source, first, end) != await _sum(target, first, end):
        raise ForeignLog(f"{target.address} holds other records than {source.address}; copy into an empty one")


async def _holds_nothing(target: Log, first: int, end: int) -> bool:
    """Nothing but holes, which an interrupted ``begin_at`` left."""
    return not [batch async for batch in stretch(target, first, end)]


async def _check_bytes(source: Log, target: Log, start: int, end: int) -> None:
    """Say before the target is touched that it can't hold one of these records."""
    into = _takes(target)
    async for batch in stretch(source, start, end):
        for entry in batch:
            try:
                into.check_raw(entry.raw)
            except ValueError as error:
                raise ForeignLog(f"record {entry.offset} can't be written to {target.address}: {error}") from error


def _takes(target: Log) -> Copyable:
    if not isinstance(target, Copyable):
        raise ForeignLog(f"{target.address} can't take a copy")
    return target


async def _put(into: Copyable, run: list[Entry]) -> None:
    try:
        offsets = await into.append_raw([entry.raw for entry in run])
    except ValueError as error:
        raise ForeignLog(f"a record of {run[0].offset} to {run[-1].offset} can't be copied: {error}") from error
    if offsets != [entry.offset for entry in run]:
        raise ForeignLog(
            f"{into.address} took record {run[0].offset} at {offsets[0]}: somebody else writes to it; "
            f"copy into a new, empty one"
        )


def _runs(batch: list[Entry]) -> list[list[Entry]]:
    """Entries without a hole between them, together."""
    runs: list[list[Entry]] = []
    for entry in batch:
        if runs and entry.offset == runs[-1][-1].offset + 1:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


async def _sum(of: Log, first: int, end: int) -> Sum:
    summed = Sum()
    async for batch in stretch(of, first, end):
        for entry in batch:
            summed.add(entry)
    return summed
