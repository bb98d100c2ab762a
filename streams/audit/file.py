"""The trail as a file of JSON lines: each command with its outcome, once, also over restarts of who writes it."""

import os
from pathlib import Path

import msgspec

from streams.audit.lines import Line, plain
from streams.audit.outcomes import Unique
from streams.records import Position


class BadTrailFile(ValueError):
    """The file holds something else than a trail; the message names file and line."""

    exit_code = 4


class _Written(msgspec.Struct):
    """What is read back of a line: where it stands. ``type`` tells the fold."""

    position: str
    type: str


def fold_of(type_: str) -> str:
    """The fold that says the outcome of an event of this type."""
    return "kv" if type_.startswith("kv.") else "control"


class TrailFile:
    """Appends to ``path``; a line that was cut (by a crash, a full disk) is dropped and written again.

    Raises BadTrailFile. OSError if it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._unique = Unique()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            self._recover(path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _recover(self, path: Path) -> None:
        whole = 0
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    break
                whole += len(raw)
                try:
                    written = msgspec.json.decode(raw, type=_Written)
                    at = Position.parse(written.position)
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    raise BadTrailFile(f"{path}, line {number}: {error}; name another file") from error
                fold = fold_of(written.type)
                self._unique.last[fold] = max(at, self._unique.last.get(fold, at))
        os.ftruncate(self._descriptor, whole)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def add(self, fold: str, line: Line) -> bool:
        """Append a line unless one of this position, or a later one of its fold, is there; whether it did."""
        if not self._unique.new(fold, line):
            return False
        at = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        raw = msgspec.json.encode(plain(line)) + b"\n"
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            os.ftruncate(self._descriptor, at)
            os.lseek(self._descriptor, at, os.SEEK_SET)
            raise
        return True

    def close(self) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)
