"""The host that drives every actor: tail → evolve → decide → append → effects, without I/O and without a clock.

A ``Host`` is a step machine. Inputs are method calls that carry the time: ``begin``, ``delivered``, ``appended``,
``refused``, ``unknown``, ``submit``, ``read``, ``noticed``, ``tick``. Outputs are collected in ``outbox`` and drained
by the shell (``actors/shell.py`` on asyncio, ``tests/simulator`` in virtual time), which does what they say:

    Append(records)    hand to the log, in order; then call appended / refused / unknown with the same object
    Perform(effects)   do them in the world; what is learnt comes back by ``noticed``

Order, per actor:
1. Replay up to the end that was known at the start; no decisions, no effects.
2. Append ``actor.opened``: its incarnation ends all older ones. Applied, it is the catch-up barrier: now live.
3. Live: ``decide`` after every batch, observation and wake-up, if no plan is in flight. A plan's effects are
   released when its events are applied (its own record came back), at once if it has none.
4. An append with unknown outcome opens a new incarnation; what is absent before that barrier is void for ever.

Submissions (commands of callers) are batched, a record per stream, at most ``in_flight_max`` records under way; a
caller is answered when its own record is applied here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.kinds import IDLE as IDLE
from actors.kinds import Actor as Actor
from actors.kinds import Append as Append
from actors.kinds import Done as Done
from actors.kinds import Now as Now
from actors.kinds import Output as Output
from actors.kinds import Perform as Perform
from actors.kinds import Plan as Plan
from actors.kinds import Sealed as Sealed
from actors.kinds import Superseded as Superseded
from actors.kinds import Unresolved as Unresolved
from actors.kinds import Unsayable as Unsayable
from actors.kinds import Unwritten as Unwritten
from streams.batches import batches
from streams.events import log as says
from streams.events.base import Event, encode, say
from streams.kinds import Entry, Record
from streams.outcomes import Rejected
from streams.replay import LEVEL, VOID_REPEATED, Applied, Replica

#: Bytes of events that are put into one record at most (well below the log's record limit).
BATCH_BYTES = 1024 * 1024
#: Back-off after an append that the log refused unwritten.
RETRY_S = 0.1


class _Submission:
    __slots__ = ("done", "events", "size")

    def __init__(self, events: list[Event], done: Done, size: int) -> None:
        self.events, self.done, self.size = events, done, size


class _Flight:
    """One record under way, by its seq."""

    __slots__ = ("last_of_plan", "plan", "readers", "record", "sent_s", "submissions")

    def __init__(self, record: Record, sent_s: float, plan: Plan | None = None, last_of_plan: bool = False) -> None:
        self.record, self.sent_s, self.plan, self.last_of_plan = record, sent_s, plan, last_of_plan
        self.submissions: list[_Submission] = []
        self.readers: list[Callable[[Exception | None], None]] = []


class Host:
    """See the module. ``in_flight_max``: records of submissions under way at once."""

    def __init__(
        self, actor: Actor, replica: Replica, writer: str, nonce: Callable[[], str], in_flight_max: int = 4
    ) -> None:
        self.actor = actor
        self.replica = replica
        self.writer = writer
        self.outbox: list[Output] = []
        self.live = False
        self.wake_at_s: float | None = None
        self.log_latency_s = 0.0
        self.last_landed_s = float("-inf")
        self._new_nonce = nonce
        self._in_flight_max = in_flight_max
        #: an actor with ``follows_replay = False`` isn't told of what was applied before its barrier is under way
        self._follows_replay = getattr(actor, "follows_replay", True)
        self._begin_at = -1
        self._began = False
        self._incarnation = 0
        self._nonce = ""
        self._nonces: set[str] = set()
        self._seq = 0
        self._opening: Record | None = None
        self._flights: dict[tuple[int, int], _Flight] = {}
        self._orphans: dict[tuple[int, int], _Flight] = {}
        self._plan: Plan | None = None
        self._plan_landed: list[Applied] = []
        self._queue: dict[str, list[_Submission]] = {}
        self._readers: list[Callable[[Exception | None], None]] = []
        self._retry_at_s = float("-inf")
        self._reopen = False

    # -- inputs -----------------------------------------------------------------------------------------------

    def begin(self, end: int, now: Now) -> None:
        """``end``: one past the last offset known at the start; decisions wait until it is applied."""
        self._began, self._begin_at = True, end
        self._advance(now)

    def delivered(self, entries: Sequence[Entry], now: Now) -> None:
        """Apply a batch from the tail. Raises streams.replay.Halt: the shell stops the actor."""
        batch: list[Applied] = []
        for entry in entries:
            if not self._follows_replay and self._incarnation == 0:  # it never opened yet
                self.replica.replay(entry)
                continue
            applied = self.replica.apply(entry)
            if applied:
                batch += applied
                if applied[0].record.writer == self.writer:
                    self.actor.applied(batch, self.replica, now, self.live)
                    batch = []
                    self._own(applied, now)
        if batch:
            self.actor.applied(batch, self.replica, now, self.live)
        self._advance(now)

    def appended(self, append: Append, offsets: Sequence[int], now: Now) -> None:
        """The log has them. Nothing to do: what counts is that they come back by ``delivered``."""

    def refused(self, append: Append, error: Exception, now: Now) -> None:
        """The log took none of them (unavailable, too large): nothing was written."""
        self._retry_at_s = now.boot_s + RETRY_S
        for record in append.records:
            flight = self._flights.pop((record.incarnation, record.seq), None)
            if flight is not None:
                self._fail(flight, Unwritten(str(error)))
            if record is self._opening:
                self._opening = None
                self._nonces.discard(self._nonce)
        self._advance(now)

    def unknown(self, append: Append, error: Exception, now: Now) -> None:
        """They may be written, now or later: open a new incarnation, whose barrier decides."""
        for record in append.records:
            flight = self._flights.pop((record.incarnation, record.seq), None)
            if flight is not None:
                self._orphans[record.incarnation, record.seq] = flight
        self._retry_at_s = now.boot_s + RETRY_S
        self._opening = None
        self._reopen = True
        self.live = False
        self._advance(now)

    def submit(self, events: list[Event], done: Done, now: Now, size: int = 512) -> None:
        """Append a caller's commands (of one stream); ``done`` gets their applied events in order."""
        self._queue.setdefault(events[0].data.STREAM, []).append(_Submission(events, done, size))
        self._flush(now)

    def withdraw(self, event: Event) -> bool:
        """Forget the submission that begins with this event, if it wasn't handed to the log; whether that was so."""
        for stream, queue in self._queue.items():
            for submission in queue:
                if submission.events[0] is event:
                    self._queue[stream] = [other for other in queue if other is not submission]
                    return True
        return False

    def read(self, done: Callable[[Exception | None], None], now: Now) -> None:
        """Linearizable read: ``done(None)`` when something of ours that was sent after now is applied."""
        self._readers.append(done)
        self._flush(now)

    def noticed(self, observation: Any, now: Now) -> None:
        self.actor.noticed(observation, now)
        self._advance(now)

    def tick(self, now: Now) -> None:
        """The time ``wake_at_s`` came (or any other time)."""
        self._advance(now)

    def stop(self) -> None:
        """Fail what waits: what was handed to the log is unresolved, what wasn't is unwritten.

        If the log was sealed, what was handed to it and isn't applied by now stands behind the seal: void for ever.
        """
        self.live = False
        sealed = self.replica.log.sealed_at >= 0
        for flight in [*self._flights.values(), *self._orphans.values()]:
            self._fail(flight, Unwritten("the log was sealed before it") if sealed else Unresolved("the node stops"))
        self._flights.clear()
        self._orphans.clear()
        for queue in self._queue.values():
            for submission in queue:
                submission.done(Unwritten("the node stops"))
        self._queue.clear()
        for reader in self._readers:
            reader(Unwritten("the node stops"))
        self._readers.clear()

    # -- own records come back --------------------------------------------------------------------------------

    def _own(self, applied: list[Applied], now: Now) -> None:
        record = applied[0].record
        key = (record.incarnation, record.seq)
        if isinstance(applied[0].event.data, says.ActorOpened):
            self._opened(applied[0], now)
            return
        flight = self._flights.pop(key, None) or self._orphans.pop(key, None)
        if flight is None:
            return
        if applied[0].outcome is VOID_REPEATED:
            self._fail(flight, Unwritten("a later record of this writer stands before it: void for ever"))
            return
        self.log_latency_s = now.boot_s - flight.sent_s
        self.last_landed_s = now.boot_s
        self._land(flight, applied, now)

    def _land(self, flight: _Flight, applied: list[Applied], now: Now) -> None:
        at = 0
        for submission in flight.submissions:
            count = len(submission.events)
            submission.done(applied[at : at + count])
            at += count
        for reader in flight.readers:
            reader(None)
        if flight.plan is not None and flight.plan is self._plan:
            self._plan_landed += applied
            if flight.last_of_plan:
                plan, self._plan = self._plan, None
                landed, self._plan_landed = self._plan_landed, []
                self.actor.landed(landed, flight.sent_s, self.replica, now)
                if plan.effects:
                    self.outbox.append(Perform(plan.effects))

    def _opened(self, applied: Applied, now: Now) -> None:
        data = applied.event.data
        opened = self.replica.log.writers.get(self.writer)
        if data.nonce != self._nonce or applied.record.incarnation != self._incarnation:
            # one of our own that we had given up may still arrive: it isn't another process
            others = self._nonce and opened is not None and opened.nonce not in self._nonces
            if self._opening is None and not self._reopen and others:
                self._superseded(applied)
            return
        if self.live:
            return  # Kafka's producer wrote it twice
        self._opening = None
        if isinstance(applied.outcome, Rejected):
            self._reopen = True  # somebody else took this number first
            return
        self._reopen = False
        orphans, self._orphans = self._orphans, {}
        for flight in orphans.values():
            self._fail(flight, Unwritten("not on the log before a newer incarnation's barrier: void for ever"))
        self._plan, self._plan_landed = None, []
        self.live = True
        self.actor.live(self.replica, now)

    def _superseded(self, applied: Applied) -> None:
        """Another process opened the same actor after us: ours is the old one. Stop saying anything."""
        raise Superseded(f"{self.writer} was opened anew at {applied.position} by another process; this one ends")

    def _fail(self, flight: _Flight, error: Unwritten | Unresolved) -> None:
        for submission in flight.submissions:
            submission.done(error)
        for reader in flight.readers:
            reader(error)
        if flight.plan is not None and flight.plan is self._plan:
            self._plan, self._plan_landed = None, []

    # -- going on ---------------------------------------------------------------------------------------------

    def _advance(self, now: Now) -> None:
        if not self._began:
            return
        if not self.live:
            self._open(now)
            return
        self._flush(now)
        self._decide(now)

    def _open(self, now: Now) -> None:
        if self._opening is not None or self.replica.offset + 1 < self._begin_at:
            return
        if now.boot_s < self._retry_at_s:
            self.wake_at_s = self._retry_at_s
            return
        known = self.replica.log.writers.get(self.writer)
        self._incarnation = max(self._incarnation, known.incarnation if known else 0) + 1
        self._nonce, self._seq, self._reopen = self._new_nonce(), 0, False
        self._nonces.add(self._nonce)
        self._opening = self._record("log", [say(says.ActorOpened(nonce=self._nonce, level=LEVEL))], now)
        self.outbox.append(Append([self._opening]))

    def _decide(self, now: Now) -> None:
        while self._plan is None:
            if now.boot_s < self._retry_at_s:
                self.wake_at_s = self._retry_at_s
                return
            plan = self.actor.decide(self.replica, now)
            self.wake_at_s = plan.wake_at_s
            if plan.events:
                self._send_plan(plan, now)
            elif plan.effects:
                self.outbox.append(Perform(plan.effects))
            return

    def _send_plan(self, plan: Plan, now: Now) -> None:
        by_stream: dict[str, list[Event]] = {}
        for event in plan.events:
            by_stream.setdefault(event.data.STREAM, []).append(event)
        self._plan = plan
        records: list[Record] = []
        for stream, events in by_stream.items():
            # a record beyond what the log takes would be refused, and decided again, for ever
            for part in batches(events, _size, BATCH_BYTES):
                record = self._record(stream, part, now)
                flight = _Flight(record, now.boot_s, plan)
                self._flights[record.incarnation, record.seq] = flight
                records.append(record)
        flight.last_of_plan = True
        self._attach_readers(self._flights[records[-1].incarnation, records[-1].seq])
        self.outbox.append(Append(records))

    def _flush(self, now: Now) -> None:
        """Send queued submissions, one record per stream and turn, while fewer than the maximum are under way."""
        if not self.live or not (self._queue or self._readers):
            return
        for stream in list(self._queue):
            while (queue := self._queue.get(stream)) and len(self._flights) < self._in_flight_max:
                taken, size = 0, 0
                while taken < len(queue) and (taken == 0 or size + queue[taken].size <= BATCH_BYTES):
                    size += queue[taken].size
                    taken += 1
                batch, rest = queue[:taken], queue[taken:]
                if rest:
                    self._queue[stream] = rest
                else:
                    del self._queue[stream]
                events = batch[0].events if taken == 1 else [event for one in batch for event in one.events]
                try:
                    record = self._record(stream, events, now)
                except Exception:  # something in it has no form: a text that is none, a number too large
                    self._sort_out(stream, batch)
                    continue
                flight = _Flight(record, now.boot_s)
                flight.submissions = batch
                self._flights[record.incarnation, record.seq] = flight
                self._attach_readers(flight)
                self.outbox.append(Append([record], len(events)))
        if self._readers and len(self._flights) < self._in_flight_max:
            record = self._record("log", [say(says.Barrier())], now)
            flight = _Flight(record, now.boot_s)
            self._flights[record.incarnation, record.seq] = flight
            self._attach_readers(flight)
            self.outbox.append(Append([record]))

    def _sort_out(self, stream: str, batch: list[_Submission]) -> None:
        """Who asked for what can't be written is told so; the others are to be sent without it."""
        faults = [(submission, fault) for submission in batch if (fault := unsayable(submission.events)) is not None]
        faulty = {id(submission) for submission, _ in faults}
        if rest := [one for one in batch if id(one) not in faulty] + self._queue.get(stream, []):
            self._queue[stream] = rest
        for submission, fault in faults:
            submission.done(Unsayable(fault))

    def _attach_readers(self, flight: _Flight) -> None:
        flight.readers, self._readers = self._readers, []

    def _record(self, stream: str, events: list[Event], now: Now) -> Record:
        self._seq += 1
        return Record(
            self.replica.log.log_id, stream, self.writer, self._incarnation, self._seq, now.wall_ms, encode(events)
        )


def unsayable(events: list[Event]) -> str | None:
    """Why these can't be written on a log; None: they can."""
    try:
        encode(events)
    except Exception as error:  # of several kinds, by what is wrong
        return f"this can't be written: {type(error).__name__}: {error}"
    return None


def _size(event: Event) -> int:
    return len(encode([event]))
