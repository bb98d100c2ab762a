"""The folder of a log: names, listing, and making and removing segment files so that a crash leaves old or new."""

import ctypes
import errno
import os
from pathlib import Path

from streams.log.port import ForeignLog, LogUnavailable
from streams.log.segments.frames import SEGMENT_HEADER_BYTES, NotASegment, read_segment_header, segment_header

SUFFIX = ".seg"
NEW_SUFFIX = ".seg.new"
#: Space is allocated ahead in steps of this, so that a sync needn't write the file's size too (twice as fast) and
#: a full disk is met before a record is half written.
GROW_BYTES = 1024 * 1024

#: statfs(2) types where a lock or a sync isn't what it says, or a mapped page isn't shared between machines.
REMOTE_FILESYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x01021997: "9p",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
}


def filesystem_type(path: Path) -> int:
    """``f_type`` of statfs(2)."""
    buffer = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(ctypes.c_ulong.from_buffer(buffer).value) & 0xFFFF_FFFF


def refuse_remote(folder: Path) -> None:
    """Raises ForeignLog on a network file system."""
    name = REMOTE_FILESYSTEMS.get(filesystem_type(folder))
    if name is not None:
        raise ForeignLog(
            f"{folder} is on {name}, where locks and syncs don't hold; put the log on a local disk, or use Kafka"
        )


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segment_path(folder: Path, first: int) -> Path:
    return folder / f"{first:020d}{SUFFIX}"


def segments(folder: Path) -> list[int]:
    """First offsets of the segments, in order."""
    names = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
    return sorted(int(name) for name in names if name.isdigit())


def create_segment(folder: Path, first: int) -> Path:
    """Make a new segment under a temporary name, synced, with space ahead. ``adopt`` gives it its name.

    Raises OSError; then nothing is left.
    """
    path = segment_path(folder, first).with_suffix(NEW_SUFFIX)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, GROW_BYTES)
        os.pwrite(fd, segment_header(first), 0)
        os.fsync(fd)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return path


def adopt(new: Path) -> Path:
    """Rename a file of ``create_segment`` to its own name, durably. Replaces an empty one that failed."""
    path = new.with_name(new.name.removesuffix(NEW_SUFFIX) + SUFFIX)
    os.rename(new, path)
    sync_folder(new.parent)
    return path


def remove_unfinished(folder: Path) -> None:
    for name in os.listdir(folder):
        if name.endswith(NEW_SUFFIX):
            os.unlink(folder / name)


def write_all(fd: int, data: bytes, at: int) -> None:
    """pwrite until all is written. A module function so that tests can put a failing disk in its place."""
    written = os.pwrite(fd, data, at)
    while written < len(data):
        more = os.pwrite(fd, memoryview(data)[written:], at + written)
        if more == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more


def sync_data(fd: int) -> None:
    os.fdatasync(fd)


def cut(fd: int, byte: int) -> None:
    """Cut a file's tail and make that durable."""
    os.ftruncate(fd, byte)
    os.fsync(fd)


class OpenFile:
    """A file descriptor that closes when nobody refers to it: a cancelled read may still use it in a thread.

    Compiled code lets go of what it doesn't name again: it uses the file by these methods, never ``fd`` of a local.
    """

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.path = path
        self.fd = os.open(path, flags | os.O_CLOEXEC)
        self.inode = os.fstat(self.fd).st_ino

    def __del__(self) -> None:
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def size(self) -> int:
        """Bytes, with what is allocated ahead."""
        return os.fstat(self.fd).st_size

    def read(self, size_bytes: int, at: int) -> bytes:
        return os.pread(self.fd, size_bytes, at)

    def cut(self, byte: int) -> None:
        """Cut its tail and make that durable."""
        cut(self.fd, byte)

    @property
    def replaced(self) -> bool:
        """Whether another file has its name by now."""
        try:
            return os.stat(self.path).st_ino != self.inode
        except FileNotFoundError:
            return False


def check_header(file: OpenFile, first: int) -> None:
    """Raises ForeignLog on a newer format, LogUnavailable when it can't be read, NotASegment if damaged."""
    try:
        raw = os.pread(file.fd, SEGMENT_HEADER_BYTES, 0)
    except OSError as error:
        raise LogUnavailable(f"{file.path}: {error.strerror}") from error
    if raw[:5] == b"CLSEG" and raw[6:8] == b"\r\n" and raw[5:6] != b"1" and raw[5:6].isdigit():
        raise ForeignLog(f"{file.path} has segment format {raw[5:6].decode()}, this version reads 1; upgrade corelog")
    found = read_segment_header(raw)
    if found != first:
        raise NotASegment(f"its header says that it begins at record {found}")
