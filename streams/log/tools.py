"""What stands behind ``corelog log verify|copy|move|void|trim``: void and trim; the others in modules beside it.

A log is moved by an exact copy: nothing that names a position becomes untrue, snapshots stay valid, and ``base`` of
the new ``log.opened`` is 0.
"""

from pathlib import Path

import msgspec

from streams import snapshots as snapshot_files
from streams import voids
from streams.events import log
from streams.log.founding import identity
from streams.log.port import ForeignLog, Log, LogError
from streams.log.segments import SegmentsLog
from streams.log.tools_copy import Copied, copy, same
from streams.log.tools_move import Moved, move
from streams.log.tools_read import open_anew, said, speak, stretch
from streams.log.tools_verify import Report, Trouble, verify
from streams.records import parse

__all__ = ["Copied", "Moved", "NotAllowed", "Report", "Trimmed", "Trouble", "copy", "move", "trim", "verify", "void"]


class NotAllowed(LogError):
    """What was asked would lose something, or isn't this operator's to say. Nothing was changed."""

    exit_code = 4
    http_status = 409


class Trimmed(msgspec.Struct, frozen=True):
    first_before: int
    first: int
    archive: str
    archived: int


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
            await same(target, kept, before)
    finally:
        await kept.close()
    report = await verify(archive)
    if not report.whole or report.end < before:
        raise NotAllowed(f"the archive is not whole, nothing was trimmed: {report.text()}")
    # what is left tells whose log it is; to replicas, who know it, it is void
    await open_anew(target, log.LogOpened(opened.id, opened.level, opened.operator_key))
    await target.trim(before)
    return Trimmed(first, await target.first(), str(archive), copied.records if copied else 0)


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
