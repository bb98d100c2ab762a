"""What apply and reads come to → etcd's response messages, encoded without their first field, the header. Pure.

The bytes are those that protobuf would write: fields in the order of their numbers, defaults left out.
"""

from actors.kv.proto import etcd_wire as wire
from actors.kv.proto import kv_pb2
from actors.kv.v3.ranges import Query, Ranged
from actors.kv.v3.revs import Rev
from actors.kv.v3.txn import Deleted, TxnDone

#: RangeRequest.SortTarget
_VALUE = 4


def key_value(rev: Rev) -> bytes:
    return wire.encode_key_value(rev.key, rev.create, rev.mod, rev.version, rev.value, rev.lease)


def into(rev: Rev, message: kv_pb2.KeyValue) -> None:
    message.MergeFromString(key_value(rev))


def before(rev: Rev) -> Rev | None:
    """What lived there before ``rev``."""
    prev = rev.prev
    return prev if prev is not None and prev.version else None


def ranged(found: Ranged, query: Query) -> bytes:
    return _ranged(None, found, query.keys_only, query.by)


def _ranged(header: bytes | None, found: Ranged, keys_only: bool, by: int) -> bytes:
    """``keys_only`` hides leases with the values, as in etcd since 3.6, but where values are the order."""
    if keys_only:
        kvs = [
            wire.encode_key_value(rev.key, rev.create, rev.mod, rev.version, b"", rev.lease if by == _VALUE else 0)
            for rev in found.kvs
        ]
    else:
        kvs = [
            wire.encode_key_value(rev.key, rev.create, rev.mod, rev.version, rev.value, rev.lease) for rev in found.kvs
        ]
    return wire.encode_range_response(header, kvs, found.more, found.count)


def put(made: Rev, prev_kv: bool) -> bytes:
    return _put(None, made, prev_kv)


def _put(header: bytes | None, made: Rev, prev_kv: bool) -> bytes:
    prev = before(made) if prev_kv else None
    return wire.encode_put_response(header, None if prev is None else key_value(prev))


def deleted(gone: Deleted, prev_kv: bool) -> bytes:
    return _deleted(None, gone, prev_kv)


def _deleted(header: bytes | None, gone: Deleted, prev_kv: bool) -> bytes:
    prevs: list[bytes] = []
    if prev_kv:
        prevs = [key_value(prev) for tombstone in gone.tombstones if (prev := before(tombstone)) is not None]
    return wire.encode_delete_range_response(header, len(gone.tombstones), prevs)


def txn(done: TxnDone, asked: wire.TxnRequest, revision: int) -> bytes:
    """``revision``: the one after it. Of the parts, headers have the revision that the part saw, and nothing else."""
    return _Txn(revision, _changes(done)).encoded(None, done, asked)


def _changes(done: TxnDone) -> bool:
    return any(_changed(result) for result in done.results)


def _changed(result: Rev | Deleted | Ranged | TxnDone) -> bool:
    if isinstance(result, TxnDone):
        return _changes(result)
    return isinstance(result, Rev) or (isinstance(result, Deleted) and bool(result.tombstones))


class _Txn:
    """Walks results and requests together, counting the revision on at the first change."""

    def __init__(self, revision: int, changes: bool) -> None:
        self._revision = revision
        self._current = revision - 1 if changes else revision

    def encoded(self, header: bytes | None, done: TxnDone, asked: wire.TxnRequest) -> bytes:
        ops = asked.success if done.succeeded else asked.failure
        parts: list[bytes] = []
        for at, result in enumerate(done.results):
            op = ops[at]
            if isinstance(result, TxnDone):
                assert op.request_txn is not None
                inner = self.encoded(b"", result, op.request_txn)
                parts.append(wire.encode_response_op(response_txn=inner))
                continue
            if _changed(result):
                self._current = self._revision
            saw = wire.encode_response_header(revision=self._current)
            if isinstance(result, Rev):
                assert op.request_put is not None
                parts.append(wire.encode_response_op(response_put=_put(saw, result, op.request_put.prev_kv)))
            elif isinstance(result, Ranged):
                of = op.request_range
                assert of is not None
                found = _ranged(saw, result, of.keys_only, of.sort_target)
                parts.append(wire.encode_response_op(response_range=found))
            else:
                assert op.request_delete_range is not None
                gone = _deleted(saw, result, op.request_delete_range.prev_kv)
                parts.append(wire.encode_response_op(response_delete_range=gone))
        return wire.encode_txn_response(header, done.succeeded, parts)
