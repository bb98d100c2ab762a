"""A data folder that is written holds what etcd 3.4 writes itself: its tree as JSON, its log's records, on the disk."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.kv.bolt import exported2, wal
from actors.kv.bolt.imported2 import store_of
from actors.kv.bolt.messages import fields, raw
from actors.kv.v2.auth import Auth, Role, User
from actors.kv.v2.nodes import Dir, File
from actors.kv.v2.store import Store

FOREVER = "0001-01-01T00:00:00Z"
KEPT = Auth(True, True, 4, {"root": User("hash", None)}, {"r": Role(["/a"], None)})


def filled() -> Store:
    store = Store()
    store.index = 9
    store.dirs[""].children |= {"/e": None, "/d": None}
    store.dirs["/d"] = Dir({"/d/x": None}, 5, 6)
    store.files |= {"/e": File("", 4, 4, 0), "/d/x": File("1", 7, 8, 1_500)}
    store.ttls["/d/x"] = 1_500
    return store


def tree(folder: Path) -> Any:
    [path] = (folder / "member" / "snap").glob("*.snap")
    return json.loads(raw(dict(fields(raw(dict(fields(path.read_bytes()))[2])))[1]))


def node(path: str, indices: tuple[int, int] = (0, 0), ends: str = FOREVER, **more: object) -> dict[str, Any]:
    """As it stands in etcd's own snapshots: six fields, of a directory no value, of a file no children."""
    created, modified = indices
    known = {"Path": path, "CreatedIndex": created, "ModifiedIndex": modified, "ExpireTime": ends}
    return {**known, "Value": "", "Children": None, **more}


def test_the_tree_is_written_as_etcd_writes_its_own(tmp_path: Path) -> None:
    exported2.write(tmp_path / "f", filled(), msgspec.UNSET)
    x = node("/1/d/x", (7, 8), "1970-01-01T00:00:01.500Z", Value="1")
    keys = {"e": node("/1/e", (4, 4)), "d": node("/1/d", (5, 6), Children={"x": x})}
    root = node("/", Children={"0": node("/0", Children={}), "1": node("/1", Children=keys)})
    assert tree(tmp_path / "f") == {"Root": root, "CurrentIndex": 9, "CurrentVersion": 2}


def test_users_are_files_of_json_in_a_tree_of_their_own(tmp_path: Path) -> None:
    exported2.write(tmp_path / "f", filled(), KEPT)
    written = tree(tmp_path / "f")["Root"]["Children"]["2"]
    user = written["Children"]["users"]["Children"]["root"].pop("Value")
    role = written["Children"]["roles"]["Children"]["r"].pop("Value")
    assert json.loads(user) == {"user": "root", "password": "hash", "roles": None}
    assert json.loads(role) == {"role": "r", "permissions": {"kv": {"read": ["/a"], "write": None}}}
    files = {path: node(path) for path in ("/2/users/root", "/2/roles/r")}
    for one in files.values():
        del one["Value"]
    children = {
        "users": node("/2/users", Children={"root": files["/2/users/root"]}),
        "roles": node("/2/roles", Children={"r": files["/2/roles/r"]}),
        "enabled": node("/2/enabled", Value="true"),
    }
    assert written == node("/2", Children=children)


def test_the_log_marks_the_snapshot_as_committed_and_nobody_has_voted(tmp_path: Path) -> None:
    """A vote would be one for a member that isn't there."""
    exported2.write(tmp_path / "f", filled(), KEPT)
    [log] = (tmp_path / "f" / "member" / "wal").iterdir()
    records = [(one.type, dict(fields(one.data))) for one in wal._records([log])]
    assert (records[0], records[1][0]) == ((wal.CRC, {}), wal.METADATA)
    ids = records[1][1]
    assert set(ids) == {1, 2}
    assert all(ids.values())
    assert records[2:] == [
        (wal.SNAPSHOT, {1: 0, 2: 0}),
        (wal.SNAPSHOT, {1: 1, 2: 1}),
        (wal.STATE, {1: 1, 2: 0, 3: 1}),  # term, vote, commit
    ]


def test_each_file_is_whole_when_it_is_told_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[Path, int] = {}

    def told(descriptor: int) -> None:
        synced[Path(os.readlink(f"/proc/self/fd/{descriptor}"))] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", told)
    exported2.write(tmp_path / "f", filled(), KEPT)
    files = {path: path.stat().st_size for path in (tmp_path / "f").rglob("*") if path.is_file()}
    assert synced == files
    assert len(files) == 3
    assert min(files.values()) > 0


def test_a_key_with_no_value_keeps_none(tmp_path: Path) -> None:
    exported2.write(tmp_path / "f", filled(), msgspec.UNSET)
    store, users = store_of(tmp_path / "f", 0)
    assert (store.files, users) == (filled().files, msgspec.UNSET)
