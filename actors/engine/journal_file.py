"""The journal of a unit: a file of lines, rotated by size. Imports only ``os`` and ``time``: shims use it.

    <microseconds since 1970> <O|E|S> <text>\\n

``O``: standard output, ``E``: standard error, ``S``: said by the supervisor or the shim about the unit. The newest
lines are in ``journal``, those before in ``journal.1``. Reading and following: :mod:`actors.engine.journal`.
"""

import os
import time

NAME, OLD = "journal", "journal.1"
#: A line longer than this is split.
LINE_BYTES_MAX = 48 * 1024


class JournalFile:
    """Appends lines to ``folder/journal``. A full disk loses lines, never the unit: the next line says how many.

    ``size_max_bytes``: of one file; two are kept.
    """

    def __init__(self, folder: str, size_max_bytes: int = 8 * 1024 * 1024) -> None:
        self._folder = folder
        self._size_max_bytes = size_max_bytes
        self._rest: dict[str, bytes] = {}
        self._lost = 0
        self._open()

    def _open(self) -> None:
        path = f"{self._folder}/{NAME}"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size_bytes = os.fstat(self._fd).st_size
        if self._size_bytes and os.pread(self._fd, 1, self._size_bytes - 1) != b"\n":
            self._put(b"\n")  # a torn last line ends here

    def close(self) -> None:
        os.close(self._fd)

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self._lines("S", text.encode("utf-8", "replace").replace(b"\n", b" ").splitlines())

    def feed(self, stream: str, raw: bytes) -> None:
        """Bytes as they came from the unit's ``O`` or ``E``; whole lines are written, the rest waits."""
        raw = self._rest.pop(stream, b"") + raw
        lines = raw.split(b"\n")
        rest = lines.pop()
        while len(rest) > LINE_BYTES_MAX:
            lines.append(rest[:LINE_BYTES_MAX])
            rest = rest[LINE_BYTES_MAX:]
        if rest:
            self._rest[stream] = rest
        self._lines(stream, lines)

    def finish(self, stream: str) -> None:
        """The stream ended: what waits for its newline is a line."""
        if rest := self._rest.pop(stream, b""):
            self._lines(stream, [rest])

    def line(self, stream: str, text: bytes, time_us: int) -> None:
        """One line whose time is known (0: now)."""
        self._lines(stream, [text.replace(b"\n", b" ")], time_us)

    def _lines(self, stream: str, lines: list[bytes], time_us: int = 0) -> None:
        if not lines:
            return
        head = f"{time_us or time.time_ns() // 1000} {stream} ".encode()
        out = bytearray()
        for line in lines:
            for at in range(0, max(1, len(line)), LINE_BYTES_MAX):
                out += head + line[at : at + LINE_BYTES_MAX].rstrip(b"\r") + b"\n"
        if self._lost:
            note = f"{time.time_ns() // 1000} S {self._lost} lines could not be written here\n".encode()
            if not self._put(note):
                self._lost += len(lines)
                return
            self._lost = 0
        if not self._put(bytes(out)):
            self._lost += len(lines)

    def _put(self, raw: bytes) -> bool:
        if self._size_bytes and self._size_bytes + len(raw) > self._size_max_bytes:
            self._rotate()
        try:
            written = os.write(self._fd, raw)
            if written < len(raw):
                written += os.write(self._fd, raw[written:])
        except OSError:
            os.ftruncate(self._fd, self._size_bytes)
            return False
        self._size_bytes += written
        return True

    def _rotate(self) -> None:
        try:
            os.replace(f"{self._folder}/{NAME}", f"{self._folder}/{OLD}")
        except OSError:
            os.ftruncate(self._fd, 0)
            self._size_bytes = 0
            return
        os.close(self._fd)
        self._open()
