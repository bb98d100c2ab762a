"""What apply and reads come to → etcd's response messages. Pure."""

from collections.abc import Callable, Iterable

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import kv_pb2
from actors.kv.v3.ranges import Ranged
from actors.kv.v3.revs import Rev
from actors.kv.v3.txn import Deleted, TxnDone


def key_value(rev: Rev, into: kv_pb2.KeyValue) -> None:
    into.value = rev.value
    if rev.lease:
        into.lease = rev.lease
    _name_and_numbers(rev, into)


def _name_and_numbers(rev: Rev, into: kv_pb2.KeyValue) -> None:
    into.key, into.create_revision, into.mod_revision = rev.key, rev.create, rev.mod
    into.version = rev.version


def before(rev: Rev) -> Rev | None:
    """What lived there before ``rev``."""
    prev = rev.prev
    return prev if prev is not None and prev.version else None


def ranged(found: Ranged, asked: pb.RangeRequest, into: pb.RangeResponse) -> None:
    """``keys_only`` hides leases with the values, as in etcd since 3.6, but where values are the order."""
    show: Callable[[Rev, kv_pb2.KeyValue], None] = key_value
    if asked.keys_only:
        show = _without_value if asked.sort_target == pb.RangeRequest.VALUE else _name_and_numbers
    add = into.kvs.add
    for rev in found.kvs:
        show(rev, add())
    into.more, into.count = found.more, found.count


def _without_value(rev: Rev, into: kv_pb2.KeyValue) -> None:
    _name_and_numbers(rev, into)
    if rev.lease:
        into.lease = rev.lease


def put(made: Rev, into: pb.PutResponse, prev_kv: bool) -> None:
    if prev_kv and (prev := before(made)) is not None:
        key_value(prev, into.prev_kv)


def deleted(gone: Deleted, into: pb.DeleteRangeResponse, prev_kv: bool) -> None:
    into.deleted = len(gone.tombstones)
    if prev_kv:
        for tombstone in gone.tombstones:
            if (prev := before(tombstone)) is not None:
                key_value(prev, into.prev_kvs.add())


def txn(done: TxnDone, asked: pb.TxnRequest, revision: int, into: pb.TxnResponse) -> None:
    """``revision``: the one after it. Of the parts, headers have the revision that the part saw, and nothing else."""
    _Txn(revision, _changes(done)).fill(done, asked, into)


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

    def fill(self, done: TxnDone, asked: pb.TxnRequest, into: pb.TxnResponse) -> None:
        into.succeeded = done.succeeded
        ops: Iterable[pb.RequestOp] = asked.success if done.succeeded else asked.failure
        for op, result in zip(ops, done.results, strict=True):
            part = into.responses.add()
            if not isinstance(result, TxnDone) and _changed(result):
                self._current = self._revision
            match result:
                case Rev():
                    put(result, part.response_put, op.request_put.prev_kv)
                    part.response_put.header.revision = self._current
                case Deleted():
                    deleted(result, part.response_delete_range, op.request_delete_range.prev_kv)
                    part.response_delete_range.header.revision = self._current
                case Ranged():
                    ranged(result, op.request_range, part.response_range)
                    part.response_range.header.revision = self._current
                case _:
                    part.response_txn.header.SetInParent()
                    self.fill(result, op.request_txn, part.response_txn)
