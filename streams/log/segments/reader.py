"""Reading: a cursor over the segments of a folder, never past the published end. Blocking, no locks."""

import os
from pathlib import Path

from streams.log.port import LogTruncated, LogUnavailable
from streams.log.segments import files
from streams.log.segments.frames import (
    SEGMENT_HEADER_BYTES,
    DamagedLog,
    NotASegment,
    Stop,
    decode,
    is_clean_end,
    skip_to,
)
from streams.log.segments.shared import Place, SharedEnd
from streams.records import Entry

#: What one read takes from the file: about a millisecond of decoding.
CHUNK_BYTES = 256 * 1024
SEEK_BYTES = 1024 * 1024


class Cursor:
    """Reads on from an offset. ``offset`` is the next one that it will yield (or the first after a hole)."""

    def __init__(self, folder: Path, shared: SharedEnd, start: int) -> None:
        """Raises LogTruncated if ``start`` is below the first offset or above the end, DamagedLog, LogUnavailable."""
        self.folder = folder
        self._shared = shared
        self.offset = start
        self._file: files.OpenFile | None = None
        self._segment = 0
        self._byte = SEGMENT_HEADER_BYTES
        #: where the next segment begins; frames of this one at and above it are void (its file had failed)
        self._until: int | None = None
        self._files_seen = -1
        #: entries below this are dropped: a frame may begin before the offset that was asked for
        self._wanted = start
        end = shared.end
        first = first_offset(folder)
        if not first <= start <= end:
            raise LogTruncated(f"offset {start} is outside of the log in {folder} ({first} to {end})")
        self._seek(start)

    def read(self, chunk_bytes: int = CHUNK_BYTES) -> list[Entry]:
        """The next entries, about ``chunk_bytes`` of them; empty at the durable end.

        Raises DamagedLog at a bad frame, LogTruncated if a trim overtook it, LogUnavailable if it can't be read.
        """
        out: list[Entry] = []
        while not out and self.offset < (end := self._shared.end):
            self._look_for_files()
            if self._until is not None and self.offset >= self._until:
                self._enter(self.offset)
            limit = end if self._until is None else min(end, self._until)
            self._read(limit, chunk_bytes, out)
            if out and out[0].offset < self._wanted:
                out = [entry for entry in out if entry.offset >= self._wanted]
        return out

    def pass_over(self, known: Place) -> None:
        """Go on at ``known``, a place where a frame ended, if it is ahead: what stands before it isn't wanted."""
        if known.end <= self.offset:
            return
        if known.segment == self._segment and self._files_seen == self._shared.files:
            self._byte, self.offset = known.byte, known.end
        else:
            self._wanted = max(self._wanted, known.end)
            self._seek(known.end, known)

    def _read(self, limit: int, chunk_bytes: int, out: list[Entry]) -> None:
        assert self._file is not None
        buffer = self._pread(self._ahead(chunk_bytes))
        used, offset, stop = decode(buffer, 0, self.offset, limit, out)
        if used == 0 and stop is Stop.SHORT and len(buffer) == chunk_bytes:
            return self._read(limit, 4 * chunk_bytes, out)  # one frame larger than the chunk
        self._byte += used
        self.offset = offset
        if used == 0 and stop is not Stop.REACHED and not self._reopened():
            reason = "the file ends here" if is_clean_end(buffer, 0) else stop.value
            raise DamagedLog(self._file.path, self._byte, self.offset, reason, self._shared.end)
        return None

    def _ahead(self, chunk_bytes: int) -> int:
        """At most ``chunk_bytes``, and no more than is published: what is allocated beyond it is only noughts."""
        place = self._shared.place()
        if place is None or place.segment != self._segment or place.byte <= self._byte:
            return chunk_bytes
        return min(chunk_bytes, place.byte - self._byte)

    def _reopened(self) -> bool:
        """Whether the trouble was only that the segments have changed since the file was opened."""
        assert self._file is not None
        if self._file.replaced or self._files_seen != self._shared.files:
            self._enter(self.offset)
            return True
        return False

    def _pread(self, size: int) -> bytes:
        assert self._file is not None
        try:
            return os.pread(self._file.fd, size, self._byte)
        except OSError as error:
            raise LogUnavailable(f"{self._file.path} at byte {self._byte}: {error.strerror}") from error

    def _look_for_files(self) -> None:
        seen = self._shared.files
        if seen != self._files_seen:
            later = [first for first in _listed(self.folder) if first > self._segment]
            self._until = later[0] if later else None
            self._files_seen = seen

    def _enter(self, offset: int) -> None:
        """Open the segment that holds ``offset`` and find it in there; nothing is yielded twice."""
        self._wanted = max(self._wanted, offset)
        self._seek(offset)

    def _seek(self, offset: int, known: Place | None = None) -> None:
        # read before the listing: a file that appears in between is found at the next look
        seen = self._shared.files
        firsts = _listed(self.folder)
        below = [first for first in firsts if first <= offset]
        if not below:
            if firsts:
                raise LogTruncated(f"offset {offset} was trimmed; the log in {self.folder} starts at {firsts[0]}")
            raise DamagedLog(files.segment_path(self.folder, offset), 0, offset, "no segment is here", offset)
        segment = below[-1]
        path = files.segment_path(self.folder, segment)
        # nothing of the cursor changes before the file is there: who reads on after a trouble must find it as it was
        try:
            file = files.OpenFile(path)
            files.check_header(file, segment)
        except FileNotFoundError:
            raise LogTruncated(f"offset {offset} was trimmed while it was looked for") from None
        except OSError as error:
            raise LogUnavailable(f"{path}: {error.strerror}") from error
        except NotASegment as error:
            raise DamagedLog(path, 0, segment, str(error), self._shared.end) from error
        self._file, self._segment, self._files_seen = file, segment, seen
        self._until = firsts[len(below)] if len(below) < len(firsts) else None
        self._byte = SEGMENT_HEADER_BYTES
        self.offset = segment
        self._jump(offset, known or self._shared.place())

    def _jump(self, target: int, place: Place | None) -> None:
        """Hop over the frames before ``target``; to ``place`` at once if that is it."""
        if place is not None and (place.segment, place.end) == (self._segment, target):
            self._byte, self.offset = place.byte, place.end
            return
        need = SEEK_BYTES
        while self.offset < target:
            buffer = self._pread(max(need, SEEK_BYTES))
            used, self.offset, need = skip_to(buffer, 0, self.offset, target)
            self._byte += used
            if need == 0 or not buffer or (used == 0 and len(buffer) < max(need, SEEK_BYTES)):
                return


def _listed(folder: Path) -> list[int]:
    try:
        return files.segments(folder)
    except OSError as error:
        raise LogUnavailable(f"{folder}: {error.strerror}") from error


def first_offset(folder: Path) -> int:
    """The first offset of the log's first segment."""
    firsts = files.segments(folder)
    return firsts[0] if firsts else 0
