"""The history of v3's keys in many small segments: its bytes, compactions and policies, also over restarts; HashKV."""

import random
from collections.abc import Iterable
from itertools import pairwise

import crc32c
import pytest

from actors.kv.proto import kv_pb2
from actors.kv.v3 import errors, revs
from actors.kv.v3.errors import V3Error
from actors.kv.v3.hashes import hash_kv
from actors.kv.v3.policies import Policy
from actors.kv.v3.ranges import Query, ranged
from actors.kv.v3.revs import Rev
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import Data, say
from streams.outcomes import Outcome, Rejected

PREFIXES = ["", "a/", "a/b/", "b/"]
KEYS = [f"{prefix}{number}" for prefix in PREFIXES for number in range(4)]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.kv.v3.revs.SEGMENT", 4)


def apply(store: Store, *said: Data) -> list[Outcome]:
    return [store.evolve(say(data), 1) for data in said]


def accepted(store: Store, *said: Data) -> None:
    assert not [one for one in apply(store, *said) if isinstance(one, Rejected)]


def restarted(store: Store) -> Store:
    again = Store()
    again.restore(store.encode())
    return again


def swept(store: Store) -> Store:
    while store.revs.sweep():
        pass
    return store


def policies(store: Store) -> list[Policy]:
    return [] if store.revs.policies is None else list(store.revs.policies.by_prefix.values())


def counted(one: Policy) -> tuple[list[int], list[tuple[int, int]], int]:
    """In order; within a revision, which a compaction never splits, it doesn't matter."""
    return list(one.mods), sorted(zip(one.mods, one.garbage, strict=True)), one.surplus()


def shown(made: Iterable[Rev]) -> list[tuple[bytes, bytes, int, int, int]]:
    return [(rev.key, rev.value, rev.create, rev.mod, rev.version) for rev in made]


def kept_bytes(store: Store, prefix: bytes = b"") -> int:
    """Of all that is there to be read; a tombstone just at its compaction isn't."""
    mine = store.revs
    kept = [rev for rev in mine.retained() if rev.version or rev.mod > mine.limit_of(rev.key)]
    return sum(rev.size for rev in kept if rev.key.startswith(prefix))


def changes(rng: random.Random, store: Store) -> Data:
    revision = max(1, store.revs.revision - rng.randrange(12))
    prefix, key, value = rng.choice(PREFIXES), rng.choice(KEYS), "v" * rng.randrange(50)
    kind = rng.randrange(20)
    if kind < 11:
        return says.Put(key, value)
    if kind < 14:
        return says.Delete(key, rng.choice(["", "", "\0"]))
    if kind < 16:
        return says.Txn([], [says.OpPut(key, value), says.OpDelete("a/b/", "a/c")])
    if kind == 16:
        return says.Compact(revision)
    return says.PrefixCompact(prefix, revision) if kind < 19 else says.PolicySet(prefix, keep_bytes=300)


@pytest.mark.parametrize("seed", range(12))
def test_bytes_are_those_of_what_is_kept_however_often_it_was_restarted_and_swept(seed: int) -> None:
    rng, lazy = random.Random(seed), Store()
    accepted(lazy, *(says.PolicySet(prefix, keep_bytes=300) for prefix in PREFIXES[1:]))
    eager = restarted(lazy)
    for _ in range(90):
        said = changes(rng, lazy)
        apply(lazy, said)
        apply(eager, said)
        if rng.random() < 0.2:
            eager = restarted(eager)
        eager.revs.sweep(rng.randrange(4))
        assert list(eager.encode()) == list(lazy.encode())
        for store in (lazy, eager):
            assert store.revs.size == kept_bytes(store)
            for one in policies(store):
                assert one.live_bytes + one.history_bytes == kept_bytes(store, one.prefix)
        assert [counted(one) for one in policies(lazy)] == [counted(one) for one in policies(eager)]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("ends", [says.Put("a", "end"), says.Delete("a")])
