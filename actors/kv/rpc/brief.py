"""Transactions as most clients write them: their bytes → the event, in one step. Pure.

That is: keys and no ranges compared, puts of values and leases, ranges without order and filters, deletes, nothing in
each other and nothing shown of before, something written in a branch. Whatever is anything else, or refused by etcd's
api, is left to :mod:`actors.kv.rpc.asked`, which does the same for all; so no rule and no error is told twice.
"""

from typing import Final

from actors.kv.proto import etcd_wire as wire
from actors.kv.proto.varints import Irregular, more, signed
from actors.kv.rpc.asked import PUT_BYTES
from streams.events import kv3 as says
from streams.events.blobs import carried

# a constant is sooner there than an import, compiled
_TXN: Final = says.Txn
_COMPARE: Final = says.Compare
_OP_PUT: Final = says.OpPut
_OP_RANGE: Final = says.OpRange
_OP_DELETE: Final = says.OpDelete

#: Compare's ``which`` less this is its target.
_OPERAND: Final = 4


class Brief:
    """``data``: for the log; ``cost``: see :class:`actors.kv.rpc.asked.Txn`; ``operations``: of its longest list."""

    __slots__ = ("cost", "data", "operations")

    def __init__(self, data: says.Txn, cost: int, operations: int) -> None:
        self.data, self.cost, self.operations = data, cost, operations


class _Branch:
    __slots__ = ("cost", "deletes", "ops", "puts")

    def __init__(self) -> None:
        self.ops: list[says.Op] = []
        self.puts: list[bytes] = []
        self.deletes = self.cost = 0

    def is_regular(self) -> bool:
        """Whether no key is written twice; False: somebody has to look."""
        if len(self.puts) < 2:
            return self.deletes == 0 or self.deletes + len(self.puts) == 1
        return self.deletes == 0 and len(set(self.puts)) == len(self.puts)


def read(raw: bytes) -> Brief | wire.TxnRequest:
    """Raises DecodeError."""
    try:
        found = _read(raw)
    except (Irregular, IndexError):
        found = None
    return wire.decode_txn_request(raw) if found is None else found


def _read(raw: bytes) -> Brief | None:
    compares: list[says.Compare] = []
    success, failure = _Branch(), _Branch()
    at, end = 0, len(raw)
    while at < end:
        tag, size, at = _field(raw, at)
        stop = at + size
        if stop > end:
            return None
        if tag == 10:
            compare = _compare(raw, at, stop)
            if compare is None:
                return None
            compares.append(compare)
        elif (tag != 18 and tag != 26) or not _op(raw, at, stop, success if tag == 18 else failure):
            return None
        at = stop
    writes = len(success.puts) + len(failure.puts) + success.deletes + failure.deletes
    if not writes or not success.is_regular() or not failure.is_regular():
        return None
    operations = max(len(compares), len(success.ops), len(failure.ops))
    return Brief(_TXN(compares, success.ops, failure.ops), max(success.cost, failure.cost), operations)


def _field(raw: bytes, at: int) -> tuple[int, int, int]:
    """A field's tag, of one byte; its number, or the size of its bytes; and where they go on.

    Raises Irregular, IndexError.
    """
    tag, number = raw[at], raw[at + 1]
    at += 2
    if number > 127:
        number, at = more(raw, at, number) if tag & 7 else signed(raw, at, number)
    return tag, number, at


def _compare(raw: bytes, at: int, end: int) -> says.Compare | None:
    result = target = which = operand = 0
    key = value = b""
    while at < end:
        tag, number, at = _field(raw, at)
        if tag == 26 or tag == 58:
            stop = at + number
            if stop > end:
                return None
            if tag == 26:
                key = raw[at:stop]
            elif which:
                return None
            else:
                value, which = raw[at:stop], 7
            at = stop
        elif tag == 8:
            result = number
        elif tag == 16:
            target = number
        elif which or not (tag == 32 or tag == 40 or tag == 48 or tag == 64):
            return None
        else:
            which, operand = tag >> 3, number
    if at != end or not key or not 0 <= result <= 3 or not 0 <= target <= 4:
        return None
    if target == 3:
        return _COMPARE(carried(key), target, result, carried(value))
    # where target and operand don't agree, etcd compares with the target's default
    return _COMPARE(carried(key), target, result, operand if which == target + _OPERAND else 0)


def _op(raw: bytes, at: int, end: int, branch: _Branch) -> bool:
    """One operation, into its branch; False: it isn't brief."""
    if at == end:
        return False
    tag, size, at = _field(raw, at)
    if at + size != end:
        return False
    if tag == 18:
        return _put(raw, at, end, branch)
    if tag == 10:
        return _range(raw, at, end, branch)
    return tag == 26 and _delete(raw, at, end, branch)


def _put(raw: bytes, at: int, end: int, branch: _Branch) -> bool:
    key = value = b""
    lease = 0
    while at < end:
        tag, number, at = _field(raw, at)
        if tag == 24:
            lease = number
            continue
        stop = at + number
        if stop > end:
            return False
        if tag == 10:
            key = raw[at:stop]
        elif tag == 18:
            value = raw[at:stop]
        else:
            return False
        at = stop
    if at != end or not key:
        return False
    branch.puts.append(key)
    branch.cost += PUT_BYTES + len(key) + len(value)
    branch.ops.append(_OP_PUT(carried(key), carried(value), lease))
    return True


def _range(raw: bytes, at: int, end: int, branch: _Branch) -> bool:
    key = range_end = b""
    limit = revision = 0
    keys_only = count_only = False
    while at < end:
        tag, number, at = _field(raw, at)
        if tag == 10 or tag == 18:
            stop = at + number
            if stop > end:
                return False
            if tag == 10:
                key = raw[at:stop]
            else:
                range_end = raw[at:stop]
            at = stop
        elif tag == 24:
            limit = number
        elif tag == 32:
            revision = number
        elif number != 0 and number != 1:
            return False
        elif tag == 64:
            keys_only = number == 1
        elif tag == 72:
            count_only = number == 1
        elif tag != 56:  # serializable: a transaction that writes asks the log anyway
            return False
    if at != end or not key:
        return False
    if not (range_end or limit or revision or keys_only or count_only):
        branch.ops.append(_OP_RANGE(carried(key)))
        return True
    branch.ops.append(_OP_RANGE(carried(key), carried(range_end), limit, revision, 0, 0, keys_only, count_only))
    return True


def _delete(raw: bytes, at: int, end: int, branch: _Branch) -> bool:
    key = range_end = b""
    while at < end:
        tag, number, at = _field(raw, at)
        stop = at + number
        if stop > end:
            return False
        if tag == 10:
            key = raw[at:stop]
        elif tag == 18:
            range_end = raw[at:stop]
        else:
            return False
        at = stop
    if at != end or not key:
        return False
    branch.deletes += 1
    branch.ops.append(_OP_DELETE(carried(key), carried(range_end)))
    return True
