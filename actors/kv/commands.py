"""Commands on their way through the log, and reads that wait for it: batches, deadlines, and what went wrong.

Commands of one turn of the loop become one record; while records are under way, later ones gather into the next.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from actors.host import Unresolved, Unsayable, Unwritten, unsayable
from actors.kv.company import Company
from actors.kv.unsent import NotSent as NotSent
from actors.kv.unsent import OutcomeUnknown as OutcomeUnknown
from actors.kv.unsent import TooLarge as TooLarge
from actors.kv.unsent import TooMany as TooMany
from actors.shell import Shell
from streams.events.base import Event
from streams.replay import Applied

#: Records of commands under way at once, where the log takes several; where it syncs one after the other, the next one
#: gathers until the one before is durable.
UNDER_WAY_MAX = 2
BATCH_EVENTS_MAX = 1024
BATCH_BYTES_MAX = 512 * 1024
#: A command that is not applied after this long is answered "outcome unknown" (or refused, if it wasn't sent): as in
#: etcd five seconds and two of its election timeouts.
TIMEOUT_S = 7.0
SWEEP_S = 0.25
#: So long a record waits for those who were just answered (:mod:`actors.kv.company`): this, or a part of the time that
#: a record takes on a log where that is longer, up to a maximum.
COMPANY_S, COMPANY_PART, COMPANY_MAX_S = 0.001, 0.25, 0.005
#: The loop's timers are no finer than a millisecond: what is shorter is waited for turn by turn, where the log is this
#: process's own work. Where others do it, they may need the processor that turns would take.
TIMER_S = 0.0015
#: On a log that takes several records at once, fewer commands than these don't make another one while one is under way.
SECOND_MIN = 64
#: Commands that may wait for their record: as many as etcd lets go unapplied.
WAITING_MAX = 5000


def patience_s(shell: Shell) -> float:
    """How long a record waits at most for those who were answered."""
    if shell.one_at_a_time:
        return COMPANY_S
    return min(max(COMPANY_S, COMPANY_PART * shell.host.log_latency_s), COMPANY_MAX_S)


#: Called once with what the command came to.
Answer = Callable[[Applied | NotSent | OutcomeUnknown], None]


class _Waiting:
    __slots__ = ("answer", "event", "since_s", "size", "who")

    def __init__(self, event: Event, size: int, answer: Answer, since_s: float, who: int) -> None:
        self.event, self.size, self.answer, self.since_s, self.who = event, size, answer, since_s, who


class _Batch:
    __slots__ = ("answered", "sent_s", "waiting")

    def __init__(self, waiting: list[_Waiting], sent_s: float) -> None:
        self.waiting, self.sent_s, self.answered = waiting, sent_s, False


def report(loop: asyncio.AbstractEventLoop, failure: Exception) -> None:
    """As the loop does with what it calls: one connection's trouble is no other one's."""
    loop.call_exception_handler({"message": f"an answer failed: {failure!r}", "exception": failure})


class Turn:
    """What waits until all of a record, or of a barrier, are answered: a connection's answers are one write then."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._after: list[Callable[[], None]] = []

    def soon(self, what: Callable[[], None]) -> None:
        """At the end of the turn that is open, else in the loop's next one."""
        if self._is_open:
            self._after.append(what)
        else:
            self._loop.call_soon(what)

    def begin(self) -> None:
        self._is_open = True

    def end(self) -> None:
        self._is_open = False
        after, self._after = self._after, []
        for what in after:
            try:
                what()
            except Exception as failure:
                report(self._loop, failure)