def test_what_a_prefix_gave_back_is_not_given_back_again(restart: bool, ends: Data) -> None:
    store = Store()
    accepted(store, says.PolicySet("a", keep_bytes=1), *(says.Put("a", "v" * 9) for _ in range(9)), ends)
    accepted(store, says.PrefixCompact("a", store.revs.revision))
    if restart:
        store = restarted(store)
    accepted(store, *(says.Put("b", "w" * 9) for _ in range(9)))
    assert store.revs.size == kept_bytes(store)
    for back in (5, 0):
        accepted(store, says.Compact(store.revs.revision - back))
        assert store.revs.size == kept_bytes(store)


def test_bytes_are_right_after_a_restart_between_changes_of_other_keys() -> None:
    """Keys that were new count nothing as superseded."""
    store = Store()
    accepted(store, *(says.Put(f"k{number}", "v") for number in range(20)))
    store = restarted(store)
    accepted(store, *(says.Put(f"k{number}", "v") for number in range(20)))
    for back in (15, 0):
        accepted(store, says.Compact(store.revs.revision - back))
        assert store.revs.size == kept_bytes(store)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_sweeping_joins_segments_and_loses_nothing(step: int) -> None:
    store = Store()
    accepted(store, *(says.Put(f"k{number:02}", f"{number}") for number in range(40)))
    accepted(store, *(says.Put(f"k{number:02}", "again") for number in range(40) if number % step))
    accepted(store, says.Compact(store.revs.revision))
    living = ranged(store.revs, Query(b"k", b"l"), store.revs.revision).kvs
    assert len(living) == 40
    swept(store)
    assert shown(store.revs.retained()) == shown(sorted(living, key=lambda rev: rev.mod))
    assert shown(store.revs.since(1)) == shown(store.revs.retained())
    assert shown(ranged(store.revs, Query(b"k", b"l"), store.revs.revision).kvs) == shown(living)
    sizes = [len(one.revs) for one in store.revs.segments]
    assert max(sizes) <= revs.SEGMENT
    # but for the last one, which goes on growing, no two that follow each other would be one
    assert all(left + right > revs.SEGMENT for left, right in pairwise(sizes[:-1]))


def test_a_compaction_of_a_prefix_leaves_those_of_others() -> None:
    store = Store()
    accepted(store, *(says.PolicySet(prefix, keep_bytes=1) for prefix in ("", "a/", "a/b/", "b/")))
    accepted(store, *(says.Put(key, "v") for key in ("a/1", "a/b/1", "b/1", "c/1") * 4))

    def below(key: bytes) -> int:
        """The first revision at which a key can be read."""
        for revision in range(1, store.revs.revision + 1):
            try:
                ranged(store.revs, Query(key, revision=revision), store.revs.revision)
            except V3Error as error:
                assert error is errors.COMPACTED
            else:
                return revision
        raise AssertionError("it can't be read at all")

    def floors() -> list[int]:
        return [below(key) for key in (b"a/1", b"a/b/1", b"b/1", b"c/1")]

    assert floors() == [1, 1, 1, 1]
    for prefix, revision, expected in [
        ("a/b/", 3, [1, 3, 1, 1]),
        ("b/", 5, [1, 3, 5, 1]),  # neither within nor around what was compacted before
        ("a/", 4, [4, 4, 5, 1]),
        ("a/b/", 9, [4, 9, 5, 1]),
        ("a/", 8, [8, 9, 5, 1]),
        ("", 7, [8, 9, 7, 7]),
        ("", 10, [10, 10, 10, 10]),
    ]:
        accepted(store, says.PrefixCompact(prefix, revision))
        assert floors() == expected, prefix
        assert shown(restarted(store).revs.retained()) == shown(store.revs.retained())


