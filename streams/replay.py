"""Replaying the log: one record at a time, the same on every replica.

``Replica`` owns a fold and what every fold shares (``LogState``): the log's identity, incarnations, voids, the
sealed mark, sessions, the chain hash and the outcome hash. It reads no clock and does no I/O.

The three rules (docs: the log): *foreign* records are chained, counted and without effect; records of ours that
can't be understood, or on which the fold raises, *halt* at that position; an operator's void lets replicas pass.
"""

import hashlib
from collections.abc import Collection, Sequence
from functools import partial
from itertools import count, repeat

import msgspec

from streams import voids
from streams.events import log as says
from streams.events.base import Event, UndecodableEvent, Unknown, decode
from streams.kinds import ALIKE_FROM_LEVEL, Entry, KeepingFold, ManyFold, Position, Record
from streams.kinds import Applied as Applied
from streams.kinds import Boundary as Boundary
from streams.kinds import Context as Context
from streams.kinds import Diverged as Diverged
from streams.kinds import Fold as Fold
from streams.kinds import Halt as Halt
from streams.kinds import LogState as LogState
from streams.kinds import Opened as Opened
from streams.outcomes import DONE, Outcome, Rejected
from streams.records import DamagedRecord, NewerFormat, NotOurs, chained, parse

#: The feature level of evolve that this version knows. Behaviour changes only behind a raised level: from 2 on a record
#: that comes twice counts once. Kafka's producers may write one again when a leader is lost, idempotent ones as well
#: (a sequence refused, or a record that ran out of time, begins a new epoch, and brokers don't know what they have:
#: librdkafka's issue 4953). From 3 on a fold counts the records of streams that it doesn't read, too; a client that was
#: forgotten is refused; the kv fold takes of machines what the control fold takes (docs/decisions/0019-level-3.md).
LEVEL = 3
ONCE_FROM_LEVEL = 2
#: A checkpoint boundary every so many events of a fold; the values of the last KEPT_BOUNDARIES are kept.
CHECKPOINT_EVENTS = 1000
KEPT_BOUNDARIES = 16

#: Both by one call in C: they are made for each event.
_position = partial(tuple.__new__, Position)
_applied = partial(tuple.__new__, Applied)

VOID_INCARNATION = Rejected("void-incarnation", "written by an incarnation that is over")
VOID_REPEATED = Rejected("void-repeated", "this record of its writer, or one said after it, stands before it")
VOID_SEALED = Rejected("sealed", "said after this log was sealed")
VOID_OPERATOR = Rejected("voided", "voided by an operator")


