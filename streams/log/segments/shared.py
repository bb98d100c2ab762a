"""The ``end`` file: the lock that excludes writers, and the durable end, published in shared memory.

Eight-byte words of a 4 KiB file that every process maps: a reader sees a new end by reading memory. The words
outlive the processes; after a crash of the machine they may be old (never too new: they are written after
fdatasync), which the boot id tells.
"""

import errno
import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crc32c import crc32c

from streams.log.port import ForeignLog, LogUnavailable
from streams.log.segments.kinds import Place as Place

SIZE_BYTES = 4096
_MAGIC = int.from_bytes(b"CLEND1\r\n", "little")
_W_MAGIC, _W_BOOT, _W_STATE, _W_END, _W_SEGMENT, _W_BYTE, _W_CHECK = 0, 1, 3, 4, 5, 6, 7
_W_READERS, _W_FILES, _W_ALLOCATED = 8, 9, 10

#: CLEAN: what was written is published. WRITING: a writer is at it, or died at it. FAILED: the segment's file
#: refused a write or its sync; what stands behind the durable end is void and the file is never written again.
CLEAN, WRITING, FAILED = 0, 1, 2


def boot_id() -> bytes:
    """16 bytes that are new at each boot of the machine."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))


class SharedEnd:
    """One process' handle on the ``end`` file. Never used over a fork: the lock would exclude nobody."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises LogUnavailable (permissions, no space)."""
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnavailable(f"{path}: {error.strerror}") from error
        try:
            if os.fstat(self.fd).st_size < SIZE_BYTES:
                with self.locked():
                    size = os.fstat(self.fd).st_size
                    if size < SIZE_BYTES:
                        # written, not only sized: a mapped page without a block would kill the process on a full disk
                        os.pwrite(self.fd, bytes(SIZE_BYTES - size), size)
            self._map = mmap.mmap(self.fd, SIZE_BYTES)
        except OSError as error:
            self.close()
            raise LogUnavailable(f"{path}: {error.strerror}") from error
        self._words = memoryview(self._map).cast("Q")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """As ``lock``, inside a block."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def lock(self, wait: bool = True) -> bool:
        """Exclude all other writers, of this process and others, until ``unlock``; blocks, or says that it is taken.

        Raises ForeignLog if the file was removed; then it isn't locked.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(self.fd).st_nlink == 0:
            self.unlock()
            raise ForeignLog(f"{self.path} was removed under a running process; restart what uses this log")
        return True

    def unlock(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    @property
    def removed(self) -> bool:
        return os.fstat(self.fd).st_nlink == 0

    @property
    def end(self) -> int:
        """One past the last durable offset: one aligned word, so it is read whole without a lock."""
        return self._words[_W_END]

    @property
    def files(self) -> int:
        """Changes whenever a segment file is begun or removed."""
        return self._words[_W_FILES]

    @property
    def readers(self) -> int:
        """Changes whenever a process begins to wait for records."""
        return self._words[_W_READERS]

    @property
    def state(self) -> int:
        return self._words[_W_STATE]

    @state.setter
    def state(self, state: int) -> None:
        self._words[_W_STATE] = state

    @property
    def allocated(self) -> int:
        """Bytes that the segment's file is known to have; 0: ask the file.

        Kept here because an fstat of a file makes the next write to it dirty its inode (multigrain timestamps), and
        the sync half as fast again.
        """
        return self._words[_W_ALLOCATED]

    @allocated.setter
    def allocated(self, size_bytes: int) -> None:
        self._words[_W_ALLOCATED] = size_bytes

    def announce_reader(self) -> None:
        # a random word and not a counter: two processes that count at once would lose one
        self._words[_W_READERS] = secrets.randbits(64)

    def place(self) -> Place | None:
        """The published place; None if it is not there or was torn by a crash while it was written."""
        words = self._words
        place = Place(words[_W_END], words[_W_SEGMENT], words[_W_BYTE])
        return place if words[_W_MAGIC] == _MAGIC and words[_W_CHECK] == _check(place) else None

    @property
    def of_this_boot(self) -> bool:
        return bytes(self._map[8 * _W_BOOT : 8 * _W_BOOT + 16]) == boot_id()

    def publish(self, place: Place, *, new_files: bool = False) -> None:
        """Make ``place`` the durable end. The end itself is written last: who sees it sees the rest."""
        words = self._words
        if new_files:
            words[_W_ALLOCATED] = 0
            words[_W_FILES] = (words[_W_FILES] + 1) & 0xFFFF_FFFF_FFFF_FFFF
        words[_W_SEGMENT], words[_W_BYTE], words[_W_CHECK] = place.segment, place.byte, _check(place)
        words[_W_END] = place.end

    def found(self, place: Place) -> None:
        """Write everything anew for this boot (under the lock, after recovery)."""
        self._words[_W_CHECK] = 0  # killed in here, nobody takes old words for those of this boot
        self._words[_W_MAGIC] = _MAGIC
        self._map[8 * _W_BOOT : 8 * _W_BOOT + 16] = boot_id()
        self.publish(place, new_files=True)
        self.state = CLEAN

    def close(self) -> None:
        """Let go now; without it, when nobody refers to it any more (a read in a thread may outlive its log)."""
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            if hasattr(self, "_words"):
                self._words.release()
                self._map.close()
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def peek(path: Path) -> tuple[Place | None, bool]:
    """The published place and whether it is of this boot, by reading the file alone: for a look without the lock."""
    for _ in range(100):
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None, False
        if len(raw) < SIZE_BYTES:
            return None, False
        words = struct.unpack_from("<8Q", raw)
        place = Place(words[_W_END], words[_W_SEGMENT], words[_W_BYTE])
        if words[_W_MAGIC] == _MAGIC and words[_W_CHECK] == _check(place):
            return place, raw[8 * _W_BOOT : 8 * _W_BOOT + 16] == boot_id()
    return None, False


def _check(place: Place) -> int:
    return crc32c(struct.pack("<3Q", *place)) | 0x1_0000_0000


def is_full(error: OSError) -> bool:
    """Whether it says that there is no room (and that there may be some later)."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
