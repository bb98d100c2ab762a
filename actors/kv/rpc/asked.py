"""etcd's request messages → events and queries, after the checks that etcd makes before a request is ordered. Pure.

Source of the checks and their order: etcd's ``api/v3rpc``.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.v3 import errors
from actors.kv.v3.ranges import Query
from streams.events import kv3 as says
from streams.events.base import Blob, blob

#: What etcd's envelope adds to a request.
ENVELOPE_BYTES = 18
#: What a key costs beyond its bytes.
PUT_BYTES = 256


def sized(size: int, bytes_max: int) -> None:
    """A command's encoded size in bytes. Raises TOO_LARGE."""
    if size + ENVELOPE_BYTES > bytes_max:
        raise errors.TOO_LARGE


def query(asked: pb.RangeRequest) -> Query:
    """Raises EMPTY_KEY, INVALID_SORT."""
    _check_range(asked)
    return Query(
        asked.key,
        asked.range_end,
        asked.limit,
        asked.revision,
        asked.sort_order,
        asked.sort_target,
        asked.keys_only,
        asked.count_only,
        asked.min_mod_revision,
        asked.max_mod_revision,
        asked.min_create_revision,
        asked.max_create_revision,
    )


def put(asked: pb.PutRequest) -> says.Put:
    """Raises EMPTY_KEY, VALUE_PROVIDED, LEASE_PROVIDED."""
    _check_put(asked)
    return says.Put(blob(asked.key), blob(asked.value), asked.lease, asked.ignore_value, asked.ignore_lease)


def delete(asked: pb.DeleteRangeRequest) -> says.Delete:
    """Raises EMPTY_KEY."""
    if not asked.key:
        raise errors.EMPTY_KEY
    return says.Delete(blob(asked.key), blob(asked.range_end))


def cost(asked: pb.TxnRequest) -> int:
    """Bytes that the larger branch puts, by the quota's count."""
    return max(_branch_cost(asked.success), _branch_cost(asked.failure))


def _branch_cost(ops: Iterable[pb.RequestOp]) -> int:
    total = 0
    for op in ops:
        match op.WhichOneof("request"):
            case "request_put":
                total += PUT_BYTES + len(op.request_put.key) + len(op.request_put.value)
            case "request_txn":
                total += cost(op.request_txn)
    return total


def txn(asked: pb.TxnRequest, ops_max: int) -> says.Txn:
    """Raises TOO_MANY_OPS, EMPTY_KEY, INVALID_SORT, VALUE_PROVIDED, LEASE_PROVIDED, KEY_NOT_FOUND, DUPLICATE_KEY."""
    _check_txn(asked, ops_max)
    _written_keys(asked.success)
    _written_keys(asked.failure)
    return says.Txn([_compare(one) for one in asked.compare], _ops(asked.success), _ops(asked.failure))


def reads_only(asked: pb.TxnRequest) -> bool:
    """Whether no branch writes: then it needs no place in the log."""
    for op in (*asked.success, *asked.failure):
        kind = op.WhichOneof("request")
        if kind == "request_txn":
            if not reads_only(op.request_txn):
                return False
        elif kind != "request_range":
            return False
    return True


def shown(asked: pb.TxnRequest) -> Iterator[tuple[bytes, bytes]]:
    """The ranges whose former values a transaction may be shown (``prev_kv``)."""
    for op in (*asked.success, *asked.failure):
        match op.WhichOneof("request"):
            case "request_txn":
                yield from shown(op.request_txn)
            case "request_put" if op.request_put.prev_kv:
                yield op.request_put.key, b""
            case "request_delete_range" if op.request_delete_range.prev_kv:
                yield op.request_delete_range.key, op.request_delete_range.range_end


def serializable(asked: pb.TxnRequest) -> bool:
    """Whether all its reads are content with what this replica has."""
    for op in (*asked.success, *asked.failure):
        kind = op.WhichOneof("request")
        if kind == "request_txn":
            if not serializable(op.request_txn):
                return False
        elif kind != "request_range" or not op.request_range.serializable:
            return False
    return True


# -- checks ---------------------------------------------------------------------------------------------------


def _check_range(asked: pb.RangeRequest) -> None:
    if not asked.key:
        raise errors.EMPTY_KEY
    if not 0 <= asked.sort_order <= 2 or not 0 <= asked.sort_target <= 4:
        raise errors.INVALID_SORT