class Replica:
    """A fold, kept in step with the log by ``apply``. One owner, one thread."""

    def __init__(self, fold: Fold, log: LogState | None = None) -> None:
        self.fold = fold
        self.log = log or LogState()
        #: the last entry applied: snapshots keep its hash
        self.last: Entry | None = None
        #: after a restore: the hash that the record at ``offset`` must have; checked by :meth:`confirm`
        self.resume = ""
        #: voids that stand further on in the log than what they void (see streams.voids.foreseen)
        self.foreseen: dict[int, str] = {}
        self.streams: Collection[str] = fold.streams | {"log"}
        self._many = fold if isinstance(fold, ManyFold) else None
        self._keeping = fold if isinstance(fold, KeepingFold) else None

    @property
    def offset(self) -> int:
        """The offset of the last record applied, -1 before the first."""
        return self.log.offset

    def time_of(self, entry: Entry) -> int:
        """The running maximum of record times if ``entry`` were applied now: what ``--at TIME`` goes by."""
        try:
            return max(self.log.time_ms, parse(entry).time_ms)
        except ValueError:
            return self.log.time_ms

    def apply(self, entry: Entry, upto: int | None = None) -> list[Applied]:
        """Apply one entry; returns its events with their outcomes (none for foreign and skipped records).

        ``upto``: only its events up to this index, to look at an instant in mid-record; nothing may follow then.

        Raises Halt; the replica is then as it was before the entry, unless the fold raised half-way
        (it must be thrown away in any case).
        """
        record, events = self._begin(entry)
        if upto is not None:
            events = events[: upto + 1]
        outcomes = self._evolve(record, events, results=True)
        offset = entry.offset
        if len(outcomes) == len(events):  # no stranger is there
            places = map(_position, zip(repeat(offset), count()))
            return list(map(_applied, zip(events, places, outcomes, repeat(record))))
        known = [(index, event) for index, event in enumerate(events) if isinstance(event, Event)]
        return [
            Applied(event, Position(offset, index), outcome, record)
            for (index, event), outcome in zip(known, outcomes, strict=True)
        ]

    def replay(self, entry: Entry) -> None:
        """As ``apply``, where nobody looks at what came of it: a start's replay, histories. Raises Halt."""
        record, events = self._begin(entry)
        self._evolve(record, events, results=False)

    def _begin(self, entry: Entry) -> "tuple[Record, list[Event | Unknown]]":
        """What all folds share before the first event; no events if the record is skipped, foreign or voided."""
        log = self.log
        offset = entry.offset
        if offset <= log.offset:
            raise Halt(Position(offset), f"offset {offset} comes after {log.offset}: the log's order is broken")
        if self.foreseen and offset in self.foreseen:
            log.voided[offset] = self.foreseen[offset]
        record = self._ours(entry)
        log.chain = chained(log.chain, entry.raw)
        log.offset = offset
        self.last = entry
        if record is None:
            log.foreign += 1
            return NO_RECORD, []
        log.time_ms = max(log.time_ms, record.time_ms)
        if offset in log.voided:
            return record, []
        if record.stream not in self.streams:
            if record.stream not in KNOWN_STREAMS:
                raise Halt(Position(offset), f"stream {record.stream!r} is not known to this version")
            if log.level >= ALIKE_FROM_LEVEL:
                self._void(record, [])  # its number counts here as well: what it overtakes is void in every fold
            return record, []
        try:
            events = decode(record.stream, record.payload)
        except UndecodableEvent as error:
            raise Halt(Position(offset), str(error)) from error
        if not events and record.stream != "log" and log.level >= ALIKE_FROM_LEVEL:
            self._void(record, events)
        return record, events

    def _evolve(self, record: Record, events: "list[Event | Unknown]", results: bool) -> list[Outcome]:
        """The outcomes of a record's events (not of strangers), folded into the outcome hash."""
        if not events:
            return []
        log = self.log
        before = log.events
        outcomes: list[Outcome]
        if (void := self._void(record, events)) is not None:
            outcomes = [void] * sum(isinstance(event, Event) for event in events)
        elif self._many is not None and record.stream != "log" and not _strangers(events):

            def one(event: Event, index: int) -> Outcome:
                return self._one(event, Context(Position(record.offset, index), record, log))

            try:
                outcomes = self._many.evolve_many(events, record, log, one, results)  # type: ignore[arg-type]
            except Halt:
                raise
            except Exception as error:
                position = Position(record.offset, log.events - before)
                raise Halt(position, f"{type(error).__name__}: {error}") from error
        else:
            outcomes = [
                self._one(event, Context(Position(record.offset, index), record, log))
                for index, event in enumerate(events)
                if isinstance(event, Event)
            ]
        if record.stream != "log":
            self._account(Position(record.offset, len(events) - 1), outcomes, before)
        return outcomes

    def confirm(self, entry: Entry) -> None:
        """After a restore: ``entry`` is the record that the snapshot ended with, or the log is another one now."""
        if entry.offset != self.offset or hashlib.blake2b(entry.raw, digest_size=32).hexdigest() != self.resume:
            raise Halt(Position(entry.offset), "the log differs from the one that the snapshot was taken of")
        self.last, self.resume = entry, ""

    def _ours(self, entry: Entry) -> Record | None:
        """The parsed record, None if foreign. Before the log is founded only ``log.opened`` counts as ours."""
        try:
            record = parse(entry)
        except NotOurs:
            return None
        except (NewerFormat, DamagedRecord) as error:
            if entry.offset in self.log.voided:
                return None
            raise Halt(Position(entry.offset), str(error)) from error
        if self.log.log_id:
            return record if record.log_id == self.log.log_id else None
        return record if record.stream == "log" and b'"log.opened.' in record.payload else None

    def _void(self, record: Record, events: list[Event | Unknown]) -> Rejected | None:
        """Why a whole record has no effect: the log is sealed, its writer's incarnation is over (or not begun), or it
        doesn't stand where it was said."""
        log = self.log
        if log.sealed_at >= 0:
            return VOID_SEALED
        known = log.writers.get(record.writer)
        of_log = record.stream == "log"
        opening = of_log and isinstance(events[0], Event) and isinstance(events[0].data, says.ActorOpened)
        founding = of_log and isinstance(events[0], Event) and isinstance(events[0].data, says.LogOpened)
        if opening:
            stale = known is not None and record.incarnation <= known.incarnation
        elif founding:
            stale = False
        else:
            stale = known is None or record.incarnation != known.incarnation
        if stale:
            log.void_incarnations += 1
            return VOID_INCARNATION
        if known is not None and not opening and not founding and log.level >= ONCE_FROM_LEVEL:
            if record.seq <= known.seq:
                known.repeats += 1
                return VOID_REPEATED
            known.seq = record.seq
        return None

    def _one(self, event: Event, context: Context) -> Outcome:
        log = self.log
        if context.record.stream == "log":
            return self._log_event(event, context)
        log.events += 1
        try:
            if (refused := self.fold.guard(event, context)) is not None:
                log.void_terms += refused.code == "stale-term"  # type: ignore[union-attr]
                return refused
            if event.client:
                return self._once(event, context)
            return self.fold.evolve(event, context)
        except Halt:
            raise
        except Exception as error:
            raise Halt(context.position, f"{event.type}: {type(error).__name__}: {error}") from error

    def _once(self, event: Event, context: Context) -> Outcome:
        log = self.log
        counted = (log.offset, log.time_ms) if log.level >= ALIKE_FROM_LEVEL else (log.events, None)
        apply, keep = partial(self.fold.evolve, event, context), partial(self._kept, log.level)
        return log.sessions.once(event, apply, keep, *counted)

    def _kept(self, level: int, outcome: Outcome) -> Outcome:
        return outcome if self._keeping is None else self._keeping.kept(outcome, level)

    def _log_event(self, event: Event, context: Context) -> Outcome:
        log, data, record = self.log, event.data, context.record
        match data:
            case says.LogOpened():
                if log.log_id:
                    return Rejected("already-founded", "another log.opened was first")
                if data.level > LEVEL:
                    raise Halt(context.position, f"feature level {data.level} is newer than {LEVEL}; upgrade corelog")
                log.log_id, log.level, log.operator_key, log.base = data.id, data.level, data.operator_key, data.base
                if data.chain:
                    log.chain = chained(bytes.fromhex(data.chain), record.canonical())
            case says.ActorOpened():
                seq = record.seq if log.level >= ONCE_FROM_LEVEL else 0
                log.writers[record.writer] = Opened(record.incarnation, data.nonce, data.level, record.offset, seq)
            case says.ActorRestarted():
                log.restarts[event.subject] = data.restarts
            case says.LogSealed():
                log.sealed_at, log.sealed_next = record.offset, data.next
            case says.LogVoided():
                if not voids.valid(data, log.log_id, log.operator_key):
                    return Rejected("bad-signature", "not signed by the operator's key that founded this log")
                log.voided[data.offset] = data.reason
            case says.Checkpoint():
                return self._compare(data, context.position)
            case says.LevelRaised():
                return self._raise_level(data, context)
            case _:
                pass
        return DONE

    def _raise_level(self, data: says.LevelRaised, context: Context) -> Outcome:
        if data.level <= self.log.level:
            return Rejected("level-not-higher", f"the feature level is {self.log.level} already")
        if behind := self.log.behind(data.level, data.removed):
            return Rejected("level-not-announced", f"not announced by {', '.join(behind)}")
        if data.level > LEVEL:
            raise Halt(context.position, f"feature level {data.level} is newer than {LEVEL}; upgrade corelog")
        for writer in self.log.behind(data.level):
            del self.log.writers[writer]  # what it says is void until it opens anew, which its version can't here
        self.log.level = data.level
        return DONE

    def _compare(self, said: says.Checkpoint, at: Position) -> Outcome:
        if said.fold != self.fold.name:
            return DONE
        for boundary in self.log.boundaries:
            if boundary.position == said.position:
                if (boundary.chain, boundary.outcomes) != (said.chain, said.outcomes):
                    raise Diverged(at, f"the master has other hashes at {said.position} than this replica")
                return DONE
        return Rejected("unknown-boundary", "older than the boundaries kept here")

    def _account(self, last: Position, outcomes: list[Outcome], before: int) -> None:
        """Fold the record's outcomes (codes, never messages) into the outcome hash, ``+`` for what was accepted.

        The first record that ends at or after a multiple of CHECKPOINT_EVENTS is a boundary.
        """
        log = self.log
        if outcomes.count(DONE) == len(outcomes):  # compares by identity first: the fast case of replay
            codes = b"+ " * len(outcomes)
        else:
            codes = b"".join(
                outcome.code.encode() + b" " if isinstance(outcome, Rejected) else b"+ " for outcome in outcomes
            )
        log.outcomes = hashlib.blake2b(codes, digest_size=32, key=log.outcomes).digest()
        if log.events // CHECKPOINT_EVENTS != before // CHECKPOINT_EVENTS:
            log.boundaries.append(Boundary(str(last), log.chain.hex(), log.outcomes.hex()))
            del log.boundaries[:-KEPT_BOUNDARIES]

    def state_hash(self) -> str:
        """blake2b-256 over the canonical bytes of log state and fold: equal on every replica at one offset."""
        digest = self.log_hash()
        for chunk in self.fold.encode():
            digest.update(chunk)
        return digest.hexdigest()

    def log_hash(self) -> "hashlib.blake2b":
        """The beginning of the state's hash: log state; the fold's chunks follow."""
        return hashlib.blake2b(msgspec.json.encode(self.log), digest_size=32)


def _strangers(events: "Sequence[Event | Unknown]") -> bool:
    """Whether there are events among these that this version doesn't know and may skip."""
    return Unknown in set(map(type, events))


KNOWN_STREAMS = frozenset({"log", "cluster", "kv", "unit", "engine", "update"})
#: Stands for the record of an entry that is foreign.
NO_RECORD = Record("", "", "", 0, 0, 0, b"")
