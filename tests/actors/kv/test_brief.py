"""Transactions read in one step, applied the short way and answered, beside the way that does for all of them."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import asked, brief, told
from actors.kv.state import KvFold
from actors.kv.v3 import errors, txn
from actors.kv.v3.errors import V3Error
from actors.kv.v3.kinds import Deleted, Ranged, Rev, TxnDone
from actors.kv.v3.store import Result, Store
from streams.events import kv3 as says
from streams.events.base import Data, decode, encode, say
from streams.outcomes import Accepted, Rejected
from streams.records import Record
from streams.replay import LogState
from tests.actors.kv.test_wire import numbers
from tests.differential.steps import operations, plain_put, some_key, txns, value

OPS_MAX = 128
int64 = numbers(-(2**63), 2**63 - 1)


@st.composite
def brief_ops(draw: st.DrawFn) -> pb.RequestOp:
    """Mostly what can be read in one step, and what comes close."""
    match draw(st.sampled_from(["put", "put", "range", "range", "delete", "other"])):
        case "put":
            made = pb.PutRequest(key=draw(some_key), value=draw(value), lease=draw(st.sampled_from([0, 0, 11, -1])))
            return pb.RequestOp(request_put=made)
        case "range":
            asked = pb.RangeRequest(key=draw(some_key), serializable=draw(st.booleans()))
            if draw(st.booleans()):
                asked.range_end, asked.limit = draw(st.sampled_from([b"", b"\0", b"c"])), draw(st.integers(-1, 3))
                asked.keys_only, asked.count_only = draw(st.booleans()), draw(st.booleans())
                asked.revision = draw(st.sampled_from([0, 0, 1, 2, 5, 1 << 40]))
            return pb.RequestOp(request_range=asked)
        case "delete":
            range_end = draw(st.sampled_from([b"", b"", b"\0", b"c"]))
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=draw(some_key), range_end=range_end))
        case _:
            return (draw(operations()) or [pb.RequestOp()])[0]


@st.composite
def brief_compares(draw: st.DrawFn) -> pb.Compare:
    made = pb.Compare(target=draw(st.integers(0, 4)), result=draw(st.integers(0, 3)), key=draw(some_key))
    name = draw(st.sampled_from(["version", "create_revision", "mod_revision", "lease", "value"]))
    if name == "value":
        made.value = draw(value)
    else:
        setattr(made, name, draw(st.sampled_from([-1, 0, 1, 2, 3]) | int64))
    return made


@st.composite
def brief_txns(draw: st.DrawFn) -> pb.TxnRequest:
    ops = st.lists(brief_ops(), max_size=3)
    return pb.TxnRequest(
        compare=draw(st.lists(brief_compares(), max_size=3)), success=draw(ops), failure=draw(ops | st.just([]))
    )


any_txn = brief_txns() | txns()


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except V3Error as error:
        return error.code, error.message
    except DecodeError:
        return "unread"


def check_reads_alike(raw: bytes) -> None:
    read = outcome(lambda: brief.read(raw))
    if not isinstance(read, brief.Brief):
        return  # it is for the long way
    request = wire.decode_txn_request(raw)
    long = asked.txn(request, read.operations)
    assert (read.data, read.cost) == (long.data, long.cost)
    assert encode([say(read.data)]) == encode([say(long.data)])
    assert not long.reads_only
    assert not long.shown
    if read.operations:
        with pytest.raises(V3Error, match="too many operations"):
            asked.txn(request, read.operations - 1)


@settings(deadline=None)
@given(any_txn)
def test_what_is_read_in_one_step_is_what_all_checks_come_to(request: pb.TxnRequest) -> None:
    check_reads_alike(request.SerializeToString())


@settings(deadline=None)
@given(brief_txns(), st.data())
def test_damaged_ones_are_read_as_protobuf_does_or_not_at_all(request: pb.TxnRequest, data: st.DataObject) -> None:
    """Lying lengths, wire types that aren't the field's, unknown fields, fields twice, cut ends."""
    raw = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3) | st.just(bytes(raw[:30])) | st.sampled_from([b"\xff" * 9 + b"\x01", b"\x80\x00"])
        )
    check_reads_alike(bytes(raw))


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_as_protobuf_does_or_not_at_all(raw: bytes) -> None:
    check_reads_alike(raw)


def put(name: bytes, **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=name, value=b"v", **more))


def got(name: bytes, **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=name, **more))


GONE = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k"))
SAME = pb.Compare(target=2, key=b"k", mod_revision=7)


@pytest.mark.parametrize(
    "request_",
    [
        pb.TxnRequest(compare=[pb.Compare(result=1, key=b"k", version=-1)], success=[put(b"k"), got(b"k")]),
        pb.TxnRequest(compare=[SAME], success=[put(b"k", lease=1 << 60)], failure=[got(b"k")]),
        pb.TxnRequest(compare=[SAME], success=[GONE], failure=[got(b"k")]),
        pb.TxnRequest(success=[put(b"\xff%d" % number) for number in range(9)]),
        pb.TxnRequest(compare=[pb.Compare(target=3, key=b"k", value=b"v" * 300)], failure=[put(b"k")]),
        pb.TxnRequest(success=[put(b"a"), got(b"a", range_end=b"\0", limit=1, revision=3, serializable=True)]),
    ],
)
def test_what_most_clients_write_is_read_in_one_step(request_: pb.TxnRequest) -> None:
    assert isinstance(brief.read(request_.SerializeToString()), brief.Brief)


@pytest.mark.parametrize(
    "request_",
    [
        pb.TxnRequest(),
        pb.TxnRequest(success=[got(b"k")]),
        pb.TxnRequest(success=[put(b"k"), put(b"k")]),
        pb.TxnRequest(success=[put(b"k"), GONE]),
        pb.TxnRequest(success=[put(b"k", prev_kv=True)]),
        pb.TxnRequest(success=[put(b"k", ignore_lease=True)]),
        pb.TxnRequest(success=[put(b"")]),
        pb.TxnRequest(success=[put(b"k"), got(b"k", sort_order=1)]),
        pb.TxnRequest(success=[put(b"k"), got(b"k", min_mod_revision=1)]),
        pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(success=[put(b"k")]))]),
        pb.TxnRequest(compare=[pb.Compare(key=b"k", range_end=b"\0", version=1)], success=[put(b"k")]),
        pb.TxnRequest(compare=[pb.Compare(version=1)], success=[put(b"k")]),
    ],
)
def test_the_rest_goes_the_long_way(request_: pb.TxnRequest) -> None:
    assert isinstance(brief.read(request_.SerializeToString()), wire.TxnRequest)


# -- apply ----------------------------------------------------------------------------------------------------


def by_run(store: Store, data: says.Txn) -> Any:
    """As :meth:`Store.plain_txn`, without the short way."""
    writing = txn.Writing(store.revs, store.leases)
    try:
        done = txn.run(writing, data)
    except V3Error as error:
        return error.rejected
    writing.finish()
    return Accepted(Result(store.revs.revision, done))


events = st.one_of(
    st.builds(says.LeaseGrant, st.sampled_from([11, 12, 99]), st.just(60)),
    st.builds(says.LeaseRevoke, st.sampled_from([11, 12, 99])),
    st.builds(says.Compact, st.integers(1, 9)),
    st.just(says.PolicySet("b", max_bytes=700)),
    plain_put.map(lambda one: asked.put(wire.decode_put_request(one.SerializeToString()))),
)


def logged(request: pb.TxnRequest) -> says.Txn | None:
    """The event, as it comes back from the log."""
    try:
        data = asked.txn(wire.decode_txn_request(request.SerializeToString()), OPS_MAX).data
    except V3Error:
        return None
    (event,) = decode("kv", encode([say(data)]))
    found: says.Txn = event.data  # type: ignore[union-attr]
    return found


@settings(deadline=None)
@given(st.lists(any_txn | events, max_size=12))
def test_the_short_way_changes_answers_and_refuses_as_the_long_one(steps: list[pb.TxnRequest | Data]) -> None:
    short, long = Store(), Store()
    for offset, step in enumerate(steps):
        if isinstance(step, Data):
            for store in (short, long):
                store.evolve(say(step), offset)
            continue
        if (data := logged(step)) is not None:
            left, right = short.plain_txn(data), by_run(long, data)
            assert left == right
            if isinstance(left, Accepted):
                check_answer(left.result, step)
        assert list(short.encode()) == list(long.encode())
        assert short.leases.by_id == long.leases.by_id
        assert (short.revs.size, short.revs.puts, short.revs.deletes) == (
            long.revs.size,
            long.revs.puts,
            long.revs.deletes,
        )


@pytest.mark.parametrize("result", range(5))
@pytest.mark.parametrize("target", range(6))
@pytest.mark.parametrize("operand", [0, 1, 2, 3, 1 << 62, -(1 << 63)])
@pytest.mark.parametrize("name", ["k", "gone", "none"])
def test_comparisons_of_numbers_hold_alike(name: str, target: int, result: int, operand: int) -> None:
    compare = says.Compare(name, target, result, operand)
    if target == 3:
        compare = says.Compare(name, target, result, ["", "a", "v", "w", "v1", "u"][operand % 6])
    holds = []
    for path in (Store.plain_txn, by_run):
        store = Store()
        for data in (says.Put("k", "v"), says.Put("k", "v"), says.Put("gone", "v"), says.Delete("gone")):
            store.evolve(say(data), 1)
        outcome = path(store, says.Txn([compare], [says.OpPut("k", "new")]))
        assert isinstance(outcome, Accepted)
        holds.append(outcome.result.value.succeeded)
    assert holds[0] == holds[1]


def test_users_and_alarms_are_asked_before_a_transaction_of_many() -> None:
    """evolve_many's short way is no way around them."""
    fold = KvFold()
    record = Record("0" * 32, "kv", "kv@m", 1, 1, 0, b"", offset=1)

    def came(data: Data, principal: str = "user:root") -> Any:
        def one(event: Any, _at: int) -> Any:
            return fold.v3.evolve(event, 1)

        return fold.evolve_many([say(data, principal=principal)], record, LogState(), one, True)[0]

    write = says.Txn([], [says.OpPut("k", "v")])
    assert isinstance(came(write), Accepted)
    came(says.Alarm(1, 5))
    assert came(write) == errors.NO_SPACE.rejected
    came(says.Alarm(1, 5, on=False))
    for said in (says.UserAdd("root", "x"), says.RoleAdd("root"), says.UserGrant("root", "root"), says.AuthEnable()):
        assert isinstance(came(said), Accepted)
    revision = fold.v3.auth.revision
    assert isinstance(came(says.Txn([], [says.OpPut("k", "v")], [], revision)), Accepted)
    assert isinstance(came(write, "addr:127.0.0.1"), Rejected)


