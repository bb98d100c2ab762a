"""Snapshots: a fold's state at a position, so that a start or a look into the past need not replay everything.

A file ``<offset, 20 digits>.snap`` holds a JSON head line, then the canonical chunks of log state and fold, each
with its length before it, then the blake2b-256 of all bytes before. It is written under a temporary name, synced,
renamed, and the folder synced. One flipped byte and it is refused (:class:`DamagedSnapshot`); the next older one
serves. The head names log, fold, offset, the hash of the last record (a resume reads that record again and halts
if it differs) and the state hash that replicas compare.
"""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from crc32c import crc32c

from streams.log.port import ForeignLog
from streams.records import Entry, Position
from streams.replay import LEVEL, Fold, Halt, LogState, Replica

FORMAT = 1
#: Kept are the newest two and one per so many events.
EVENTS_APART = 250_000
#: Bytes of a snapshot that are written between two syncs.
SYNC_BYTES = 4 * 1024 * 1024
_NO_HASH = "0" * 64
_NAME = re.compile(r"(\d{20})\.snap")
_TEMPORARY = re.compile(r"\.\d{20}\.snap\.(\d+)")


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of the file. ``record`` is the blake2b-256 of the last applied record's canonical bytes."""

    format: int
    fold: str
    log_id: str
    offset: int
    events: int
    time_ms: int
    record: str
    chain: str
    state_hash: str
    level: int


class DamagedSnapshot(Exception):
    """The file's bytes don't add up; it names the file. Delete it: an older one or the log itself will serve."""

    exit_code = 4


