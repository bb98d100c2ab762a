"""Changes of one revision: put, delete, transactions. Pure; the model is etcd's apply (all comparisons first, then
all checks, then the operations, of which later ones see what earlier ones did)."""

from collections.abc import Iterator
from typing import Final

from actors.kv.v3 import errors
from actors.kv.v3.kinds import Deleted as Deleted
from actors.kv.v3.kinds import OpDone
from actors.kv.v3.kinds import TxnDone as TxnDone
from actors.kv.v3.leases import Leases
from actors.kv.v3.ranges import Query, Ranged, query, ranged
from actors.kv.v3.revs import Rev, Revs
from streams.events import kv3 as says
from streams.events.base import Base64, Blob, unblob

# a constant is sooner there than an import, compiled
_OP_PUT: Final = says.OpPut
_OP_RANGE: Final = says.OpRange
_OP_DELETE: Final = says.OpDelete
_DELETED: Final = Deleted
_RANGED: Final = Ranged
_TXN_DONE: Final = TxnDone


class Writing:
    """One revision in the making. ``main``: its number; it exists once ``sub`` is above 0."""

    __slots__ = ("leases", "main", "revs", "sub")

    def __init__(self, revs: Revs, leases: Leases) -> None:
        self.revs, self.leases = revs, leases
        self.main, self.sub = revs.revision + 1, 0

    @property
    def current(self) -> int:
        return self.main if self.sub else self.revs.revision

    def put(self, key: bytes, value: bytes, lease: int) -> Rev:
        old = self.revs.newest.get(key)
        made = self.revs.put_over(old, key, value, lease, self.main, self.sub)
        self.sub += 1
        before = old.lease if old is not None else 0
        if before != lease:
            self.leases.detach(before, key)
            self.leases.attach(lease, made.key)
        return made

    def delete(self, key: bytes, end: bytes) -> Deleted:
        revs = self.revs
        if end:
            found = [revs.newest[name] for name in revs.keys(key, end, old=False)]
        else:
            one = revs.newest.get(key)
            found = [one] if one is not None and one.version else []
        return _DELETED([self._bury(old) for old in found])

    def _bury(self, old: Rev) -> Rev:
        made = self.revs.delete(old, self.main, self.sub)
        self.sub += 1
        self.leases.detach(old.lease, old.key)
        return made

    def finish(self) -> int:
        """The revision after it."""
        if self.sub:
            self.revs.revision = self.main
        return self.revs.revision


def resolved(writing: Writing, op: says.Put | says.OpPut) -> tuple[bytes, bytes, int]:
    """Key, value and lease of a put. Raises LEASE_NOT_FOUND, KEY_NOT_FOUND."""
    key, value, lease = unblob(op.key), unblob(op.value), op.lease
    if op.ignore_value or op.ignore_lease:
        old = writing.revs.newest.get(key)
        if lease:
            writing.leases.known(lease)
        if old is None or not old.version:
            raise errors.KEY_NOT_FOUND
        value = old.value if op.ignore_value else value
        lease = old.lease if op.ignore_lease else lease
    elif lease:
        writing.leases.known(lease)
    return key, value, lease


Txn = says.Txn | says.OpTxn


def run(writing: Writing, txn: Txn) -> TxnDone:
    """Raises what an operation of a taken branch can't do, before anything is changed."""
    paths = _paths(writing.revs, txn, [])
    _check(writing, txn, iter(paths))
    if writing.revs.policies is not None:
        writing.revs.policies.check_txn(writing.revs, _taken(txn, iter(paths)))
    return _execute(writing, txn, iter(paths))


def flat(revs: Revs, leases: Leases, txn: says.Txn) -> TxnDone | None:
    """The short way of what has no transactions and no ranges' comparisons in it, puts what it is told and looks at
    what is there now: nearly all. None: it is for :func:`run`; nothing was changed. Raises as that."""
    newest, succeeded = revs.newest, True
    for compare in txn.compare:
        if compare.range_end:
            return None
        rev = newest.get(unblob(compare.key))
        if rev is not None and not rev.version:
            rev = None
        target, operand = compare.target, compare.operand
        if target == 3:
            if isinstance(operand, int):
                return None
            if rev is None or not _compared(rev.value, unblob(operand), compare.result):
                succeeded = False
                break
        elif not isinstance(operand, int):
            return None
        elif not _compared(0 if rev is None else _number(rev, target), operand, compare.result):
            succeeded = False
            break
    ops = txn.success if succeeded else txn.failure
    for op in ops:
        if type(op) is _OP_PUT:
            if op.ignore_value or op.ignore_lease:
                return None
            if op.lease:
                leases.known(op.lease)
        elif type(op) is _OP_RANGE:
            if op.revision > 0:
                return None
        elif type(op) is not _OP_DELETE:
            return None
    if revs.policies is not None:
        revs.policies.check_txn(revs, ops)
    writing = Writing(revs, leases)
    results: list[OpDone] = []
    for op in ops:
        if type(op) is _OP_PUT:
            results.append(writing.put(unblob(op.key), unblob(op.value), op.lease))
        elif type(op) is _OP_RANGE:
            results.append(_looked(writing, op))
        else:
            assert type(op) is _OP_DELETE
            results.append(writing.delete(unblob(op.key), unblob(op.range_end)))
    writing.finish()
    return _TXN_DONE(succeeded, results)


