"""What a process of the node does to itself: die with its parent, hold the node's lock, run one loop in a thread."""

import asyncio
import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
import uvloop

from actors.setting import Setting, Signals
from actors.supervision.board import Board, Note
from actors.supervision.messages import Start

BEAT_S = 1.0
#: In a cluster the master must know within the lease that its machine works: beats per lease.
BEATS_PER_LEASE = 5
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def die_with_parent(parent: int) -> None:
    """SIGKILL to this process when ``parent`` ends; at once if it has ended already (prctl(2))."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Descendants whose parent ends become this process's children: the detached admin, shims of units."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def wait_until_adopted_by(parent: int) -> None:
    """A daemon's middle process ends just now: wait until ``parent``, the subreaper, is this process's parent."""
    until = time.monotonic() + 5.0
    while os.getppid() != parent and time.monotonic() < until:
        time.sleep(0.0005)


def name_process(name: str) -> None:
    """What ``ps`` shows as the command's name (15 bytes at most)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def exit_now(code: int) -> None:
    """End this process from whatever thread, without Thespian's or multiprocessing's last rites."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


class Loop:
    """The one asyncio loop of this process, in a thread of its own. Made by the first actor that needs it."""

    _here: "Loop | None" = None

    def __init__(self) -> None:
        # a busy loop would starve other threads' hand-over for up to 5 ms with the default
        sys.setswitchinterval(0.0005)
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="corelog-loop", daemon=True)
        self._thread.start()

    @classmethod
    def here(cls) -> "Loop":
        if cls._here is None:
            cls._here = cls()
        return cls._here

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop)

    @classmethod
    def end(cls, timeout_s: float = 5.0) -> None:
        """Stop the loop and its thread (one-process mode; otherwise the process ends and takes it along)."""
        here, cls._here = cls._here, None
        if here is None:
            return
        asyncio.run_coroutine_threadsafe(here._finish(), here.loop)
        here._thread.join(timeout_s)

    async def _finish(self) -> None:
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()
        self.loop.call_soon(self.loop.stop)


def find(dotted: str) -> Callable[..., Coroutine[Any, Any, None]]:
    """``package.module:function``. Raises ImportError or AttributeError that names it."""
    module, _, name = dotted.partition(":")
    found: Callable[..., Coroutine[Any, Any, None]] = getattr(importlib.import_module(module), name)
    return found


class Running:
    """One ``serve`` on the process's loop: beats and reports on the board; ``ended`` is called when it is over.

    ``ended(note)`` runs in the loop's thread. With a process per actor it ends the process: a dead loop must not
    leave a process behind that looks alive.
    """

    def __init__(self, start: Start, board: Board, ended: Callable[[Note], None]) -> None:
        self._start = start
        self._board = board
        self._ended = ended
        self._note = Note(pid=os.getpid(), state="starting")
        self._stopping = False
        self._unsaid = False
        self._signals: Signals | None = None
        setting = start.setting
        self._beat_s = BEAT_S if setting.alone else min(BEAT_S, setting.lease_ms / 1000 / BEATS_PER_LEASE)
        self._logger = structlog.get_logger(actor=start.spec.name)
        board.write(start.slot, self._note)
        Loop.here().spawn(self._run())

    def stop(self) -> None:
        self._stopping = True
        self._loop_does(lambda signals: signals.stop.set())

    def drain(self) -> None:
        self._loop_does(lambda signals: signals.drain.set())

    def _loop_does(self, what: Callable[[Signals], None]) -> None:
        loop = Loop.here().loop

        def do() -> None:
            if self._signals is not None:
                what(self._signals)

        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            loop.call_soon_threadsafe(do)

    async def _run(self) -> None:
        start = self._start
        self._signals = Signals(self._report)
        beats = asyncio.ensure_future(self._beat(self._signals))
        try:
            serve = find(start.spec.serve)
            setting: Setting = start.setting
            self._say(state="running")
            await serve(setting, self._signals, *start.arguments)
            if not self._stopping and not start.once:
                self._say(words="its serve() returned though nobody asked it to stop")
        except asyncio.CancelledError:
            self._say(words="cancelled")
        except BaseException as error:
            self._failed(error)
        finally:
            beats.cancel()
        self._say(state="ended")
        self._ended(self._note)

    def _failed(self, error: BaseException) -> None:
        # an error that names its exit code says all that a person needs; any other one is a bug: show where
        where = None if hasattr(error, "exit_code") else error
        if getattr(error, "next_log", ""):  # the node goes on there
            self._logger.info("the actor ended", reason=str(error))
        else:
            self._logger.error("the actor failed", error=f"{type(error).__name__}: {error}", exc_info=where)
        self._say(
            words=f"{type(error).__name__}: {error}",
            exit_code=int(getattr(error, "exit_code", 1)),
            stops_node=bool(getattr(error, "stops_node", False)),
            sealed_at=int(getattr(error, "sealed_at", -1)),
            next_log=str(getattr(error, "next_log", "")),
        )

    async def _beat(self, signals: Signals) -> None:
        seen: dict[int, int] = {}
        while True:
            self._board.beat(self._start.slot)
            if self._unsaid:
                self._unsaid = False
                self._board.write(self._start.slot, self._note, quiet=True)
            if not self._start.setting.alone:
                self._tell_progress(signals, seen)
            await asyncio.sleep(self._beat_s)

    def _tell_progress(self, signals: Signals, seen: dict[int, int]) -> None:
        """Tell this actor that those it watches are live and that their loops turned since the last time."""
        if not self._start.watches:
            return
        from actors.coordination.actor import Progress  # only coordination's own process watches others

        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        for name, slot in self._start.watches:
            beats = self._board.beats(slot)
            if beats != seen.get(slot, beats) and self._board.read(slot).report.get("live") is True:
                signals.notice(Progress(name, now_s))
            seen[slot] = beats

    def _report(self, status: dict[str, Any]) -> None:
        """A change of a yes or no is told at once, numbers (which change with every event) with the next beat."""
        before, self._note.report = self._note.report, dict(status)
        if _yes_or_no(before) != _yes_or_no(status):
            self._say()
        else:
            self._unsaid = True

    def _say(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self._note, name, value)
        self._board.write(self._start.slot, self._note)


def _yes_or_no(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if isinstance(value, bool)}