def write(folder: Path, replica: Replica) -> Path:
    """Write the replica's state into ``folder``; returns the file. Raises OSError with nothing left behind."""
    if replica.last is None:
        raise ValueError("nothing was applied yet: there is no state to snapshot")
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{replica.offset:020d}.snap"
    temporary = folder / f".{final.name}.{os.getpid()}"
    head = Head(
        FORMAT,
        replica.fold.name,
        replica.log.log_id,
        replica.offset,
        replica.log.events,
        replica.log.time_ms,
        record_hash(replica.last),
        replica.log.chain.hex(),
        _NO_HASH,
        replica.log.level,
    )
    try:
        with open(temporary, "w+b") as file:
            # the hash of what follows stands in the head: the state is gone through once, and the head, which has the
            # same length with each hash, comes last
            file.write(_line(head))
            state_hash, check = _write_state(file, replica)
            line = _line(msgspec.structs.replace(head, state_hash=state_hash))
            file.seek(0)
            file.write(line)
            file.seek(0)
            file.write(_digest(file, len(line), check))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, final)
        sync_folder(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return final


def _line(head: Head) -> bytes:
    return msgspec.json.encode(head) + b"\n"


def _write_state(file: BinaryIO, replica: Replica) -> tuple[str, int]:
    """Log state and fold as chunks; returns the state's hash (:meth:`streams.replay.Replica.state_hash`), and the CRC
    of what was written."""
    state, check, unsynced = replica.log_hash(), 0, 0
    for chunk, is_of_fold in _chunks(replica):
        if is_of_fold:
            state.update(chunk)
        size = len(chunk).to_bytes(8, "big")
        check = crc32c(chunk, crc32c(size, check))
        file.write(size)
        file.write(chunk)
        unsynced += len(chunk)
        if unsynced >= SYNC_BYTES:
            # who syncs the log meanwhile waits for a few megabytes of this, not for all of it
            file.flush()
            os.fdatasync(file.fileno())
            unsynced = 0
    return state.hexdigest(), check


def _chunks(replica: Replica) -> Iterator[tuple[bytes, bool]]:
    # order kept as it is, not sorted: the sessions' order (oldest first) is part of the state
    yield msgspec.msgpack.encode(replica.log), False
    for chunk in replica.fold.encode():
        yield chunk, True


def _digest(file: BinaryIO, head_bytes: int, check: int) -> bytes:
    """Of all that is there, read again. Raises OSError where that isn't what was written: it vouches for it."""
    digest = hashlib.blake2b(file.read(head_bytes), digest_size=32)
    found = 0
    while piece := file.read(1 << 20):
        digest.update(piece)
        found = crc32c(piece, found)
    if found != check:
        raise OSError(errno.EIO, "the file system gives back other bytes than were written")
    return digest.digest()


def load(path: Path, make: Callable[[], Fold]) -> Replica:
    """The replica that was written to ``path``. Raises DamagedSnapshot, never gives half a state."""
    head, chunks = _checked(path)
    try:
        log = msgspec.msgpack.decode(next(chunks), type=LogState)
        fold = make()
        if fold.name != head.fold:
            raise DamagedSnapshot(f"{path} is of fold {head.fold!r}, asked was {fold.name!r}")
        fold.restore(chunks)
    except (msgspec.DecodeError, StopIteration, KeyError, ValueError, IndexError) as error:
        raise DamagedSnapshot(f"{path} can't be decoded: {error}; delete it") from error
    if log.level > LEVEL:
        raise Halt(Position(log.offset), f"{path} is of feature level {log.level}, newer than {LEVEL}; upgrade corelog")
    replica = Replica(fold, log)
    replica.resume = head.record
    return replica


def head_of(path: Path) -> Head:
    """Only the head, unchecked: for choosing among files. Raises DamagedSnapshot."""
    with open(path, "rb") as file:
        line = file.readline(65536)
    try:
        head = msgspec.json.decode(line, type=Head)
    except msgspec.DecodeError as error:
        raise DamagedSnapshot(f"{path} has a damaged head: {error}; delete it") from error
    if head.format != FORMAT:
        raise DamagedSnapshot(f"{path} has format {head.format}, this version reads {FORMAT}")
    return head


def _checked(path: Path) -> tuple[Head, Iterator[bytes]]:
    """Check the whole file by its digest in a first pass, then read its chunks in a second."""
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        left = size - 32
        while left > 0 and (piece := file.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        if left or file.read(32) != digest.digest():
            raise DamagedSnapshot(f"{path}: the bytes differ from the digest at its end; delete it")
    head = head_of(path)

    def chunks() -> Iterator[bytes]:
        with open(path, "rb") as file:
            file.readline(65536)
            while file.tell() < size - 32:
                yield file.read(int.from_bytes(file.read(8), "big"))

    return head, chunks()


def first_chunks(path: Path, count: int) -> list[bytes]:
    """The fold's first chunks, unchecked: for choosing among files. Raises DamagedSnapshot."""
    found: list[bytes] = []
    size = path.stat().st_size - 32
    with open(path, "rb") as file:
        file.readline(65536)
        # the first one is the log's state
        while file.tell() < size and len(found) <= count:
            length = int.from_bytes(file.read(8), "big")
            if length > size:
                raise DamagedSnapshot(f"{path} is damaged; delete it")
            found.append(file.read(length))
    return found[1:]


def files(folder: Path) -> list[Path]:
    """The snapshots in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def restore(
    folder: Path,
    make: Callable[[], Fold],
    log_id: str = "",
    *,
    at_most: int | None = None,
    until_ms: int | None = None,
    damaged: Callable[[DamagedSnapshot], None] = lambda _error: None,
) -> Replica:
    """The newest usable snapshot (at or below offset ``at_most``, not after time ``until_ms``), else an empty replica.

    A damaged file, or one that can't be read, is told to ``damaged`` and passed over. Raises ForeignLog when a snapshot
    is of another log, Halt when it is of a newer version of corelog.
    """
    for path in reversed(files(folder)):
        try:
            head = head_of(path)
            if log_id and head.log_id != log_id:
                raise ForeignLog(f"{path} is of log {head.log_id}, this is {log_id}; use the data folder of this log")
            if (at_most is not None and head.offset > at_most) or (until_ms is not None and head.time_ms > until_ms):
                continue
            return load(path, make)
        except DamagedSnapshot as error:
            damaged(error)
        except OSError as error:
            damaged(DamagedSnapshot(f"{path} can't be read: {error}"))
    return Replica(make())


def oldest(folder: Path, make: Callable[[], Fold], log_id: str, at_least: int) -> Replica | None:
    """The oldest whole snapshot of this log at or above offset ``at_least``; None if there is none."""
    for path in files(folder):
        try:
            head = head_of(path)
            if head.log_id == log_id and head.offset >= at_least:
                return load(path, make)
        except (DamagedSnapshot, OSError):
            continue  # who restores at a start names it
    return None


def prune(folder: Path) -> list[Path]:
    """Delete what needn't be kept (see EVENTS_APART) and temporary files of the dead; returns the deleted."""
    kept: list[Path] = files(folder)
    doomed: list[Path] = []
    last_mark = -1
    for path in kept[:-2]:
        try:
            mark = head_of(path).events // EVENTS_APART
        except DamagedSnapshot:
            doomed.append(path)
            continue
        if mark <= last_mark or mark == 0:
            doomed.append(path)
        last_mark = max(mark, last_mark)
    doomed += [path for path in folder.glob(".*") if _is_of_the_dead(path)]
    for path in doomed:
        path.unlink(missing_ok=True)
    return doomed


def _is_of_the_dead(path: Path) -> bool:
    """Whether nobody will end what is there half-written."""
    found = _TEMPORARY.fullmatch(path.name)
    return found is not None and not Path("/proc", found[1]).exists()


def record_hash(entry: Entry) -> str:
    return hashlib.blake2b(entry.raw, digest_size=32).hexdigest()


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
