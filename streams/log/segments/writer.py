"""Appending: one commit under the lock, in the order cut, write, sync, publish.

A writer may die at any line. What it leaves is told by the state word of the ``end`` file: the next writer cuts
what was not published, or after a failed sync leaves that file for good and begins a new segment. Blocking calls
only: the driver calls it in a thread of its own.
"""

import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from streams.log.port import LogError, LogUnavailable, OutcomeUnknown
from streams.log.segments import files, frames
from streams.log.segments.frames import FRAME_MAGIC, SEGMENT_HEADER_BYTES, DamagedLog
from streams.log.segments.recovery import recover
from streams.log.segments.shared import CLEAN, FAILED, WRITING, Place, SharedEnd, is_full
from streams.took import Took

SEGMENT_BYTES = 64 * 1024 * 1024
#: Allocated space that only small commits may use when the disk is full: renewals, resignations, tombstones.
RESERVE_BYTES = 128 * 1024
SMALL_BYTES = 4096
#: As etcd counts those of its WAL.
SYNC_BOUNDS_S = [0.001 * 2**power for power in range(14)]


class Writer:
    """One process' writer on a folder. Offsets, segment and byte come from the shared end at each commit."""

    def __init__(self, folder: Path, shared: SharedEnd, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.shared = shared
        self.segment_bytes = segment_bytes
        self._file: files.OpenFile | None = None
        self._files_seen = -1
        #: where the last commit of this writer ended
        self.reached = Place(0, 0, 0)
        #: of what is written and made durable
        self.synced = Took(SYNC_BOUNDS_S)

    def open(self) -> None:
        """Bring the folder in order under the lock. Raises DamagedLog, ForeignLog, LogUnavailable."""
        shared = self.shared
        try:
            with shared.locked():
                place = shared.place()
                if place is None or not shared.of_this_boot or self._is_behind(place):
                    shared.found(recover(self.folder, place))
                elif shared.state == WRITING:
                    self._cut_unpublished(place)
        except OSError as error:
            raise LogUnavailable(f"{self.folder}: {error.strerror or error}") from error

    def _is_behind(self, place: Place) -> bool:
        """Whether a clean ``end`` file is older than its segments (brought back from a copy), or they are gone."""
        if self.shared.state != CLEAN:
            return False
        try:
            file = files.OpenFile(files.segment_path(self.folder, place.segment))
        except FileNotFoundError:
            return True
        if file.size() < place.byte or file.read(4, place.byte) == FRAME_MAGIC:
            return True
        return files.segments(self.folder)[-1] != place.segment

    def commit(self, raws: Sequence[bytes]) -> int:
        """Append records; returns the offset of the first one when all are durable and published.

        Raises LogUnavailable (nothing is visible, now or later), OutcomeUnknown, DamagedLog.
        """
        found = self.try_commit(raws, wait=True)
        assert found is not None
        return found

    def try_commit(self, raws: Sequence[bytes], wait: bool = False) -> int | None:
        """As ``commit``; None, and nothing is done, if another process is at it and ``wait`` isn't said."""
        shared = self.shared
        try:
            if not shared.lock(wait):
                return None
            try:
                return self._commit(raws)
            finally:
                shared.unlock()
        except LogError:
            raise
        except OSError as error:
            raise LogUnavailable(f"{self.folder}: {error.strerror or error}; nothing was written") from error

    def _commit(self, raws: Sequence[bytes]) -> int:
        place = self._ready()
        data = frames.frames(place.end, raws, place.end)
        place = self._make_room(place, len(data))
        return self._write(place, data, len(raws))

    def commit_hole(self, count: int) -> int:
        """Say that ``count`` offsets hold nothing (a copy of a log with holes). Raises like ``commit``."""
        try:
            with self.shared.locked():
                place = self._ready()
                data = frames.hole_frame(place.end, count, place.end)
                place = self._make_room(place, len(data))
                return self._write(place, data, count)
        except OSError as error:
            raise LogUnavailable(f"{self.folder}: {error.strerror or error}; nothing was written") from error

    def begin_at(self, first: int) -> None:
        """Make an empty log begin at offset ``first`` (a copy of a trimmed log). Raises LogUnavailable, ValueError."""
        try:
            with self.shared.locked():
                place = self._ready()
                if place != Place(0, 0, SEGMENT_HEADER_BYTES):
                    raise ValueError(f"{self.folder} isn't empty")
                self.shared.state = WRITING
                files.adopt(files.create_segment(self.folder, first))
                self.shared.publish(Place(first, first, SEGMENT_HEADER_BYTES), new_files=True)
                self.shared.state = CLEAN
                files.segment_path(self.folder, 0).unlink()
        except OSError as error:
            raise LogUnavailable(f"{self.folder}: {error.strerror or error}") from error

    def trim(self, before: int) -> None:
        """Remove whole segments whose records are all below ``before``; never the one that is written."""
        try:
            with self.shared.locked():
                place = self._ready()
                firsts = files.segments(self.folder)
                gone = [first for first, following in pairwise(firsts) if following <= before]
                for first in gone:
                    files.segment_path(self.folder, first).unlink()
                if gone:
                    files.sync_folder(self.folder)
                    self.shared.publish(place, new_files=True)
        except OSError as error:
            raise LogUnavailable(f"{self.folder}: {error.strerror or error}") from error

    def _ready(self) -> Place:
        """The place to write at, with the segment's file open and what a dead writer left cut."""
        place = self.shared.place()
        if place is None:  # a writer was killed between two words of it
            place = recover(self.folder, None)
            self.shared.found(place)
        if self.shared.state == WRITING:
            self._cut_unpublished(place)
        if self.shared.state == FAILED:
            place = self._leave_failed(place)
        if self._file is None or self._files_seen != self.shared.files:
            try:
                self._file = files.OpenFile(files.segment_path(self.folder, place.segment), os.O_RDWR)
            except FileNotFoundError as error:
                path = files.segment_path(self.folder, place.segment)
                raise DamagedLog(path, place.byte, place.end, "the file is gone", place.end) from error
            self._files_seen = self.shared.files
        return place

    def _cut_unpublished(self, place: Place) -> None:
        """A writer died in mid-write: cut the segment to the durable end, and remove one that it began."""
        files.remove_unfinished(self.folder)
        for first in files.segments(self.folder):
            if first >= place.end and first != place.segment:
                files.segment_path(self.folder, first).unlink()
                files.sync_folder(self.folder)
        files.OpenFile(files.segment_path(self.folder, place.segment), os.O_RDWR).cut(place.byte)
        self.shared.publish(place, new_files=True)
        self.shared.state = CLEAN

    def _leave_failed(self, place: Place) -> Place:
        """After a failed sync the kernel may have thrown pages away: go on in a new file. Raises OSError."""
        new = files.create_segment(self.folder, place.end)
        files.adopt(new)
        place = Place(place.end, place.end, SEGMENT_HEADER_BYTES)
        self.shared.publish(place, new_files=True)
        self.shared.state = CLEAN
        return place

    def _make_room(self, place: Place, size_bytes: int) -> Place:
        """Rotate a full segment and allocate space ahead. Raises LogUnavailable when the disk is full.

        A small commit may use the reserve, and stays in a segment that is too long rather than fail.
        """
        assert self._file is not None
        try:
            if place.byte >= self.segment_bytes:
                place = self._rotate(place)
            size = self.shared.allocated or self._file.size()
            if size - place.byte < size_bytes + RESERVE_BYTES:
                grown = place.byte + size_bytes + RESERVE_BYTES + files.GROW_BYTES
                os.posix_fallocate(self._file.fd, size, grown - size)
                size = grown
            self.shared.allocated = size
        except OSError as error:
            if not is_full(error) or self.shared.state == WRITING:
                raise  # in mid-rotation: the next commit removes what was begun
            room = self._file.size() - place.byte
            if size_bytes > room or size_bytes > SMALL_BYTES:
                raise LogUnavailable(f"the disk of {self.folder} is full; nothing was written") from error
        return place

    def _rotate(self, place: Place) -> Place:
        """Begin a new segment: make it whole under another name, sync the old one, then give it its name.

        Killed in between, the state word makes the next writer remove what was begun.
        """
        assert self._file is not None
        new = files.create_segment(self.folder, place.end)
        self.shared.state = WRITING
        self._file.cut(place.byte)
        path = files.adopt(new)
        place = Place(place.end, place.end, SEGMENT_HEADER_BYTES)
        self._file = files.OpenFile(path, os.O_RDWR)
        self.shared.publish(place, new_files=True)
        self.shared.state = CLEAN
        self._files_seen = self.shared.files
        return place

    def _write(self, place: Place, data: bytes, count: int) -> int:
        assert self._file is not None
        shared, fd = self.shared, self._file.fd
        shared.state = WRITING
        try:
            files.write_all(fd, data, place.byte)
            began_s = time.monotonic()
            files.sync_data(fd)
        except OSError as error:
            self._take_back(place, error)
        self.synced.add(time.monotonic() - began_s)
        self.reached = Place(place.end + count, place.segment, place.byte + len(data))
        shared.publish(self.reached)
        shared.state = CLEAN
        return place.end

    def _take_back(self, place: Place, error: OSError) -> None:
        """A write or its sync failed: cut it away, and say whether that is sure."""
        assert self._file is not None
        reason = f"{self._file.path}: {error.strerror or error}"
        try:
            self.shared.allocated = 0
            self._file.cut(place.byte)
        except OSError as second:
            self._seal()
            raise OutcomeUnknown(f"{reason}, and cutting it away failed too: {second.strerror or second}") from error
        if is_full(error):
            self.shared.state = CLEAN
            raise LogUnavailable(f"{reason}; nothing was written") from error
        self._seal()
        raise LogUnavailable(f"{reason}; it was cut away and that file is sealed") from error

    def _seal(self) -> None:
        """Never write that file again. The new segment is begun here if it can be, else by the next commit."""
        self.shared.state = FAILED
        self._file = None
