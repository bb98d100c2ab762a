"""The outcomes topic: what each command came to, written by the master's replicas, resumed without a gap.

One topic, ``<log topic>.outcomes``, one partition; key = fold (``control``, ``kv``), value = lines
(:mod:`streams.audit.lines`). Each fold's lines are in the order of their positions, except that a new master may
write again what the old one wrote last: readers drop a line whose position is not above the fold's last one.

The topic costs the brokers as much as the log does, for each message: so lines are written some times a second,
many in a message. Who reads them is a quarter of a second behind the log.

How a fail-over leaves no gap: every replica keeps what it applied last (:class:`Feed`). Who becomes master reads the
end of the topic for the last line of its fold and goes on behind it, from what it kept, or, if that doesn't reach back
so far, by replaying the log from a snapshot. An old master that still writes writes the same lines.
An idle fold leaves a *mark* now and then, so that the end of the topic is soon found.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import structlog

from streams import snapshots
from streams.audit.lines import Line, audited, line_of, tells
from streams.history.at import entries
from streams.log.port import Log, LogError, LogTruncated
from streams.outcomes import DONE, Rejected
from streams.records import Position
from streams.replay import Applied, Fold

#: Events, and bytes of their records, that a replica keeps in case it becomes master: a fail-over's at full speed.
RING_EVENTS, RING_BYTES = 32_768, 16 * 1024 * 1024
#: The master keeps so many times more, until it is written: replaying the log for it costs much more than a slow topic.
STRETCH = 6
#: Lines that are handed to the topic at once. They are made on the actor's loop, SLICE_LINES in about a millisecond.
BATCH_LINES, SLICE_LINES = 16_000, 500
#: Fewer than a batch are written this long after those before them.
PACE_S = 0.25
#: A fold that moved and had no lines is marked after this long.
MARK_S = 10.0
RETRY_S = 1.0
MARK = "audit.mark.v1"
GAP = "audit.gap.v1"
#: The log is replayed on the actor's loop for so long, and then not for so long: who is served waits no longer for it.
WORK_S, REST_S = 0.001, 0.003
START = Position(-1)


class Outlet(Protocol):
    """The outcomes topic, for one fold."""

    async def last(self, fold: str) -> Position | None:
        """The position of the fold's last line; None if it has none. Raises LogError."""
        ...

    async def write(self, fold: str, lines: Sequence[Line]) -> None:
        """Append in order; returns when durable. Raises LogError: any prefix may be written, nothing out of order."""
        ...

    async def close(self) -> None: ...


