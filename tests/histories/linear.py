"""Whether a history is linearizable, in the order of the revisions that were answered. Linear but for sorting.

Four things together say that it is:

- *revisions*: each has one maker, an answered request, one of unknown outcome (which makes at most one), or a lease
  that ended; what it changed is what that request makes of the state before it, and so is what it was answered;
- *reads*: what was read at a revision is the state at that revision, no more and no less;
- *clocks*: who asked after another was answered stands behind it: a write above its revision, a read not below;
- *nothing lost*: no answer names a revision that isn't there.

A lost, doubled or reordered write, a stale read, a wrong branch or ``prev_kv`` breaks one of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import inf
from typing import NamedTuple

from tests.histories.ops import (
    FIRST,
    Alive,
    Changes,
    Delete,
    Deleted,
    Event,
    Op,
    Put,
    PutDone,
    Range,
    Refused,
    Result,
    Revoke,
    Revoked,
    Txn,
    TxnDone,
)
from tests.histories.store import Store

#: Words about so many violations are enough: one planted early may bring thousands.
SAID_MAX = 20


class Verdict:
    """``violations``: in words, empty if the history is good. ``ended``: revision → lease, of leases that ended by
    themselves. ``resolved``: requests of unknown outcome that came to pass, as if they had been answered."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.ended: dict[int, int] = {}
        self.resolved: list[Op] = []

    def say(self, text: str) -> None:
        if len(self.violations) < SAID_MAX:
            self.violations.append(text)


def check(ops: Iterable[Op], changes: Changes) -> Verdict:
    """``ops`` in any order; ``changes``: all there were, as the store tells them in the end."""
    ops = list(ops)
    verdict = Verdict()
    _Replay(ops, changes, verdict).run()
    _clocks([op for op in ops if op.revision] + verdict.resolved, verdict)
    return verdict


def changed(result: Result | None) -> bool:
    """Whether an answer says that something was changed, as far as it tells."""
    match result:
        case PutDone():
            return True
        case Deleted():
            return result.count > 0
        case TxnDone():
            return any(map(changed, result.results))
        case _:
            return False


