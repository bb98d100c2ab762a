"""The outcomes topic: what each command came to, written by the master's replicas, resumed without a gap.

One topic, ``<log topic>.outcomes``, one partition; key = fold (``control``, ``kv``), value = a line
(:mod:`streams.audit.lines`). Each fold's lines are in the order of their positions, except that a new master may
write again what the old one wrote last: readers drop a line whose position is not above the fold's last one.

How a fail-over leaves no gap: every replica feeds the lines that it applies into a ring (:class:`Feed`). Who becomes
master reads the end of the topic for the last line of its fold and goes on behind it, from its ring, or, if that
doesn't reach back so far, by replaying the log from a snapshot. An old master that still writes writes the same lines.
An idle fold leaves a *mark* now and then, so that the end of the topic is soon found.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import structlog

from streams import snapshots
from streams.audit.lines import Line, audited, line_of, tells
from streams.history.at import entries
from streams.log.port import Log, LogError, LogTruncated
from streams.records import Position
from streams.replay import Applied, Fold

#: Lines that a replica keeps, in case it becomes master: a fail-over's worth at full speed (some 10 MB).
RING_LINES = 32_768
#: Lines that are handed to the topic at once.
BATCH_LINES = 2000
#: A fold that moved and had no lines is marked after this long.
MARK_S = 10.0
RETRY_S = 1.0
MARK = "audit.mark.v1"
GAP = "audit.gap.v1"
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
    """The newest lines of a fold, as its replica applies events. ``applied`` is called by the actor, in its loop.

    ``start``: all lines above this position are here. ``end``: the last position applied.
    """

    def __init__(self, fold: str, lines_max: int = RING_LINES) -> None:
        self.fold = fold
        self.start = START
        self.end = START
        self._lines: deque[tuple[Position, Line]] = deque()
        self._lines_max = lines_max
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
        if live:
            for one in batch:
                if tells(self.fold, one.record.stream) and audited(one):
                    self._lines.append((one.position, line_of(one)))
            while len(self._lines) > self._lines_max:
                self.start = self._lines.popleft()[0]
        else:
            self._lines.clear()
            self.start = batch[-1].position
        self.end = batch[-1].position
        self._changed.set()

    def after(self, position: Position) -> list[Line]:
        """Up to BATCH_LINES lines above ``position``, which is not below ``start``."""
        assert position >= self.start, (position, self.start)
        while self._lines and self._lines[0][0] <= position:
            self.start = self._lines.popleft()[0]
        return [line for _, line in list(self._lines)[:BATCH_LINES]]

    async def wait(self, timeout_s: float) -> None:
        """Until something is applied, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()


#: All lines above a position and not above another, in order: the slow way, from the log.
Replayed = Callable[[Position, Position], AsyncGenerator[list[Line], None]]


class OutcomeSink:
    """Writes a fold's lines while ``acting()`` (this machine holds the mastership as this replica sees it)."""

    def __init__(
        self, feed: Feed, open_outlet: Callable[[], Awaitable[Outlet]], replayed: Replayed, acting: Callable[[], bool]
    ) -> None:
        self.feed = feed
        #: the last position that is known to be in the topic
        self.written = START
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
                    await self._close()
                    await self.feed.wait(RETRY_S)
                    continue
                try:
                    await self._go_on()
                except LogError as error:
                    self._logger.warning("outcomes wait: their topic can't be written", error=str(error))
                    await self._close()
                    await asyncio.sleep(RETRY_S)
        finally:
            await self._close()

    async def _go_on(self) -> None:
        if self._outlet is None:
            self._outlet = await self._open()
            self.written = await self._outlet.last(self.feed.fold) or START
        if self.written < self.feed.start:
            await self._catch_up(self._outlet)
        elif lines := self.feed.after(self.written):
            await self._write(self._outlet, lines)
        else:
            await self.feed.wait(MARK_S)
            if self._idle():
                await self._write(self._outlet, [Line(str(self.feed.end), MARK, "accepted")])

    def _idle(self) -> bool:
        """The fold moved, has nothing to write above what is written, and left no mark for a while."""
        feed, now_s = self.feed, asyncio.get_running_loop().time()
        if not self._acting() or now_s < self._wrote_s + MARK_S or feed.end <= self.written:
            return False
        return feed.start <= self.written and not feed.after(self.written)

    async def _catch_up(self, outlet: Outlet) -> None:
        upto = self.feed.start
        try:
            async with contextlib.aclosing(self._replayed(self.written, upto)) as found:
                async for lines in found:
                    await self._write(outlet, lines)
        except LogTruncated as error:
            why = f"outcomes above {self.written} up to {upto} can't be told: {error}"
            self._logger.exception("a gap in the outcomes", why=why)
            await self._write(outlet, [Line(str(upto), GAP, "rejected", code="gap", message=why)])
        self.written = max(self.written, upto)

    async def _write(self, outlet: Outlet, lines: Sequence[Line]) -> None:
        if lines:
            assert all(one.at < other.at for one, other in pairwise(lines))
            await outlet.write(self.feed.fold, lines)
            self.written = lines[-1].at
            self._wrote_s = asyncio.get_running_loop().time()

    async def _close(self) -> None:
        if self._outlet is not None:
            outlet, self._outlet = self._outlet, None
            await outlet.close()


async def replayed_lines(
    log: Log, make: Callable[[], Fold], folder: Path, log_id: str, above: Position, upto: Position
) -> AsyncGenerator[list[Line], None]:
    """The lines above ``above``, not above ``upto``, made by replaying from the newest snapshot in ``folder`` below.

    Raises LogTruncated where neither snapshot nor log reaches back. Bind the first four for :data:`Replayed`.
    """
    replica = snapshots.restore(folder, make, log_id, at_most=above.offset - 1)
    fold = replica.fold.name
    first = await log.first()
    if replica.offset + 1 < first:
        raise LogTruncated(f"the log starts at {first}, and no snapshot below {above} is kept")
    async with contextlib.aclosing(entries(log, replica.offset + 1, upto.offset + 1)) as found:
        async for batch in found:
            lines = [
                line_of(applied)
                for entry in batch
                for applied in replica.apply(entry)
                if above < applied.position <= upto and tells(fold, applied.record.stream) and audited(applied)
            ]
            for at in range(0, len(lines), BATCH_LINES):
                yield lines[at : at + BATCH_LINES]
            await asyncio.sleep(0)


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
