"""The checker of histories: good ones pass, and each kind of fault that is planted in them is found."""

import random
import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories.generate import Made, World, history
from tests.histories.linear import changed, check
from tests.histories.ops import (
    FIRST,
    Compare,
    Deleted,
    Event,
    Kv,
    Op,
    Put,
    PutDone,
    Range,
    Ranged,
    Refused,
    Txn,
    TxnDone,
)
from tests.histories.store import Store

SEEDS = range(12)
replace = msgspec.structs.replace


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 60), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_good_histories_pass(seed: int, clients: int, each: int, unknown: float) -> None:
    made = history(seed, clients, each, unknown)
    assert check(made.ops, made.changes).violations == []


def state(made: Made, revision: int) -> Store:
    store = Store()
    for events in made.changes[: revision - FIRST + 1]:
        store.take(events)
    return store


def stale_read(made: Made, rng: random.Random) -> None:
    """The state of some revisions ago, exactly as it was then."""
    reads = [
        (index, op)
        for index, op in enumerate(made.ops)
        if isinstance(op.request, Range)
        and op.result is not None
        and not op.request.serializable
        and not op.request.revision
        and op.revision > 3
    ]
    for index, op in rng.sample(reads, len(reads)):
        known = max((one.revision for one in made.ops if one.returned_s < op.invoked_s), default=0)
        if known > FIRST:
            old = state(made, known - 1)
            made.ops[index] = replace(op, result=old.ranged(op.request), revision=known - 1)  # type: ignore[arg-type]
            return
    raise AssertionError("no read to make stale")


def wrong_contents(made: Made, rng: random.Random) -> None:
    reads = [(n, op) for n, op in enumerate(made.ops) if isinstance(op.result, Ranged) and op.result.kvs]
    index, op = rng.choice(reads)
    assert isinstance(op.result, Ranged)
    kvs = [replace(op.result.kvs[0], value=b"other"), *op.result.kvs[1:]]
    made.ops[index] = replace(op, result=Ranged(kvs, len(kvs)))


def wrong_lease_of_a_key(made: Made, rng: random.Random) -> None:
    reads = [(n, op) for n, op in enumerate(made.ops) if isinstance(op.result, Ranged) and op.result.kvs]
    index, op = rng.choice(reads)
    assert isinstance(op.result, Ranged)
    kvs = [replace(op.result.kvs[0], lease=op.result.kvs[0].lease + 1), *op.result.kvs[1:]]
    made.ops[index] = replace(op, result=Ranged(kvs, len(kvs)))


def key_left_out(made: Made, rng: random.Random) -> None:
    reads = [(n, op) for n, op in enumerate(made.ops) if isinstance(op.result, Ranged) and op.result.kvs]
    index, op = rng.choice(reads)
    assert isinstance(op.result, Ranged)
    kvs = op.result.kvs[:-1]
    made.ops[index] = replace(op, result=Ranged(kvs, len(kvs)))


def answered_puts(made: Made) -> list[tuple[int, Op]]:
    return [(n, op) for n, op in enumerate(made.ops) if isinstance(op.request, Put) and isinstance(op.result, PutDone)]


def wrong_prev_kv(made: Made, rng: random.Random) -> None:
    """That of the version before, or none where there was one."""
    puts = [(n, op) for n, op in answered_puts(made) if isinstance(op.result, PutDone) and op.result.prev]
    index, op = rng.choice(puts)
    assert isinstance(op.result, PutDone)
    assert op.result.prev is not None
    wrong = rng.choice([None, replace(op.result.prev, version=op.result.prev.version + 1)])
    made.ops[index] = replace(op, result=PutDone(wrong))


def reordered_writes(made: Made, rng: random.Random) -> None:
    """Of two, one answered before the other was asked, the later one stands first in the store."""
    writes = [(n, op) for n, op in enumerate(made.ops) if changed(op.result)]
    for _ in range(10_000):
        (first, one), (second, other) = rng.sample(writes, 2)
        if one.returned_s < other.invoked_s:
            made.ops[first] = replace(one, invoked_s=other.invoked_s, returned_s=other.returned_s)
            made.ops[second] = replace(other, invoked_s=one.invoked_s, returned_s=one.returned_s)
            return
    raise AssertionError("all writes are concurrent")