def test_a_policy_that_is_set_late_counts_what_compactions_left() -> None:
    """Nothing at the compaction or below, swept or not; what is above in the order of the changes."""
    early, late = Store(), Store()
    limit = says.PolicySet("k", keep_bytes=150)
    accepted(early, limit)
    for store in (early, late):
        accepted(store, *(says.Put(key, "v" * size) for size in range(4) for key in ("k2", "k1", "k3")))
        accepted(store, says.Delete("k1"), says.Compact(14), says.Put("k3", "w"), says.Put("k2", "w"))
        accepted(store, says.Delete("k2"), says.Put("k3"), says.Put("k1"))
    accepted(late, limit)
    for store in (early, late, restarted(late)):
        [one] = policies(store)
        cost = 2 + revs.OVERHEAD_BYTES
        assert list(one.mods) == [15, 16, 17, 18]
        assert list(one.garbage) == [cost + 3, cost + 3, cost + 1 + cost, cost + 1]
        assert one.surplus() == 17


@pytest.mark.parametrize(("keep", "expected"), [(350, 0), (349, 3), (280, 4), (160, 5), (158, 6), (80, 6), (78, 7)])
def test_the_surplus_is_the_least_that_leaves_an_eighth_free(keep: int, expected: int) -> None:
    """Six puts, at revisions 2 to 7, of 70 bytes each: five are history, superseded at 3 to 7."""
    store = Store()
    accepted(store, says.PolicySet("k", keep_bytes=keep), *(says.Put("k", "v" * 5) for _ in range(6)))
    [one] = policies(store)
    assert one.history_bytes == 350
    assert one.surplus() == expected
    if expected:
        accepted(store, says.PrefixCompact("k", expected))
        assert one.history_bytes <= keep - keep // 8 < one.history_bytes + 70


def number(rows: Iterable[tuple[int, int, bytes, int, int, bytes | None]]) -> int:
    """etcd's, of (revision, part, key, create, version, value); None: a tombstone."""
    total = crc32c.crc32c(b"key")
    for main, sub, key, create, version, value in rows:
        name = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
        if value is None:
            made, name = kv_pb2.KeyValue(key=key), name + b"t"
        else:
            made = kv_pb2.KeyValue(key=key, create_revision=create, mod_revision=main, version=version, value=value)
        total = crc32c.crc32c(made.SerializeToString(), crc32c.crc32c(name, total))
    return total


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_hash_has_of_what_was_compacted_what_lived_at_its_revision(sweeps: bool) -> None:
    """As etcd: of what stands at or below the compaction only what its index keeps at the revision asked for."""
    store = Store()
    accepted(store, says.Put("j", "1"), says.Put("k", "1"), says.Put("k", "2"), says.Compact(4), says.Put("k", "3"))
    if sweeps:
        swept(store)
    j, k, k5 = (2, 0, b"j", 2, 1, b"1"), (4, 0, b"k", 3, 2, b"2"), (5, 0, b"k", 3, 3, b"3")
    assert list(hash_kv(store.revs, 4))[-1] == number([j, k])
    assert list(hash_kv(store.revs, 5))[-1] == list(hash_kv(store.revs))[-1] == number([j, k5])


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_hash_has_no_tombstone_that_the_compaction_reached(sweeps: bool) -> None:
    store = Store()
    accepted(store, says.Put("j", "1"), says.Put("k", "1"), says.Delete("k"), says.Compact(4))
    if sweeps:
        swept(store)
    assert list(hash_kv(store.revs))[-1] == number([(2, 0, b"j", 2, 1, b"1")])
    accepted(store, says.Delete("j"), says.Put("i", "9"))
    left = [(5, 0, b"j", 0, 0, None), (6, 0, b"i", 6, 1, b"9")]
    assert list(hash_kv(store.revs))[-1] == number(left)


def test_changes_are_counted_by_their_kind() -> None:
    """What /metrics tells as etcd_mvcc_put_total and etcd_mvcc_delete_total: keys, not calls."""
    store = Store()
    accepted(store, says.Put("a"), says.Put("b"), says.Txn([], [says.OpPut("c"), says.OpPut("d")]), says.Put("e"))
    accepted(store, says.Delete("a"), says.Delete("a"), says.Txn([], [says.OpDelete("b", "d")]))
    assert (store.revs.puts, store.revs.deletes) == (5, 3)
