"""Snapshot files of stores: what is written is read back, and what is no snapshot is a typed error."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from actors.kv.bolt import messages
from actors.kv.bolt.errors import BoltError, FileError, SnapshotError
from actors.kv.bolt.file import Bucket, Writer
from actors.kv.bolt.snapshot import LeaseRow, Writing, read, written
from actors.kv.v3.hashes import hash_kv
from actors.kv.v3.revs import Rev, Revs
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from tests.actors.kv.bolt.test_file import written as bolt
from tests.actors.kv.v3.etcd import Ours

AUTHS = [(b"authUsers", b"root", b"1"), (b"auth", b"authEnabled", b"\1"), (b"authRoles", b"root", b"")]


def filled(seed: int, changes: int, compacted: int = 0) -> Store:
    """A store that much happened to."""
    choose = random.Random(seed)
    ours = Ours()
    leases = [-5, 7, 1 << 40]
    for at, lease in enumerate(leases):
        ours.say(says.LeaseGrant(lease, 60 + at))
    for _ in range(changes):
        keys = [f"k{choose.randrange(changes // 4 + 1)}" for _ in range(3)]
        size, lease = choose.choice([0, 1, 200, 5000]), choose.choice([0, 0, *leases])
        match choose.randrange(8):
            case 0:
                ours.say(says.Delete(keys[0]))
            case 1:
                ours.say(says.Txn([], [says.OpPut(key, "t", lease) for key in dict.fromkeys(keys)], []))
            case _:
                ours.say(says.Put(keys[0], "v" * size, lease))
    ours.say(says.Put("large", "x" * 300_000))
    if compacted:
        assert "error" not in ours.say(says.Compact(compacted))
    return ours.store


def rows(revs: Revs) -> list[tuple[object, ...]]:
    return [_row(rev) for rev in revs.retained()]


def _row(rev: Rev) -> tuple[object, ...]:
    return rev.key, rev.value, rev.create, rev.mod, rev.version, rev.lease, rev.sub


def number(revs: Revs) -> int:
    *_, last = hash_kv(revs)
    return last


def save(path: Path, store: Store, **more: object) -> Path:
    path.write_bytes(b"".join(written(store, **more)))  # type: ignore[arg-type]
    return path


def imported(path: Path) -> Revs:
    """The revisions of a file in a store of ours."""
    revs = Revs()
    with read(path) as snapshot:
        for rev in snapshot.revisions():
            revs.relink(rev)
        revs.relinked(snapshot.revision, snapshot.compacted)
        if snapshot.scheduled > snapshot.compacted:
            revs.compact(snapshot.scheduled)
    return revs


@pytest.mark.parametrize(("changes", "compacted"), [(0, 0), (30, 0), (400, 0), (400, 200), (400, 1), (2000, 1500)])
def test_a_store_is_read_back(changes: int, compacted: int, tmp_path: Path) -> None:
    store = filled(changes, changes, compacted)
    path = save(tmp_path / "snapshot", store, auth=AUTHS)
    revs = imported(path)
    assert rows(revs) == rows(store.revs)
    assert (revs.revision, revs.compacted) == (store.revs.revision, store.revs.compacted)
    assert number(revs) == number(store.revs)
    with read(path) as snapshot:
        assert snapshot.hashed
        # ids are sorted as unsigned numbers, of eight bytes
        assert list(snapshot.leases()) == [LeaseRow(7, 61, 61), LeaseRow(1 << 40, 62, 62), LeaseRow(-5, 60, 60)]
        assert sorted(snapshot.auth()) == sorted(AUTHS)
        assert list(snapshot.alarms()) == []


def test_an_empty_store_has_all_buckets(tmp_path: Path) -> None:
    path = save(tmp_path / "snapshot", Store())
    with read(path) as snapshot:
        assert (snapshot.revision, snapshot.compacted, snapshot.scheduled) == (1, -1, -1)
        assert list(snapshot.revisions()) == []
        assert b" ".join(sorted(snapshot._file.buckets)) == (
            b"alarm auth authRoles authUsers cluster key lease members members_removed meta"
        )
        assert dict(snapshot._file.pairs(b"meta")) == {b"consistent_index": bytes(7) + b"\1", b"term": bytes(7) + b"\1"}


def test_alarms_and_counted_leases(tmp_path: Path) -> None:
    ours = Ours()
    for lease in (1, 2, 3):
        ours.say(says.LeaseGrant(lease, 60))
    ours.say(says.Alarm(on=True, kind=1, member=1 << 63))
    ours.say(says.Alarm(on=True, kind=2, member=5))
    ours.store.leases.by_id[2].left_ms = 12_900
    ours.store.leases.by_id[3].left_ms = 0
    with read(save(tmp_path / "snapshot", ours.store)) as snapshot:
        assert set(snapshot.alarms()) == {(1, 1 << 63), (2, 5)}
        assert [one.left_s for one in snapshot.leases()] == [60, 12, 1]


@pytest.mark.parametrize("is_swept", [False, True])
def test_later_changes_are_not_in_it(is_swept: bool) -> None:
    """When all is swept, lists are taken as they stand: the last one grows, and others are joined or made anew."""
    ours = Ours()
    for at in range(3000):
        ours.say(says.Put(f"k{at % 700}", f"{at}"))
    ours.say(says.Compact(1000))
    while is_swept and ours.store.revs.sweep():
        pass
    expected = b"".join(written(ours.store))
    writing = Writing(ours.store)
    ours.say(says.Put("k1", "later"))
    ours.say(says.Compact(2500))
    while ours.store.revs.sweep():
        pass
    for at in range(2000):
        ours.say(says.Put(f"k{at % 700}", f"later {at}"))
    out = [*writing.plan(), *writing.chunks()]
    assert b"".join(one for one in out if one) == expected
    assert writing.size == len(expected)


def test_its_chunks_and_its_hash() -> None:
    *chunks, last = [chunk for chunk in written(filled(1, 3000)) if chunk]
    assert last == hashlib.sha256(b"".join(chunks)).digest()
    assert max(map(len, chunks)) < 400_000
    assert len(chunks) > 20
    assert len(b"".join([*chunks, last])) % 512 == 32


def test_auth_has_three_buckets() -> None:
    with pytest.raises(ValueError, match="key"):
        list(written(Store(), auth=[(b"key", b"a", b"b")]))


# -- what others write ----------------------------------------------------------------------------------------


def made(
    path: Path, key: dict[bytes, bytes], meta: dict[bytes, bytes] | None = None, **more: dict[bytes, bytes]
) -> Path:
    others = {name.encode(): pairs for name, pairs in more.items()}
    path.write_bytes(bolt({b"key": key, b"meta": meta or {}, **others}))
    return path


def test_a_compaction_that_has_not_ended(tmp_path: Path) -> None:
    ours = Ours()
    for at in range(10):
        ours.say(says.Put(f"k{at % 3}", f"{at}"))
    pairs = {messages.revision_key(rev.mod, rev.sub): messages.key_value(rev) for rev in ours.store.revs.retained()}
    meta = {b"finishedCompactRev": messages.revision_key(3, 0), b"scheduledCompactRev": messages.revision_key(7, 0)}
    path = made(tmp_path / "snapshot", pairs, meta)
    with read(path) as snapshot:
        assert (snapshot.compacted, snapshot.scheduled, snapshot.revision, snapshot.hashed) == (3, 7, 11, False)
    ours.say(says.Compact(7))
    assert number(imported(path)) == number(ours.store.revs)


def test_a_compaction_above_all_that_is_left(tmp_path: Path) -> None:
    meta = {b"finishedCompactRev": messages.revision_key(9, 0)}
    with read(made(tmp_path / "snapshot", {}, meta)) as snapshot:
        assert (snapshot.revision, snapshot.compacted, snapshot.scheduled) == (9, 9, 9)


def test_the_mark_of_a_bumped_revision_counts_and_is_no_key(tmp_path: Path) -> None:
    rev = Rev(b"a", b"b", 2, 2, 1, 0, 0, None)
    path = made(
        tmp_path / "s", {messages.revision_key(2, 0): messages.key_value(rev), messages.revision_key(999, 0): b""}
    )
    with read(path) as snapshot:
        assert list(snapshot.revisions()) == [rev]
        assert snapshot.revision == 999


def all_of(path: Path) -> list[object]:
    with read(path) as snapshot:
        return [*snapshot.revisions(), *snapshot.leases(), *snapshot.alarms()]


GOOD = messages.key_value(Rev(b"a", b"b", 2, 2, 1, 0, 0, None))
TWO = messages.revision_key(2, 0)


@pytest.mark.parametrize(
    ("buckets", "match"),
    [
        ({"lease": {}}, "no bucket 'key'"),
        ({"key": {b"short": GOOD}}, "key: .* no revision"),
        ({"key": {b"a": GOOD, TWO: GOOD}}, "key: .* no revision"),
        ({"key": {messages.revision_key(1, 0): GOOD, TWO: GOOD}}, "key 00000000000000015f.* beside revision 1"),
        ({"key": {TWO: GOOD[:-1]}}, "field 5 has 1 bytes"),
        ({"key": {}, "lease": {bytes(8): messages.lease(5, 60, 0)}}, "lease 0000.* holds the lease 5"),
        ({"key": {}, "lease": {bytes(8): b"\x0a\x01a"}}, "bytes where"),
        ({"key": {}, "alarm": {b"\x0a": b""}}, "alarm 0a: it ends"),
        ({"key": {}, "meta": {b"finishedCompactRev": b"1"}}, "meta: .* no revision"),
    ],
)
def test_a_bbolt_file_that_is_no_snapshot(buckets: dict[str, dict[bytes, bytes]], match: str, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(bolt({name.encode(): pairs for name, pairs in buckets.items()}))
    with pytest.raises(SnapshotError, match=match):
        all_of(path)


def test_a_changed_file(tmp_path: Path) -> None:
    path = save(tmp_path / "snapshot", filled(1, 50))
    whole = path.read_bytes()
    for at in (0, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(SnapshotError, match="SHA-256"):
            read(path)
    path.write_bytes(whole[:-32])
    with read(path) as snapshot:
        assert not snapshot.hashed
    for size in (0, 1, 32, 4096, 4096 * 2 + 32, len(whole) - 4096 - 32):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError):
            read(path)


def test_no_file_stays_open(tmp_path: Path) -> None:
    path = save(tmp_path / "snapshot", filled(1, 50))
    bad = tmp_path / "bad"
    bad.write_bytes(path.read_bytes()[:-1] + b"\0")
    (tmp_path / "empty").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with read(path):
            pass
        with pytest.raises(SnapshotError):
            read(bad)
        with pytest.raises(BoltError, match="an empty file"):
            read(tmp_path / "empty")
    assert len(os.listdir("/proc/self/fd")) == before


def test_buckets_of_others_are_passed_over(tmp_path: Path) -> None:
    writer = Writer([Bucket(b"key", list), Bucket(b"test", lambda: [(b"a", b"b")])])
    list(writer.plan())
    path = tmp_path / "snapshot"
    path.write_bytes(b"".join(writer.chunks()))
    with read(path) as snapshot:
        assert (list(snapshot.leases()), list(snapshot.auth())) == ([], [])
