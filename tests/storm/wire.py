"""etcd's messages ↔ the plain forms of :mod:`tests.histories.ops`."""

from typing import Any

from actors.kv.proto import etcd_pb2 as pb
from tests.histories import ops as say

_TARGETS = {
    "version": (pb.Compare.VERSION, "version"),
    "create": (pb.Compare.CREATE, "create_revision"),
    "mod": (pb.Compare.MOD, "mod_revision"),
    "value": (pb.Compare.VALUE, "value"),
    "lease": (pb.Compare.LEASE, "lease"),
}
_RESULTS = {"=": pb.Compare.EQUAL, ">": pb.Compare.GREATER, "<": pb.Compare.LESS, "!=": pb.Compare.NOT_EQUAL}


def put(asked: say.Put) -> pb.PutRequest:
    return pb.PutRequest(key=asked.key, value=asked.value, lease=asked.lease, prev_kv=asked.prev_kv)


def delete(asked: say.Delete) -> pb.DeleteRangeRequest:
    return pb.DeleteRangeRequest(key=asked.key, range_end=asked.end, prev_kv=asked.prev_kv)


def range_(asked: say.Range) -> pb.RangeRequest:
    return pb.RangeRequest(key=asked.key, range_end=asked.end, revision=asked.revision, serializable=asked.serializable)


def txn(asked: say.Txn) -> pb.TxnRequest:
    compare = []
    for one in asked.compare:
        target, field = _TARGETS[one.target]
        operand: Any = {field: one.operand}
        compare.append(pb.Compare(key=one.key, target=target, result=_RESULTS[one.result], **operand))
    return pb.TxnRequest(compare=compare, success=map(_op, asked.success), failure=map(_op, asked.failure))


def _op(asked: say.Simple) -> pb.RequestOp:
    match asked:
        case say.Put():
            return pb.RequestOp(request_put=put(asked))
        case say.Delete():
            return pb.RequestOp(request_delete_range=delete(asked))
        case say.Range():
            return pb.RequestOp(request_range=range_(asked))


def kv(told: Any) -> say.Kv:
    return say.Kv(told.key, told.value, told.create_revision, told.mod_revision, told.version, told.lease)


def event(told: Any) -> say.Event:
    return say.Event(kv(told.kv), kv(told.prev_kv) if told.HasField("prev_kv") else None)


def put_done(told: Any) -> say.PutDone:
    return say.PutDone(kv(told.prev_kv) if told.HasField("prev_kv") else None)


def deleted(told: Any) -> say.Deleted:
    return say.Deleted(told.deleted, [kv(one) for one in told.prev_kvs])


def ranged(told: Any) -> say.Ranged:
    return say.Ranged([kv(one) for one in told.kvs], told.count)


def txn_done(told: Any) -> say.TxnDone:
    return say.TxnDone(told.succeeded, [_part(one) for one in told.responses])


def _part(told: Any) -> say.SimpleDone:
    match told.WhichOneof("response"):
        case "response_put":
            return put_done(told.response_put)
        case "response_delete_range":
            return deleted(told.response_delete_range)
        case _:
            return ranged(told.response_range)
