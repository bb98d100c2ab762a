"""Ranges, transactions and hashes beside a plain model: every revision's keys in a dict of their own."""

from typing import Any, NamedTuple

import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.proto import kv_pb2
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.hashes import hash_kv
from actors.kv.v3.kinds import Deleted, Query, Ranged, Rev, TxnDone
from actors.kv.v3.ranges import ranged
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Rejected

LEASE = 7
KEYS = ["a", "b", "c", "d"]
keys, values, ends = st.sampled_from(KEYS), st.sampled_from(["", "x", "y"]), st.sampled_from(["", "b", "d", "\0"])
leases = st.sampled_from([0, 0, LEASE])


class Kv(NamedTuple):
    key: bytes
    value: bytes
    create: int
    mod: int
    version: int
    lease: int


class Model:
    """``at``: the living keys after each revision. ``bytes``: of etcd's bucket, by revision and its part."""

    def __init__(self) -> None:
        self.at: dict[int, dict[bytes, Kv]] = {1: {}}
        self.bytes: list[tuple[int, int, bytes | None, Kv | bytes]] = []
        self.revision, self.compacted = 1, -1
        self.store = Store()
        self.evolve(says.LeaseGrant(LEASE, 60))

    def evolve(self, data: Data) -> Any:
        outcome = self.store.evolve(say(data), 1)
        assert isinstance(outcome, Accepted | Rejected)
        return outcome

    @property
    def now(self) -> dict[bytes, Kv]:
        return self.at[self.revision]