def claimed_twice(made: Made, rng: random.Random) -> None:
    (_, one), (index, other) = rng.sample(answered_puts(made), 2)
    made.ops[index] = replace(other, revision=one.revision)


def beyond_the_end(made: Made, rng: random.Random) -> None:
    """The last one answered isn't there any more."""
    del made.changes[max(op.revision for op in made.ops if changed(op.result)) - FIRST :]


def refused_and_done(made: Made, rng: random.Random) -> None:
    index, op = rng.choice(answered_puts(made))
    made.ops[index] = replace(op, result=Refused("not now"), revision=0)


def by_nobody(made: Made, rng: random.Random) -> None:
    index, _ = rng.choice(answered_puts(made))
    del made.ops[index]


def wrong_branch(made: Made, rng: random.Random) -> None:
    """A transaction that read says that the other comparison held."""
    for index, op in enumerate(made.ops):
        if isinstance(op.request, Txn) and isinstance(op.result, TxnDone) and not changed(op.result):
            turned = replace(op.request, success=op.request.failure, failure=op.request.success)
            other = replace(turned, compare=[])
            if op.result.succeeded:
                other = replace(turned, success=op.request.failure, compare=[])
            result, events = state(made, op.revision).run(other)
            if not events:
                assert isinstance(result, TxnDone)
                made.ops[index] = replace(op, result=replace(result, succeeded=not op.result.succeeded))
                return
    raise AssertionError("no such transaction")


FAULTS = [
    stale_read,
    wrong_contents,
    wrong_lease_of_a_key,
    key_left_out,
    wrong_prev_kv,
    reordered_writes,
    claimed_twice,
    beyond_the_end,
    refused_and_done,
    by_nobody,
    wrong_branch,
]


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_fault_is_found(plant: Callable[[Made, random.Random], None], seed: int) -> None:
    made = history(seed)
    assert check(made.ops, made.changes).violations == []
    plant(made, random.Random(seed))
    assert check(made.ops, made.changes).violations


# -- stores that are wrong ------------------------------------------------------------------------------------


class Wrong(World):
    """Does one thing wrongly, at the first chance after the middle; all that comes later follows from it."""

    fault = ""
    done = False

    def apply(self, request, now_s):  # type: ignore[no-untyped-def]
        if self.done or len(self.changes) < 100 or not isinstance(request, Put | Txn):
            return super().apply(request, now_s)
        return getattr(self, "_" + self.fault)(request, now_s)

    def _lost(self, request, now_s):  # type: ignore[no-untyped-def]
        """Answered, and forgotten: the next write gets its revision."""
        result, events = self.store.run(request)
        if not events:
            return result
        self.done = True
        self.at(now_s, lambda _: self.store.undo(events))
        return result

    def _doubled(self, request, now_s):  # type: ignore[no-untyped-def]
        result = super().apply(request, now_s)
        if isinstance(request, Put) and not request.lease:
            self.done = True
            self.at(now_s + 0.05, lambda late_s: World.apply(self, request, late_s) and None)
        return result

    def _other_branch(self, request, now_s):  # type: ignore[no-untyped-def]
        """The transaction does what it should do if the comparison came out otherwise."""
        if not isinstance(request, Txn):
            return super().apply(request, now_s)
        result = super().apply(replace(request, success=request.failure, failure=request.success), now_s)
        self.done = True
        return replace(result, succeeded=not result.succeeded) if isinstance(result, TxnDone) else result

    def _partly(self, request, now_s):  # type: ignore[no-untyped-def]
        """A transaction of two puts, of which one came to pass."""
        result, events = self.store.run(
            Txn([], [Put(b"k1", b"one", prev_kv=True), Put(b"k2", b"two")], []),
        )
        whole = Txn([], [Put(b"k1", b"one", prev_kv=True), Put(b"k2", b"two")], [])
        self.store.undo(events)
        self.store.take(events[:1])
        self.changes.append(events[:1])
        self.done = True
        self.ops.append(Op("x", now_s, now_s, whole, result, self.store.revision))
        return super().apply(request, now_s)