def _check_put(asked: pb.PutRequest) -> None:
    if not asked.key:
        raise errors.EMPTY_KEY
    if asked.ignore_value and asked.value:
        raise errors.VALUE_PROVIDED
    if asked.ignore_lease and asked.lease:
        raise errors.LEASE_PROVIDED


def _check_delete(asked: pb.DeleteRangeRequest) -> None:
    if not asked.key:
        raise errors.EMPTY_KEY


def _check_txn(asked: pb.TxnRequest, ops_max: int) -> None:
    """An inner transaction may have what the outer ones left of the operations."""
    count = max(len(asked.compare), len(asked.success), len(asked.failure))
    if count > ops_max:
        raise errors.TOO_MANY_OPS
    if any(not one.key for one in asked.compare):
        raise errors.EMPTY_KEY
    for op in (*asked.success, *asked.failure):
        kind = op.WhichOneof("request")
        if kind == "request_txn":
            _check_txn(op.request_txn, ops_max - count)
        elif kind is None:
            raise errors.KEY_NOT_FOUND
        else:
            _CHECKS[kind](getattr(op, kind))


_CHECKS: dict[str, Callable[[Any], None]] = {
    "request_range": _check_range,
    "request_put": _check_put,
    "request_delete_range": _check_delete,
}

Interval = tuple[bytes, bytes]


def _written_keys(ops: Iterable[pb.RequestOp]) -> tuple[set[bytes], list[Interval]]:
    """Keys put and ranges deleted by one branch and what is inside it. Raises DUPLICATE_KEY.

    Deletes of this level count first, then inner transactions (whose branches may share a key, as only one is
    taken), then the puts of this level.
    """
    deletes = [
        (op.request_delete_range.key, op.request_delete_range.range_end)
        for op in ops
        if op.WhichOneof("request") == "request_delete_range"
    ]
    puts: set[bytes] = set()
    for op in ops:
        if op.WhichOneof("request") != "request_txn":
            continue
        then, then_deletes = _written_keys(op.request_txn.success)
        other, other_deletes = _written_keys(op.request_txn.failure)
        if not puts.isdisjoint(then | other) or _any_deleted(then | other, deletes):
            raise errors.DUPLICATE_KEY
        puts |= then | other
        deletes += then_deletes
        deletes += other_deletes
    for op in ops:
        if op.WhichOneof("request") == "request_put":
            key = op.request_put.key
            if key in puts or _any_deleted((key,), deletes):
                raise errors.DUPLICATE_KEY
            puts.add(key)
    return puts, deletes


def _any_deleted(keys: Iterable[bytes], deletes: list[Interval]) -> bool:
    """An end of one zero byte is no "all behind" to this check of etcd's."""
    return any((start <= key < end) if end else key == start for key in keys for start, end in deletes)


# -- translation ----------------------------------------------------------------------------------------------


def _ops(ops: Iterable[pb.RequestOp]) -> list[says.Op]:
    return [_op(op) for op in ops]


def _op(op: pb.RequestOp) -> says.Op:
    match op.WhichOneof("request"):
        case "request_put":
            put = op.request_put
            return says.OpPut(blob(put.key), blob(put.value), put.lease, put.ignore_value, put.ignore_lease)
        case "request_delete_range":
            gone = op.request_delete_range
            return says.OpDelete(blob(gone.key), blob(gone.range_end))
        case "request_range":
            return _range(op.request_range)
        case _:
            inner = op.request_txn
            return says.OpTxn([_compare(one) for one in inner.compare], _ops(inner.success), _ops(inner.failure))


def _range(asked: pb.RangeRequest) -> says.OpRange:
    return says.OpRange(
        key=blob(asked.key),
        range_end=blob(asked.range_end),
        limit=asked.limit,
        revision=asked.revision,
        order=asked.sort_order,
        by=asked.sort_target,
        keys_only=asked.keys_only,
        count_only=asked.count_only,
        min_mod=asked.min_mod_revision,
        max_mod=asked.max_mod_revision,
        min_create=asked.min_create_revision,
        max_create=asked.max_create_revision,
    )


_OPERANDS = ("version", "create_revision", "mod_revision", "value", "lease")


def _compare(one: pb.Compare) -> says.Compare:
    """Where target and operand don't agree, etcd compares with the target's default."""
    target = one.target
    known = 0 <= target < len(_OPERANDS)
    given: Any = getattr(one, _OPERANDS[target]) if known else 0
    operand: Blob | int = blob(given) if target == 3 else given
    return says.Compare(blob(one.key), target, one.result, operand, blob(one.range_end))
