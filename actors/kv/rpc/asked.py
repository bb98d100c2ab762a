"""etcd's requests → events and queries, after the checks that etcd makes before a request is ordered. Pure.

Source of the checks and their order: etcd's ``api/v3rpc``.
"""

from collections.abc import Iterable
from typing import Final

from actors.kv.proto.etcd_wire import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from actors.kv.v3 import errors
from actors.kv.v3.ranges import Query
from streams.events import kv3 as says
from streams.events.base64 import Blob
from streams.events.blobs import carried

#: What etcd's envelope adds to a request.
ENVELOPE_BYTES = 18
#: What a key costs beyond its bytes.
PUT_BYTES: Final = 256
#: ``which`` of a RequestOp.
RANGE, PUT, DELETE, TXN = 1, 2, 3, 4


def sized(size: int, bytes_max: int) -> None:
    """A command's encoded size in bytes. Raises TOO_LARGE."""
    if size + ENVELOPE_BYTES > bytes_max:
        raise errors.TOO_LARGE


def query(asked: RangeRequest) -> Query:
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


def put(asked: PutRequest) -> says.Put:
    """Raises EMPTY_KEY, VALUE_PROVIDED, LEASE_PROVIDED."""
    _check_put(asked)
    return says.Put(carried(asked.key), carried(asked.value), asked.lease, asked.ignore_value, asked.ignore_lease)


def delete(asked: DeleteRangeRequest) -> says.Delete:
    """Raises EMPTY_KEY."""
    if not asked.key:
        raise errors.EMPTY_KEY
    return says.Delete(carried(asked.key), carried(asked.range_end))


class Txn:
    """What one look at a transaction found.

    data           for the log
    cost           bytes that the larger branch puts, by the quota's count
    reads_only     no branch writes: then it needs no place in the log
    serializable   all its reads are content with what this replica has, and it does nothing else
    shown          the ranges whose former values it may be shown (``prev_kv``)
    """

    __slots__ = ("cost", "data", "reads_only", "serializable", "shown", "twice")

    def __init__(self) -> None:
        self.data = says.Txn()
        self.cost = 0
        self.reads_only = self.serializable = True
        self.shown: list[tuple[bytes, bytes]] = []
        #: a branch writes more than once: whether it writes a key twice has to be seen
        self.twice = False


def txn(asked: TxnRequest, ops_max: int) -> Txn:
    """Raises TOO_MANY_OPS, EMPTY_KEY, INVALID_SORT, VALUE_PROVIDED, LEASE_PROVIDED, KEY_NOT_FOUND, DUPLICATE_KEY."""
    found = Txn()
    left = _count(asked, ops_max)
    compare = [_compare(one) for one in asked.compare]
    success, one = _ops(asked.success, left, found)
    failure, other = _ops(asked.failure, left, found)
    if found.twice:
        _written_keys(asked.success)
        _written_keys(asked.failure)
    found.cost = max(one, other)
    found.data = says.Txn(compare, success, failure)
    return found


# -- checks ---------------------------------------------------------------------------------------------------


def _check_range(asked: RangeRequest) -> None:
    if not asked.key:
        raise errors.EMPTY_KEY
    if not 0 <= asked.sort_order <= 2 or not 0 <= asked.sort_target <= 4:
        raise errors.INVALID_SORT


def _check_put(asked: PutRequest) -> None:
    if not asked.key:
        raise errors.EMPTY_KEY
    if asked.ignore_value and asked.value:
        raise errors.VALUE_PROVIDED
    if asked.ignore_lease and asked.lease:
        raise errors.LEASE_PROVIDED


def _count(asked: TxnRequest, ops_max: int) -> int:
    """How many operations an inner transaction may have: what this one leaves of them."""
    count = max(len(asked.compare), len(asked.success), len(asked.failure))
    if count > ops_max:
        raise errors.TOO_MANY_OPS
    for one in asked.compare:
        if not one.key:
            raise errors.EMPTY_KEY
    return ops_max - count


Interval = tuple[bytes, bytes]


