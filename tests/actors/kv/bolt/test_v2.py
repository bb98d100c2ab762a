"""v2's data folders: what real etcd 3.4 and its ``etcdctl backup`` leave is read; broken ones are typed errors."""

import json
import random
import shutil
import struct
import tempfile
import time
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.bolt import v2, wal
from actors.kv.bolt.errors import FolderError
from actors.kv.v3.hashes import varint
from tests.actors.kv.bolt.real import Served, run

# -- beside real etcd -----------------------------------------------------------------------------------------


def ask(etcd: Served, method: str, key: str, **form: object) -> Any:
    query = urllib.parse.urlencode({name: str(value).lower() for name, value in form.items() if name != "value"})
    body = urllib.parse.urlencode({"value": form["value"]}).encode() if "value" in form else None
    asked = urllib.request.Request(f"{etcd.url}/v2/keys{key}?{query}", data=body, method=method)
    asked.add_header("Content-Type", "application/x-www-form-urlencoded")
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            assert error.code < HTTPStatus.INTERNAL_SERVER_ERROR
            return json.load(error)


def listed(etcd: Served) -> dict[str, str | None]:
    """All keys of users; of directories None."""
    out: dict[str, str | None] = {}
    pending = [ask(etcd, "GET", "/", recursive=True)["node"]]
    while pending:
        node = pending.pop()
        if node.get("key"):
            out[node["key"]] = None if node.get("dir") else node["value"]
        pending += node.get("nodes", [])
    return out


def change(etcd: Served, seed: int, count: int) -> None:
    choose = random.Random(seed)
    for at in range(count):
        key = choose.choice(["/a", "/b", "/d/a", "/d/b", "/d/e/f", "/g"])
        match choose.randrange(9):
            case 0:
                ask(etcd, "DELETE", key, recursive=choose.random() < 0.5)
            case 1:
                ask(etcd, "PUT", key, value=f"cas {at}", prevValue=f"{at - 3}")
            case 2:
                ask(etcd, "PUT", key, value=f"ü{at}", prevExist=choose.random() < 0.5)
            case 3:
                ask(etcd, "PUT", choose.choice(["/d", "/g", "/h"]), dir=True, ttl=choose.choice(["", 500]))
            case 4:
                ask(etcd, "POST", "/queue", value=f"{at}")
            case _:
                ask(etcd, "PUT", key, value=f"{at}", ttl=choose.choice(["", "", 300]))
    ask(etcd, "PUT", "/short", value="x", ttl=1)
    etcd.put(b"v3", b"is left out")
    deadline = time.monotonic() + 10
    while "/short" in listed(etcd):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ask(etcd, "PUT", "/last", value="one")


class Model:
    """What a folder comes to: its nodes, then its requests. Values by path, of directories None."""

    def __init__(self, backup: v2.Backup) -> None:
        self.index = backup.index
        self.nodes = {node.path: node.value for node in backup.nodes}
        self.expires = {node.path: node.expires_ns for node in backup.nodes if node.expires_ns}
        for one in backup.requests:
            self.apply(one)

    def apply(self, one: v2.Request) -> None:
        match one.method:
            case "SYNC":
                for path in [path for path, at in self.expires.items() if at <= one.time_ns]:
                    self.remove(path)
            case "POST":
                self.index += 1
                self.put(f"{one.path}/{self.index:020}", one)
            case "DELETE":
                if self.nodes.get(one.path) is not None or (one.recursive and one.path in self.nodes):
                    self.remove(one.path)
            case "PUT":
                there, value = one.path in self.nodes, self.nodes.get(one.path)
                compared = not one.prev_value or value == one.prev_value
                made = not there or (value is not None and not one.dir)
                if compared and made and one.prev_exist in (None, there):
                    self.put(one.path, one)

    def put(self, path: str, one: v2.Request) -> None:
        parents = [path[:at] for at, character in enumerate(path) if character == "/" and at]
        if any(self.nodes.get(parent, None) is not None for parent in parents):
            return
        for parent in parents:
            self.nodes.setdefault(parent, None)
        self.nodes[path] = None if one.dir else one.value
        self.expires.pop(path, None)
        if one.expires_ns:
            self.expires[path] = one.expires_ns

    def remove(self, path: str) -> None:
        for below in [name for name in self.nodes if name == path or name.startswith(path + "/")]:
            del self.nodes[below]
            self.expires.pop(below, None)

    def keys(self) -> dict[str, str | None]:
        return {path[2:]: value for path, value in self.nodes.items() if path.startswith("/1/")}


