"""The asyncio shell of a host: does what its outbox says, and feeds it the log, the time and the world.

Tasks: one tails the log, one per append under way, one timer, one per effect. All calls into the host happen on the
loop's thread; a batch is applied in slices of about a millisecond, so that callers are served meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from actors.host import Append, Done, Host, Now, Output, Sealed, Unresolved, Unwritten
from streams.events.base import Event
from streams.log.port import Log, LogUnavailable, OutcomeUnknown, RecordTooLarge
from streams.records import Entry
from streams.replay import Applied

#: An effect is performed by this: it may say what it learnt by ``notice``.
Performer = Callable[[Any, Callable[[Any], None]], Awaitable[None]]

SLICE_S = 0.001
#: A tail that fails is opened again after this long.
TAIL_RETRY_S = 0.2


def clock() -> Now:
    """The boot-time clock and the wall clock of this machine."""
    return Now(time.clock_gettime(time.CLOCK_BOOTTIME), time.time_ns() // 1_000_000)


class Shell:
    """Runs a host on a log until ``stop``. ``perform`` does effects; ``now`` is the clock (tests replace it)."""

    def __init__(self, host: Host, log: Log, perform: Performer, now: Callable[[], Now] = clock) -> None:
        self.host = host
        self.log = log
        self.now = now
        self._perform = perform
        self._logger = structlog.get_logger(actor=host.writer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.applied_hook: Callable[[], None] | None = None
        #: set after each call into the host: what it knows may have changed
        self.turned = asyncio.Event()

    async def run(self) -> None:
        """Tail and drive until cancelled. Raises Halt, Superseded, ForeignLog, LogTruncated: the actor must end."""
        try:
            self.host.begin(await self._end(), self.now())
            self._drain()
            while True:
                try:
                    await self._tail()
                except LogUnavailable as error:
                    self._logger.warning("the log can't be reached, trying again", error=str(error))
                    await asyncio.sleep(TAIL_RETRY_S)
        finally:
            self._stop()

    async def submit(self, events: list[Event], size: int = 512) -> list[Applied]:
        """Append commands and wait until they are applied here. Raises Unwritten or Unresolved."""
        future: asyncio.Future[list[Applied]] = asyncio.get_running_loop().create_future()

        def done(result: list[Applied] | Unwritten | Unresolved) -> None:
            if future.done():
                return
            if isinstance(result, list):
                future.set_result(result)
            else:
                future.set_exception(result)

        self.host.submit(events, done, self.now(), size)
        self._drain()
        return await future

    def hand(self, events: list[Event], done: Done, size: int = 512) -> None:
        """As ``submit``, without a task: ``done`` is called with what the host learnt."""
        self.host.submit(events, done, self.now(), size)
        self._drain()

    async def barrier(self) -> None:
        """Return when this replica has applied all that was acknowledged anywhere before the call."""
        if self.log.end_is_linearizable:
            await self.reached(await self.log.end() - 1)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None) -> None:
            if not future.done():
                future.set_exception(error) if error else future.set_result(None)

        self.host.read(done, self.now())
        self._drain()
        await future

    async def reached(self, offset: int) -> None:
        """Wait until the record at ``offset`` is applied."""
        if self.host.replica.offset >= offset:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((offset, future))
        await future

    def notice(self, observation: Any) -> None:
        """Tell the actor something about the world."""
        self.host.noticed(observation, self.now())
        self._drain()

    async def _end(self) -> int:
        while True:
            try:
                return await self.log.end()
            except LogUnavailable as error:
                self._logger.warning("the log can't be reached, trying again", error=str(error))
                await asyncio.sleep(TAIL_RETRY_S)

    async def _tail(self) -> None:
        replica = self.host.replica
        async for batch in self.log.tail(replica.offset if replica.resume else replica.offset + 1):
            at = 0
            if replica.resume:
                replica.confirm(batch[0])
                at = 1
            while at < len(batch):
                at = self._apply_slice(batch, at)
                self._drain()
                if at < len(batch):
                    await asyncio.sleep(0)

    def _apply_slice(self, batch: Sequence[Entry], at: int) -> int:
        """Apply entries for about SLICE_S; returns the index of the next one."""
        until = time.perf_counter() + SLICE_S
        step = 16
        while at < len(batch):
            self.host.delivered(batch[at : at + step], self.now())
            at += step
            if time.perf_counter() >= until:
                break
        if self._waiters:
            self._wake_waiters()
        if self.applied_hook is not None:
            self.applied_hook()
        log = self.host.replica.log
        if log.sealed_at >= 0:
            raise Sealed(log.sealed_at, log.sealed_next)
        return at

    def _wake_waiters(self) -> None:
        reached = self.host.replica.offset
        for offset, future in self._waiters:
            if offset <= reached and not future.done():
                future.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if waiter[0] > reached]

    def _drain(self) -> None:
        outbox, self.host.outbox = self.host.outbox, []
        for output in outbox:
            self._do(output)
        self._set_timer()
        self.turned.set()

    def _do(self, output: Output) -> None:
        if isinstance(output, Append):
            # the log's append is called in order: a task started now runs up to its first await before the next one
            self._spawn(self._append(output))
        else:
            for effect in output.effects:
                self._spawn(self._perform(effect, self.notice))

    async def _append(self, append: Append) -> None:
        try:
            offsets = await self.log.append(append.records)
        except (LogUnavailable, RecordTooLarge) as error:
            self.host.refused(append, error, self.now())
        except OutcomeUnknown as error:
            self.host.unknown(append, error, self.now())
        else:
            self.host.appended(append, offsets, self.now())
        self._drain()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("an effect failed", error=repr(error), exc_info=error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at_s = self.host.wake_at_s
        if wake_at_s is not None:
            delay_s = max(0.0, wake_at_s - self.now().boot_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.host.wake_at_s = None
        self.host.tick(self.now())
        self._drain()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self.host.stop()
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(Unwritten("the node stops"))
        self._waiters.clear()
