"""etcd's write-ahead log, read: segments of framed records, a CRC-32C over all of them, entries of raft.

A segment is ``SEQUENCE-INDEX.wal`` (both 16 hex digits; index: of the first entry that may be in it). A record has a
length (8 bytes, little-endian: 56 bits of length; if the highest bit is set, bits 56 to 58 say how many bytes of
padding follow), then walpb.Record: type 1, crc 2, data 3. The CRC goes on from record to record over their data, and
from segment to segment by a record of its own. Zeros behind the last record are room made beforehand.
"""

import re
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from actors.kv.bolt.errors import FolderError, MessageError
from actors.kv.bolt.messages import fields, raw, unsigned

METADATA, ENTRY, STATE, CRC, SNAPSHOT = 1, 2, 3, 4, 5
#: Kinds of raft's entries: a command, else changes of the members.
NORMAL = 0
#: A write is torn at a border of sectors, whose place stays zero.
SECTOR_BYTES = 512
FRAME_BYTES = 8

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


class Unmarked(FolderError):
    """The log doesn't know the snapshot."""


class Record(NamedTuple):
    """``offset``: of its frame in the file."""

    file: str
    offset: int
    type: int
    crc: int
    data: bytes


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry of raft. ``file`` and ``offset``: of its record."""

    index: int
    term: int
    type: int
    data: bytes
    file: str
    offset: int


def committed(folder: Path, index: int) -> list[Entry]:
    """The entries after ``index`` (a raft snapshot's, or 0) up to the last commit that the log in ``folder`` knows.

    Raises FolderError: nothing there, a broken record, entries or the snapshot's mark missing (Unmarked); OSError.
    """
    files = _segments(folder, index)
    entries: list[Entry] = []
    commit, marked = index, index == 0
    for record in _records(files):
        try:
            match record.type:
                case 2:
                    _keep(entries, _entry(record), index)
                case 3:
                    commit = unsigned(dict(fields(record.data)).get(3, 0))
                case 5:
                    marked |= unsigned(dict(fields(record.data)).get(1, 0)) == index
                case 1 | 4:
                    pass
                case other:
                    raise FolderError(record.file, record.offset, f"a record of type {other}")
        except MessageError as error:
            raise FolderError(record.file, record.offset, str(error)) from None
    last = files[-1]
    if not marked:
        raise Unmarked(last.name, 0, f"no mark of the snapshot at {index}: that is of another log")
    if commit > index + len(entries):
        raise FolderError(last.name, 0, f"commits up to {commit}, but entries end at {index + len(entries)}")
    return entries[: max(0, commit - index)]


def _segments(folder: Path, index: int) -> list[Path]:
    """From the last one that begins at or before ``index`` on."""
    found = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
    if not found:
        raise FolderError(folder.name, 0, "no *.wal in it")
    numbers = [(int(path.name[:16], 16), int(path.name[17:33], 16)) for path in found]
    first = max((at for at, (_number, begins) in enumerate(numbers) if begins <= index), default=None)
    if first is None:
        raise FolderError(found[0].name, 0, f"begins at {numbers[0][1]}, behind the snapshot at {index}")
    for at in range(first + 1, len(found)):
        if numbers[at][0] != numbers[at - 1][0] + 1:
            raise FolderError(found[at].name, 0, f"follows on {found[at - 1].name}: segments are missing")
    return found[first:]


def _keep(entries: list[Entry], entry: Entry, index: int) -> None:
    """A later entry of the same index takes back all from there on: a new leader said otherwise."""
    if entry.index <= index:
        return
    at = entry.index - index - 1
    if at > len(entries):
        raise FolderError(entry.file, entry.offset, f"entry {entry.index} after {index + len(entries)}")
    del entries[at:]
    entries.append(entry)


def _entry(record: Record) -> Entry:
    """raftpb.Entry: type 1, term 2, index 3, data 4."""
    numbers = {1: 0, 2: 0, 3: 0}
    data = b""
    for number, content in fields(record.data):
        if number in numbers:
            numbers[number] = unsigned(content)
        elif number == 4:
            data = raw(content)
    return Entry(numbers[3], numbers[2], numbers[1], data, record.file, record.offset)


# -- records --------------------------------------------------------------------------------------------------


def _records(files: list[Path]) -> Iterator[Record]:
    """Of segments in their order, each with the right CRC. A torn last record ends them."""
    total = 0
    for path in files:
        for record in _framed(path, path is files[-1]):
            if record.type == CRC:
                # the first segment read may be a later one: it tells where the CRC stood
                if total not in (0, record.crc):
                    raise FolderError(record.file, record.offset, "it goes on from another CRC than the segment before")
                total = record.crc
            else:
                total = crc32c(record.data, total)
                if total != record.crc:
                    if path is files[-1] and _torn(path, record):
                        return
                    raise FolderError(record.file, record.offset, "a wrong CRC")
            yield record


def _framed(path: Path, last: bool) -> Iterator[Record]:
    """What stands in one segment. ``last``: it may end within a record, which nobody was told of then."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at, end = 0, len(data)
        while at + FRAME_BYTES <= end:
            frame = int.from_bytes(data[at : at + FRAME_BYTES], "little")
            if not frame:
                return
            size, padding = frame & (1 << 56) - 1, (frame >> 56 & 7) if frame >> 63 else 0
            start = at + FRAME_BYTES
            if size + padding > end - start:
                if last:
                    return
                raise FolderError(path.name, at, f"a record of {size} bytes, of which {end - start} are there")
            try:
                yield _parsed(path.name, at, data[start : start + size])
            except MessageError as error:
                if last and _zero_sector(data[start : start + size], start):
                    return
                raise FolderError(path.name, at, str(error)) from None
            at = start + size + padding


def _parsed(name: str, at: int, content: bytes) -> Record:
    kind = crc = 0
    data = b""
    for number, value in fields(content):
        match number:
            case 1:
                kind = unsigned(value)
            case 2:
                crc = unsigned(value)
            case 3:
                data = raw(value)
    return Record(name, at, kind, crc, data)


def _torn(path: Path, record: Record) -> bool:
    with path.open("rb") as file:
        file.seek(record.offset)
        size = int.from_bytes(file.read(FRAME_BYTES), "little") & (1 << 56) - 1
        return _zero_sector(file.read(size), record.offset + FRAME_BYTES)


def _zero_sector(content: bytes, start: int) -> bool:
    """Whether a part of a record that is a sector's is all zeros."""
    at = 0
    while at < len(content):
        step = SECTOR_BYTES - (start + at) % SECTOR_BYTES
        if not any(content[at : at + step]):
            return True
        at += step
    return False