class Commands:
    """Takes single commands, hands batches to the shell, answers each when it is applied here."""

    def __init__(self, shell: Shell, timeout_s: float | None = None) -> None:
        self.turn = Turn()
        self.sent = 0
        #: commands that were refused, or whose outcome nobody knows
        self.failed = 0
        self._shell = shell
        self._timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self._queue: list[_Waiting] = []
        self._under_way: list[_Batch] = []
        self._scheduled = False
        self._stuck = self._closed = False
        self._dead_sweeps = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        self.company = Company()
        self._waking: asyncio.TimerHandle | None = None
        self._alone = shell.one_at_a_time
        if self._alone:
            shell.on_durable = self._fill

    def submit(self, event: Event, size: int, answer: Answer, who: int = 0) -> None:
        """``size``: about the bytes of the event; ``who``: the id of the connection that it came by, if by one.

        ``answer`` is never called before this returns.
        """
        if self._stuck or self._closed:
            why = "the node stops" if self._closed else "the log can't be reached; nothing was sent"
            self._loop.call_soon(answer, NotSent(why))
            return
        if len(self._queue) >= WAITING_MAX:
            self._loop.call_soon(answer, TooMany(f"{WAITING_MAX} commands wait already; nothing was sent"))
            return
        self._queue.append(_Waiting(event, size, answer, self._loop.time(), who))
        self.company.came(who)
        self._schedule()

    def wake(self) -> None:
        """The host is live (again): send what waits."""
        self._dead_sweeps = 0
        self._schedule()

    def close(self) -> None:
        """Refuse what wasn't sent, and what comes; what was sent is answered by the host's own stop."""
        self._closed = True
        self._timer.cancel()
        if self._waking is not None:
            self._waking.cancel()
        queue, self._queue = self._queue, []
        self._refuse([(waiting, NotSent("the node stops")) for waiting in queue])

    @property
    def pending(self) -> int:
        """Commands that are not applied yet."""
        return len(self._queue) + sum(len(batch.waiting) for batch in self._under_way)

    @property
    def stuck(self) -> bool:
        """Whether the log doesn't take or give back what was handed to it."""
        return self._stuck

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if not self._queue or (self._under_way and not self._may_be_second()):
            return
        if not self._under_way and (lacks_s := self.company.lacks_s(time.perf_counter(), patience_s(self._shell))):
            self._schedule_in(lacks_s)
        else:
            self._send(1 if self._alone else UNDER_WAY_MAX)

    def _may_be_second(self) -> bool:
        if self._alone:
            return False
        return len(self._queue) >= SECOND_MIN or sum(waiting.size for waiting in self._queue) > BATCH_BYTES_MAX

    def _schedule_in(self, wait_s: float) -> None:
        """Whoever comes meanwhile is a reason to look, too."""
        if self._alone and wait_s < TIMER_S:
            self._schedule()
        elif self._waking is None:
            self._waking = self._loop.call_later(wait_s, self._wake_up)

    def _wake_up(self) -> None:
        self._waking = None
        self._flush()

    def _fill(self) -> None:
        """The record under way is durable."""
        if self.pending > self._shell.still_max:
            self._send(UNDER_WAY_MAX)

    def _send(self, under_way_max: int) -> None:
        while self._queue and len(self._under_way) < under_way_max and self._shell.host.live:
            taken = size = 0
            for waiting in self._queue:
                if taken == BATCH_EVENTS_MAX or (taken and size + waiting.size > BATCH_BYTES_MAX):
                    break
                taken, size = taken + 1, size + waiting.size
            batch = _Batch(self._queue[:taken], self._loop.time())
            del self._queue[:taken]
            self._under_way.append(batch)
            self.sent += 1
            self._shell.hand([waiting.event for waiting in batch.waiting], partial(self._done, batch), size)

    def _done(self, batch: _Batch, result: list[Applied] | Unwritten | Unresolved) -> None:
        self._under_way.remove(batch)
        if isinstance(result, Unsayable) and not batch.answered:
            self._sort_out(batch)
        elif not batch.answered:
            batch.answered = True
            self.turn.begin()
            try:
                self._answer(batch, result)
            finally:
                self.turn.end()
        if self._stuck and not any(other.answered for other in self._under_way):
            self._stuck = False
        if not self._alone or len(batch.waiting) <= self._shell.still_max:
            self.company.answered((waiting.who for waiting in batch.waiting), time.perf_counter())
        if self._queue:
            self._schedule()

    def _sort_out(self, batch: _Batch) -> None:
        """Who asked for what can't be written is told so; the others' commands are sent without it."""
        faults = [(waiting, unsayable([waiting.event])) for waiting in batch.waiting]
        self._queue[:0] = [waiting for waiting, fault in faults if fault is None]
        self._refuse([(waiting, NotSent(fault)) for waiting, fault in faults if fault is not None])

    def _answer(self, batch: _Batch, result: list[Applied] | Unwritten | Unresolved) -> None:
        if not isinstance(result, list):
            error = self._error(result)
            self._refuse([(waiting, error) for waiting in batch.waiting])
            return
        for waiting, applied in zip(batch.waiting, result, strict=True):
            try:
                waiting.answer(applied)
            except Exception as failure:
                self._failed_to_answer(waiting, failure)

    def _failed_to_answer(self, waiting: _Waiting, failure: Exception) -> None:
        """One answer's fault is no other one's, nor the actor's. Who waits for it is told, if that can be."""
        report(self._loop, failure)
        with contextlib.suppress(Exception):
            waiting.answer(OutcomeUnknown("a fault of ours; the command was applied, its answer can't be told"))

    def _refuse(self, refused: Sequence[tuple[_Waiting, NotSent | OutcomeUnknown]]) -> None:
        self.failed += len(refused)
        for waiting, error in refused:
            try:
                waiting.answer(error)
            except Exception as failure:
                report(self._loop, failure)

    def _error(self, result: Unwritten | Unresolved) -> NotSent | OutcomeUnknown:
        if isinstance(result, Unresolved):
            return OutcomeUnknown(f"{result}; the command may have been written")
        if "bytes, max" in str(result):  # RecordTooLarge, by the words of every driver
            return TooLarge(str(result))
        return NotSent(str(result))

    def _sweep(self) -> None:
        """Four times a second: answer what waits too long, and see whether the log is there at all."""
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        late = self._loop.time() - self._timeout_s
        for batch in list(self._under_way):
            if batch.sent_s < late and not batch.answered:
                batch.answered = True
                error = OutcomeUnknown(f"not applied after {self._timeout_s:g} s; it may be, now or later")
                self._refuse([(waiting, error) for waiting in batch.waiting])
        self._dead_sweeps = 0 if self._shell.host.live else self._dead_sweeps + 1
        self._stuck = any(batch.answered for batch in self._under_way) or self._dead_sweeps * SWEEP_S > 1.0
        if self._queue and (self._stuck or self._queue[0].since_s < late):
            queue, self._queue = self._queue, []
            unsent = NotSent("the log can't be reached; nothing was sent")
            self._refuse([(waiting, unsent) for waiting in queue])


