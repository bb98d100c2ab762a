"""A reader whose disk, or table of files, fails for a moment: it is where it was then."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.log.port import LogUnavailable, OutcomeUnknown
from streams.log.segments import SegmentsLog, files
from streams.log.segments.driver import _opened
from streams.log.segments.reader import Cursor
from streams.records import Entry
from tests.contract.drivers import record

SEGMENT_BYTES = 400


def raw(number: int) -> bytes:
    return record(number, text="x" * 150).canonical()


def read_on(cursor: Cursor, into: list[Entry]) -> None:
    while entries := cursor.read():
        into.extend(entries)


class Once:
    """Fails the first time."""

    def __init__(self, real: Callable[..., Any], applies: Callable[..., bool] = lambda *_: True) -> None:
        self._real, self._applies, self.failed = real, applies, False

    def __call__(self, *words: Any) -> Any:
        if not self.failed and self._applies(*words):
            self.failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return self._real(*words)


def to_read(_path: Path, flags: int = os.O_RDONLY) -> bool:
    return flags == os.O_RDONLY


@pytest.mark.parametrize("what", ["OpenFile", "check_header", "segments"])
def test_what_could_not_be_opened_once_is_read_the_next_time(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, writer = _opened(tmp_path, SEGMENT_BYTES)
    written = [Entry(writer.commit([raw(number)]), raw(number)) for number in range(1, 4)]
    cursor, seen = Cursor(tmp_path, shared, 0), list[Entry]()
    read_on(cursor, seen)
    written += [Entry(writer.commit([raw(number)]), raw(number)) for number in range(4, 12)]
    assert len(files.segments(tmp_path)) > 3
    failing = Once(getattr(files, what), to_read if what == "OpenFile" else lambda *_: True)
    with monkeypatch.context() as broken:
        broken.setattr(files, what, failing)
        with pytest.raises(LogUnavailable):
            read_on(cursor, seen)
    assert failing.failed
    read_on(cursor, seen)
    assert seen == written
    shared.close()


async def test_what_a_failed_sync_left_behind_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment is abandoned; then the next one can't be opened at once."""
    log = await SegmentsLog.open(tmp_path)
    for number in (1, 2):
        await log.append([record(number)])
    shared, _ = _opened(tmp_path, 1 << 20)
    cursor, seen = Cursor(tmp_path, shared, 0), list[Entry]()
    read_on(cursor, seen)

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(files, "sync_data", fails)
        broken.setattr(files, "cut", fails)
        with pytest.raises((OutcomeUnknown, LogUnavailable)):
            await log.append([record(3, text="phantom")])
    await log.append([record(4, text="real")])
    with monkeypatch.context() as broken:
        broken.setattr(files, "OpenFile", Once(files.OpenFile, to_read))
        with pytest.raises(LogUnavailable):
            read_on(cursor, seen)
    read_on(cursor, seen)
    assert [entry.raw for entry in seen] == [record(number, text=text).canonical() for number, text in _REAL]
    shared.close()
    await log.close()


_REAL = ((1, ""), (2, ""), (4, "real"))
