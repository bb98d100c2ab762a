"""What apply and reads come to → etcd's response messages, encoded without their first field, the header. Pure.

The bytes are those that protobuf would write: fields in the order of their numbers, defaults left out.
"""

from typing import Final

from actors.kv.proto import etcd_wire as wire
from actors.kv.proto import kv_pb2
from actors.kv.proto.varints import varint
from actors.kv.v3.kinds import Deleted, OpDone, Query, Ranged, Rev, TxnDone

# a constant is sooner there than an import, compiled
_REV: Final = Rev
_RANGED: Final = Ranged
_DELETED: Final = Deleted
_TXN_DONE: Final = TxnDone
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
    kvs = [_shown(rev, keys_only, by) for rev in found.kvs]
    return wire.encode_range_response(header, kvs, found.more, found.count)


def _shown(rev: Rev, keys_only: bool, by: int) -> bytes:
    value, lease = valued(rev, keys_only, by)
    return wire.encode_key_value(rev.key, rev.create, rev.mod, rev.version, value, lease)


def valued(rev: Rev, keys_only: bool, by: int) -> tuple[bytes, int]:
    """The value and the lease that a range shows, ordered ``by`` that target.

    ``keys_only`` hides leases with the values, as in etcd since 3.6, but where values are the order.
    """
    if keys_only:
        return b"", rev.lease if by == _VALUE else 0
    return rev.value, rev.lease


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


def txn(done: TxnDone, asked: wire.TxnRequest | None, revision: int) -> bytes:
    """``revision``: the one after it. Of the parts, headers have the revision that the part saw, and nothing else.

    Without ``asked`` nothing of before is shown, and no range has an order.
    """
    return _Txn(revision, _changes(done)).encoded(None, done, asked)


def _changes(done: TxnDone) -> bool:
    return any(_changed(result) for result in done.results)


def _changed(result: OpDone) -> bool:
    if type(result) is _REV:
        return True
    if type(result) is _RANGED:
        return False
    if type(result) is _TXN_DONE:
        return _changes(result)
    return type(result) is _DELETED and bool(result.tombstones)


class _Txn:
    """Walks results and requests together, counting the revision on at the first change."""

    def __init__(self, revision: int, changes: bool) -> None:
        self._revision = revision
        self._current = revision - 1 if changes else revision
        #: a part's header: its third field
        self._saw = _revision(self._current)

    def encoded(self, header: bytes | None, done: TxnDone, asked: wire.TxnRequest | None) -> bytes:
        out: list[bytes] = []
        if header is not None:
            out.append(b"\x0a")
            out.append(varint(len(header)))
            out.append(header)
        ops: list[wire.RequestOp] | None = None
        succeeded = done.succeeded
        if asked is not None:
            ops = asked.success if succeeded else asked.failure
        if succeeded:
            out.append(b"\x10\x01")
        for at, result in enumerate(done.results):
            self._add(out, result, None if ops is None else ops[at])
        return b"".join(out)

    def _add(self, out: list[bytes], result: OpDone, op: wire.RequestOp | None) -> None:
        """One of the responses: its tag and size, those of the one field in it, and that."""
        # what is inside another one counts on where it stands
        if self._current != self._revision and type(result) is not _TXN_DONE and _changed(result):
            self._current = self._revision
            self._saw = _revision(self._current)
        if type(result) is _REV:
            asked = None if op is None else op.request_put
            if asked is None or not asked.prev_kv:
                out.append(_PUTS[len(self._saw)])
                out.append(self._saw)
                return
            part, tag = _put(self._saw, result, True), b"\x12"
        elif type(result) is _RANGED:
            of = None if op is None else op.request_range
            self._add_range(out, result, 0 if of is None else of.sort_target)
            return
        elif type(result) is _DELETED:
            gone = None if op is None else op.request_delete_range
            part, tag = _deleted(self._saw, result, gone is not None and gone.prev_kv), b"\x1a"
        else:
            assert type(result) is _TXN_DONE
            inner = None if op is None else op.request_txn
            part, tag = self.encoded(b"", result, inner), b"\x22"
        size = varint(len(part))
        out.append(b"\x1a")
        out.append(varint(1 + len(size) + len(part)))
        out.append(tag)
        out.append(size)
        out.append(part)

    def _add_range(self, out: list[bytes], found: Ranged, by: int) -> None:
        """The same of a range: its size is counted first, so that its parts go into ``out`` as they are."""
        size, keys_only = 2 + len(self._saw), found.keys_only
        kvs: list[bytes] = []
        for rev in found.kvs:
            kv = _shown(rev, keys_only, by)
            before = varint(len(kv))
            size += 1 + len(before) + len(kv)
            kvs.append(b"\x12")
            kvs.append(before)
            kvs.append(kv)
        if found.more:
            size += 2
            kvs.append(b"\x18\x01")
        if found.count:
            count = varint(found.count)
            size += 1 + len(count)
            kvs.append(b"\x20")
            kvs.append(count)
        inner = varint(size)
        out.append(b"\x1a")
        out.append(varint(1 + len(inner) + size))
        out.append(b"\x0a")
        out.append(inner)
        out.append(b"\x0a")
        out.append(varint(len(self._saw)))
        out.append(self._saw)
        out.extend(kvs)


def _revision(number: int) -> bytes:
    return b"\x18" + varint(number) if number else b""


#: A put's whole response but its header, whose size is the index.
_PUTS: Final = [bytes((0x1A, 4 + size, 0x12, 2 + size, 0x0A, size)) for size in range(12)]
