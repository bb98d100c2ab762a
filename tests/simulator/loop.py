"""Stands in for asyncio in the engine's supervisor: its timers and tasks run in virtual time, in their process."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from actors.engine import supervisor

RESOLUTION_S = 1e-6
#: The process whose step is under way.
current: list[Any] = []
#: Every task of a run: those that never ran are closed at its end.
tasks: list["Task"] = []


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Task:
    """A coroutine that waits for nothing but simulated engines, which answer at once."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._done: list[Callable[[Any], None]] = []

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        self._done.append(call)

    def run(self) -> None:
        try:
            self._work.send(None)
        except StopIteration:
            for call in self._done:
                call(self)
            return
        raise AssertionError("a simulated engine never waits")

    def cancel(self) -> None:
        self._work.close()

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None:
        return None


class Loop:
    def __init__(self, process: Any) -> None:
        self.process = process

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Handle:
        handle = Handle()
        # as with a real loop's resolution: never so little that a clock of a million seconds can't show it
        true_s = self.process.time.now + max(delay_s, RESOLUTION_S) / self.process.node.clock.rate
        self.process.time.at(true_s, self._due, handle, call, arguments)
        return handle

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_later(0.0, call, *arguments)

    def _due(self, handle: Handle, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not handle.cancelled:
            self.process.within(call, *arguments)


class _Asyncio:
    """The few names that the supervisor uses."""

    TimerHandle = asyncio.TimerHandle
    Task = asyncio.Task

    @staticmethod
    def get_running_loop() -> Loop:
        return Loop(current[-1])

    @staticmethod
    def ensure_future(work: Coroutine[Any, Any, None]) -> Task:
        task = Task(work)
        tasks.append(task)
        Loop(current[-1]).call_later(0.002, task.run)
        return task


@contextmanager
def installed() -> Iterator[None]:
    """Virtual time for the supervisor, and silence: a thousand runs would log a lot."""
    kept, config = supervisor.asyncio, structlog.get_config()
    supervisor.asyncio = _Asyncio()  # type: ignore[assignment]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        supervisor.asyncio = kept  # type: ignore[assignment]
        structlog.configure(**config)
        for task in tasks:
            task.cancel()
        tasks.clear()
        current.clear()
