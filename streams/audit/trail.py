"""The trail: commands of the log joined with their outcomes, by position; and the rule about refusals.

Pure: it reads no topic. The log's commands come in order; outcomes come in order per fold, maybe twice, maybe later.
"""

import heapq
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

import msgspec

from streams.audit.lines import Line, subject_of
from streams.audit.outcomes import START, Unique
from streams.events import log as says
from streams.events.base import Event, UndecodableEvent, decode
from streams.records import DamagedRecord, Entry, NewerFormat, NotOurs, Position, parse

#: Outcomes that are answers, not refusals: a compare that failed, a key that isn't there (etcd's 1xx codes).
ORDINARY = "v2.1"


FOLDS = ("control", "kv")


class Commands:
    """Reads the log's entries as a bystander: which commands were said. It folds nothing, so it can't say outcomes."""

    def __init__(self, log_id: str = "") -> None:
        self.log_id = log_id

    def lines(self, entry: Entry) -> Iterator[Line]:
        """A pending line for each command in an entry; none for what is foreign or can't be read."""
        try:
            record = parse(entry)
            events = decode(record.stream, record.payload)
        except (NotOurs, NewerFormat, DamagedRecord, UndecodableEvent):
            return
        for index, event in enumerate(events):
            if not isinstance(event, Event):
                continue
            if isinstance(event.data, says.LogOpened) and not self.log_id:
                self.log_id = event.data.id
            if event.data.COMMAND and record.log_id == self.log_id:
                yield Line(
                    position=str(Position(entry.offset, index)),
                    type=event.type,
                    outcome="pending",
                    time_ms=record.time_ms,
                    subject=subject_of(event),
                    principal=event.principal,
                    correlation=event.correlation,
                    source=record.writer,
                    term=event.term,
                )


async def joined(commands: AsyncIterator[Line], outcomes: AsyncIterator[tuple[str, Line]]) -> AsyncIterator[Line]:
    """All commands of a log that ended, each with its outcome or ``pending``, and refused facts, in order of position.

    A merge: outcomes are read until every fold is past a command's position (idle folds leave marks), so that memory
    holds only how far one fold runs ahead of the other.
    """
    decided: list[tuple[Position, Line]] = []
    unique = Unique()
    more = True
    async for command in commands:
        while more and not all(unique.last.get(fold, START) >= command.at for fold in FOLDS):
            try:
                fold, line = await anext(outcomes)
            except StopAsyncIteration:
                more = False
            else:
                if unique.new(fold, line):
                    heapq.heappush(decided, (line.at, line))
        while decided and decided[0][0] < command.at:
            yield heapq.heappop(decided)[1]
        if decided and decided[0][0] == command.at:
            yield heapq.heappop(decided)[1]
        else:
            yield command
    async for fold, line in outcomes if more else _nothing():
        if unique.new(fold, line):
            heapq.heappush(decided, (line.at, line))
    while decided:
        yield heapq.heappop(decided)[1]


async def _nothing() -> AsyncIterator[tuple[str, Line]]:
    nothing: tuple[tuple[str, Line], ...] = ()
    for item in nothing:
        yield item


class Wanted(msgspec.Struct, frozen=True):
    """A filter of lines; empty fields match all."""

    principal: str = ""
    subject: str = ""
    refused: bool = False

    def matches(self, line: Line) -> bool:
        return (
            self.principal in ("", line.principal)
            and self.subject in ("", line.subject)
            and (not self.refused or line.outcome == "rejected")
        )


class Alert(msgspec.Struct, frozen=True):
    """``principal`` was refused ``refused`` times within ``window_ms``; the last time at ``position``."""

    position: str
    principal: str
    refused: int
    window_ms: int
    codes: list[str]
    subjects: list[str]
    time_ms: int


class Refusals:
    """The alert rule: ``limit`` refused commands of one principal within ``window_ms`` of record time.

    Alerts once, and again only after a window without that many. Codes that begin with one of ``ordinary`` don't
    count. Times may jump back (writers' clocks differ): the running maximum counts.
    """

    def __init__(self, limit: int = 5, window_ms: int = 60_000, ordinary: Iterable[str] = (ORDINARY,)) -> None:
        self.limit = limit
        self.window_ms = window_ms
        self._ordinary = tuple(ordinary)
        self._recent: dict[str, deque[Line]] = {}
        self._times: dict[str, deque[int]] = {}
        self._alerted: set[str] = set()
        self._now_ms = 0

    def seen(self, line: Line) -> Alert | None:
        self._now_ms = max(self._now_ms, line.time_ms)
        if line.outcome != "rejected" or not line.principal or line.code.startswith(self._ordinary):
            return None
        recent = self._recent.setdefault(line.principal, deque(maxlen=max(self.limit, 1)))
        times = self._times.setdefault(line.principal, deque(maxlen=max(self.limit, 1)))
        recent.append(line)
        times.append(self._now_ms)
        if len(times) < self.limit or self._now_ms - times[0] > self.window_ms:
            self._alerted.discard(line.principal)
            return None
        if line.principal in self._alerted:
            return None
        self._alerted.add(line.principal)
        return Alert(
            line.position,
            line.principal,
            len(times),
            self.window_ms,
            sorted({one.code for one in recent}),
            sorted({one.subject for one in recent}),
            line.time_ms,
        )
