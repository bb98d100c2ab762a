"""What the comparison with etcd can't show of the v3 store: sizes, sweeping, expiries, snapshots of the whole fold."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kv.state import KvFold
from actors.kv.v3.ranges import Query, ranged
from actors.kv.v3.revs import OVERHEAD_BYTES
from actors.kv.v3.store import Store
from streams.events import kv as v2_says
from streams.events import kv3 as says
from streams.events.base import Base64, Data, say
from streams.outcomes import Accepted, Rejected
from streams.records import Record
from streams.replay import Context, LogState, Position


def told(store: Store, *said: Data, offset: int = 1) -> list[object]:
    return [store.evolve(say(data), offset) for data in said]


def test_a_quota_counts_what_a_compaction_left() -> None:
    store = Store()
    told(store, *[says.Put("k", "v" * 100)] * 10, says.Put("other"), says.Delete("other"))
    assert store.revs.size == 10 * (101 + OVERHEAD_BYTES) + 2 * (5 + OVERHEAD_BYTES)
    told(store, says.Compact(store.revs.revision))
    assert store.revs.size == 101 + OVERHEAD_BYTES


def test_a_quota_counts_what_a_compaction_left_of_a_long_history() -> None:
    store = Store()
    told(store, *[says.Put(f"k{number % 7}", "v" * 100) for number in range(5000)])
    one, revision = 102 + OVERHEAD_BYTES, store.revs.revision
    for left in (3000, 1500, 0):
        told(store, says.Compact(revision - left))
        assert store.revs.size == (7 + left) * one


def test_revisions_below_0_count_as_compacted_from_the_beginning() -> None:
    """As in etcd, which tells -1 of a store that was never compacted."""
    store = Store()
    outcomes = told(store, *[says.Compact(revision) for revision in (-2, -1, 0, 0, 1)])
    assert [isinstance(one, Accepted) for one in outcomes] == [False, False, True, False, True]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 3)), max_size=60))
def test_size_is_the_same_however_far_sweeping_came(changes: list[tuple[str, int, int]]) -> None:
    swept, lazy = Store(), Store()
    for key, kind, back in changes:
        said = (says.Put(key, "v"), says.Delete(key), says.Compact(max(1, lazy.revs.revision - back)))[kind]
        for store in (swept, lazy):
            told(store, said)
        swept.revs.sweep(back)
        assert swept.revs.size == lazy.revs.size
        assert list(swept.encode()) == list(lazy.encode())
    again = Store()
    again.restore(lazy.encode())
    assert again.revs.size == lazy.revs.size


def test_sweeping_gives_the_memory_of_old_revisions_back() -> None:
    store = Store()
    told(store, *[says.Put(f"k{number % 7}", "v") for number in range(5000)])
    told(store, *[says.Delete(f"k{number}") for number in range(3)])
    told(store, says.Compact(store.revs.revision))
    turns = 0
    while store.revs.sweep():
        turns += 1
    assert turns > 3
    assert sum(len(segment.revs) for segment in store.revs.segments) == 4 + 1  # a tombstone at the compaction stays
    assert len(store.revs.newest) == 4 + 1
    told(store, says.Put("k0"), says.Compact(store.revs.revision + 1))
    while store.revs.sweep():
        pass
    assert len(store.revs.newest) == sum(len(segment.revs) for segment in store.revs.segments) == 5
    assert [kv.version for kv in ranged(store.revs, Query(b"k0"), store.revs.revision).kvs] == [1]


def test_an_expiry_is_void_after_a_renewal() -> None:
    store = Store()
    told(store, says.LeaseGrant(7, 10), says.Put("k", lease=7), offset=5)
    told(store, says.LeasesRenew(Base64((7).to_bytes(8, "big") + (8).to_bytes(8, "big"))), offset=9)
    (void,) = told(store, says.LeaseExpired(7, 5), offset=11)
    assert isinstance(void, Rejected)
    assert store.leases.by_id[7].keys == {b"k": None}
    told(store, says.LeasesCounted([says.LeaseLeft(7, 9, 4000)]), offset=12)
    assert (store.leases.by_id[7].left_ms, store.leases.by_id[7].renewed) == (4000, 12)
    (ended,) = told(store, says.LeaseExpired(7, 12), offset=13)
    assert isinstance(ended, Accepted)
    assert not store.leases.by_id
    assert ranged(store.revs, Query(b"k"), store.revs.revision).count == 0


def test_alarms_are_raised_and_ended() -> None:
    store = Store()
    told(store, says.Alarm(1, 7), says.Alarm(1, 8), says.Alarm(2, 7), says.Alarm(1, 7, on=False))
    assert list(store.alarms) == [(1, 8), (2, 7)]
    told(store, says.Alarm(1, 0, on=False))
    assert list(store.alarms) == [(2, 7)]


def test_both_stores_stand_in_one_snapshot() -> None:
    fold, again = KvFold(), KvFold()
    record = Record("ab" * 16, "kv", "kv@m", 1, 1, 1_700_000_000_000, b"", 3)
    context = Context(Position(3), record, LogState())
    for data in (v2_says.Put("/a", "two"), says.Put("a", "three"), says.Put(Base64(b"\xff"), Base64(b"\xfe"))):
        assert isinstance(fold.evolve(say(data), context), Accepted)
    again.restore(fold.encode())
    assert list(again.encode()) == list(fold.encode())
    assert again.look("/a") == fold.look("/a")
    assert ranged(again.v3.revs, Query(b"\xff"), 3).kvs[0].value == b"\xfe"


def test_a_store_that_nothing_happened_to_has_no_line() -> None:
    assert list(Store().encode()) == []


def test_each_line_of_a_snapshot_says_its_form() -> None:
    store = Store()
    told(store, *[says.Put(f"k{number}", "v" * 1000) for number in range(100)])
    told(store, says.RestoreBegin("r", 1), says.RestorePart("r", 0))
    lines = list(store.encode())
    assert len(lines) > 4
    assert all(line.startswith(b'{"v3":1,') for line in lines)


@pytest.mark.parametrize("line", [b'{"v3":1,"revs":[["k"]]}\n', b'{"v3":"x"}\n', b'{"v3":1', b"[]"])
def test_a_broken_snapshot_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        Store().restore([line])


def test_what_a_session_keeps_is_plain() -> None:
    store = Store()
    outcome = store.evolve(say(says.Put("k"), client="c", sequence=1), 1)
    assert isinstance(outcome, Accepted)
    assert msgspec.json.encode(outcome.result) == b"2"


def test_what_is_retained_is_the_same_before_and_after_sweeping() -> None:
    store, rng = Store(), random.Random(4)
    for number in range(3000):
        key = f"k{rng.randrange(40)}"
        told(store, says.Delete(key) if rng.random() < 0.2 else says.Put(key, f"v{number}"))
    assert len(list(store.revs.retained())) == store.revs.revision - 1, "nothing was compacted"
    told(store, says.Compact(store.revs.revision - 700))
    before = [(rev.key, rev.mod) for rev in store.revs.retained()]
    assert 700 <= len(before) < 800
    while store.revs.sweep():
        assert [(rev.key, rev.mod) for rev in store.revs.retained()] == before
    assert [(rev.key, rev.mod) for rev in store.revs.retained()] == before