def without_numbers(keys: dict[str, str | None]) -> list[tuple[str, str | None]]:
    """In-order keys are told by their order alone: a backup leaves members' requests out, so the index is another."""
    return [("/queue/*" if path.startswith("/queue/") else path, value) for path, value in sorted(keys.items())]


@pytest.mark.parametrize("snapshots", [100_000, 50], ids=["log only", "snapshots"])
def test_what_etcd_leaves(snapshots: int, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "backup"
    with Served("3.4", data, "", "--enable-v2", f"--snapshot-count={snapshots}") as etcd:
        change(etcd, snapshots, 180)
        expected = listed(etcd)
    run("etcdctl", "backup", "--data-dir", data, "--backup-dir", copy, ETCDCTL_API="2")
    assert {"/last", "/queue"} <= set(expected)
    for folder in (data, copy):
        backup = v2.read(folder)
        assert (backup.raft_index > 100) == (snapshots == 50) == bool(backup.nodes)
        assert backup.requests[-1].path == "/1/last"
        model = Model(backup)
        assert without_numbers(model.keys()) == without_numbers(expected)
        assert any(model.expires.values())


def test_a_snapshot_s_nodes(tmp_path: Path) -> None:
    began = time.time_ns()
    with Served("3.4", tmp_path, "", "--enable-v2", "--snapshot-count=10") as etcd:
        made = ask(etcd, "PUT", "/a/b", value="ü", ttl=300)["node"]
        ask(etcd, "PUT", "/empty", dir=True)
        for _ in range(40):
            ask(etcd, "PUT", "/other", value="")
    backup = v2.read(tmp_path)
    nodes = {node.path: node for node in backup.nodes}
    assert nodes["/1/empty"].value is None
    assert (nodes["/1/other"].value, nodes["/1/other"].expires_ns) == ("", None)
    node = nodes["/1/a/b"]
    assert (node.value, node.created, node.modified) == ("ü", made["createdIndex"], made["modifiedIndex"])
    assert abs((node.expires_ns or 0) - began - 300e9) < 20e9
    paths = [one.path for one in backup.nodes]
    assert all(path.rpartition("/")[0] in ("", *paths[:at]) for at, path in enumerate(paths))
    assert paths == sorted(paths, key=lambda path: path.split("/"))
    assert backup.index == max(one.modified for one in backup.nodes)


# -- folders made here ----------------------------------------------------------------------------------------


def field(number: int, content: int | bytes) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


class Log:
    """Segments of a log, written as etcd does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "member" / "wal"
        self.folder.mkdir(parents=True)
        self.crc, self.number = 0, 0
        self.cut(0)
        self.record(wal.METADATA, b"")
        self.record(wal.SNAPSHOT, b"")

    def cut(self, index: int) -> None:
        self.path = self.folder / f"{self.number:016x}-{index:016x}.wal"
        self.number += 1
        self.record(wal.CRC, None)

    def record(self, kind: int, data: bytes | None) -> None:
        if data is not None:
            self.crc = crc32c(data, self.crc)
        content = field(1, kind) + field(2, self.crc) + (field(3, data) if data else b"")
        padding = -len(content) % 8
        frame = len(content) | ((0x80 | padding) << 56 if padding else 0)
        with self.path.open("ab") as file:
            file.write(struct.pack("<Q", frame) + content + bytes(padding))

    def entry(self, index: int, data: bytes, term: int = 1, kind: int = 0) -> None:
        self.record(wal.ENTRY, field(1, kind) + field(2, term) + field(3, index) + field(4, data))

    def commit(self, index: int) -> None:
        self.record(wal.STATE, field(1, 1) + field(2, 1) + field(3, index))

    def puts(self, first: int, last: int, value: str = "v") -> None:
        for index in range(first, last + 1):
            self.entry(index, put(f"/1/{index}", value))


def put(path: str, value: str, **numbers: int) -> bytes:
    out = field(1, 7) + field(2, b"PUT") + field(3, path.encode()) + field(4, value.encode())
    return out + b"".join(field(int(at[1:]), number) for at, number in numbers.items())


def snap(folder: Path, index: int, content: bytes | None = None) -> Path:
    root = {"Path": "/", "CreatedIndex": 0, "ModifiedIndex": 0, "ExpireTime": v2.FOREVER, "Children": {}}
    store = json.dumps({"Root": root, "CurrentIndex": 3}).encode() if content is None else content
    inner = field(1, store) + field(2, field(2, index) + field(3, 1))
    path = folder / "member" / "snap" / f"{1:016x}-{index:016x}.snap"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(field(1, crc32c(inner)) + field(2, inner))
    return path


def with_node(**more: Any) -> bytes:
    """A store with one node."""
    node = {"Path": "/1", "CreatedIndex": 1, "ModifiedIndex": 1, "ExpireTime": v2.FOREVER} | more
    return json.dumps(
        {"CurrentIndex": 1, "Root": node | {"Path": "/", "ExpireTime": v2.FOREVER, "Children": {"1": node}}}
    ).encode()


def indices(folder: Path) -> list[int]:
    return [one.index for one in v2.read(folder).requests]


def test_entries_that_are_no_requests_are_left_out(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.entry(1, field(1, 7) + field(2, 0) + field(3, 9), kind=1)
    log.entry(2, b"")
    log.entry(3, put("/1/a", "x", n5=1, n7=4, n8=0, n9=99, n12=1, n15=5, n17=1))
    log.entry(4, field(1, 5) + field(4, field(1, b"k") + field(2, b"of v3")))
    log.entry(5, field(1, 5) + field(2, put("/1/b", "inside")))
    log.commit(5)
    member, first, second = v2.read(tmp_path).requests
    # of members only the indices that it took
    assert (member.method, member.steps) == ("MEMBER", 1)
    assert first == v2.Request(3, "PUT", "/1/a", "x", True, "", 4, False, 99, True, 5, True)
    assert second == v2.Request(5, "PUT", "/1/b", "inside", False, "", 0, None, 0, False, 0, None)


def test_what_is_not_committed_is_left_out_and_what_was_overwritten(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 9, "old")
    log.commit(4)
    log.puts(5, 6, "new")
    log.commit(5)
    found = v2.read(tmp_path).requests
    assert [(one.index, one.value) for one in found] == [*((at, "old") for at in range(1, 5)), (5, "new")]


def test_segments_and_a_snapshot(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 10)
    log.cut(11)
    log.puts(11, 20)
    log.record(wal.SNAPSHOT, field(1, 15) + field(2, 1))
    log.cut(21)
    log.puts(21, 22)
    log.commit(22)
    assert indices(tmp_path) == list(range(1, 23))
    older = snap(tmp_path, 3)
    snap(tmp_path, 15)
    assert indices(tmp_path) == list(range(16, 23))
    older.write_bytes(b"")
    # nobody needs the first any more
    (log.folder / f"{0:016x}-{0:016x}.wal").unlink()
    assert indices(tmp_path) == list(range(16, 23))
    assert v2.read(tmp_path).index == 3


def test_a_segment_begins_at_the_number_in_its_name_which_is_hexadecimal(tmp_path: Path) -> None:
    log = Log(tmp_path)
    first = log.path
    log.puts(1, 20)
    log.cut(21)
    log.puts(21, 25)
    log.record(wal.SNAPSHOT, field(1, 21) + field(2, 1))
    log.commit(25)
    snap(tmp_path, 21)
    first.unlink()  # what begins just at the snapshot is enough
    assert indices(tmp_path) == list(range(22, 26))


def test_a_snapshot_that_the_log_does_not_know_yet(tmp_path: Path) -> None:
    """etcd was killed between writing it and marking it: the one before counts, and the log from there."""
    log = Log(tmp_path)
    log.puts(1, 10)
    log.record(wal.SNAPSHOT, field(1, 5) + field(2, 1))
    log.puts(11, 12)
    log.commit(12)
    snap(tmp_path, 5)
    snap(tmp_path, 11)
    assert indices(tmp_path) == list(range(6, 13))


def test_a_torn_end_is_an_end_if_nothing_committed_was_there(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 3)
    log.commit(3)
    whole = log.path.read_bytes()
    log.entry(4, put("/1/4", "v" * 2000))
    torn = log.path.read_bytes()
    room = bytes(4096)
    sector = (len(whole) // 512 + 2) * 512
    for content in (torn[:-9], torn[: len(whole) + 4], torn[:sector] + bytes(512) + torn[sector + 512 :], whole + room):
        log.path.write_bytes(content)
        assert indices(tmp_path) == [1, 2, 3]
    log.path.write_bytes(whole[:-80])
    log.path.write_bytes(whole[: whole.rindex(b"/1/3")])
    assert indices(tmp_path) == []  # the commit went with it


def test_a_record_whose_first_sector_was_never_written_is_a_torn_end_though_it_is_no_message(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 40)
    log.commit(40)
    while log.path.stat().st_size % 512 != 504:  # up to where the next frame ends a sector
        log.record(wal.METADATA, b"m")
    begins = log.path.stat().st_size + 8
    log.entry(41, put("/1/41", "v" * 700))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:begins] + bytes(512) + whole[begins + 512 :])
    assert indices(tmp_path) == list(range(1, 41))
    log.path.write_bytes(whole[:begins] + bytes(511) + b"v" + whole[begins + 512 :])
    with pytest.raises(FolderError):
        v2.read(tmp_path)


def test_a_frame_tells_of_padding_only_by_its_highest_bit(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.puts(1, 2)
    record = field(1, wal.METADATA) + field(2, log.crc)
    with log.path.open("ab") as file:
        file.write(struct.pack("<Q", len(record) | 3 << 56) + record)
    log.puts(3, 4)
    log.commit(4)
    assert indices(tmp_path) == [1, 2, 3, 4]


def broken(folder: Path, name: str) -> tuple[str, int]:
    """A folder with one fault; the file and the place that have to be named."""
    log = Log(folder)
    log.puts(1, 4)
    end = log.path.stat().st_size
    match name:
        case "nothing":
            shutil.rmtree(folder / "member")
            return "member/wal", 0
        case "no segment":
            log.path.unlink()
            return "wal", 0
        case "an unknown record":
            log.record(9, b"")
        case "a request of no method":
            log.entry(5, field(2, field(2, b"MOVE")))
            log.commit(5)
        case "a request whose path is a number":
            log.entry(5, field(2, b"PUT") + field(3, 7))
            log.commit(5)
        case "entries missing":
            log.entry(7, put("/1/7", ""))
        case "entries missing at the end":
            log.commit(9)
            end = 0
        case "a segment missing":
            log.number += 1
            log.cut(5)
            end = 0
        case "a segment that goes on from another":
            log.crc ^= 1
            log.cut(5)
            return log.path.name, 0
        case "a record that says it is long":
            with log.path.open("ab") as file:
                file.write(struct.pack("<Q", 1 << 55) + b"x" * 100)
            name_of = log.path.name
            log.cut(5)
            return name_of, end
        case "a record that is no message":
            with log.path.open("ab") as file:
                file.write(struct.pack("<Q", 8) + b"\x0b" * 8)
        case "a changed byte":
            content = log.path.read_bytes()
            at = content.index(b"/1/4")
            log.path.write_bytes(content[:at] + b"x" + content[at + 1 :])
            return log.path.name, -1
        case "a snapshot of another log":
            snap(folder, 2)
            end = 0
        case "a log behind the snapshot":
            snap(folder, 3)
            log.path.rename(log.folder / f"{1:016x}-{5:016x}.wal")
            return f"{1:016x}-{5:016x}.wal", 0
        case "a snapshot with a wrong CRC":
            path = snap(folder, 2)
            path.write_bytes(path.read_bytes()[:-1] + b"\7")
            return path.name, 0
        case "an empty snapshot":
            path = snap(folder, 2)
            path.write_bytes(b"")
            return path.name, 0
        case "a snapshot that isn't JSON":
            return snap(folder, 2, b"{").name, 0
        case "a snapshot without a root":
            return snap(folder, 2, b'{"CurrentIndex":1}').name, 0
        case "a snapshot that is very deep":
            deep = b'{"Path":"/a","CreatedIndex":1,"ModifiedIndex":1,"Children":{"a":' * 50_000
            return snap(folder, 2, b'{"CurrentIndex":1,"Root":' + deep).name, 0
        case "a time of no calendar":
            return snap(folder, 2, with_node(ExpireTime="2026-99-01T00:00:00Z")).name, 0
        case "a time that is no int64":
            return snap(folder, 2, with_node(ExpireTime="9999-12-31T23:59:59-23:59")).name, 0
        case "an index below 0":
            return snap(folder, 2, with_node(ModifiedIndex=-1)).name, 0
        case "an index that none comes to":
            return snap(folder, 2, with_node(CreatedIndex=2**64 - 1)).name, 0
        case "a node at another place":
            return snap(folder, 2, with_node(Path="/1/b")).name, 0
    return log.path.name, end


FAULTS = """nothing;no segment;an unknown record;a request of no method;a request whose path is a number;
entries missing;entries missing at the end;a segment missing;a segment that goes on from another;
a record that says it is long;
a record that is no message;a changed byte;a snapshot of another log;a log behind the snapshot;
a snapshot with a wrong CRC;an empty snapshot;a snapshot that isn't JSON;a snapshot without a root;
a snapshot that is very deep;a time of no calendar;a time that is no int64;an index below 0;an index that none comes to;
a node at another place"""


@pytest.mark.parametrize("name", [one.strip() for one in FAULTS.split(";")])
def test_a_broken_folder(name: str, tmp_path: Path) -> None:
    file, offset = broken(tmp_path, name)
    with pytest.raises(FolderError) as raised:
        v2.read(tmp_path)
    assert raised.value.file == file
    if offset >= 0:
        assert raised.value.offset == offset
    else:
        assert raised.value.offset > 0


@pytest.mark.parametrize(
    ("time_", "expected"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("2026-11-24T12:17:29.123456789Z", 1_795_522_649_123_456_789),
        ("2026-11-24T14:17:29.5+02:00", 1_795_522_649_500_000_000),
    ],
)
def test_go_s_times(time_: str, expected: int | None) -> None:
    assert v2._nanoseconds(time_) == expected


@given(
    changes=st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=9)), max_size=3),
    size=st.integers(0, 3000),
    cut=st.integers(-1, 1),
)
@settings(max_examples=200, deadline=None)
def test_flipped_bytes_and_cut_files(changes: list[tuple[int, bytes]], size: int, cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        log = Log(Path(name))
        log.puts(1, 8)
        log.record(wal.SNAPSHOT, field(1, 4) + field(2, 1))
        log.commit(8)
        paths = [log.path, snap(Path(name), 4)]
        for number, path in enumerate(paths):
            content = bytearray(path.read_bytes())
            for at, flipped in changes:
                content[at : at + len(flipped)] = flipped
            path.write_bytes(content[:size] if cut == number else content)
        try:
            found = indices(Path(name))
        except FolderError as error:
            assert error.file in {path.name for path in paths}
        else:
            assert found == list(range(5, 5 + len(found)))