# -- answers --------------------------------------------------------------------------------------------------


def key_value(rev: Rev, of: pb.RangeRequest | None = None) -> Any:
    made = pb.RangeResponse().kvs.add()
    made.key, made.create_revision, made.mod_revision, made.version = rev.key, rev.create, rev.mod, rev.version
    if of is None or not of.keys_only:
        made.value, made.lease = rev.value, rev.lease
    elif of.sort_target == 4:
        made.lease = rev.lease
    return made


def changed(result: Any) -> bool:
    if isinstance(result, TxnDone):
        return any(changed(one) for one in result.results)
    return isinstance(result, Rev) or (isinstance(result, Deleted) and bool(result.tombstones))


class Expected:
    """The answer by protobuf's own objects."""

    def __init__(self, done: TxnDone, revision: int) -> None:
        self.revision, self.current = revision, revision - 1 if changed(done) else revision

    def txn(self, done: TxnDone, request: pb.TxnRequest) -> pb.TxnResponse:
        made = pb.TxnResponse(succeeded=done.succeeded)
        for result, op in zip(done.results, request.success if done.succeeded else request.failure, strict=True):
            part: Any = made.responses.add()
            if isinstance(result, TxnDone):
                part.response_txn.CopyFrom(self.txn(result, op.request_txn))
                part.response_txn.header.SetInParent()
                continue
            if changed(result):
                self.current = self.revision
            header = pb.ResponseHeader(revision=self.current)
            if isinstance(result, Rev):
                part.response_put.header.CopyFrom(header)
                if op.request_put.prev_kv and result.prev is not None and result.prev.version:
                    part.response_put.prev_kv.CopyFrom(key_value(result.prev))
            elif isinstance(result, Ranged):
                found = part.response_range
                found.header.CopyFrom(header)
                found.kvs.extend(key_value(rev, op.request_range) for rev in result.kvs)
                found.more, found.count = result.more, result.count
            else:
                found = part.response_delete_range
                found.header.CopyFrom(header)
                found.deleted = len(result.tombstones)
                if op.request_delete_range.prev_kv:
                    found.prev_kvs.extend(key_value(one.prev) for one in result.tombstones if one.prev is not None)
        return made


def test_inside_another_a_part_sees_what_was_there_before_the_first_change() -> None:
    inner = pb.TxnRequest(success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"none")), put(b"k")])
    request = pb.TxnRequest(success=[got(b"k"), pb.RequestOp(request_txn=inner), got(b"k")])
    data = logged(request)
    assert data is not None
    outcome = Store().plain_txn(data)
    assert isinstance(outcome, Accepted)
    check_answer(outcome.result, request)
    answer = pb.TxnResponse.FromString(
        told.txn(outcome.result.value, wire.decode_txn_request(request.SerializeToString()), outcome.result.revision)
    )
    first, inside, last = answer.responses
    gone, made = inside.response_txn.responses
    headers = [one.header.revision for one in (first.response_range, gone.response_delete_range, made.response_put)]
    assert [*headers, last.response_range.header.revision] == [1, 1, 2, 2]


def check_answer(result: Result, request: pb.TxnRequest) -> None:
    raw = request.SerializeToString()
    expected = Expected(result.value, result.revision).txn(result.value, request).SerializeToString(deterministic=True)
    assert told.txn(result.value, wire.decode_txn_request(raw), result.revision) == expected
    if isinstance(brief.read(raw), brief.Brief):
        assert told.txn(result.value, None, result.revision) == expected