class Feed:
    """What a fold's replica applied last; lines are made of it by the master alone. ``applied`` is called by the actor,
    in its loop.

    ``start``: all lines above this position are here. ``end``: the last position applied. ``events``: how many are
    kept. ``stretch``: how many times more than usual may be.
    """

    def __init__(self, fold: str, events_max: int = RING_EVENTS, bytes_max: int = RING_BYTES) -> None:
        self.fold = fold
        self.start = START
        self.end = START
        self._batches: deque[tuple[Sequence[Applied], int]] = deque()
        self.events = self._bytes = 0
        self._events_max, self._bytes_max = events_max, bytes_max
        self.stretch = 1
        self._changed = asyncio.Event()

    def applied(self, batch: Sequence[Applied], live: bool) -> None:
        """Take what was applied. In replay (``live`` False) only the position moves: such lines were written before,
        or are found again by replaying."""
        if not batch:
            return
        if self.end == START:
            # a replica may begin with a snapshot: what came before its first event is not here
            first = batch[0].position
            self.start = Position(first.offset, first.index - 1)
        if live and any(map(self._tells, batch)):
            size = sum(len(record.payload) for record in {one.record.offset: one.record for one in batch}.values())
            # without results: those of ranges in transactions may be large
            kept = [
                one if type(one.outcome) is Rejected else Applied(one.event, one.position, DONE, one.record)
                for one in batch
            ]
            self._batches.append((kept, size))
            self.events += len(batch)
            self._bytes += size
            while self.events > self.stretch * self._events_max or self._bytes > self.stretch * self._bytes_max:
                self._forget()
        elif not live:
            self._batches.clear()
            self.events = self._bytes = 0
            self.start = batch[-1].position
        self.end = batch[-1].position
        self._changed.set()

    def _tells(self, one: Applied) -> bool:
        return tells(self.fold, one.record.stream) and audited(one)

    def _forget(self) -> None:
        batch, size = self._batches.popleft()
        self.events -= len(batch)
        self._bytes -= size
        self.start = batch[-1].position

    def after(self, position: Position) -> list[Line]:
        """Up to SLICE_LINES lines above ``position``, which is not below ``start``."""
        assert position >= self.start, (position, self.start)
        lines = (
            line_of(one)
            for batch, _ in self._batches
            if batch[-1].position > position
            for one in batch
            if one.position > position and self._tells(one)
        )
        return list(islice(lines, SLICE_LINES))

    @property
    def middle(self) -> Position:
        """Where who catches up goes to: at ``start`` it would be too late again, where much comes."""
        return self._batches[len(self._batches) // 2][0][-1].position if self._batches else self.start

    def written(self, position: Position) -> None:
        """What isn't above it needn't be kept."""
        while self._batches and self._batches[0][0][-1].position <= position:
            self._forget()

    async def wait(self, timeout_s: float) -> None:
        """Until something is applied, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()


#: All lines above a position up to the record of another, which may move on, in order: the slow way, from the log.
Replayed = Callable[[Position, Callable[[], Position]], AsyncGenerator[list[Line], None]]


class OutcomeSink:
    """Writes a fold's lines while ``acting()`` (this machine holds the mastership as this replica sees it)."""

    def __init__(
        self, feed: Feed, open_outlet: Callable[[], Awaitable[Outlet]], replayed: Replayed, acting: Callable[[], bool]
    ) -> None:
        self.feed = feed
        #: the last position that is known to be in the topic
        self.written = START
        self._acted_s = float("-inf")
        self._open = open_outlet
        self._replayed = replayed
        self._acting = acting
        self._wrote_s = float("-inf")
        self._outlet: Outlet | None = None
        self._logger = structlog.get_logger(fold=feed.fold)

    async def run(self) -> None:
        """Until cancelled. The topic's troubles are waited out; they never reach the actor."""
        try:
            while True:
                if not self._acting():
                    self.feed.stretch = 1
                    await self._close()
                    await self.feed.wait(RETRY_S)
                    continue
                self.feed.stretch, self._acted_s = STRETCH, _now_s()
                try:
                    await self._go_on()
                except LogError as error:
                    self._logger.warning("outcomes wait: their topic can't be written", error=str(error))
                    await self._close()
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    # of a disk, or of a snapshot that is gone: whoever ended here would tell nothing until a restart
                    self._logger.exception("outcomes wait")
                    await self._close()
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._close()

    async def rest(self) -> None:
        """The log is sealed, nobody acts on it any more: return when what it had is told, if that was this one's."""
        if _now_s() - self._acted_s > RETRY_S + MARK_S:
            return
        self._acting = lambda: True
        while self.written < self.feed.start or self.feed.after(self.written):
            await asyncio.sleep(0.02)

    async def _go_on(self) -> None:
        if self._outlet is None:
            self._outlet = await self._open()
            self.written = await self._outlet.last(self.feed.fold) or START
        if self.written < self.feed.start:
            await self._catch_up(self._outlet)
        elif self.feed.events < BATCH_LINES and (wait_s := self._wrote_s + PACE_S - _now_s()) > 0:
            await asyncio.sleep(wait_s)  # before lines are made, which would be made again
        elif lines := await self._lines():
            await self._write(self._outlet, lines)
        else:
            await self.feed.wait(MARK_S)
            if self._idle():
                await self._write(self._outlet, [Line(str(self.feed.end), MARK, "accepted")])

    async def _lines(self) -> list[Line]:
        """What is to be written next, a batch at most."""
        lines: list[Line] = []
        at = self.written
        while len(lines) < BATCH_LINES and at >= self.feed.start and (more := self.feed.after(at)):
            lines += more
            at = more[-1].at
            await asyncio.sleep(0)
        return lines

    def _idle(self) -> bool:
        """The fold moved, has nothing to write above what is written, and left no mark for a while."""
        feed, now_s = self.feed, _now_s()
        if not self._acting() or now_s < self._wrote_s + MARK_S or feed.end <= self.written:
            return False
        return feed.start <= self.written and not feed.after(self.written)

    async def _catch_up(self, outlet: Outlet) -> None:
        upto = self.feed.start

        def goal() -> Position:
            nonlocal upto
            if self.feed.start > upto:
                upto = self.feed.middle
            return upto

        try:
            async with contextlib.aclosing(self._replayed(self.written, goal)) as found:
                async for lines in found:
                    if not self._acting():
                        return
                    await self._write(outlet, lines)
        except LogTruncated as error:
            why = f"outcomes above {self.written} up to {upto} can't be told: {error}"
            self._logger.exception("a gap in the outcomes", why=why)
            await self._write(outlet, [Line(str(upto), GAP, "rejected", code="gap", message=why)])
        self.written = max(self.written, upto)

    async def _write(self, outlet: Outlet, lines: Sequence[Line]) -> None:
        if lines:
            await outlet.write(self.feed.fold, lines)
            self.written = lines[-1].at
            self.feed.written(self.written)
            self._wrote_s = _now_s()

    async def _close(self) -> None:
        if self._outlet is not None:
            outlet, self._outlet = self._outlet, None
            await outlet.close()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def replayed_lines(
    log: Log,
    make: Callable[[], Fold],
    folder: Path,
    log_id: str,
    voided: Callable[[], Mapping[int, str]],
    above: Position,
    upto: Callable[[], Position],
) -> AsyncGenerator[list[Line], None]:
    """The lines above ``above`` up to the record of ``upto()``, from the newest snapshot in ``folder`` below.

    ``voided``: as of :func:`streams.history.at.state_at`. Raises LogTruncated where neither snapshot nor log reaches
    back. Bind the first five for :data:`Replayed`.
    """
    replica = await asyncio.to_thread(snapshots.restore, folder, make, log_id, at_most=above.offset - 1)
    fold = replica.fold.name
    first = await log.first()
    if replica.offset + 1 < first:
        raise LogTruncated(f"the log starts at {first}, and no snapshot below {above} is kept")
    rest_s = _now_s() + WORK_S
    lines: list[Line] = []
    while replica.offset < (end := upto()).offset:
        replica.foreseen = dict(voided())
        async with contextlib.aclosing(entries(log, replica.offset + 1, end.offset + 1)) as found:
            async for batch in found:
                for entry in batch:
                    lines += [
                        line_of(applied)
                        for applied in replica.apply(entry)
                        if applied.position > above and tells(fold, applied.record.stream) and audited(applied)
                    ]
                    if len(lines) >= BATCH_LINES:
                        yield lines
                        lines = []
                    if _now_s() > rest_s:
                        await asyncio.sleep(REST_S)
                        rest_s = _now_s() + WORK_S
        if lines:
            yield lines
            lines = []


class Unique:
    """Drops what was written twice: keeps the last position of each fold."""

    def __init__(self) -> None:
        self.last: dict[str, Position] = {}

    def new(self, fold: str, line: Line) -> bool:
        """Whether this line is the first with its position (marks move the position, and are not lines)."""
        if line.at <= self.last.get(fold, START):
            return False
        self.last[fold] = line.at
        return line.type != MARK
