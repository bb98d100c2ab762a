"""Policies of prefixes, beside a naive count over all that ever happened: bytes, compactions, what can be read."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.state import KvFold
from actors.kv.v3 import errors, revs
from actors.kv.v3.errors import V3Error
from actors.kv.v3.floors import Floors, behind
from actors.kv.v3.hashes import hash_kv
from actors.kv.v3.policies import POLICIES_MAX, Policies, Policy, shown
from actors.kv.v3.ranges import Query, ranged
from actors.kv.v3.revs import OVERHEAD_BYTES, Rev
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import Base64, Blob, Data, Event, blob, say
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Record
from streams.replay import Context, LogState, Position

COST = OVERHEAD_BYTES


def apply(store: Store, *said: Data, term: int = 0) -> list[Outcome]:
    return [store.evolve(say(data, term=term), 1) for data in said]


def code(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Rejected) else "+"


def words(outcome: Outcome) -> str:
    assert isinstance(outcome, Rejected), outcome
    return outcome.message


def policy(store: Store, prefix: bytes) -> Policy:
    assert store.revs.policies is not None
    return store.revs.policies.by_prefix[prefix]


# -- bytes ----------------------------------------------------------------------------------------------------


def test_a_prefix_has_what_its_policy_gives_and_deletes_always_pass() -> None:
    store = Store()
    apply(store, says.Put("a/1", "v" * 100), says.PolicySet("a/", max_bytes=2 * (103 + COST)))
    assert policy(store, b"a/").live_bytes == 103 + COST
    assert [code(one) for one in apply(store, says.Put("a/2", "v" * 100), says.Put("b", "v" * 9999))] == ["+", "+"]
    [refused] = apply(store, says.Put("a/3"))
    assert code(refused) == f"v3.{errors.EXHAUSTED}"
    assert words(refused).startswith(errors.NO_SPACE.message + ': keys that begin with "a/" may have 334 bytes')
    # what makes it no larger passes, and what is deleted is free again at once
    assert code(apply(store, says.Put("a/2", "w" * 100))[0]) == "+"
    assert code(apply(store, says.Put("a/2", "w" * 101))[0]) != "+"
    assert code(apply(store, says.Delete("a/1"), says.Put("a/3", "v" * 100))[1]) == "+"
    # a smaller limit takes nothing away
    apply(store, says.PolicySet("a/", max_bytes=1))
    assert code(apply(store, says.Put("a/3", "v" * 99))[0]) == "+"
    assert code(apply(store, says.Put("a/3", "v" * 100))[0]) != "+"
    apply(store, says.PolicyRemove("a/"))
    assert store.revs.policies is None
    assert code(apply(store, says.Put("a/3", "v" * 1000))[0]) == "+"


def test_all_policies_that_match_hold() -> None:
    store = Store()
    apply(store, says.PolicySet("", max_bytes=1000), says.PolicySet("a/", max_bytes=500), says.PolicySet("a/b/", 5000))
    big = "v" * 400
    assert [code(one) for one in apply(store, says.Put("a/b/1", big), says.Put("a/b/2", big))] == ["+", "v3.8"]
    assert '"a/"' in words(apply(store, says.Put("a/b/2", big))[0])
    assert code(apply(store, says.Put("c", big))[0]) == "+"
    assert 'begin with ""' in words(apply(store, says.Put("d", big))[0])
    assert [policy(store, p).live_bytes for p in (b"", b"a/", b"a/b/")] == [469 + 465, 469, 469]


def test_a_transaction_is_looked_at_as_a_whole() -> None:
    store = Store()
    room = 3 * (3 + 10 + COST)
    apply(store, says.PolicySet("a/", max_bytes=room), *[says.Put(f"a/{n}", "v" * 10) for n in range(3)])

    def run(*ops: says.Op, inner: bool = False) -> str:
        txn = says.Txn(success=[says.OpTxn(success=list(ops))] if inner else list(ops))
        before = (store.revs.revision, policy(store, b"a/").live_bytes)
        result = code(apply(store, txn)[0])
        if result != "+":
            assert (store.revs.revision, policy(store, b"a/").live_bytes) == before
        return result

    put, delete = says.OpPut, says.OpDelete
    assert run(put("a/3", "v" * 10)) == "v3.8"
    assert run(put("a/3", "v" * 10), inner=True) == "v3.8"
    # what it deletes makes room for what it puts, in whatever order
    assert run(delete("a/0"), put("a/3", "v" * 10)) == "+"
    assert run(put("a/4", "v" * 10), delete("a/1")) == "+"
    assert run(delete("a/", "a0"), put("x"), inner=True) == "+"
    assert policy(store, b"a/").live_bytes == 0
    assert run(*[put(f"a/{n}", "v" * 10) for n in range(4)]) == "v3.8"
    assert run(*[put(f"a/{n}", "v" * 10) for n in range(3)]) == "+"
    assert run(put("a/0", ignore_value=True), put("b")) == "+"
    # the branch that isn't taken costs nothing
    never = [says.Compare("a/0", target=0, result=0, operand=99)]
    assert code(apply(store, says.Txn(never, [put("a/9", "v" * 999)], [put("c")]))[0]) == "+"


def test_leases_end_keys_of_a_full_prefix() -> None:
    store = Store()
    apply(store, says.LeaseGrant(7, 60), says.Put("a/1", lease=7), says.PolicySet("a/", max_bytes=1))
    assert code(apply(store, says.LeaseRevoke(7))[0]) == "+"
    assert policy(store, b"a/").live_bytes == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (says.PolicySet("a"), "kv-policy.nothing"),
        (says.PolicySet("a", burst=5), "kv-policy.bad"),
        (says.PolicySet("a", max_bytes=-1), "kv-policy.bad"),
        (says.PolicySet("a", max_bytes=2**54), "kv-policy.bad"),
        (says.PolicySet("a", writes_per_s=-0.5), "kv-policy.bad"),
        (says.PolicySet("a", writes_per_s=float("nan")), "kv-policy.bad"),
        (says.PolicySet("a", writes_per_s=float("inf")), "kv-policy.bad"),
        (says.PolicySet("a", keep_age_s=-1), "kv-policy.bad"),
        (says.PolicyRemove("a"), "kv-policy.unknown"),
        (says.PrefixCompact("a", 1), "kv-policy.unknown"),
        (says.PrefixCompact("p", 99), "v3.11"),
    ],
)
def test_what_can_not_be_set_changes_nothing(said: Data, why: str) -> None:
    store = Store()
    apply(store, says.PolicySet("p", max_bytes=9), says.Put("a"))
    before = list(store.encode())
    assert code(apply(store, said)[0]) == why
    assert list(store.encode()) == before


def test_there_is_an_end_to_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.kv.v3.policies.POLICIES_MAX", 2)
    store = Store()
    said = [says.PolicySet(prefix, max_bytes=1) for prefix in ("a", "b", "a", "c")]
    assert [code(one) for one in apply(store, *said)] == ["+", "+", "+", "kv-policy.too-many"]
    assert POLICIES_MAX > 1000


def test_how_a_prefix_is_shown() -> None:
    assert shown(b"a/") == '"a/"'
    assert shown(b"\xff") == 'base64 {"base64":"/w=="}'


# -- floors ---------------------------------------------------------------------------------------------------

name = st.text(alphabet="ab/", max_size=4).map(str.encode) | st.sampled_from([b"\xff", b"\xff\xff", b"a\xff"])


@settings(deadline=None)
@given(st.dictionaries(name, st.integers(1, 20), max_size=5), name.filter(bool), name)
def test_floors_are_found_as_by_looking_at_each(floors: dict[bytes, int], key: bytes, end: bytes) -> None:
    made = Floors(floors)
    assert made.of(key) == max((floor for one, floor in floors.items() if key.startswith(one)), default=-1)
    for stop in (end, b"\0"):
        if stop and (stop == b"\0" or key < stop):
            inside = lambda one: key <= one and (stop == b"\0" or one < stop)  # noqa: E731, B023
            # a prefix is met if the range has it, or what could stand behind it
            tails = [b"", b"\0", b"a", b"\xff" * 6]
            met = [floor for one, floor in floors.items() if any(inside(one + tail) for tail in tails)]
            met += [floor for one, floor in floors.items() if key.startswith(one)]
            assert made.over(key, stop) == max(met, default=-1)


@settings(deadline=None)
@given(name, st.binary(max_size=4))
def test_behind_a_prefix(prefix: bytes, other: bytes) -> None:
    stop = behind(prefix)
    assert (prefix <= other and (stop == b"\0" or other < stop)) == other.startswith(prefix)


# -- beside a naive count -------------------------------------------------------------------------------------

KEYS = ["a", "a/", "a/1", "a/2", "a/b/1", "a/b/2", "b", "b/1", "c"]
PREFIXES = ["", "a", "a/", "a/b/", "b", "zz"]
key = st.sampled_from(KEYS)
value = st.sampled_from(["", "v", "vvvvv", "v" * 40])
prefix = st.sampled_from(PREFIXES)
limit = st.sampled_from([0, 1, 150, 400, 10**6])
back = st.integers(0, 6)
put_op = st.builds(says.OpPut, key, value, st.sampled_from([0, 7]), st.booleans())
delete_op = st.builds(says.OpDelete, key, st.sampled_from(["", "a0", "b", "\0"]))
ops = st.lists(put_op | delete_op, max_size=3)
change = st.one_of(
    st.builds(says.Put, key, value, st.sampled_from([0, 7]), st.booleans()),
    st.builds(says.Delete, key, st.sampled_from(["", "a0", "b", "\0"])),
    st.builds(says.Txn, success=st.lists(put_op | delete_op | st.builds(says.OpTxn, success=ops), max_size=3)),
    st.builds(lambda one: ("compact", one), back),
    st.builds(lambda one, far: ("prefix", one, far), prefix, back),
    st.builds(says.PolicySet, prefix, limit, st.just(1.0), st.just(0), st.just(0), limit),
    st.builds(says.PolicyRemove, prefix),
    st.sampled_from([says.LeaseGrant(7, 60), says.LeaseRevoke(7)]),
)


class Naive:
    """Remembers each change, and counts anew whenever it is asked."""

    def __init__(self) -> None:
        self.made: list[Rev] = []
        self.before: dict[tuple[int, int], Rev | None] = {}
        self.compacted = -1
        self.floors: list[tuple[bytes, int]] = []

    def see(self, store: Store, since: int) -> None:
        for rev in store.revs.since(since):
            self.made.append(rev)
            self.before[rev.mod, rev.sub] = rev.prev

    def limit(self, key: bytes) -> int:
        return max([self.compacted, *[floor for one, floor in self.floors if key.startswith(one)]])

    def live(self, prefix: bytes) -> int:
        newest = {rev.key: rev for rev in self.made}
        return sum(rev.size for rev in newest.values() if rev.version and rev.key.startswith(prefix))

    def history(self, prefix: bytes) -> int:
        total = 0
        for rev in self.made:
            if rev.key.startswith(prefix) and rev.mod > self.limit(rev.key):
                old = self.before[rev.mod, rev.sub]
                total += (old.size if old is not None and old.version else 0) + (0 if rev.version else rev.size)
        return total

    def at(self, key: bytes, revision: int) -> tuple[Any, ...] | None:
        found = [rev for rev in self.made if rev.key == key and rev.mod <= revision]
        return fields(found[-1]) if found and found[-1].version else None


def fields(rev: Rev) -> tuple[Any, ...]:
    return rev.key, rev.value, rev.create, rev.mod, rev.version, rev.lease


def number(store: Store, revision: int = 0) -> int:
    *_, last = hash_kv(store.revs, revision)
    return last


def check(store: Store, naive: Naive) -> None:
    mine = store.revs
    assert mine.size == naive.live(b"") + naive.history(b"")
    for one in mine.policies.by_prefix.values() if mine.policies is not None else ():
        assert (one.live_bytes, one.history_bytes) == (naive.live(one.prefix), naive.history(one.prefix))
        assert one.history_bytes == sum(one.garbage)
        assert list(one.mods) == sorted(one.mods)


def check_reads(store: Store, naive: Naive) -> None:
    """All that is above the compactions is to be read as it was, by key and by range; all below is refused."""
    mine = store.revs
    for revision in range(1, mine.revision + 1):
        for text in KEYS:
            name = text.encode()
            if revision < naive.limit(name):
                with pytest.raises(V3Error, match="has been compacted"):
                    ranged(mine, Query(name, revision=revision), mine.revision)
            else:
                found = ranged(mine, Query(name, revision=revision), mine.revision).kvs
                assert (fields(found[0]) if found else None) == naive.at(name, revision)
        met = max([naive.compacted, *[floor for one, floor in naive.floors if one == b"" or one.startswith(b"b")]])
        query = Query(b"b", b"c", revision=revision)
        if revision < met and revision < mine.revision:
            with pytest.raises(V3Error, match="has been compacted"):
                ranged(mine, query, mine.revision)
        else:
            names = [name.encode() for name in KEYS if name.startswith("b")]
            wanted = [found for name in names if (found := naive.at(name, revision)) is not None]
            assert [fields(rev) for rev in ranged(mine, query, mine.revision).kvs] == wanted


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(change, back), max_size=40), st.integers(1, 4))
def test_what_is_counted_and_read_is_what_happened(changes: list[tuple[Any, int]], segment: int) -> None:
    naive, size = Naive(), revs.SEGMENT
    try:
        revs.SEGMENT = segment  # so that few revisions make many segments
        swept, lazy = Store(), Store()
        for said, steps in changes:
            since = lazy.revs.revision + 1
            for store in (swept, lazy):
                data = said
                if isinstance(said, tuple):
                    revision = max(1, store.revs.revision - said[-1])
                    data = says.Compact(revision) if said[0] == "compact" else says.PrefixCompact(said[1], revision)
                outcome = apply(store, data)[0]
            naive.see(lazy, since)
            if isinstance(outcome, Accepted) and isinstance(data, says.Compact):
                naive.compacted = data.revision
            elif isinstance(outcome, Accepted) and isinstance(data, says.PrefixCompact):
                assert isinstance(data.prefix, str)
                naive.floors.append((data.prefix.encode(), data.revision))
            if steps:
                swept.revs.sweep(steps)
            for store in (swept, lazy):
                check(store, naive)
            assert list(swept.encode()) == list(lazy.encode())
            assert number(swept) == number(lazy)
        again = Store()
        again.restore(lazy.encode())
        assert list(again.encode()) == list(lazy.encode())
        for store in (again, lazy, swept):
            check(store, naive)
            check_reads(store, naive)
            assert number(store) == number(lazy)
    finally:
        revs.SEGMENT = size


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 400))
def test_the_surplus_is_the_least_that_leaves_room(sizes: list[int], keep: int) -> None:
    store = Store()
    apply(store, says.PolicySet("k", keep_bytes=keep))
    for size in sizes:
        apply(store, says.Put("k", "v" * size))
    one = policy(store, b"k")
    revision = one.surplus()
    assert bool(revision) == (one.history_bytes > keep)
    if revision:
        assert code(apply(store, says.PrefixCompact("k", revision))[0]) == "+"
        assert one.history_bytes <= keep - keep // 8
        assert code(apply(store, says.PrefixCompact("k", revision))[0]) == "v3.11"
        assert not one.surplus()


def test_nobody_pays_who_set_no_policy() -> None:
    store = Store()
    apply(store, says.Put("a"), says.PolicySet("a", max_bytes=5), says.PolicyRemove("a"))
    assert b"policies" not in b"".join(store.encode())
    assert b"floors" not in b"".join(store.encode())
    assert isinstance(Policies({}).of(b"a"), list)


def test_a_policy_survives_an_import_and_counts_it() -> None:
    source, target = Store(), Store()
    apply(source, *[says.Put(f"a/{n}", "v") for n in range(5)], says.Put("a/1", "w"))
    apply(target, says.PolicySet("a/", max_bytes=100))
    assert target.empty
    assert not target.untouched
    lines = b"".join(source.encode()).decode()
    said = [says.ImportBegin("i", 1), says.ImportPart("i", 0, lines), says.ImportEnd("i")]
    assert [code(one) for one in apply(target, *said)] == ["+", "+", "+"]
    assert policy(target, b"a/").live_bytes == 5 * (4 + COST)
    assert policy(target, b"a/").history_bytes == 4 + COST
    assert code(apply(target, says.Put("a/9"))[0]) == "v3.8"


def test_bytes_that_are_no_text() -> None:
    store = Store()
    raw: Blob = blob(b"\xfe\xff")
    assert isinstance(raw, Base64)
    apply(store, says.PolicySet(raw, max_bytes=100), says.Put(blob(b"\xfe\xff\x01"), "v" * 20))
    assert policy(store, b"\xfe\xff").live_bytes == 23 + COST
    apply(store, says.Put(blob(b"\xfe\xff\x01"), "w" * 20), says.PrefixCompact(raw, 3))
    again = Store()
    again.restore(store.encode())
    assert again.revs.floors is not None
    assert again.revs.floors.by_prefix == {b"\xfe\xff": 3}
    assert list(again.encode()) == list(store.encode())


def test_sweeping_gives_the_memory_of_a_prefix_back() -> None:
    store = Store()
    apply(store, says.PolicySet("a", keep_bytes=1))
    for n in range(3000):
        apply(store, says.Put(f"a{n % 5}"), says.Put(f"b{n % 5}"))
    apply(store, says.PrefixCompact("a", store.revs.revision), term=1)
    expected = list(store.encode())
    turns = 0
    while store.revs.sweep():
        turns += 1
        assert list(store.encode()) == expected  # in the middle of it, too
    assert turns > 3
    assert sum(len(one.revs) for one in store.revs.segments) == 5 + 3000
    assert [one.size for one in ranged(store.revs, Query(b"a", b"b"), store.revs.revision).kvs] == [2 + COST] * 5


def test_sweeping_all_keys_never_shows_one_twice() -> None:
    """A reader in the middle of it, as a snapshot or a hash is."""
    store = Store()
    for n in range(5000):
        apply(store, says.Put(f"k{n}", "v"))
    apply(store, *[says.Put(f"k{n}", "w") for n in range(5000) if n % 3])
    apply(store, says.Compact(store.revs.revision))
    expected, now = list(store.encode()), number(store)
    while store.revs.sweep():
        assert list(store.encode()) == expected
        assert number(store) == now
        assert [rev.mod for rev in store.revs.since(store.revs.compacted)] == [store.revs.compacted]


@settings(deadline=None)
@given(st.lists(st.tuples(key, value), min_size=1, max_size=40), limit, limit)
def test_the_short_way_of_puts_comes_to_the_same(puts: list[tuple[str, str]], a_bytes: int, all_bytes: int) -> None:
    """A whole record at once beside one event after the other: outcomes and state, at and beyond the quota."""
    events = [say(says.Put(name, text)) for name, text in puts]
    record = Record("ab" * 16, "kv", "kv@m", 1, 1, 1_700_000_000_000, b"", 3)
    at_once, singly = KvFold(), KvFold()
    for fold in (at_once, singly):
        apply(fold.v3, says.PolicySet("a", max_bytes=a_bytes, keep_bytes=9), says.PolicySet("", all_bytes, 1.0))

    def context(index: int) -> Context:
        return Context(Position(3, index), record, LogState())

    def one(event: Event, index: int) -> Outcome:
        return at_once.evolve(event, context(index))

    came_to = at_once.evolve_many(events, record, LogState(), one, True)
    expected = [singly.evolve(event, context(index)) for index, event in enumerate(events)]
    assert [code(outcome) for outcome in came_to] == [code(outcome) for outcome in expected]
    assert list(at_once.encode()) == list(singly.encode())
    for prefix in (b"a", b""):
        one_way, other = policy(at_once.v3, prefix), policy(singly.v3, prefix)
        assert (one_way.live_bytes, one_way.garbage) == (other.live_bytes, other.garbage)


# -- etcd's number --------------------------------------------------------------------------------------------------


def test_a_hash_is_the_same_before_and_after_what_was_compacted_is_swept() -> None:
    store = Store()
    said: list[Data] = [says.Put("a", "1"), says.Compact(2), says.PolicySet("a", keep_bytes=1), says.Put("b", "1")]
    for data in [*said, says.Delete("a"), says.Delete("b"), says.PrefixCompact("a", 5)]:
        assert isinstance(store.evolve(say(data), 1), Accepted)
    before = number(store)
    restored = Store()
    restored.restore(list(store.encode()))
    while store.revs.sweep():
        pass
    assert number(store) == number(restored) == before


def test_a_hash_beside_which_something_is_compacted_is_that_of_after() -> None:
    store = Store()
    for at in range(10_000):
        store.evolve(say(says.Put(f"k{at % 50}", f"v{at}")), at)
    steps = hash_kv(store.revs, 10_001)
    next(steps)
    store.evolve(say(says.Compact(9000)), 10_000)
    while store.revs.sweep():
        pass
    *_, beside = steps
    assert beside == number(store, 10_001)
    steps = hash_kv(store.revs, 9500)
    next(steps)
    store.evolve(say(says.Compact(9600)), 10_001)
    with pytest.raises(V3Error, match="compacted"):
        list(steps)
