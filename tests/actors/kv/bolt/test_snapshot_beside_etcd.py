"""Snapshots beside real etcds: theirs are read into our store, ours are restored and served by theirs."""

import base64
import json
import random
from pathlib import Path

import pytest

from actors.kv.bolt.messages import fields
from actors.kv.bolt.snapshot import read
from actors.kv.v3.revs import Rev, Revs
from streams.events import kv3 as says
from tests.actors.kv.bolt.real import Served, restored, restorer, run, tool
from tests.actors.kv.bolt.test_snapshot import filled, imported, number, save
from tests.actors.kv.v3.etcd import Ours

VERSIONS = ["3.4", "3.5.1", "3.7"]
LEASES = [100, 1 << 61]


def fill(etcd: Served, changes: int) -> None:
    """Keys with and without leases, large values, deletes of ranges, a compaction in between."""
    choose = random.Random(4)
    for lease in LEASES:
        etcd.grpc("Lease/LeaseGrant", b"\x08" + _varint(600) + b"\x10" + _varint(lease))
    for at in range(changes):
        key = b"k%d" % choose.randrange(changes // 5)
        if choose.random() < 0.15:
            etcd.delete(key, key + b"1" if choose.random() < 0.5 else b"")
        else:
            size = choose.choice([0, 1, 100, 100, 4000, 20_000])
            etcd.put(key, bytes([at % 256]) * size, choose.choice([0, 0, *LEASES]))
        if at == changes // 2:
            etcd.grpc("KV/Compact", b"\x08" + _varint(changes // 4) + b"\x10\x01")
    etcd.put(b"large", bytes(1_200_000))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def keys(etcd: Served, revision: int = 0) -> list[tuple[bytes, bytes, int, int, int, int]]:
    """All keys of an etcd, as at a revision."""
    at = [f"--rev={revision}"] if revision else []
    found = etcd.ctl_json("get", "", "--prefix", *at).get("kvs", [])
    names = ("create_revision", "mod_revision", "version", "lease")
    raw = base64.b64decode
    return [(raw(one["key"]), raw(one.get("value", "")), *(one.get(name, 0) for name in names)) for one in found]  # type: ignore[misc]


def ours(revs: Revs, revision: int = 0) -> list[tuple[bytes, bytes, int, int, int, int]]:
    found = [revs.at(key, revision or revs.revision) for key in sorted(revs.newest)]
    return [_shown(rev) for rev in found if rev is not None]


def _shown(rev: Rev) -> tuple[bytes, bytes, int, int, int, int]:
    return rev.key, rev.value, rev.create, rev.mod, rev.version, rev.lease


@pytest.mark.parametrize("version", VERSIONS)
def test_etcd_s_snapshot_is_read(version: str, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    with Served(version, tmp_path / "data") as etcd:
        fill(etcd, 1500)
        etcd.ctl("user", "add", "root:secret")
        etcd.ctl("role", "add", "reader")
        etcd.ctl("role", "grant-permission", "reader", "read", "k1")
        etcd.ctl("snapshot", "save", path)
        revs = imported(path)
        assert number(revs) == etcd.hash_kv()
        assert ours(revs) == keys(etcd)
        assert ours(revs, 800) == keys(etcd, 800)
        with read(path) as snapshot:
            assert snapshot.hashed
            assert (snapshot.compacted, snapshot.scheduled) == (375, 375)
            assert [(one.id, one.ttl_s) for one in snapshot.leases()] == [(lease, 600) for lease in LEASES]
            assert {(bucket, key) for bucket, key, _value in snapshot.auth()} == {
                (b"auth", b"authRevision"),
                (b"authUsers", b"root"),
                (b"authRoles", b"reader"),
            } | ({(b"auth", b"authEnabled")} if (b"auth", b"authEnabled", b"\0") in snapshot.auth() else set())
            assert dict(fields(_value(snapshot.auth(), b"authUsers")))[1] == b"root"
    # what runs, or ran, has no hash behind its file and free pages in it
    with read(tmp_path / "data" / "member" / "snap" / "db") as snapshot:
        assert not snapshot.hashed
        assert sum(1 for _rev in snapshot.revisions()) == sum(1 for _rev in revs.retained())


def _value(auth: object, bucket: bytes) -> bytes:
    return next(value for name, _key, value in auth if name == bucket)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("version", VERSIONS)
def test_our_snapshot_is_restored(version: str, tmp_path: Path) -> None:
    store = filled(7, 2000, 1200)
    path = save(tmp_path / "snapshot", store)
    status = json.loads(run(restorer(version), "snapshot", "status", path, "--write-out=json"))
    assert (status["revision"], status["totalSize"]) == (store.revs.revision, path.stat().st_size - 32)
    peers = restored(version, path, tmp_path / "data")
    with Served(version, tmp_path / "data", peers) as etcd:
        assert etcd.hash_kv() == number(store.revs)
        assert keys(etcd) == ours(store.revs)
        assert keys(etcd, 1700) == ours(store.revs, 1700)
        left = etcd.ctl_json("lease", "timetolive", "7", "--keys")
        assert left["granted-ttl"] == 61
        assert sorted(base64.b64decode(key) for key in left["keys"]) == sorted(store.leases.by_id[7].keys)
        # it goes on, and goes on as ours does
        etcd.put(b"k1", b"after", 7)
        etcd.delete(b"k2", b"k3")
        etcd.grpc("KV/Compact", b"\x08" + _varint(store.revs.revision) + b"\x10\x01")
        after = Ours()
        after.store = store
        for event in (says.Put("k1", "after", 7), says.Delete("k2", "k3"), says.Compact(store.revs.revision)):
            assert "error" not in after.say(event)
        assert etcd.hash_kv() == number(store.revs)
        assert ours(store.revs) == keys(etcd)


@pytest.mark.parametrize("version", ["3.4", "3.7"])
def test_an_empty_store_is_restored(version: str, tmp_path: Path) -> None:
    path = save(tmp_path / "snapshot", Ours().store)
    peers = restored(version, path, tmp_path / "data")
    with Served(version, tmp_path / "data", peers) as etcd:
        assert keys(etcd) == []
        etcd.put(b"a", b"b")
        assert keys(etcd) == [(b"a", b"b", 2, 2, 1, 0)]


def test_alarms_and_users_are_restored(tmp_path: Path) -> None:
    with Served("3.5.1", tmp_path / "first") as etcd:
        etcd.ctl("user", "add", "root:secret")
        etcd.ctl("user", "grant-role", "root", "root")
        etcd.ctl("auth", "enable")
        etcd.ctl("--user=root:secret", "snapshot", "save", tmp_path / "theirs")
    source = Ours()
    source.say(says.Put("a", "b"))
    source.say(says.Alarm(kind=1, member=77))
    with read(tmp_path / "theirs") as snapshot:
        path = save(tmp_path / "ours", source.store, auth=list(snapshot.auth()))
    peers = restored("3.5.1", path, tmp_path / "second")
    with Served("3.5.1", tmp_path / "second", peers) as etcd:
        assert etcd.ctl("--user=root:secret", "alarm", "list").split() == ["memberID:77", "alarm:NOSPACE"]
        assert etcd.ctl("--user=root:secret", "get", "a").split() == ["a", "b"]
        with pytest.raises(AssertionError, match="user name is empty"):
            etcd.ctl("get", "a")


def test_a_restore_with_a_bumped_revision_is_read(tmp_path: Path) -> None:
    store = filled(3, 100)
    path = save(tmp_path / "snapshot", store)
    restored("3.7", path, tmp_path / "data", "--bump-revision=1000", "--mark-compacted")
    with read(tmp_path / "data" / "member" / "snap" / "db") as snapshot:
        assert snapshot.revision == snapshot.scheduled == store.revs.revision + 1000
        assert len(list(snapshot.revisions())) == len(list(store.revs.retained()))


def test_bbolt_finds_our_snapshot_sound(tmp_path: Path) -> None:
    path = save(tmp_path / "snapshot", filled(5, 3000, 1000))
    assert run(tool("bbolt"), "check", path).strip() == "OK"