def _paths(revs: Revs, txn: Txn, out: list[bool]) -> list[bool]:
    """Which branch each transaction takes, outermost first."""
    out.append(all(_holds(revs, compare) for compare in txn.compare))
    for op in txn.success if out[-1] else txn.failure:
        if isinstance(op, says.OpTxn):
            _paths(revs, op, out)
    return out


def _holds(revs: Revs, compare: says.Compare) -> bool:
    kvs: list[Rev]
    if compare.range_end:
        kvs = ranged(revs, Query(unblob(compare.key), unblob(compare.range_end)), revs.revision).kvs
    else:
        kvs = _newest(revs, compare.key)
    operand = compare.operand
    value = unblob(operand) if isinstance(operand, str | Base64) else operand
    if not kvs:
        # a value is compared with something that is there only
        return compare.target != 3 and _compared(0, value, compare.result)
    return all(_compared(_side(kv, compare.target), value, compare.result) for kv in kvs)


def _newest(revs: Revs, key: Blob) -> list[Rev]:
    """The one key, if it lives, as the change in the making left it."""
    found = revs.newest.get(unblob(key))
    return [found] if found is not None and found.version else []


def _side(kv: Rev, target: int) -> int | bytes:
    return kv.value if target == 3 else _number(kv, target)


def _number(kv: Rev, target: int) -> int:
    if target == 0:
        return kv.version
    if target == 1:
        return kv.create
    return kv.mod if target == 2 else kv.lease


def _compared(left: int | bytes, right: int | bytes, result: int) -> bool:
    match result:
        case 0:
            return left == right
        case 1:
            return left > right  # type: ignore[operator]
        case 2:
            return left < right  # type: ignore[operator]
        case _:
            return left != right


def _branch(txn: Txn, path: bool) -> list[says.Op]:
    return txn.success if path else txn.failure


def _check(writing: Writing, txn: Txn, paths: Iterator[bool]) -> None:
    revs = writing.revs
    for op in _branch(txn, next(paths)):
        match op:
            case says.OpPut():
                resolved(writing, op)
            case says.OpRange(revision=revision) if revision > 0:
                if revision > revs.revision:
                    raise errors.FUTURE_REV
                if revision < revs.compacted or revision < revs.limit(unblob(op.key), unblob(op.range_end)):
                    raise errors.COMPACTED
            case says.OpTxn():
                _check(writing, op, paths)
            case _:
                pass


def _taken(txn: Txn, paths: Iterator[bool]) -> Iterator[says.Op]:
    """The operations of all branches that are taken, in the order in which they are done."""
    for op in _branch(txn, next(paths)):
        if isinstance(op, says.OpTxn):
            yield from _taken(op, paths)
        else:
            yield op


def _execute(writing: Writing, txn: Txn, paths: Iterator[bool]) -> TxnDone:
    succeeded = next(paths)
    results: list[OpDone] = []
    for op in _branch(txn, succeeded):
        match op:
            case says.OpPut():
                results.append(writing.put(*_again(writing, op)))
            case says.OpDelete():
                results.append(writing.delete(unblob(op.key), unblob(op.range_end)))
            case says.OpRange():
                results.append(_looked(writing, op))
            case _:
                results.append(_execute(writing, op, paths))
    return TxnDone(succeeded, results)


def _looked(writing: Writing, op: says.OpRange) -> Ranged:
    if not (op.range_end or op.revision or op.count_only or op.min_mod or op.max_mod or op.min_create or op.max_create):
        kvs = _newest(writing.revs, op.key)
        return _RANGED(kvs, len(kvs), False, op.keys_only)
    found = ranged(writing.revs, query(op), writing.current)
    return Ranged(found.kvs, found.count, found.more, op.keys_only)


def _again(writing: Writing, op: says.OpPut) -> tuple[bytes, bytes, int]:
    """What was checked before the first operation may be gone by an earlier one: etcd then panics or puts what it
    was told; here the key is made with an empty value and no lease where those were to be kept."""
    old = writing.revs.newest.get(unblob(op.key))
    if (op.ignore_value or op.ignore_lease) and (old is None or not old.version):
        return unblob(op.key), b"" if op.ignore_value else unblob(op.value), 0 if op.ignore_lease else op.lease
    return resolved(writing, op)
