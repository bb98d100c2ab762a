"""inotify on an asyncio loop: to be woken by a file's change instead of looking again and again. Linux only."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable

MODIFY, MOVED_TO, CREATE, DELETE, DELETE_SELF = 0x2, 0x80, 0x100, 0x200, 0x400
OVERFLOW = 0x4000
_HEAD = struct.calcsize("iIII")


class Inotify:
    """Calls ``heard(watch, mask, name)`` on the running loop for every event. ``close`` ends it."""

    def __init__(self, heard: Callable[[int, int, str], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify can't be set up (fs.inotify.max_user_instances?)")
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable)

    def add(self, path: str, mask: int) -> int:
        """Watch a file or folder; returns the watch's number. Raises OSError."""
        watch = int(self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask))
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return watch

    def remove(self, watch: int) -> None:
        """Stop watching; nothing happens if the watch is gone already."""
        self._libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            raw = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(raw) and self._fd >= 0:
            watch, mask, _cookie, size = struct.unpack_from("iIII", raw, at)
            name = raw[at + _HEAD : at + _HEAD + size].rstrip(b"\0")
            at += _HEAD + size
            self._heard(watch, mask, os.fsdecode(name))
