"""etcd's requests into events, with its checks, and what came of them into its answers, without a server."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import asked, told
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.kinds import Query
from actors.kv.v3.ranges import ranged
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import say

OPS_MAX = 8


def put(key: str, value: str = "", **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=value.encode(), **more))


def gone(key: str, end: str = "", **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key.encode(), range_end=end.encode(), **more))


def look(key: str, end: str = "", **more: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key.encode(), range_end=end.encode(), **more))


def inner(success: list[pb.RequestOp], failure: list[pb.RequestOp] | None = None) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=success, failure=failure or []))


def txn(success: list[pb.RequestOp], failure: list[pb.RequestOp] | None = None, **more: Any) -> asked.Txn:
    raw = pb.TxnRequest(success=success, failure=failure or [], **more).SerializeToString()
    return asked.txn(wire.decode_txn_request(raw), OPS_MAX)


@pytest.mark.parametrize(
    "success",
    [
        [put("a"), put("a")],
        [put("a"), gone("a")],
        [put("b"), gone("a", "c")],
        [inner([put("a")]), put("a")],
        [inner([], [put("a")]), put("a")],
        [inner([put("a")]), inner([put("a")])],
        [inner([put("a")]), inner([], [put("a")])],
        [inner([], [put("a")]), inner([put("a")])],
        [gone("a"), inner([put("a")])],
        [gone("a"), inner([], [put("a")])],
        [inner([gone("a", "c")]), put("b")],
        [inner([], [gone("a", "c")]), put("b")],
        [inner([inner([put("a")])]), put("a")],
        [inner([], [inner([], [gone("a")])]), put("a")],
    ],
)
def test_a_key_that_a_branch_writes_twice_is_refused_in_either_branch(success: list[pb.RequestOp]) -> None:
    for branches in ((success, []), ([], success), ([inner(success)], [])):
        with pytest.raises(V3Error) as raised:
            txn(*branches)
        assert raised.value is errors.DUPLICATE_KEY


@pytest.mark.parametrize(
    "success",
    [
        [put("a"), put("b"), gone("c")],
        [put("c"), gone("a", "c")],
        [put("b"), gone("b", "\0")],  # as etcd's check has it, this is a range of nothing
        [gone("a"), gone("a")],
        [inner([put("a")], [put("a")]), put("b")],
        [inner([put("a")]), inner([gone("a")])],  # nor does it compare inner deletes with what was put before
        [look("a"), put("a"), look("a")],
    ],
)
def test_a_key_that_is_written_once_a_branch_is_taken(success: list[pb.RequestOp]) -> None:
    txn(success)
    txn([], success)
    txn(success, success)


def test_of_a_transaction_is_known_what_it_costs_reads_and_shows() -> None:
    found = txn([look("a", serializable=True)], [look("b", serializable=True)])
    assert (found.cost, found.reads_only, found.serializable, found.shown) == (0, True, True, [])
    found = txn([look("a", serializable=True), look("b")])
    assert (found.reads_only, found.serializable) == (True, False)
    # one with another one inside goes on the log, as etcd's
    found = txn([inner([look("a", serializable=True)])])
    assert (found.reads_only, found.serializable) == (False, False)
    found = txn([inner([put("ab", "xyz", prev_kv=True)]), put("c")], [gone("d", "e", prev_kv=True), gone("f")])
    assert (found.reads_only, found.serializable) == (False, False)
    assert found.cost == 2 * asked.PUT_BYTES + len("abxyzc")
    assert found.shown == [(b"ab", b""), (b"d", b"e")]
    assert txn([], [gone("f")]).reads_only is False
    assert txn([inner([put("a", "1")], [put("b", "12345")])]).cost == asked.PUT_BYTES + 6
    assert txn([put("a", "1")], [put("b", "12345")]).cost == asked.PUT_BYTES + 6
    assert found.data.success == [says.OpTxn([], [says.OpPut("ab", "xyz")], []), says.OpPut("c")]
    assert found.data.failure == [says.OpDelete("d", "e"), says.OpDelete("f")]


@pytest.mark.parametrize(
    ("success", "error"),
    [
        ([put("")], errors.EMPTY_KEY),
        ([gone("")], errors.EMPTY_KEY),
        ([look("")], errors.EMPTY_KEY),
        ([put("a", "v", ignore_value=True)], errors.VALUE_PROVIDED),
        ([put("a", lease=1, ignore_lease=True)], errors.LEASE_PROVIDED),
        ([look("a", sort_order=3)], errors.INVALID_SORT),
        ([look("a", sort_order=-1)], errors.INVALID_SORT),
        ([look("a", sort_target=5)], errors.INVALID_SORT),
        ([look("a", sort_target=-1)], errors.INVALID_SORT),
        ([pb.RequestOp()], errors.KEY_NOT_FOUND),
        ([look("a")] * (OPS_MAX + 1), errors.TOO_MANY_OPS),
        ([inner([look("a")] * OPS_MAX)], errors.TOO_MANY_OPS),
        ([inner([inner([look("a")] * (OPS_MAX - 1))])], errors.TOO_MANY_OPS),
        ([pb.RequestOp(request_txn=pb.TxnRequest(compare=[pb.Compare()]))], errors.EMPTY_KEY),
    ],
)
def test_what_is_refused(success: list[pb.RequestOp], error: V3Error) -> None:
    for branches in ((success, []), ([], success)):
        with pytest.raises(V3Error) as raised:
            txn(*branches)
        assert raised.value is error


def test_as_many_operations_as_may_be() -> None:
    txn([look("a")] * OPS_MAX, [look("a", sort_order=2, sort_target=4)] * OPS_MAX)
    txn([inner([look("a")] * (OPS_MAX - 1))])
    txn([inner([inner([look("a")] * (OPS_MAX - 2))])])
    with pytest.raises(V3Error) as raised:
        txn([], compare=[pb.Compare(key=b"a")] * (OPS_MAX + 1))
    assert raised.value is errors.TOO_MANY_OPS


@pytest.mark.parametrize(
    ("compare", "operand"),
    [
        (pb.Compare(key=b"a", target=0, version=5), 5),
        (pb.Compare(key=b"a", target=1, create_revision=6, result=1), 6),
        (pb.Compare(key=b"a", target=2, mod_revision=7, result=2, range_end=b"c"), 7),
        (pb.Compare(key=b"a", target=3, value=b"v", result=3), "v"),
        (pb.Compare(key=b"a", target=4, lease=9), 9),
        (pb.Compare(key=b"a", target=4, version=9), 0),
        (pb.Compare(key=b"a", target=3, version=9), ""),
    ],
)
def test_comparisons(compare: pb.Compare, operand: int | str) -> None:
    (found,) = txn([], compare=[compare]).data.compare
    end = compare.range_end.decode()
    assert found == says.Compare("a", int(compare.target), int(compare.result), operand, end)


def test_sizes_are_of_the_whole_command() -> None:
    asked.sized(100, 100 + asked.ENVELOPE_BYTES)
    with pytest.raises(V3Error) as raised:
        asked.sized(101, 100 + asked.ENVELOPE_BYTES)
    assert raised.value is errors.TOO_LARGE


ops = st.sampled_from(
    [put("a", "1"), put("b", "2", prev_kv=True), gone("a", prev_kv=True), gone("a", "z"), gone("c", prev_kv=True),
     look("a", "z"), look("b", keys_only=True), inner([look("a")]), inner([put("c", "3", prev_kv=True), look("c")])]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(ops, max_size=4), st.booleans())
def test_an_answer_has_the_revision_that_each_part_saw_and_what_was_there_before(
    parts: list[pb.RequestOp], there: bool
) -> None:
    store = Store()
    for key in "ab" if there else "":
        store.evolve(say(says.Put(key, "0")), 1)
    request = pb.TxnRequest(success=parts)
    raw = wire.decode_txn_request(request.SerializeToString())
    try:
        event = asked.txn(raw, OPS_MAX).data
    except V3Error as error:
        assert error is errors.DUPLICATE_KEY
        return
    before = store.revs.revision
    values = dict.fromkeys("ab", "0") if there else {}
    outcome: Any = store.evolve(say(event), 1)
    answer = pb.TxnResponse.FromString(told.txn(outcome.result.value, raw, store.revs.revision))
    assert answer.succeeded
    assert not answer.HasField("header")
    changed = check_parts(parts, answer.responses, values, before, False)
    assert store.revs.revision == before + changed


def check_parts(parts: list[pb.RequestOp], responses: Any, values: dict[str, str], before: int, changed: bool) -> bool:
    for part, response in zip(parts, responses, strict=True):
        match part.WhichOneof("request"):
            case "request_put":
                asked_put, shown = part.request_put, response.response_put
                key, changed = asked_put.key.decode(), True
                assert shown.prev_kv.value.decode() == (values.get(key, "") if asked_put.prev_kv else "")
                assert shown.HasField("prev_kv") == (asked_put.prev_kv and key in values)
                values[key] = asked_put.value.decode()
            case "request_delete_range":
                asked_gone, shown = part.request_delete_range, response.response_delete_range
                start, end = asked_gone.key.decode(), asked_gone.range_end.decode()
                names = [name for name in sorted(values) if name == start or start <= name < end]
                assert shown.deleted == len(names)
                assert [kv.key.decode() for kv in shown.prev_kvs] == (names if asked_gone.prev_kv else [])
                changed = changed or bool(names)
                for name in names:
                    del values[name]
            case "request_range":
                asked_range, shown = part.request_range, response.response_range
                start, end = asked_range.key.decode(), asked_range.range_end.decode()
                names = [name for name in sorted(values) if name == start or start <= name < end]
                assert [kv.key.decode() for kv in shown.kvs] == names
                right = ["" if asked_range.keys_only else values[name] for name in names]
                assert [kv.value.decode() for kv in shown.kvs] == right
            case _:
                shown = response.response_txn
                assert shown.HasField("header")
                assert shown.header.revision == 0
                changed = check_parts(list(part.request_txn.success), shown.responses, values, before, changed)
                continue
        assert shown.header.revision == before + changed
    return changed


@pytest.mark.parametrize(("keys_only", "by", "lease"), [(False, 0, 7), (True, 0, 0), (True, 4, 7), (False, 4, 7)])
def test_keys_only_hides_values_and_leases(keys_only: bool, by: int, lease: int) -> None:
    store = Store()
    store.evolve(say(says.LeaseGrant(7, 60)), 1)
    store.evolve(say(says.Put("a", "v", lease=7)), 1)
    query = Query(b"a", keys_only=keys_only, by=by)
    (kv,) = pb.RangeResponse.FromString(told.ranged(ranged(store.revs, query, 2), query)).kvs
    assert (kv.key, kv.value, kv.lease) == (b"a", b"" if keys_only else b"v", lease)
    assert (kv.create_revision, kv.mod_revision, kv.version) == (2, 2, 1)


def test_what_was_there_before_is_told_of_puts_and_deletes() -> None:
    store = Store()

    def done(data: Any) -> Any:
        outcome: Any = store.evolve(say(data), 1)
        return outcome.result.value

    first = done(says.Put("a", "1"))
    assert not pb.PutResponse.FromString(told.put(first, True)).HasField("prev_kv")
    second = done(says.Put("a", "2"))
    assert pb.PutResponse.FromString(told.put(second, True)).prev_kv.value == b"1"
    assert not pb.PutResponse.FromString(told.put(second, False)).HasField("prev_kv")
    gone_now = done(says.Delete("a"))
    assert [kv.value for kv in pb.DeleteRangeResponse.FromString(told.deleted(gone_now, True)).prev_kvs] == [b"2"]
    assert not pb.DeleteRangeResponse.FromString(told.deleted(gone_now, False)).prev_kvs
    again = done(says.Put("a", "3"))
    assert not pb.PutResponse.FromString(told.put(again, True)).HasField("prev_kv")
