"""The asyncio shell of a host: does what its outbox says, and feeds it the log, the time and the world.

Tasks: one tails the log, one timer, one per effect. All calls into the host happen on the loop's thread, never one
inside another; a batch is applied in slices of about a millisecond, so that callers are served meanwhile.

Where the log can (:class:`streams.log.port.Handing`), a record of this host is applied as soon as the log says that it
is durable, and where: the same bytes that the tail would give, in the same place of the order. If others' records
stand before it, it waits until the tail has brought those.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from actors.host import Append, Done, Host, Now, Output, Sealed, Unresolved, Unwritten
from streams.events.base import Event
from streams.log.port import Handing, Log, LogError, LogUnavailable, OutcomeUnknown, RecordTooLarge
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
    """Runs a host on a log until ``stop``. ``perform`` does effects; ``now`` is the clock (tests replace it).

    ``still_max``: up to so many commands in a record, and if nobody reads meanwhile, the loop may stand still until it
    is durable. ``on_durable``: called when a record of this host is durable, before it is applied.
    """

    def __init__(
        self, host: Host, log: Log, perform: Performer, now: Callable[[], Now] = clock, still_max: int = 0
    ) -> None:
        self.host = host
        self.log = log
        self.now = now
        self._perform = perform
        self.still_max = still_max
        self._handing = log if isinstance(log, Handing) else None
        #: a record that is handed over while another one is under way gains nothing
        self.one_at_a_time = self._handing is not None and self._handing.one_at_a_time
        self._logger = structlog.get_logger(actor=host.writer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        #: own records that are durable, by their offsets, and not applied yet: others stand before them
        self._own: dict[int, bytes] = {}
        #: linearizable reads since the last append
        self._reads = 0
        #: inside a call into the host, or doing what its outbox says
        self._is_busy = False
        self._broken: asyncio.Future[None] | None = None
        self._is_over = False
        self.on_durable: Callable[[], None] | None = None
        self._is_landing = False
        #: set after each call into the host: what it knows may have changed
        self.turned = asyncio.Event()

    async def run(self) -> None:
        """Tail and drive until cancelled. Raises Halt, Superseded, ForeignLog, LogTruncated: the actor must end."""
        self._broken = asyncio.get_running_loop().create_future()
        tailing: asyncio.Task[None] | None = None
        try:
            self.host.begin(await self._end(), self.now())
            self._drain()
            tailing = asyncio.ensure_future(self._tail_on())
            await asyncio.wait((tailing, self._broken), return_when=asyncio.FIRST_COMPLETED)
            (self._broken if self._broken.done() else tailing).result()
        finally:
            if tailing is not None:
                tailing.cancel()
                await asyncio.gather(tailing, return_exceptions=True)
            if self._broken.done():
                self._broken.exception()
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
        self._reads += 1
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
        self._turn(lambda: self.host.noticed(observation, self.now()))

    def calm(self, is_calm: bool) -> None:
        """Whether nobody here waits for what others write: it may come a little late then."""
        if self._handing is not None:
            self._handing.calm(is_calm)

    async def _end(self) -> int:
        while True:
            try:
                return await self.log.end()
            except LogUnavailable as error:
                self._logger.warning("the log can't be reached, trying again", error=str(error))
                await asyncio.sleep(TAIL_RETRY_S)

    async def _tail_on(self) -> None:
        while True:
            try:
                await self._tail()
            except LogUnavailable as error:
                self._logger.warning("the log can't be reached, trying again", error=str(error))
                await asyncio.sleep(TAIL_RETRY_S)

    async def _tail(self) -> None:
        replica, handing = self.host.replica, self._handing

        def wanted() -> int:
            return replica.offset if replica.resume else replica.offset + 1

        tail = self.log.tail(wanted()) if handing is None else handing.tail(wanted(), None, wanted, replica.streams)
        async for batch in tail:
            at = 0
            if replica.resume:
                replica.confirm(batch[0])
                at = 1
            while at < len(batch):
                if batch[at].offset <= replica.offset:
                    at += 1  # one of our own, applied when it became durable
                    continue
                at = self._apply_slice(batch, at)
                self._drain()
                if at < len(batch):
                    await asyncio.sleep(0)
            if self._own:
                self._apply_own()
                self._drain()

    def _apply_slice(self, batch: Sequence[Entry], at: int) -> int:
        """Apply entries for about SLICE_S; returns the index of the next one."""
        until = time.perf_counter() + SLICE_S
        step = 16
        while at < len(batch):
            self._deliver(batch[at : at + step])
            at += step
            if time.perf_counter() >= until:
                break
        self._applied()
        return at

    def _apply_own(self) -> None:
        """Apply what is durable and stands next; forget what the tail brought."""
        own, replica = self._own, self.host.replica
        while (raw := own.pop(replica.offset + 1, None)) is not None:
            self._deliver((Entry(replica.offset + 1, raw),))
        if own:
            self._own = {offset: raw for offset, raw in own.items() if offset > replica.offset}
        self._applied()

    def _deliver(self, entries: Sequence[Entry]) -> None:
        was_busy, self._is_busy = self._is_busy, True
        try:
            self.host.delivered(entries, self.now())
        finally:
            self._is_busy = was_busy

    def _applied(self) -> None:
        if self._waiters:
            self._wake_waiters()
        log = self.host.replica.log
        if log.sealed_at >= 0:
            raise Sealed(log.sealed_at, log.sealed_next)

    def _wake_waiters(self) -> None:
        reached = self.host.replica.offset
        for offset, future in self._waiters:
            if offset <= reached and not future.done():
                future.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if waiter[0] > reached]

    def _drain(self) -> None:
        if self._is_busy:
            return  # whoever is inside comes to it
        self._is_busy = True
        try:
            while self.host.outbox:
                outbox, self.host.outbox = self.host.outbox, []
                for output in outbox:
                    self._do(output)
        finally:
            self._is_busy = False
        self._set_timer()
        self.turned.set()

    def _do(self, output: Output) -> None:
        if not isinstance(output, Append):
            for effect in output.effects:
                self._spawn(self._perform(effect, self.notice))
        elif self._handing is None:
            # the log's append is called in order: a task started now runs up to its first await before the next one
            self._spawn(self._append(output))
        else:
            self._hand(self._handing, output)

    def _hand(self, log: Handing, append: Append) -> None:
        def landed(result: Sequence[Entry] | LogError) -> None:
            if self._is_over:
                return
            try:
                self._landed(append, result)
            except Exception as failure:
                self._break(failure)

        still = 0 < append.commands <= self.still_max and not self._reads and not self._is_landing
        self._reads = 0
        try:
            log.hand(append.records, landed, still)
        except LogError as error:
            # told in a turn of its own, as what comes back from the log
            asyncio.get_running_loop().call_soon(landed, error)

    def _landed(self, append: Append, result: Sequence[Entry] | LogError) -> None:
        if isinstance(result, LogError):
            if isinstance(result, OutcomeUnknown):
                self.host.unknown(append, result, self.now())
            elif isinstance(result, LogUnavailable | RecordTooLarge):
                self.host.refused(append, result, self.now())
            else:
                raise result
        else:
            if self.on_durable is not None:
                # what waits goes to the log first: it is synced while this one is applied
                self._is_landing = True
                self.on_durable()
                self._is_landing = False
            replica = self.host.replica
            for offset, raw in result:
                if offset > replica.offset:
                    self._own[offset] = raw
            if replica.offset + 1 in self._own and not replica.resume:
                self._apply_own()
            if self._own and self._handing is not None:
                self._handing.hurry(max(self._own) + 1)
        self._drain()

    def _break(self, error: Exception) -> None:
        """``run`` raises it."""
        self._is_over = True
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _append(self, append: Append) -> None:
        try:
            offsets = await self.log.append(append.records)
        except (LogUnavailable, RecordTooLarge) as error:
            self.host.refused(append, error, self.now())
        except OutcomeUnknown as lost:
            self.host.unknown(append, lost, self.now())
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
        """A timer that rings too early stays: a tick of the host does no harm, and sets the next one."""
        wake_at_s = self.host.wake_at_s
        if wake_at_s is None or (self._timer is not None and self._timer_s <= wake_at_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = wake_at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, wake_at_s - self.now().boot_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.host.wake_at_s = None
        self._turn(lambda: self.host.tick(self.now()))

    def _turn(self, call: Callable[[], None]) -> None:
        """A call that the loop, or the world, makes: either would log a failure, and the actor go on without it."""
        try:
            call()
            self._drain()
        except Exception as failure:
            self._break(failure)

    def _stop(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self.host.stop()
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(Unwritten("the node stops"))
        self._waiters.clear()