@pytest.mark.parametrize("fault", ["lost", "doubled", "other_branch", "partly"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_that_does_wrong_is_found(fault: str, seed: int) -> None:
    world = Wrong(seed, unknown=0.0)
    world.fault = fault
    made = world.run(5, 100)
    assert world.done
    assert check(made.ops, made.changes).violations


# -- by hand --------------------------------------------------------------------------------------------------


def put(number: int, invoked_s: float, returned_s: float, revision: int) -> Op:
    return Op("a", invoked_s, returned_s, Put(b"k", b"%d" % number), PutDone(), revision)


def made_by(*values: int) -> list[list[Event]]:
    store = Store()
    return [store.run(Put(b"k", b"%d" % value))[1] for value in values]


def test_an_unknown_write_takes_effect_once_late_or_never() -> None:
    unknown = Op("b", 0.0, 1.0, Put(b"k", b"7"))
    assert check([put(1, 2, 3, 2), unknown], made_by(1)).violations == []
    late = check([put(1, 2, 3, 2), unknown], made_by(1, 7))
    assert (late.violations, [op.revision for op in late.resolved]) == ([], [3])
    assert "nobody made revision 4" in check([put(1, 2, 3, 2), unknown], made_by(1, 7, 7)).violations[0]
    early = Op("b", 5.0, 6.0, Put(b"k", b"7"))
    assert "wrote at or below" in check([put(1, 2, 3, 3), early], made_by(7, 1)).violations[0]


def test_unknown_deletions_of_one_key_are_told_apart_by_their_times_only() -> None:
    from tests.histories.ops import Delete

    store = Store()
    asked = [Put(b"k", b"1"), Delete(b"k"), Put(b"k", b"2"), Delete(b"k", b"z")]
    changes = [store.run(one)[1] for one in asked]
    known = [put(1, 0, 1, 2), put(2, 4, 5, 4)]
    unknown = [Op("b", 6, 7, Delete(b"a", b"z")), Op("b", 2, 3, Delete(b"k"))]
    assert check(known + unknown, changes).violations == []
    assert check(known + unknown[:1], changes).violations  # one can't have done both


def test_a_lease_that_ends_takes_all_its_keys_in_one_revision() -> None:
    store = Store()
    ops = [Op("a", n, n + 0.5, Put(b"k%d" % n, b"%d" % n, lease=9), PutDone(), 2 + n) for n in (0, 1)]
    changes = [store.run(op.request)[1] for op in ops]
    whole = [Event(Kv(key, mod=4), store.kvs[key]) for key in (b"k0", b"k1")]
    verdict = check(ops, [*changes, whole])
    assert (verdict.violations, verdict.ended) == ([], {4: 9})
    assert check(ops, [*changes, whole[:1]]).violations


def test_a_delete_that_found_nothing_and_a_past_range_are_read_at_their_places() -> None:
    from tests.histories.ops import Delete

    changes = made_by(1, 2)
    ops = [put(1, 0, 1, 2), put(2, 2, 3, 3)]
    past = Op("c", 4, 5, Range(b"k", revision=2), Ranged([changes[0][0].kv], 1), 3)
    assert check([*ops, past], changes).violations == []
    assert check([*ops, replace(past, result=Ranged([changes[1][0].kv], 1))], changes).violations
    nothing = Op("c", 4, 5, Delete(b"k"), Deleted(0), 3)
    assert check([*ops, nothing], changes).violations


def test_a_comparison_with_what_is_not_there() -> None:
    store = Store()
    for compare, holds in [
        (Compare(b"k", "value", "!=", b"x"), False),
        (Compare(b"k", "version", "=", 0), True),
        (Compare(b"k", "mod", ">", 0), False),
    ]:
        done, _ = store.run(Txn([compare], [], []))
        assert isinstance(done, TxnDone)
        assert done.succeeded is holds


def test_two_hundred_thousand_operations_in_seconds_and_twice_as_many_in_about_twice_the_time() -> None:
    took_s = []
    for each in (10_000, 20_000):
        made = history(1, 10, each, unknown=0.01)
        began_s = time.process_time()
        assert check(made.ops, made.changes).violations == []
        took_s.append(time.process_time() - began_s)
    print(f"\n200,000 operations: {took_s[1]:.2f} s")
    assert took_s[1] < 20
    assert took_s[1] < 4 * took_s[0] + 1
