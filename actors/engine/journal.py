"""Reading and following a unit's journal (``corelog unit journal -f``, the gateway). Format: journal_file."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from actors.engine import inotify
from actors.engine.journal_file import NAME, OLD

_BLOCK = 65536
#: What a file system takes as one name.
NAME_BYTES_MAX = 255
STREAMS = {"O": "stdout", "E": "stderr", "S": "corelog"}


class Line(NamedTuple):
    """``time_us``: microseconds since 1970. ``stream``: stdout, stderr, or corelog (said about the unit)."""

    time_us: int
    stream: str
    text: str


class NoJournal(LookupError):
    """The unit has never run on this machine, or what it left was removed."""

    exit_code = 3
    http_status = 404


def unit_folder(folder: str | Path, unit: str) -> Path:
    """Where a unit's journal and status are, under the node's data folder. Raises ValueError on an odd name."""
    if not unit or "/" in unit or "\0" in unit or unit.startswith(".") or len(os.fsencode(unit)) > NAME_BYTES_MAX:
        raise ValueError(f"{unit!r} is not a unit's name")
    return Path(folder) / "engine" / "units" / unit


def parse_line(raw: bytes) -> Line | None:
    """One line of a journal file; None if it is none of ours (torn by a crash)."""
    time_us, _, rest = raw.rstrip(b"\n").partition(b" ")
    stream, _, text = rest.partition(b" ")
    name = STREAMS.get(stream.decode("ascii", "replace"))
    if name is None or not time_us.isdigit() or len(time_us) > 18:
        return None
    return Line(int(time_us), name, text.decode("utf-8", "replace"))


def read(folder: str | Path, unit: str, lines: int = 100) -> list[Line]:
    """The newest ``lines`` lines, oldest first (0: all that are kept). Raises NoJournal."""
    where = unit_folder(folder, unit)
    found: list[Line] = []
    seen = False
    for name in (NAME, OLD):
        try:
            blocks = _backwards(where / name)
            for raw in blocks:
                line = parse_line(raw)
                if line is not None:
                    found.append(line)
                if lines and len(found) >= lines:
                    return found[::-1]
            seen = True
        except FileNotFoundError:
            continue
    if not seen and not found:
        raise NoJournal(f"{unit} has no journal on this machine; `corelog unit status {unit}` says where it runs")
    return found[::-1]


def _backwards(path: Path) -> Iterator[bytes]:
    """Lines of a file, last first; a line that is still being written (no newline yet) is left out."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        rest, first = b"", True
        while at:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            parts = (file.read(size) + rest).split(b"\n")
            rest = parts.pop(0)
            for part in reversed(parts):
                if part and not first:
                    yield part
                first = False
        if rest and not first:
            yield rest


async def follow(folder: str | Path, unit: str, lines: int = 10) -> AsyncIterator[Line]:
    """The newest ``lines`` lines and then every new one, across rotations and restarts; ends when the unit's folder
    is removed. Woken by inotify. Raises NoJournal."""
    where = unit_folder(folder, unit)
    changed = asyncio.Event()
    watcher = inotify.Inotify(lambda *_: changed.set())
    try:
        try:
            watcher.add(
                str(where), inotify.CREATE | inotify.MOVED_TO | inotify.MODIFY | inotify.DELETE_SELF | inotify.DELETE
            )
        except FileNotFoundError as error:
            raise NoJournal(f"{unit} has no journal on this machine") from error
        # the file is opened before its lines are read, so that no line falls between
        file = _Tail(where / NAME)
        try:
            for line in read(folder, unit, lines) if lines else []:
                yield line
            while True:
                for line in file.new():
                    yield line
                if not where.exists():
                    return
                await changed.wait()
                changed.clear()
        finally:
            file.close()
    finally:
        watcher.close()


class _Tail:
    """What is appended to a file after it was opened; goes on with its successor when it was rotated away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._fd = -1
        self._open()
        if self._fd >= 0:
            size = os.fstat(self._fd).st_size
            os.lseek(self._fd, size, os.SEEK_SET)

    def _open(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def new(self) -> Iterator[Line]:
        while True:
            if self._fd < 0:
                self._open()
            if self._fd < 0:
                return
            yield from self._lines()
            try:
                rotated = os.stat(self._path).st_ino != os.fstat(self._fd).st_ino
            except FileNotFoundError:
                rotated = False
            if not rotated:
                return
            yield from self._lines()
            self.close()
            self._rest = b""

    def _lines(self) -> Iterator[Line]:
        if os.lseek(self._fd, 0, os.SEEK_CUR) > os.fstat(self._fd).st_size:
            os.lseek(self._fd, 0, os.SEEK_SET)
        while raw := os.read(self._fd, _BLOCK):
            parts = (self._rest + raw).split(b"\n")
            self._rest = parts.pop()
            for part in parts:
                if (line := parse_line(part)) is not None:
                    yield line