class Reads:
    """Linearizable reads: those that wait together share a barrier. Where that is a record, they wait for company."""

    def __init__(self, shell: Shell, turn: Turn, timeout_s: float | None = None) -> None:
        self._shell = shell
        self._turn = turn
        self._timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self._waiting: list[tuple[Callable[[NotSent | None], None], int]] = []
        self._task: asyncio.Task[None] | None = None
        self._company = None if shell.log.end_is_linearizable else Company()
        self._came = asyncio.Event()

    def linearizable(self, answer: Callable[[NotSent | None], None], who: int = 0) -> None:
        """``answer(None)`` when all that was acknowledged before now is applied here. ``who``: as of a command."""
        self._waiting.append((answer, who))
        if self._company is not None:
            self._company.came(who)
            self._came.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting:
                if self._company is not None:
                    await self._gather(self._company)
                waiting, self._waiting = self._waiting, []
                error = await self._barrier()
                self._turn.begin()
                try:
                    self._answer([answer for answer, _ in waiting], error)
                finally:
                    self._turn.end()
                if self._company is not None:
                    self._company.answered((who for _, who in waiting), time.perf_counter())
        finally:
            self._task = None

    def _answer(self, answers: Sequence[Callable[[NotSent | None], None]], error: NotSent | None) -> None:
        for answer in answers:
            try:
                answer(error)
            except Exception as failure:
                report(asyncio.get_running_loop(), failure)
                with contextlib.suppress(Exception):
                    answer(NotSent("a fault of ours; what was read can't be told"))

    async def _gather(self, company: Company) -> None:
        while lacks_s := company.lacks_s(time.perf_counter(), patience_s(self._shell)):
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lacks_s):
                    await self._came.wait()

    async def _barrier(self) -> NotSent | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._shell.barrier()
        except TimeoutError:
            return NotSent("the log can't be reached; read with quorum=false to get what this replica has")
        except (Unwritten, Unresolved) as error:
            return NotSent(str(error))
        except Exception as failure:  # the log port's errors differ by driver
            return NotSent(f"{type(failure).__name__}: {failure}")
        return None


def position_header(applied: Applied | None) -> bytes:
    """For who may see it: where the command stands in the log."""
    return b"" if applied is None else f"X-Corelog-Position: {applied.position}\r\n".encode()
