"""What stands behind ``corelog log verify|copy|move|void|trim``.

Copies keep positions: record N of the copy is record N of the source, byte for byte, with its time, and holes are
holes; so the chain hash is the same, and so is every state. A log is moved by such a copy: nothing that names a
position becomes untrue, snapshots stay valid, and ``base`` of the new ``log.opened`` is 0.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from streams import snapshots as snapshot_files
from streams import voids
from streams.events import encode, log, say
from streams.log.founding import identity
from streams.log.memory import MemoryLog
from streams.log.port import ForeignLog, Log, LogError
from streams.log.segments import SegmentsLog
from streams.log.tools_read import said, speak, stretch
from streams.log.tools_verify import Report, Trouble, verify
from streams.records import CHAIN_START, Entry, Record, chained, parse
from streams.replay import Fold, Replica

__all__ = ["Copied", "Moved", "NotAllowed", "Report", "Trimmed", "Trouble", "copy", "move", "trim", "verify", "void"]

#: A move seals its source when the copy is this near to the end (or after so many rounds).
NEAR_RECORDS = 256
ROUNDS_MAX = 50
#: Records that fill the start of a topic before they are deleted: a copy of a trimmed log begins behind them.
FILLING = 5000


class NotAllowed(LogError):
    """What was asked would lose something, or isn't this operator's to say. Nothing was changed."""

    exit_code = 4
    http_status = 409


class Copied(msgspec.Struct, frozen=True):
    """Records copied by this call; the offsets that source and target have in common now; the chain over them.

    ``chain`` (hex) was computed from both, read again, and is equal; it starts anew at ``first``.
    """

    records: int
    first: int
    end: int
    chain: str


class Moved(msgspec.Struct, frozen=True):
    """The offset of ``log.sealed`` in the source and of ``log.opened`` in the target (the same one)."""

    sealed_at: int
    chain: str
    state_hashes: dict[str, str]


class Trimmed(msgspec.Struct, frozen=True):
    first_before: int
    first: int
    archive: str
    archived: int


async def copy(source: Log, target: Log, *, until: int | None = None) -> Copied:
    """Copy records up to ``until`` (default: all that is there now); goes on where an earlier copy ended.

    Raises ForeignLog when the target holds something else or can't hold the same, before anything is written.
    """
    first, end = await source.first(), await source.end()
    end = end if until is None else min(until, end)
    copied = await _carry(source, target, await _begin(source, target, first, end), end)
    chain = await _chain(source, first, end)
    if chain != await _chain(target, first, end):
        raise ForeignLog(f"{target.address} differs from {source.address} after the copy: somebody else wrote to it")
    return Copied(copied, first, end, chain.hex())


async def move(
    source: Log, target: Log, folds: Mapping[str, Callable[[], Fold]] | None = None, *, next_address: str = ""
) -> Moved:
    """Copy while the source is written, seal it, copy the rest, open the target. Interrupted, call it again.

    ``folds`` are replayed on both sides up to the seal (unless the start was trimmed); their state hashes must be
    equal. ``next_address`` is what ``log.sealed`` says (default: the target's address). Raises ForeignLog,
    LogUnavailable, OutcomeUnknown.
    """
    opened = await identity(source)
    if opened is None:
        raise ForeignLog(f"{source.address} was never founded: there is nothing to move")
    next_address = next_address or target.address
    sealed_at = await _seal_of(source, opened.id, next_address)
    if sealed_at is None:
        end = await source.end()
        at = await _begin(source, target, await source.first(), end)
        for _ in range(ROUNDS_MAX):
            await _carry(source, target, at, end)
            at, end = end, await source.end()
            if end - at <= NEAR_RECORDS:
                break
        await speak(source, opened.id, log.LogSealed(next_address))
        # the first one counts, also if two operators said it
        sealed_at = await _seal_of(source, opened.id, next_address)
        if sealed_at is None:
            raise ForeignLog(f"{source.address} took the seal and doesn't show it")
    first = await source.first()
    goes_on = await target.end() > sealed_at
    if goes_on:  # an earlier call got this far
        await _check_opened(target, sealed_at, source.address)
        await _same(source, target, sealed_at)
    else:
        await copy(source, target, until=sealed_at)
    chain = (await _chain(source, first, sealed_at)).hex()
    hashes: dict[str, str] = {}
    for name, make in (folds or {}).items() if first == 0 else ():
        hashes[name] = await _state_hash(source, make, sealed_at, opened)
        if hashes[name] != await _state_hash(target, make, sealed_at, opened):
            raise ForeignLog(f"the state of {name} at the seal differs in {target.address}; the source is still whole")
    if not goes_on:
        again = log.LogOpened(
            opened.id, opened.level, opened.operator_key, previous=source.address, chain=chain, snapshot=_words(hashes)
        )
        at = await _open(target, again)
        if at != sealed_at:
            raise ForeignLog(f"{target.address} was opened at {at} and not at {sealed_at}: somebody else wrote to it")
    return Moved(sealed_at, chain, hashes)


async def void(target: Log, offset: int, reason: str, private_key: str) -> int:
    """Append the operator's signed word that the record at ``offset`` has no effect; returns its own offset.

    ``private_key``: 64 hex digits, Ed25519. Raises NotAllowed (another key than the log's operator has, no such
    record, no reason), ForeignLog.
    """
    opened = await identity(target)
    if opened is None:
        raise ForeignLog(f"{target.address} was never founded")
    if not reason.strip():
        raise NotAllowed("a void needs a reason: it stands on the log for ever")
    first, end = await target.first(), await target.end()
    if not first <= offset < end:
        raise NotAllowed(f"there is no record {offset}: the log has {first} to {end - 1}")
    try:
        signature = voids.sign(bytes.fromhex(private_key), opened.id, offset, reason)
    except ValueError as error:
        raise NotAllowed(f"the operator's key must be 64 hex digits: {error}") from error
    word = log.LogVoided(offset, reason, signature)
    if not voids.valid(word, opened.id, opened.operator_key):
        raise NotAllowed(f"this is not the key of the operator who founded log {opened.id}; nothing was written")
    return await speak(target, opened.id, word)


async def trim(
    target: Log,
    before: int,
    archive: Path,
    *,
    folds: tuple[str, ...] = ("control", "kv"),
    snapshots: Path | None = None,
) -> Trimmed:
    """Archive what is below ``before`` in a folder of segments, then forget it.

    Needs, for each fold, ``snapshot.taken`` at or above ``before`` by two machines; alone (segments): two of them.
    ``snapshots``: this node's folder of them; then the alone node's files are checked too. Raises NotAllowed.
    """
    opened = await identity(target)
    if opened is None:
        raise ForeignLog(f"{target.address} was never founded")
    first, end = await target.first(), await target.end()
    if not first < before <= end:
        raise NotAllowed(f"nothing to trim below {before}: the log has {first} to {end - 1}")
    taken = await _snapshots_taken(target, opened.id, first, end)
    for fold in folds:
        _check_snapshots(fold, before, taken.get(fold, set()), target.end_is_linearizable, snapshots)
    kept = await SegmentsLog.open(archive)
    try:
        copied = await copy(target, kept, until=before) if await kept.end() < before else None
        if copied is None:
            await _same(target, kept, before)
    finally:
        await kept.close()
    report = await verify(archive)
    if not report.whole or report.end < before:
        raise NotAllowed(f"the archive is not whole, nothing was trimmed: {report.text()}")
    # what is left tells whose log it is; to replicas, who know it, it is void
    await _open(target, log.LogOpened(opened.id, opened.level, opened.operator_key))
    await target.trim(before)
    return Trimmed(first, await target.first(), str(archive), copied.records if copied else 0)


# --- copying


async def _carry(source: Log, target: Log, at: int, end: int) -> int:
    """Write the source's records from ``at`` up to ``end`` to the target's end; returns how many."""
    into = _Into(target)
    copied = 0
    async for batch in stretch(source, at, end):
        for run in _runs(batch):
            if run[0].offset > at:
                await into.hole(at, run[0].offset - at)
            await into.put(run)
            at = run[-1].offset + 1
            copied += len(run)
    if at < end and into.makes_holes:
        await into.hole(at, end - at)
    return copied


def _runs(batch: list[Entry]) -> list[list[Entry]]:
    """Entries without a hole between them, together."""
    runs: list[list[Entry]] = []
    for entry in batch:
        if runs and entry.offset == runs[-1][-1].offset + 1:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


async def _begin(source: Log, target: Log, first: int, end: int) -> int:
    """Where to go on: makes an empty target begin at ``first``, or checks that what it holds is the source's."""
    into = _Into(target)
    has_first, has_end = await target.first(), await target.end()
    if has_first == has_end and has_end <= first:
        if not into.makes_holes:
            await _check_plain(source, target, first, end)
        if has_end < first:
            await into.begin_at(first)
        return first
    if has_first > first or has_end > await source.end():
        raise ForeignLog(
            f"{target.address} holds {has_first} to {has_end - 1}: it is no earlier copy of {source.address}"
        )
    if has_end < first:
        raise ForeignLog(
            f"{target.address} ends at {has_end}, but {source.address} begins at {first}: some are missing"
        )
    if not into.makes_holes:
        await _check_plain(source, target, has_end, end)
    await _same(source, target, min(has_end, end))
    return min(has_end, max(end, first))


async def _same(source: Log, target: Log, end: int) -> None:
    """Raises ForeignLog unless both hold the same records from the source's first up to ``end``."""
    first = await source.first()
    if await target.first() > first or await _chain(source, first, end) != await _chain(target, first, end):
        raise ForeignLog(f"{target.address} holds other records than {source.address}; copy into an empty one")


async def _check_plain(source: Log, target: Log, start: int, end: int) -> None:
    """A topic can't be made to have holes, nor foreign bytes as they stood elsewhere: say so before it is touched."""
    at = start
    async for batch in stretch(source, start, end):
        for entry in batch:
            if entry.offset != at:
                raise ForeignLog(
                    f"{source.address} has a hole at {at}, {target.address} can't be made to have one there"
                )
            try:
                if parse(entry).canonical() != entry.raw:
                    raise ValueError("its bytes aren't canonical")
            except ValueError as error:
                raise ForeignLog(f"record {at} can't be written to {target.address} as it is: {error}") from error
            at += 1


class _Into:
    """Writes entries at their own offsets, on any driver."""

    def __init__(self, target: Log) -> None:
        self._log = target
        self.makes_holes = isinstance(target, SegmentsLog | MemoryLog)

    async def begin_at(self, first: int) -> None:
        if isinstance(self._log, SegmentsLog):
            await self._log.begin_at(first)
        elif isinstance(self._log, MemoryLog):
            self._log.skip(first)
            await self._log.trim(first)
        else:
            filling = Record("0" * 32, "log", "copy@filling", 1, 1, 0, b"[]")
            for at in range(0, first, FILLING):
                await self._log.append([filling] * min(FILLING, first - at))
            await self._log.trim(first)

    async def hole(self, at: int, count: int) -> None:
        if isinstance(self._log, SegmentsLog):
            await self._log.leave_hole(count)
        elif isinstance(self._log, MemoryLog):
            self._log.skip(count)
        else:
            raise ForeignLog(f"{self._log.address} can't be made to have a hole at {at}")

    async def put(self, entries: list[Entry]) -> None:
        if isinstance(self._log, SegmentsLog):
            offsets = await self._log.append_raw([entry.raw for entry in entries])
        elif isinstance(self._log, MemoryLog):
            offsets = [self._log.put(entry.raw) for entry in entries]
        else:
            offsets = await self._log.append([parse(entry) for entry in entries])
        if offsets != [entry.offset for entry in entries]:
            raise ForeignLog(
                f"{self._log.address} took record {entries[0].offset} at {offsets[0]}: somebody else writes to it; "
                f"copy into a new, empty one"
            )


async def _chain(of: Log, first: int, end: int) -> bytes:
    """The chain hash over records ``first`` up to ``end``; where they stand is checked as they are written."""
    chain = CHAIN_START
    async for batch in stretch(of, first, end):
        for entry in batch:
            chain = chained(chain, entry.raw)
    return chain


# --- moving


async def _seal_of(source: Log, log_id: str, next_address: str) -> int | None:
    """The offset of the source's seal. Raises ForeignLog if it was sealed for another log."""
    async for batch in stretch(source, await source.first(), await source.end()):
        for entry in batch:
            for word in said(entry, log.LogSealed):
                if parse(entry).log_id != log_id or not isinstance(word, log.LogSealed):
                    continue
                if word.next != next_address:
                    raise ForeignLog(f"{source.address} was sealed at {entry.offset}; it goes on at {word.next}")
                return entry.offset
    return None


async def _check_opened(target: Log, at: int, previous: str) -> None:
    async for batch in stretch(target, at, at + 1):
        for word in said(batch[0], log.LogOpened):
            if isinstance(word, log.LogOpened) and word.previous == previous:
                return
    raise ForeignLog(f"{target.address} has another record at {at} than the opening that follows {previous}")


async def _state_hash(of: Log, make: Callable[[], Fold], end: int, opened: log.LogOpened) -> str:
    replica = Replica(make())
    replica.foreseen = await voids.foreseen(of, 0, opened.id, opened.operator_key)
    async for batch in stretch(of, await of.first(), end):
        for entry in batch:
            replica.replay(entry)
    return replica.state_hash()


def _words(hashes: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(hashes.items()))


async def _open(target: Log, opened: log.LogOpened) -> int:
    incarnation = int.from_bytes(os.urandom(6), "big")
    last_ms = await _last_time_ms(target)
    record = Record(opened.id, "log", "operator@founder", incarnation, 1, last_ms, encode([say(opened)]))
    (offset,) = await target.append([record])
    return offset


async def _last_time_ms(of: Log) -> int:
    """The time of the last record: what an operator's tool adds must not move the times that follow."""
    first, end = await of.first(), await of.end()
    start = max(first, end - 1)
    async for batch in stretch(of, start, end):
        try:
            return parse(batch[-1]).time_ms
        except ValueError:
            break
    return 0


# --- trimming


async def _snapshots_taken(of: Log, log_id: str, first: int, end: int) -> dict[str, set[tuple[str, int]]]:
    """Per fold: (machine, offset) of each snapshot that was announced."""
    taken: dict[str, set[tuple[str, int]]] = {}
    async for batch in stretch(of, first, end):
        for entry in batch:
            for word in said(entry, log.SnapshotTaken):
                record = parse(entry)
                if record.log_id == log_id and isinstance(word, log.SnapshotTaken):
                    offset = int(word.position.partition(".")[0])
                    taken.setdefault(word.fold, set()).add((record.machine, offset))
    return taken


def _check_snapshots(fold: str, before: int, taken: set[tuple[str, int]], alone: bool, folder: Path | None) -> None:
    """A start reads the snapshot's own last record again, so that one must stay too."""
    usable = {(machine, offset) for machine, offset in taken if offset >= before}
    if alone and folder is not None:
        usable = {("", int(path.stem)) for path in snapshot_files.files(folder / fold) if _usable(path, before)}
    count = len({offset for _, offset in usable}) if alone else len({machine for machine, _ in usable})
    if count < 2:
        who = "two snapshots" if alone else "a snapshot on two machines"
        raise NotAllowed(
            f"trimming below {before} needs {who} of {fold} at or above it, there are {count}; take them with "
            f"`corelog log snapshot`, or trim less; nothing was changed"
        )


def _usable(path: Path, before: int) -> bool:
    if int(path.stem) < before:
        return False
    try:
        snapshot_files._checked(path)
    except snapshot_files.DamagedSnapshot:
        return False
    return True