class _Replay:
    """The state is made anew from the changes, a revision at a time; each request is held against it at its place."""

    def __init__(self, ops: list[Op], changes: Changes, verdict: Verdict) -> None:
        self._changes, self._verdict = changes, verdict
        self._store = Store()
        self._makers: defaultdict[int, list[Op]] = defaultdict(list)
        self._revokes: defaultdict[int, list[Op]] = defaultdict(list)
        self._readers: defaultdict[int, list[Op]] = defaultdict(list)
        #: of unknown outcome: by each value that they may put; those that may delete; the newest revision known then
        self._values: dict[bytes, Op] = {}
        self._deletes: list[Op] = []
        self._floors = _floors(ops)
        self._buried: list[_Buried] = []
        #: who put a value, to name it when it is found twice
        self._writers: dict[bytes, Op] = {}
        for op in ops:
            self._sort_in(op)

    def _sort_in(self, op: Op) -> None:
        for value in _values(op):
            self._writers[value] = op
        if op.result is None:
            self._sort_in_unknown(op)
        elif isinstance(op.result, Revoked):
            self._revokes[op.revision].append(op)
        elif changed(op.result):
            self._makers[op.revision].append(op)
        elif isinstance(op.request, Range) and op.request.revision:
            self._readers[op.request.revision].append(op)
        elif not isinstance(op.result, Refused | Alive):
            self._readers[op.revision].append(op)

    def _sort_in_unknown(self, op: Op) -> None:
        for value in _values(op):
            self._values[value] = op
        parts = (*op.request.success, *op.request.failure) if isinstance(op.request, Txn) else (op.request,)
        if any(isinstance(one, Delete | Revoke) for one in parts):
            self._deletes.append(op)

    # -- the walk ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._read(self._store.revision)
        for revision, told in enumerate(self._changes, FIRST):
            makers = self._makers.pop(revision, [])
            if not makers:
                # one of a lease without keys has the revision of another
                makers = [one for one in self._revokes.get(revision, ()) if self._would_make(one, told)][:1]
            if len(makers) > 1:
                self._verdict.say(f"revision {revision} was answered twice: {makers[0]} and {makers[1]}")
            if makers:
                self._held(makers[0], told)
            else:
                self._unanswered(revision, told)
            self._store.take(told)
            self._read(revision)
        self._match_buried()
        for lost in (*self._makers.values(), *self._readers.values()):
            self._verdict.say(f"there is no such revision: {lost[0]}")

    def _held(self, op: Op, told: list[Event]) -> None:
        """An answered request made this revision."""
        result, events = self._store.run(op.request)
        self._store.undo(events)
        if events != told:
            self._verdict.say(f"{op} made {_words(events)}, but told is {_words(told)}")
        elif result is not None and result != op.result:
            self._verdict.say(f"{op} is wrong: {result}")

    def _read(self, revision: int) -> None:
        for op in self._readers.pop(revision, ()):
            result, events = self._store.run(op.request)
            self._store.undo(events)
            if events:
                self._verdict.say(f"{op} changed nothing, but would have made {_words(events)}")
            elif result != op.result:
                self._verdict.say(f"{op} is wrong: {result}")

    # -- revisions that nobody was answered -------------------------------------------------------------------

    def _unanswered(self, revision: int, told: list[Event]) -> None:
        puts = [one.kv.value for one in told if one.kv.version]
        if puts:
            op = self._values.get(puts[0])
            if op is not None and self._would_make(op, told):
                for value in _values(op):
                    self._values.pop(value, None)
                self._resolve(revision, op)
            else:
                self._nobody(revision, told)
            return
        may = [op for op in self._deletes if self._floors[id(op)] < revision and self._would_make(op, told)]
        lease = told[0].prev.lease if told[0].prev is not None else 0
        ended = bool(lease) and self._would_make(Op("", 0, 0, Revoke(lease)), told)
        self._buried.append(_Buried(revision, told, may, lease if ended else 0))

    def _would_make(self, op: Op, told: list[Event]) -> bool:
        _, events = self._store.run(op.request)
        self._store.undo(events)
        return events == told

    def _resolve(self, revision: int, op: Op) -> None:
        done = Op(op.client, op.invoked_s, inf, op.request, result=PutDone(), revision=revision)
        self._verdict.resolved.append(done)

    def _nobody(self, revision: int, told: list[Event]) -> None:
        known = next((self._writers[one.kv.value] for one in told if one.kv.value in self._writers), None)
        why = f"; its value is that of {known}" if known else ""
        self._verdict.say(f"nobody made revision {revision}: {_words(told)}{why}")

    def _match_buried(self) -> None:
        """Deletions have no values that tell them apart: find each one a request of its own, if there is a way.

        Kuhn's matching: who is matched stays so; those that a lease's end explains as well come last.
        """
        taken: dict[int, _Buried] = {}
        ops = {id(op): op for op in self._deletes}

        def place(one: _Buried, tried: set[int]) -> bool:
            for op in one.may:
                if id(op) not in tried:
                    tried.add(id(op))
                    if id(op) not in taken or place(taken[id(op)], tried):
                        taken[id(op)] = one
                        return True
            return False

        for one in sorted(self._buried, key=lambda one: (one.lease > 0, one.revision)):
            if place(one, set()):
                continue
            if not one.lease:
                self._nobody(one.revision, one.told)
            elif not one.may:
                self._verdict.ended[one.revision] = one.lease
        for key, one in taken.items():
            self._resolve(one.revision, ops[key])


class _Buried(NamedTuple):
    """A revision of deletions only. ``may``: who may have made it; ``lease``: whose end it may be, or 0."""

    revision: int
    told: list[Event]
    may: list[Op]
    lease: int


def _floors(ops: list[Op]) -> dict[int, int]:
    """By identity of each unknown deletion: the newest revision that was answered before it was asked."""
    out, newest, at = {}, 0, 0
    answered = sorted((op for op in ops if op.revision), key=lambda op: op.returned_s)
    for op in sorted((op for op in ops if op.result is None), key=lambda op: op.invoked_s):
        while at < len(answered) and answered[at].returned_s < op.invoked_s:
            newest, at = max(newest, answered[at].revision), at + 1
        out[id(op)] = newest
    return out


def _values(op: Op) -> Iterator[bytes]:
    match op.request:
        case Put():
            yield op.request.value
        case Txn():
            for one in (*op.request.success, *op.request.failure):
                if isinstance(one, Put):
                    yield one.value
        case _:
            pass


def _words(events: list[Event]) -> str:
    return "; ".join(str(one) for one in events) or "nothing"


# -- clocks ---------------------------------------------------------------------------------------------------


def _clocks(ops: list[Op], verdict: Verdict) -> None:
    """Walk all by the time they were asked, beside the same by the time they were answered."""
    asked = sorted(ops, key=lambda op: op.invoked_s)
    answered = sorted((op for op in ops if op.returned_s < inf), key=lambda op: op.returned_s)
    newest: Op | None = None
    at = 0
    for op in asked:
        while at < len(answered) and answered[at].returned_s < op.invoked_s:
            if newest is None or answered[at].revision > newest.revision:
                newest = answered[at]
            at += 1
        if newest is None or (isinstance(op.request, Range) and op.request.serializable):
            continue
        if changed(op.result) and op.revision <= newest.revision:
            verdict.say(f"{op} wrote at or below what was answered before it was asked: {newest}")
        elif op.revision < newest.revision:
            verdict.say(f"{op} is stale: before it was asked there was {newest}")
