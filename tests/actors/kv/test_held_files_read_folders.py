"""What of a data folder counts and what doesn't: commits, marks, torn ends; and its errors name the place."""

import re
import struct
from pathlib import Path

import pytest

from actors.kv.bolt import v2, wal
from actors.kv.bolt.errors import FolderError
from actors.kv.bolt.imported2 import store_of
from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.watch import Hub
from tests.actors.kv.bolt.test_v2 import Log, field, indices, put, snap

# -- commits and marks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("commit", "expected"), [(5, []), (6, [6]), (7, [6, 7]), (9, [6, 7, 8, 9])])
def test_behind_a_snapshot_too_only_what_is_committed_is_done(commit: int, expected: list[int], tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 9)
    log.record(wal.SNAPSHOT, field(1, 5) + field(2, 1))
    log.commit(commit)
    snap(tmp_path, 5)
    assert indices(tmp_path) == expected


@pytest.mark.parametrize("index", [1, 2])
def test_the_mark_that_every_log_begins_with_is_of_no_snapshot(index: int, tmp_path: Path) -> None:
    """It has the index 0, which isn't even written: a snapshot at 1 is of another log all the same."""
    log = Log(tmp_path)
    log.puts(1, 4)
    log.commit(4)
    snap(tmp_path, index)
    with pytest.raises(wal.Unmarked, match=rf"\b{index}\b") as raised:
        v2.read(tmp_path)
    assert raised.value.file == log.path.name
    log.record(wal.SNAPSHOT, field(1, index) + field(2, 1))
    assert indices(tmp_path) == list(range(index + 1, 5))


def test_changes_of_members_take_indices_and_name_no_key(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for at, kind in enumerate((0, 1, 2), 1):  # add, remove, update
        log.entry(at, field(1, 7) + field(2, kind) + field(3, 9), kind=1)
    log.entry(4, put("/1/k", "v"))
    log.commit(4)
    members = v2.read(tmp_path).requests[:3]
    nothing = ("", "", False, "", 0, None, 0, False, 0, None)
    assert members == [v2.Request(at, "MEMBER", *nothing, steps) for at, steps in ((1, 1), (2, 2), (3, 1))]
    store, _ = store_of(tmp_path, 0)
    assert [(path, file.created) for path, file in store.files.items()] == [("/k", 5)]


def test_of_the_history_before_it_a_store_that_was_read_says_that_it_is_cleared(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert list(store_of(tmp_path, 0)[0].history) == []  # nothing has happened: there is none that could be missed
    log.puts(1, 3)
    log.commit(3)
    store, _ = store_of(tmp_path, 0)
    hub, sent = Hub(lambda: store), list[bytes]()
    for since in (1, 2):
        with pytest.raises(V2Error) as raised:
            hub.watch("/1", False, False, since, sent.append)
        assert raised.value.code == errors.EVENT_INDEX_CLEARED
    for since in (3, 4, 0):
        assert not hub.watch("/1", False, False, since, sent.append).done
    assert (hub.count, sent) == (3, [])


# -- the end of the log ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", range(8))
def test_a_sector_that_was_never_written_is_a_torn_end_however_the_record_is_padded(more: int, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 3)
    log.commit(3)
    end = log.path.stat().st_size
    log.entry(4, put("/1/4", "v" * (2000 + more)))
    whole = log.path.read_bytes()
    sector = (end // 512 + 2) * 512
    log.path.write_bytes(whole[:sector] + bytes(512) + whole[sector + 512 :])
    assert indices(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("place", [-1, -513, -600])
def test_a_changed_byte_is_no_torn_end_though_the_record_fills_its_last_sector(place: int, tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 3)
    log.commit(3)
    before, crc = log.path.read_bytes(), log.crc
    for size in range(1200, 1800):
        log.path.write_bytes(before)
        log.crc = crc
        log.entry(4, put("/1/4", "v" * size))
        whole = bytearray(log.path.read_bytes())
        if not len(whole) % 512 and whole[-1]:  # no padding behind it
            break
    assert (len(whole) % 512, whole[-1]) == (0, ord("v"))
    assert indices(tmp_path) == [1, 2, 3]
    whole[place] ^= 1
    log.path.write_bytes(whole)
    with pytest.raises(FolderError) as raised:
        v2.read(tmp_path)
    assert (raised.value.file, raised.value.offset) == (log.path.name, len(before))


# -- errors ---------------------------------------------------------------------------------------------------


def broken(folder: Path, name: str) -> set[str]:
    """A folder with one fault; the numbers and names that tell where it is and what belongs there."""
    log = Log(folder)
    log.puts(1, 4)
    end = log.path.stat().st_size
    match name:
        case "a log behind the snapshot":
            log.path.rename(log.folder / f"{1:016x}-{33:016x}.wal")
            snap(folder, 31)
            return {f"{1:016x}-{33:016x}.wal", "33", "31"}
        case "a segment missing":
            first = log.path.name
            log.number = 2
            log.cut(5)
            return {first, log.path.name}
        case "entries missing":
            log.puts(7, 7)
            return {log.path.name, f"{end}", "7", "4"}
        case "a record that is cut off":
            with log.path.open("ab") as file:
                file.write(struct.pack("<Q", 4711) + b"x" * 100)
            cut = log.path.name
            log.cut(5)
            return {cut, f"{end}", "4711", "100"}
        case "a path that isn't UTF-8":
            log.entry(5, field(1, 7) + field(2, b"PUT") + field(3, b"\xff"))
            log.commit(5)
            return {log.path.name, f"{end}", "5", "UTF-8"}
        case "a request of no method":
            log.entry(5, field(1, 5) + field(2, field(1, 7) + field(2, b"STEAL")))
            log.commit(5)
            return {log.path.name, f"{end}", "5", "STEAL"}
        case "a user that isn't JSON":
            log.entry(5, put("/2/users/ann", "{"))
            log.commit(5)
            return {"/2/users/ann"}
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        "a log behind the snapshot",
        "a segment missing",
        "entries missing",
        "a record that is cut off",
        "a path that isn't UTF-8",
        "a request of no method",
        "a user that isn't JSON",
    ],
)
def test_an_error_of_a_folder_tells_where_it_is(name: str, tmp_path: Path) -> None:
    places = broken(tmp_path, name)
    with pytest.raises(FolderError) as raised:
        store_of(tmp_path, 0)
    said = set(re.findall(r"[\w./-]+", str(raised.value).replace(": ", " ")))
    assert places <= said
