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
    # add, update, remove; and what etcd refuses: a removed one, a known one, an unknown one
    changes = [(0, 9, 1), (2, 9, 1), (1, 9, 2), (1, 9, 0), (2, 9, 0), (0, 9, 0), (3, 8, 1), (0, 8, 0), (1, 7, 0)]
    for at, (kind, member, _) in enumerate(changes, 1):
        log.entry(at, field(1, 7) + field(2, kind) + field(3, member), kind=1)
    log.entry(10, put("/1/k", "v"))
    log.commit(10)
    members = v2.read(tmp_path).requests[:9]
    nothing = ("", "", False, "", 0, None, 0, False, 0, None)
    assert members == [v2.Request(at, "MEMBER", *nothing, steps) for at, (_, _, steps) in enumerate(changes, 1)]
    store, _ = store_of(tmp_path, 0)
    assert [(path, file.created) for path, file in store.files.items()] == [("/k", 6)]


def test_members_of_a_snapshot_are_known(tmp_path: Path) -> None:
    nodes = [v2.Node(f"/0/{path}", None, 1, 1, None) for path in ("members/a1", "removed_members/b2", "members/x")]
    known = v2._Members(nodes)
    assert (known.known, known.removed) == ({0xA1}, {0xB2})


def test_a_key_is_made_without_the_ttl_that_is_too_long_for_etcd(tmp_path: Path) -> None:
    """And any bytes are taken for a key and its value."""
    log = Log(tmp_path)
    past = 2**64 - 10**18  # an int64 below 0
    for index, (key, numbers) in enumerate(
        [("kept", {"_9": past}), ("made", {"_9": past, "_8": 0}), ("gone", {}), ("gone", {"_9": past, "_8": 1})], 1
    ):
        log.entry(index, put(f"/1/{key}", "v", **numbers))
    log.entry(5, field(2, b"PUT") + field(3, b"/1/\xff") + field(4, b"a\xfeb"))
    log.entry(6, field(2, b"SYNC") + field(15, 10**18))
    log.commit(6)
    store, _ = store_of(tmp_path, 0)
    assert {path: file.value for path, file in store.files.items()} == {
        "/kept": "v",
        "/made": "v",
        "/\udcff": "a\udcfeb",
    }
    assert store.ttls == {}


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
        case "a path that is a number":
            log.entry(5, field(1, 7) + field(2, b"PUT") + field(3, 7))
            log.commit(5)
            return {log.path.name, f"{end}", "5", "belong"}
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
        "a path that is a number",
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
