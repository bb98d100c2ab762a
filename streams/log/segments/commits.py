"""Group commit: what is appended in one turn of the loop, or while a sync is under way, shares the next sync.

There are two ways to the disk. In the *thread*: the loop goes on meanwhile, and a slow disk stops the thread, never the
loop. Or *here*, on the loop's thread, if whoever appends says that the loop may stand still: two hand-overs between
threads take about as long as half a sync, and with one client there is nothing else to do. After a commit that took
long, the next ones go to the thread, until one of them was quick.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from streams.batches import batches
from streams.log.memory import wanted
from streams.log.port import QUIET, QUIET_S, LogError, OutcomeUnknown
from streams.log.segments.shared import Place, SharedEnd
from streams.log.segments.wakeups import Ringer
from streams.log.segments.writer import Writer

#: One commit writes about this much at most.
COMMIT_BYTES = 4 * 1024 * 1024
#: A commit that takes longer than this isn't done on the loop's thread, judged by the last one.
SLOW_S = 0.005

#: Told once: the offsets when all are durable, or why they aren't.
Told = Callable[[Sequence[int] | LogError], None]
Request = tuple[list[bytes], Told]


class Commits:
    """The commits of one handle. All but the thread's own methods are called on the loop's thread.

    ``landed`` of the handle is called after those who appended were told, with the place where their commit ended.
    ``bell``: the name of this process's own one, which isn't rung.
    """

    def __init__(self, folder: Path, shared: SharedEnd, writer: Writer, landed: Callable[[Place], None]) -> None:
        self.bell = ""
        self._folder = folder
        self._shared = shared
        self._writer = writer
        self._landed_too = landed
        self._loop = asyncio.get_running_loop()
        self._pending: list[Request] = []
        #: requests that the thread has and that aren't told yet
        self._under_way = 0
        #: the last commit was of one append alone and nothing has come since: the next one needn't wait for company
        self._is_lone = False
        self._queue: queue.SimpleQueue[list[Request] | None] = queue.SimpleQueue()
        self._committer: threading.Thread | None = None
        self._is_quick = True
        #: others must be woken for what was written quietly
        self._owed: asyncio.TimerHandle | None = None
        self._ringer: Ringer | None = None

    def add(self, raws: list[bytes], landed: Told) -> None:
        """Commit with what others append in this turn."""
        self._pending.append((raws, landed))
        if self._is_lone and self._committer is not None:
            self.flush()
        elif len(self._pending) == 1:
            # not now but after the tasks that run in this turn: their appends share the sync
            self._loop.call_soon(self.flush)

    def add_now(self, raws: list[bytes], landed: Told, still: bool) -> None:
        """Commit at once; ``still``: the loop may stand still for it, and ``landed`` be called in here."""
        if still and not self._under_way and not self._pending and self._here(raws, landed):
            return
        self._pending.append((raws, landed))
        self.flush()

    def flush(self) -> None:
        """Give the thread what waits."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        self._is_lone = False
        self._under_way += len(pending)
        if self._committer is None:
            self._committer = threading.Thread(target=self._commit_forever, name="segments-commit", daemon=True)
            self._committer.start()
        self._queue.put(pending)

    async def close(self) -> None:
        """Finish what is under way."""
        self.flush()
        if self._committer is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._committer.join)
        if self._owed is not None:
            self._ring()
        if self._ringer is not None:
            self._ringer.close()

    # -- on the loop's thread ---------------------------------------------------------------------------------

    def _here(self, raws: list[bytes], landed: Told) -> bool:
        """Whether it was committed here; else nothing was done."""
        if not self._is_quick:
            return False
        result = self._commit(raws, self._writer.try_commit)
        if result is None:
            return False  # another process is at it
        if not isinstance(result, LogError) and not _are_quiet(raws):
            self._ring()
        self._tell([(raws, landed)], result)
        return True

    def _landed(self, batch: list[Request], result: Place | LogError) -> None:
        self._under_way -= len(batch)
        self._is_lone = len(batch) == 1 and not self._pending
        self._tell(batch, result)

    def _tell(self, batch: list[Request], result: Place | LogError) -> None:
        if isinstance(result, LogError):
            for _, landed in batch:
                landed(result)
            return
        at = result.end - sum(len(raws) for raws, _ in batch)
        if self._owed is None:
            self._owed = self._loop.call_later(QUIET_S, self._ring)
        for raws, landed in batch:
            landed(range(at, at + len(raws)))
            at += len(raws)
        self._landed_too(result)

    def _ring(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
            self._owed = None
        self._ringer = self._rung(self._ringer)

    # -- on both ----------------------------------------------------------------------------------------------

    def _commit(self, raws: list[bytes], commit: Callable[[list[bytes]], int | None]) -> Place | LogError | None:
        began_s = time.monotonic()
        try:
            return None if commit(raws) is None else self._writer.reached
        except LogError as error:
            return error
        except Exception as bug:  # it must not leave callers waiting for ever
            return OutcomeUnknown(f"segments://{self._folder}: {type(bug).__name__}: {bug}")
        finally:
            self._is_quick = time.monotonic() - began_s < SLOW_S

    def _rung(self, ringer: Ringer | None) -> Ringer | None:
        """Wake the others, by this thread's ringer."""
        with contextlib.suppress(OSError):  # they look by themselves after a second
            ringer = ringer or Ringer(self._folder, self._shared)
            ringer.ring(self.bell)
        return ringer

    # -- in the thread ----------------------------------------------------------------------------------------

    def _commit_forever(self) -> None:
        ringer: Ringer | None = None
        open_for_more = True
        while open_for_more and (requests := self._queue.get()) is not None:
            while not self._queue.empty():
                more = self._queue.get_nowait()
                if more is None:
                    open_for_more = False
                    break
                requests += more
            for batch in batches(requests, _size, COMMIT_BYTES):
                raws = batch[0][0] if len(batch) == 1 else [raw for raws, _ in batch for raw in raws]
                result = self._commit(raws, self._writer.commit)
                assert result is not None
                with contextlib.suppress(RuntimeError):  # the loop was closed, nobody waits
                    self._loop.call_soon_threadsafe(self._landed, batch, result)
                if not isinstance(result, LogError) and not _are_quiet(raws):
                    ringer = self._rung(ringer)
        if ringer is not None:
            ringer.close()


def _are_quiet(raws: list[bytes]) -> bool:
    return all(wanted(raw, QUIET) for raw in raws)


def _size(request: Request) -> int:
    return sum(map(len, request[0]))