def within(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else start <= key and (end == b"\0" or key < end)


class Change:
    """One revision in the making, by the model."""

    def __init__(self, model: Model) -> None:
        self.model, self.keys, self.sub = model, dict(model.now), 0
        self.main = model.revision + 1

    def put(self, key: bytes, value: bytes, lease: int) -> Kv:
        old = self.keys.get(key)
        made = Kv(key, value, old.create if old else self.main, self.main, old.version + 1 if old else 1, lease)
        self.keys[key] = made
        self.model.bytes.append((self.main, self.sub, None, made))
        self.sub += 1
        return made

    def delete(self, key: bytes, end: bytes) -> int:
        gone = [one for one in sorted(self.keys) if within(one, key, end)]
        for one in gone:
            del self.keys[one]
            self.model.bytes.append((self.main, self.sub, one, one))
            self.sub += 1
        return len(gone)

    @property
    def current(self) -> int:
        return self.main if self.sub else self.model.revision

    def finish(self) -> None:
        if self.sub:
            self.model.revision = self.main
            self.model.at[self.main] = self.keys


def plain(rev: Rev) -> Kv:
    return Kv(rev.key, rev.value, rev.create, rev.mod, rev.version, rev.lease)


puts = st.builds(says.OpPut, keys, values, leases)
deletes = st.builds(says.OpDelete, keys, ends)
looks = st.builds(says.OpRange, keys, ends, limit=st.integers(0, 2), count_only=st.booleans())
compares = st.builds(says.Compare, keys, st.sampled_from([0, 1, 2, 4]), st.integers(0, 3), st.integers(0, 8), ends)
compares |= st.builds(says.Compare, keys, st.just(3), st.integers(0, 3), values, ends)
inner = st.builds(
    says.OpTxn, st.lists(compares, max_size=1), st.lists(puts | deletes, max_size=2), st.lists(looks | puts, max_size=2)
)
ops = st.lists(puts | puts | deletes | looks | inner, max_size=4)
changes = st.lists(
    st.builds(says.Put, keys, values, leases)
    | st.builds(says.Delete, keys, ends)
    | st.builds(says.Txn, st.lists(compares, max_size=2), ops, ops),
    max_size=12,
)


def holds(keys_: dict[bytes, Kv], compare: says.Compare) -> bool:
    start, end = compare.key.encode(), compare.range_end.encode()  # type: ignore[union-attr]
    asked = compare.operand.encode() if isinstance(compare.operand, str) else compare.operand
    found = [kv for key, kv in sorted(keys_.items()) if within(key, start, end)]
    sides = [(kv.version, kv.create, kv.mod, kv.value, kv.lease)[compare.target] for kv in found]
    if not found:
        if compare.target == 3:
            return False
        sides = [0]
    tests: list[Any] = [lambda a, b: a == b, lambda a, b: a > b, lambda a, b: a < b, lambda a, b: a != b]
    return all(tests[compare.result](side, asked) for side in sides)


def decided(keys_: dict[bytes, Kv], txn: Any) -> tuple[bool, list[Any]]:
    """All comparisons are made before the first operation."""
    branch = all(holds(keys_, compare) for compare in txn.compare)
    taken = txn.success if branch else txn.failure
    return branch, [(op, decided(keys_, op) if isinstance(op, says.OpTxn) else None) for op in taken]


def check_txn(change: Change, decision: tuple[bool, list[Any]], done: TxnDone) -> None:
    assert done.succeeded == decision[0]
    assert len(done.results) == len(decision[1])
    for (op, within_it), result in zip(decision[1], done.results, strict=True):
        if isinstance(op, says.OpPut):
            assert isinstance(result, Rev)
            assert plain(result) == change.put(op.key.encode(), op.value.encode(), op.lease)  # type: ignore[union-attr]
        elif isinstance(op, says.OpDelete):
            assert isinstance(result, Deleted)
            gone = change.delete(op.key.encode(), op.range_end.encode())  # type: ignore[union-attr]
            assert len(result.tombstones) == gone
        elif isinstance(op, says.OpRange):
            assert isinstance(result, Ranged)
            found = [
                kv for key, kv in sorted(change.keys.items()) if within(key, op.key.encode(), op.range_end.encode())
            ]  # type: ignore[union-attr]
            shown = [] if op.count_only else found[: op.limit] if op.limit and op.range_end else found
            assert [plain(one) for one in result.kvs] == shown
            assert result.count == len(found)
            assert result.more == (bool(shown) and len(shown) < len(found))
        else:
            assert isinstance(result, TxnDone)
            check_txn(change, within_it, result)


def done(model: Model, said: Data) -> None:
    """Both do it, and it comes to the same."""
    change = Change(model)
    outcome = model.evolve(said)
    assert isinstance(outcome, Accepted)
    match said:
        case says.Put():
            made = change.put(said.key.encode(), said.value.encode(), said.lease)  # type: ignore[union-attr]
            assert plain(outcome.result.value) == made
        case says.Delete():
            gone = change.delete(said.key.encode(), said.range_end.encode())  # type: ignore[union-attr]
            assert len(outcome.result.value.tombstones) == gone
        case says.Txn():
            check_txn(change, decided(model.now, said), outcome.result.value)
    change.finish()
    assert outcome.result.revision == model.revision == model.store.revs.revision
    held = {key for key, kv in model.now.items() if kv.lease}
    assert model.store.leases.by_id[LEASE].keys.keys() == held


queries = st.builds(
    Query,
    st.sampled_from([b"a", b"b", b"c"]),
    st.sampled_from([b"", b"c", b"d", b"\0"]),
    st.integers(0, 3),
    st.integers(-1, 6),
    st.integers(0, 2),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
    *[st.sampled_from([0, 0, 0, 2, 3, 5])] * 4,
)


def expected(model: Model, asked: Query) -> Ranged | V3Error:
    """Fetch, filter, sort, cut: the order of etcd's steps."""
    revision = asked.revision if asked.revision > 0 else model.revision
    if revision > model.revision:
        return errors.FUTURE_REV
    if revision < model.compacted:
        return errors.COMPACTED
    found = [kv for key, kv in sorted(model.at[revision].items()) if within(key, asked.key, asked.end)]
    count = len(found)
    if asked.count_only:
        return Ranged([], count)
    filters = asked.min_mod or asked.max_mod or asked.min_create or asked.max_create
    if asked.limit and asked.end and not asked.order and not filters:
        found = found[: asked.limit]
    found = [kv for kv in found if not asked.max_mod or kv.mod <= asked.max_mod]
    found = [kv for kv in found if kv.mod >= asked.min_mod]
    found = [kv for kv in found if not asked.max_create or kv.create <= asked.max_create]
    found = [kv for kv in found if kv.create >= asked.min_create]
    order: list[Any] = [lambda kv: kv.key, lambda kv: kv.version, lambda kv: kv.create, lambda kv: kv.mod]
    found.sort(key=[*order, lambda kv: kv.value][asked.by], reverse=asked.order == 2)
    if asked.limit and asked.end:
        cut = found[: asked.limit]
        return Ranged(cut, count, len(cut) < (len(found) if asked.fetches_all else count))  # type: ignore[arg-type]
    return Ranged(found, count)  # type: ignore[arg-type]


@settings(deadline=None)
@given(changes, st.lists(queries, max_size=8), st.integers(-1, 8))
def test_changes_and_ranges_are_the_models(said: list[Data], asked: list[Query], compacted: int) -> None:
    model = Model()
    for data in said:
        done(model, data)
    if 0 < compacted <= model.revision:
        model.evolve(says.Compact(compacted))
        model.compacted = compacted
    for query in asked:
        right = expected(model, query)
        if isinstance(right, V3Error):
            with pytest.raises(V3Error) as raised:
                ranged(model.store.revs, query, model.revision)
            assert raised.value is right
        else:
            came = ranged(model.store.revs, query, model.revision)
            assert ([plain(kv) for kv in came.kvs], came.count, came.more) == (right.kvs, right.count, right.more)


@settings(deadline=None)
@given(changes, st.integers(0, 12))
def test_the_hash_is_of_the_bytes_that_etcd_would_have(said: list[Data], upto: int) -> None:
    model = Model()
    for data in said:
        done(model, data)
    upto = min(upto, model.revision)
    right = crc32c.crc32c(b"key")
    for main, sub, tombstone, kv in model.bytes:
        if main <= (upto or model.revision):
            name = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + (b"" if tombstone is None else b"t")
            if isinstance(kv, Kv):
                fields = {"create_revision": kv.create, "mod_revision": kv.mod, "version": kv.version}
                raw = kv_pb2.KeyValue(key=kv.key, value=kv.value, lease=kv.lease, **fields).SerializeToString()
            else:
                raw = kv_pb2.KeyValue(key=kv).SerializeToString()
            right = crc32c.crc32c(raw, crc32c.crc32c(name, right))
    assert list(hash_kv(model.store.revs, upto))[-1] == right


def test_hashes_of_what_is_gone_or_not_yet_there() -> None:
    store = Store()
    for _ in range(3):
        store.evolve(say(says.Put("k")), 1)
    store.evolve(say(says.Compact(3)), 1)
    for revision, error in ((2, errors.COMPACTED), (5, errors.FUTURE_REV)):
        with pytest.raises(V3Error) as raised:
            next(hash_kv(store.revs, revision))
        assert raised.value is error
    assert list(hash_kv(store.revs, 4)) == list(hash_kv(store.revs))
    list(hash_kv(store.revs, 3))


def test_what_was_to_be_kept_and_is_gone_by_then_is_empty() -> None:
    """Where etcd panics: an inner transaction deletes what a later operation is to keep the value or lease of."""
    model = Model()
    model.evolve(says.Put("k", "v", lease=LEASE))
    gone = says.OpTxn([], [says.OpDelete("k")])
    for kept, value, lease in [
        (says.OpPut("k", ignore_value=True, lease=LEASE), b"", LEASE),
        (says.OpPut("k", "new", ignore_lease=True), b"new", 0),
    ]:
        outcome = model.evolve(says.Txn([], [gone, kept]))
        made = outcome.result.value.results[1]
        assert (made.value, made.lease, made.version) == (value, lease, 1)
        model.evolve(says.Put("k", "v", lease=LEASE))


def test_a_transaction_looks_back_as_far_as_a_range_may() -> None:
    model = Model()
    for _ in range(3):
        model.evolve(says.Put("k", "v"))
    model.evolve(says.Compact(3))
    for revision, code in ((2, errors.COMPACTED), (3, None), (4, None), (5, errors.FUTURE_REV)):
        outcome = model.evolve(says.Txn([], [says.OpRange("k", revision=revision)]))
        if code is None:
            assert outcome.result.value.results[0].kvs[0].mod == revision
        else:
            assert outcome == code.rejected


def test_filters_have_both_their_ends_and_a_limit_may_be_one() -> None:
    model = Model()
    for key in "abc":
        model.evolve(says.Put(key))  # at 2, 3 and 4

    def found(**asked: int) -> tuple[list[bytes], int, bool]:
        came = ranged(model.store.revs, Query(b"a", b"\0", **asked), 4)
        return [kv.key for kv in came.kvs], came.count, came.more

    assert found(min_mod=3, max_mod=3) == found(min_create=3, max_create=3) == ([b"b"], 3, False)
    assert found(limit=1) == found(limit=1, revision=4) == ([b"a"], 3, True)
    assert found(limit=1, order=2) == ([b"c"], 3, True)
    assert found(limit=1, revision=2) == ([b"a"], 1, False)
    assert found(limit=3) == found() == found(limit=3, order=1) == ([b"a", b"b", b"c"], 3, False)