def _written_keys(ops: list[RequestOp]) -> tuple[set[bytes], list[Interval]]:
    """Keys put and ranges deleted by one branch and what is inside it. Raises DUPLICATE_KEY.

    Deletes of this level count first, then inner transactions (whose branches may share a key, as only one is
    taken), then the puts of this level.
    """
    deletes = [(gone.key, gone.range_end) for op in ops if (gone := op.request_delete_range) is not None]
    puts: set[bytes] = set()
    for op in ops:
        inner = op.request_txn
        if inner is None:
            continue
        then, then_deletes = _written_keys(inner.success)
        other, other_deletes = _written_keys(inner.failure)
        if not puts.isdisjoint(then | other) or _any_deleted(then | other, deletes):
            raise errors.DUPLICATE_KEY
        puts |= then | other
        deletes += then_deletes
        deletes += other_deletes
    for op in ops:
        asked = op.request_put
        if asked is not None:
            if asked.key in puts or _any_deleted((asked.key,), deletes):
                raise errors.DUPLICATE_KEY
            puts.add(asked.key)
    return puts, deletes


def _any_deleted(keys: Iterable[bytes], deletes: list[Interval]) -> bool:
    """An end of one zero byte is no "all behind" to this check of etcd's."""
    return any((start <= key < end) if end else key == start for key in keys for start, end in deletes)


# -- translation ----------------------------------------------------------------------------------------------


def _ops(ops: list[RequestOp], left: int, found: Txn) -> tuple[list[says.Op], int]:
    """Operations of a branch, checked, and what it costs; the rest goes into ``found``."""
    out: list[says.Op] = []
    cost = writes = 0
    for op in ops:
        which = op.which
        if which == RANGE:
            asked = op.request_range
            assert asked is not None
            _check_range(asked)
            found.serializable = found.serializable and asked.serializable
            out.append(_range(asked))
            continue
        writes += 1
        if which == PUT:
            new = op.request_put
            assert new is not None
            _check_put(new)
            found.reads_only = found.serializable = False
            if new.prev_kv:
                found.shown.append((new.key, b""))
            cost += PUT_BYTES + len(new.key) + len(new.value)
            out.append(says.OpPut(carried(new.key), carried(new.value), new.lease, new.ignore_value, new.ignore_lease))
        elif which == DELETE:
            gone = op.request_delete_range
            assert gone is not None
            if not gone.key:
                raise errors.EMPTY_KEY
            found.reads_only = found.serializable = False
            if gone.prev_kv:
                found.shown.append((gone.key, gone.range_end))
            out.append(says.OpDelete(carried(gone.key), carried(gone.range_end)))
        elif which == TXN:
            inner = op.request_txn
            assert inner is not None
            # as etcd, to which one that has others inside is none that only reads, whatever those do
            found.reads_only = found.serializable = False
            made, more = _inner(inner, left, found)
            cost += more
            out.append(made)
        else:
            raise errors.KEY_NOT_FOUND
    found.twice = found.twice or writes > 1
    return out, cost


def _inner(asked: TxnRequest, left: int, found: Txn) -> tuple[says.OpTxn, int]:
    left = _count(asked, left)
    compare = [_compare(one) for one in asked.compare]
    success, one = _ops(asked.success, left, found)
    failure, other = _ops(asked.failure, left, found)
    return says.OpTxn(compare, success, failure), max(one, other)


def _range(asked: RangeRequest) -> says.OpRange:
    return says.OpRange(
        key=carried(asked.key),
        range_end=carried(asked.range_end),
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


def _compare(one: Compare) -> says.Compare:
    """Where target and operand don't agree, etcd compares with the target's default.

    A result that doesn't exist holds in etcd wherever there is something to compare: no key's version is -1, not that
    of one that isn't there either, and there is a value where the version is over 0.
    """
    target = one.target
    if not 0 <= one.result <= 3:
        found = (0, 1, 0) if target == 3 else (0, 3, -1)
        return says.Compare(carried(one.key), *found, carried(one.range_end))
    operand: Blob | int = 0
    if target == 0:
        operand = one.version
    elif target == 1:
        operand = one.create_revision
    elif target == 2:
        operand = one.mod_revision
    elif target == 3:
        operand = carried(one.value)
    elif target == 4:
        operand = one.lease
    return says.Compare(carried(one.key), target, one.result, operand, carried(one.range_end))
