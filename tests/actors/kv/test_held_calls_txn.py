"""A transaction's deletes reach their first key and not their end, and inner parts show what they are asked for."""

from typing import Any

import pytest

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import asked, told
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import say
from tests.actors.kv.test_asked_and_told import OPS_MAX, gone, inner, put, txn


@pytest.mark.parametrize(
    ("key", "within"), [("a", False), ("b", True), ("b\0", True), ("c", True), ("d", False), ("e", False)]
)
def test_a_put_collides_with_a_delete_of_a_range_from_its_first_key_up_to_its_end(key: str, within: bool) -> None:
    for success in (
        [put(key), gone("b", "d")],
        [inner([gone("b", "d")]), put(key)],
        [gone("b", "d"), inner([put(key)])],
    ):
        if within:
            with pytest.raises(V3Error) as raised:
                txn(success)
            assert raised.value is errors.DUPLICATE_KEY
        else:
            txn(success)


def answered(request: pb.TxnRequest, shown: bool) -> Any:
    """Answered over a key ``a`` of value 0; ``shown``: with what the request asks to be shown."""
    store = Store()
    store.evolve(say(says.Put("a", "0")), 1)
    raw = wire.decode_txn_request(request.SerializeToString())
    outcome: Any = store.evolve(say(asked.txn(raw, OPS_MAX).data), 1)
    return pb.TxnResponse.FromString(told.txn(outcome.result.value, raw if shown else None, store.revs.revision))


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_however_deep_a_part_is_it_shows_what_was_there_before_if_asked(depth: int, shown: bool) -> None:
    for op in (put("a", "1", prev_kv=True), gone("a", prev_kv=True), put("a", "1"), gone("a")):
        part = op
        for _ in range(depth):
            part = inner([part])
        response = answered(pb.TxnRequest(success=[part]), shown)
        for _ in range(depth):
            (only,) = response.responses
            assert only.response_txn.succeeded
            response = only.response_txn
        (last,) = response.responses
        found = [last.response_put.prev_kv] if last.response_put.HasField("prev_kv") else []
        found += last.response_delete_range.prev_kvs
        wanted = shown and (op.request_put.prev_kv or op.request_delete_range.prev_kv)
        assert [kv.value for kv in found] == ([b"0"] if wanted else [])
