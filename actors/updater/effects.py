"""What the updater does in the world: one job at a time, the blocking ones in a thread of their own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import structlog

from actors.updater import stage, switch
from actors.updater.decide import (
    BackJob,
    CollectJob,
    ForgetJob,
    HealthJob,
    Job,
    Look,
    Result,
    StageJob,
    SwitchJob,
    World,
)
from actors.updater.fetch import Fetcher, Terms
from actors.updater.store import Step, Store, UpdaterError, no_step, space_error


class Cancel(msgspec.Struct, frozen=True):
    """Break off the staging under way: its order was replaced."""


class Effects:
    """Performs jobs on the store below ``folder`` (``<data folder>/updater``)."""

    def __init__(self, folder: Path, terms: Terms | None = None, step: Step = no_step) -> None:
        self._folder = folder
        self._terms = terms or Terms()
        self._step = step
        self._store: Store | None = None
        self._cancelled = threading.Event()
        self._fetcher: Fetcher | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="updater")
        self._logger = structlog.get_logger(actor="updater")

    def close(self) -> None:
        """Break off what is under way; it goes on after the next start."""
        self._break_off()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _break_off(self) -> None:
        self._cancelled.set()
        if self._fetcher is not None:
            self._fetcher.hang_up()

    async def perform(self, effect: Job | Cancel, notice: Callable[[Any], None]) -> None:
        """Do it, and give the Result to ``notice``. Never raises but on cancellation."""
        if isinstance(effect, Cancel):
            self._break_off()
            return
        result = await self._result(effect)
        notice(result)

    async def _result(self, job: Job) -> Result:
        loop = asyncio.get_running_loop()
        health: switch.Health | None = None
        if isinstance(job, HealthJob):
            health = await switch.check_health(
                self._opened(), job.version, job.previous, job.command, job.timeout_ms / 1000
            )
        # a cancellation of an earlier job doesn't concern this one
        self._cancelled = threading.Event()
        try:
            return await loop.run_in_executor(self._thread, self._do, job, health)
        except UpdaterError as error:
            return await self._failed(job, error.step, str(error))
        except OSError as error:
            return await self._failed(job, "disk", str(space_error(error, type(job).__name__)))
        except Exception as error:
            self._logger.exception("a job failed", job=job)
            return await self._failed(job, "internal", f"{type(error).__name__}: {error}")

    async def _failed(self, job: Job, step: str, reason: str) -> Result:
        try:
            world = await asyncio.get_running_loop().run_in_executor(self._thread, self._world)
        except OSError:
            world = World()
        return Result(job, world, ok=False, step=step, reason=reason)

    def _opened(self) -> Store:
        """The store; its folders are made again if they were taken away."""
        if self._store is None or not self._store.versions.is_dir():
            self._store = Store(self._folder, self._step)
        return self._store

    def _world(self) -> World:
        store = self._opened()
        note = switch.leaving(store)
        going = (note.version, note.to, note.reason) if note else ("", "", "")
        return World(store.running(), store.staged(), *going)

    def _do(self, job: Job, health: switch.Health | None) -> Result:
        store = self._opened()
        done = stage.Done()
        freed = switch.Freed([], 0)
        match job:
            case Look():
                stage.clean(store)
            case StageJob():
                self._fetcher = Fetcher(store, job.gateways, self._terms, self._cancelled)
                done = stage.stage(store, job.version, job.tree, self._fetcher)
            case SwitchJob():
                switch.switch(store, job.version)
            case BackJob():
                switch.go_back(store, switch.Leaving(job.version, job.to, job.reason))
            case ForgetJob():
                switch.forget_leaving(store)
            case CollectJob():
                freed = switch.collect(store, set(job.keep), set(job.keep_trees), set(job.known_trees))
            case HealthJob():
                pass
        return Result(
            job,
            self._world(),
            ok=health is None or health.ok,
            step="" if health is None or health.ok else "health",
            reason=health.reason if health else "",
            fetched_bytes=done.fetched_bytes,
            versions=freed.versions,
            freed_bytes=freed.freed_bytes,
        )
