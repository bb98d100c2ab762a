"""Waking readers in other processes: a datagram socket for each in the folder ``wake/``.

A process that waits binds ``wake/<pid>-<random>.sock`` and changes the readers' word of the ``end`` file; who
appends sends a byte to each socket there. A socket whose process is gone refuses, and is removed. Paths go by
``/proc/self/fd`` because a socket's address has room for 107 bytes only.
"""

import contextlib
import os
import secrets
import socket
from pathlib import Path

from streams.log.segments.shared import SharedEnd

FOLDER = "wake"
SUFFIX = ".sock"


class Bell:
    """The receiving end, of one process. ``socket`` becomes readable when somebody appended."""

    def __init__(self, folder: Path, shared: SharedEnd) -> None:
        """Raises OSError."""
        self._fd = os.open(_made(folder), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.name = f"{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.bind(f"/proc/self/fd/{self._fd}/{self.name}")
        except OSError:
            self.close()
            raise
        shared.announce_reader()

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(16):
                pass

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self._fd)
        os.close(self._fd)


class Ringer:
    """The sending end, of one writer's thread."""

    def __init__(self, folder: Path, shared: SharedEnd) -> None:
        self._shared = shared
        self._fd = os.open(_made(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._seen: int | None = None
        self._bells: dict[str, socket.socket] = {}

    def ring(self, own: str = "") -> None:
        """Wake all that wait, but the bell ``own`` of the same process. Never raises, never blocks."""
        if self._shared.readers != self._seen:
            self._look(own)
        for name, bell in list(self._bells.items()):
            try:
                bell.send(b"!")
            except BlockingIOError:
                pass  # it has bytes to read already
            except OSError:
                self._forget(name)

    def _look(self, own: str) -> None:
        self._seen = self._shared.readers
        names = {name for name in os.listdir(self._fd) if name.endswith(SUFFIX) and name != own}
        for gone in self._bells.keys() - names:
            self._bells.pop(gone).close()
        for name in sorted(names - self._bells.keys()):
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._bells[name] = bell
            try:
                bell.connect(f"/proc/self/fd/{self._fd}/{name}")
            except OSError:
                self._forget(name)

    def _forget(self, name: str) -> None:
        """Its process is gone: remove the socket's file."""
        self._bells.pop(name).close()
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        for bell in self._bells.values():
            bell.close()
        self._bells.clear()
        os.close(self._fd)


def _made(folder: Path) -> Path:
    path = folder / FOLDER
    path.mkdir(exist_ok=True)
    return path
