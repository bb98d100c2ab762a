"""A prefix's quota: what a change comes to is found by doing it where there is no quota."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.v3.kinds import OVERHEAD_BYTES
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Rejected

MAX_BYTES = {b"": 1000, b"a": 500, b"ab": 200}
keys = st.sampled_from(["a", "ab", "abc", "b"])
values = st.sampled_from([0, 33, 34, 66, 67, 68, 300]).map(lambda size: "v" * size)
puts = st.builds(says.OpPut, keys, values) | st.builds(says.OpPut, keys, ignore_value=st.just(True))
deletes = st.builds(says.OpDelete, keys, st.sampled_from(["", "", "b", "\0"]))
ops = st.lists(puts | deletes | st.builds(says.OpRange, keys), max_size=4)
nested = st.builds(says.OpTxn, st.just([]), ops, ops)
changes = st.lists(
    st.builds(says.Put, keys, values)
    | st.builds(says.Put, keys, ignore_value=st.just(True))
    | st.builds(says.Delete, keys, st.sampled_from(["", "b"]))
    | st.builds(says.Txn, st.just([]), st.lists(puts | puts | deletes | nested, max_size=3)),
    max_size=8,
)


def live_bytes(store: Store, prefix: bytes) -> int:
    newest = store.revs.newest
    return sum(newest[key].size for key in store.revs.live if key.startswith(prefix))


@settings(deadline=None)
@given(changes)
def test_what_makes_a_prefix_larger_than_it_may_be_is_refused_and_nothing_else(said: list[Data]) -> None:
    limited, free = Store(), Store()
    for prefix, size in MAX_BYTES.items():
        limited.evolve(say(says.PolicySet(prefix.decode(), max_bytes=size)), 1)
    for data in said:
        if isinstance(data, says.Put) and not data.ignore_value:
            assert limited.revs.policies is not None
            fits = limited.revs.policies.fits(limited.revs, data.key.encode(), data.value.encode())  # type: ignore[union-attr]
        before = {prefix: live_bytes(free, prefix) for prefix in MAX_BYTES}
        saved = list(free.encode())
        right: Any = free.evolve(say(data), 1)
        after = {prefix: live_bytes(free, prefix) for prefix in MAX_BYTES}
        over = [prefix for prefix, size in MAX_BYTES.items() if after[prefix] > max(size, before[prefix])]
        came: Any = limited.evolve(say(data), 1)
        assert isinstance(came, Rejected if over or isinstance(right, Rejected) else Accepted)
        if isinstance(data, says.Put) and not data.ignore_value:
            assert fits == (not over)
        if over:
            free = Store()  # as if it hadn't been said
            free.restore(saved)
        assert {prefix: live_bytes(limited, prefix) for prefix in MAX_BYTES} == {
            prefix: live_bytes(free, prefix) for prefix in MAX_BYTES
        }


def test_a_quota_is_met_to_the_byte() -> None:
    for room, kept in ((OVERHEAD_BYTES + 2, True), (OVERHEAD_BYTES + 1, False)):
        store = Store()
        store.evolve(say(says.PolicySet("a", max_bytes=room)), 1)
        outcome = store.evolve(say(says.Txn([], [says.OpPut("a", "v")])), 1)
        assert isinstance(outcome, Accepted if kept else Rejected)
        # what only keeps its value is no larger than it was
        outcome = store.evolve(say(says.Txn([], [says.OpPut("a", ignore_value=True)])), 1)
        assert isinstance(outcome, Accepted if kept else Rejected)
        assert live_bytes(store, b"a") == (room if kept else 0)


def test_of_a_key_that_keeps_its_value_the_size_stays() -> None:
    store = Store()
    store.evolve(say(says.Put("a", "v" * 100)), 1)
    store.evolve(say(says.PolicySet("a", max_bytes=2 * (OVERHEAD_BYTES + 1) + 100)), 1)
    both = says.Txn([], [says.OpPut("a", ignore_value=True), says.OpPut("b"), says.OpPut("ab")])
    assert isinstance(store.evolve(say(both), 1), Rejected)
    both = says.Txn([], [says.OpPut("a", ignore_value=True), says.OpPut("b")])
    assert isinstance(store.evolve(say(both), 1), Accepted)


def test_what_a_narrower_prefix_gave_back_is_no_longer_the_wider_ones() -> None:
    store = Store()
    for data in (
        says.PolicySet("", keep_bytes=10_000), says.PolicySet("a", keep_bytes=10_000),
        says.Put("a", "1"), says.Put("b", "2"), says.Put("a", "33"), says.Put("b", "444"), says.Put("a", "5"),
        says.PrefixCompact("a", 6),
    ):  # fmt: skip
        store.evolve(say(data), 1)
    assert store.revs.policies is not None
    again = Store()
    again.restore(store.encode())  # counts anew
    assert again.revs.policies is not None
    for prefix in (b"", b"a"):
        kept, counted = store.revs.policies.by_prefix[prefix], again.revs.policies.by_prefix[prefix]
        assert (list(kept.mods), list(kept.garbage)) == (list(counted.mods), list(counted.garbage))
    assert list(store.revs.policies.by_prefix[b""].mods) == [5]
