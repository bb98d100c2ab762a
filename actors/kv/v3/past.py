"""The past of v3's keys: which event made which revision, what differs between moments, what a restore takes. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from actors.kv.v3.restores import PART_BYTES, Parts, within
from actors.kv.v3.revs import ALL_BEHIND, Rev, Revs
from actors.kv.v3.store import Result
from streams.events import kv3 as says
from streams.events.base import carried
from streams.outcomes import Accepted, AcceptedBefore
from streams.records import Position
from streams.replay import Applied

#: Nothing asked for a part of the keys: all of them.
EVERYTHING = (b"", ALL_BEHIND)
#: (key, end): as a range's.
Range = tuple[bytes, bytes]


def prefix(key: bytes) -> Range:
    """The range of all keys that begin so, as etcd's clients make it."""
    for at in range(len(key) - 1, -1, -1):
        if key[at] < 0xFF:
            return key, key[:at] + bytes((key[at] + 1,))
    return (key, ALL_BEHIND) if key else EVERYTHING


def concerned(key: bytes, ranges: Sequence[Range]) -> bool:
    return any(within(key, start, end) for start, end in ranges)


# -- who made what ----------------------------------------------------------------------------------------------------


class Grant(NamedTuple):
    """Who granted a lease, and where in the log."""

    principal: str
    position: Position


class Made(NamedTuple):
    """A revision of a key and the event that made it.

    action  put, delete, txn put, txn delete, lease expired, lease revoked, import, restore put or restore delete
    lease   whose end deleted the key, else the one that it was put on; 0: none
    grant   of that lease, where the log still has it
    """

    rev: Rev
    before: Rev | None
    action: str
    lease: int
    grant: Grant | None
    applied: Applied


class Telling:
    """Is shown what a replica applied, record by record, and tells of each revision made which event made it."""

    def __init__(self, revs: Revs) -> None:
        self._revs = revs
        self._known = revs.revision
        self._grants: dict[int, Grant] = {}

    def made(self, batch: Sequence[Applied]) -> Iterator[Made]:
        """Call once for each record, after it was applied whole; iterate to the end."""
        for applied in batch:
            outcome, data = applied.outcome, applied.event.data
            if not isinstance(outcome, Accepted) or isinstance(outcome, AcceptedBefore):
                continue
            if data.__module__ != says.__name__:
                continue
            if isinstance(data, says.LeaseGrant):
                self._grants[data.id] = Grant(applied.event.principal, applied.position)
            elif (revision := _revision(outcome.result)) > self._known:
                yield from self._told(applied, revision)

    def _told(self, applied: Applied, upto: int) -> Iterator[Made]:
        begin, self._known = self._known + 1, upto
        result = applied.outcome.result if isinstance(applied.outcome, Accepted) else None
        if isinstance(result, Result) and isinstance(result.value, Rev):
            yield self._one(applied, result.value)  # a put: there is nothing else, and it needn't be looked for
            return
        for rev in self._revs.since(begin):
            if rev.mod > upto:
                return
            yield self._one(applied, rev)

    def _one(self, applied: Applied, rev: Rev) -> Made:
        before = rev.prev if rev.prev is not None and rev.prev.version else None
        lease = _lease(applied.event.data, rev)
        return Made(rev, before, _action(applied.event.data, rev), lease, self._grants.get(lease), applied)


def _revision(result: Any) -> int:
    """The store's revision after a command, as its outcome tells it; 0: it doesn't."""
    if isinstance(result, Result):
        return result.revision
    return result if isinstance(result, int) else 0


def _lease(data: Any, rev: Rev) -> int:
    if isinstance(data, says.LeaseExpired | says.LeaseRevoke):
        return data.id
    return rev.lease


def _action(data: Any, rev: Rev) -> str:
    verb = "put" if rev.version else "delete"
    match data:
        case says.Put() | says.Delete():
            return verb
        case says.LeaseExpired():
            return "lease expired"
        case says.LeaseRevoke():
            return "lease revoked"
        case says.Txn():
            return f"txn {verb}"
        case says.ImportEnd():
            return "import" if rev.version else "import delete"
        case says.RestoreEnd():
            return f"restore {verb}"
        case _:
            return verb


# -- reading at a revision --------------------------------------------------------------------------------------------


def alive(revs: Revs, ranges: Iterable[Range], revision: int) -> Iterator[Rev]:
    """What lived at a revision, by key, each once; for stores that hold its history from there on (it isn't asked
    what is compacted)."""
    told: list[Range] = []
    for start, end in ranges:
        for key in revs.keys(start, end, old=True) if end else iter((start,)):
            if not concerned(key, told) and (found := revs.at(key, revision)) is not None:
                yield found
        told.append((start, end))


def kept(revs: Revs, ranges: Sequence[Range]) -> Iterator[Rev]:
    """All that a store still has of the history of some keys, in order, tombstones too."""
    for rev in revs.retained():
        if concerned(rev.key, ranges):
            yield rev


# -- differences ------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """A key whose value differs, or that is there on one side alone."""

    key: bytes
    before: Rev | None
    after: Rev | None

    @property
    def op(self) -> str:
        return "add" if self.before is None else "remove" if self.after is None else "change"


def compared(before: Iterable[Rev], after: Iterable[Rev]) -> list[Difference]:
    """By key. Values are compared: a key put again as it was is no difference."""
    old, new = {rev.key: rev for rev in before}, {rev.key: rev for rev in after}
    out = []
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key), new.get(key)
        if left is None or right is None or left.value != right.value:
            out.append(Difference(key, left, right))
    return out


# -- restoring --------------------------------------------------------------------------------------------------------


def parts(differences: Iterable[Difference], ident: str, size_max: int = PART_BYTES) -> list[says.RestorePart]:
    """What makes the left side of differences the right one."""
    made = Parts(ident, size_max)
    for key, _, after in differences:
        part = made.room(len(key) + (0 if after is None else len(after.value)))
        if after is None:
            part.deletes.append(carried(key))
        else:
            part.puts.append((carried(key), carried(after.value)))
    return made.all
