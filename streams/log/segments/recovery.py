"""Finding the durable end again: after a crash of the machine, or when the published one is gone.

Whole frames are kept. A bad frame at the tail is cut; a bad frame before any durable end that somebody knew
(the published one, or one that stands in a later frame) is damage: nothing is changed and DamagedLog is raised.
"""

import os
from pathlib import Path
from typing import NamedTuple

from streams.log.segments import files
from streams.log.segments.frames import (
    SEGMENT_HEADER_BYTES,
    DamagedLog,
    Frame,
    NotASegment,
    Stop,
    is_clean_end,
    known_end_after,
    walk,
)
from streams.log.segments.shared import Place


class Scan(NamedTuple):
    """What stands in one segment: the end of its whole frames, and what is behind (``torn``: something is)."""

    byte: int
    end: int
    known_end: int
    torn: bool
    reason: str
    records: int
    frames: int


def scan(path: Path, first: int, until: int | None = None) -> Scan:
    """Walk all frames of a segment, read-only. ``known_end`` is the greatest that any whole frame in it knew."""
    raw = path.read_bytes()
    known = frames = records = 0
    for step in walk(raw, first, until):
        if isinstance(step, Frame):
            known = max(known, step.known_end)
            frames += 1
            records += len(step.raws)
            continue
        byte, end, stop = step
        if stop is Stop.REACHED or is_clean_end(raw, byte):
            return Scan(byte, end, known, False, "", records, frames)
        return Scan(byte, end, max(known, known_end_after(raw, byte)), True, stop.value, records, frames)
    raise AssertionError("walk ends with where it stopped")


def recover(folder: Path, published: Place | None) -> Place:
    """The durable end, from the files (under the lock). Cuts a torn tail and syncs what it keeps.

    ``published``: the last place that was published, if it could be read; of an earlier boot it may be old, never
    too new. Raises DamagedLog, ForeignLog (a newer format), OSError. An empty folder gets its first segment.
    """
    files.remove_unfinished(folder)
    firsts = files.segments(folder)
    durable = published.end if published is not None else 0
    if not firsts:
        path = files.segment_path(folder, 0)
        if durable:
            raise DamagedLog(path, 0, 0, "all segments are gone", durable)
        files.adopt(files.create_segment(folder, 0))
        return Place(0, 0, SEGMENT_HEADER_BYTES)
    first = firsts[-1]
    path = files.segment_path(folder, first)
    file = files.OpenFile(path, os.O_RDWR)
    try:
        files.check_header(file, first)
    except NotASegment as error:
        raise DamagedLog(path, 0, first, str(error), max(durable, first)) from error
    found = scan(path, first)
    known = max(durable, found.known_end)
    if found.end < known:
        raise DamagedLog(path, found.byte, found.end, found.reason or "the log ends here", known)
    if found.torn:
        files.cut(file.fd, found.byte)
    else:
        os.fsync(file.fd)
    return Place(found.end, first, found.byte)
