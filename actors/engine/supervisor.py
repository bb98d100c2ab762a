"""The supervisor: brings this machine to what is wanted, and never waits for the log to do so.

It asks :func:`decide.step` for every unit that something has changed of (what is wanted, what is seen, a time that
came) and performs the answer on the engines. What the log is told is the actor's business: it is called back with the
names of units that changed.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import structlog

from actors.engine import decide
from actors.engine.decide import Action, Check, Collect, Start, Stop, Track, Wanted
from actors.engine.fences import Fences
from actors.engine.port import Away, Engine, Refused, Seen
from actors.engine.spec import UnitSpec, spec_of
from actors.engine.state import Run
from actors.engine.templates import Templates
from actors.scheduler.specifiers import HostFacts
from actors.scheduler.unitfile import UnitFileError, parse

T = TypeVar("T")


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Supervisor:
    """``engines`` by name, opened by ``open``. ``changed`` gets names of units that the log may have to hear of."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        host: HostFacts,
        fences: Fences | None,
        changed: Callable[[set[str]], None],
        now: Callable[[], float] = boot_s,
        templates: Templates | None = None,
    ) -> None:
        self.templates = templates
        #: units of which a file was new while something else was done to them
        self._due: set[str] = set()
        self.engines = engines
        self.fences = fences
        self.wants: dict[str, Wanted] = {}
        self.logged: dict[str, Run] = {}
        #: units that run under a fence which is over: while one lives, the deadline stands
        self.stale: set[str] = set()
        #: whether a unit's fence is open; the log's answer, once it is known
        self.is_open: Callable[[str, int], bool] = lambda _unit, _fence: True
        #: units that this machine runs by itself: they wait for no log
        self.static: frozenset[str] = frozenset()
        self.tracks: dict[str, Track] = {}
        self._host = host
        self._changed = changed
        self._now = now
        self._specs: dict[str, tuple[tuple[int, int, str], UnitSpec | None, str]] = {}
        self._refused: dict[str, Seen] = {}
        self._last: dict[str, Seen | None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: units that may run where nobody can look now
        self._unseen: set[str] = set()
        self._woken = False
        self._active = self._offline = False
        self._logger = structlog.get_logger(actor="engine")

    async def open(self) -> None:
        """Open the engines and look at what runs; nothing is done before :meth:`activate`."""
        for engine in self.engines.values():
            await engine.open(self.wake)
        self._last = {unit: self.seen(unit) for unit in self.units()}

    def run_static(self, wants: dict[str, Wanted]) -> None:
        """Run these, whatever the log says."""
        self.static = frozenset(wants)
        self.want({unit: (want, None) for unit, want in wants.items()})

    def activate(self, offline: bool = False) -> None:
        """From now on what is wanted is known: act on it. ``offline``: it is only believed, so nothing is stopped."""
        self._active, self._offline = True, offline
        for unit in sorted(self.units()):
            self.look(unit)

    async def tidy(self, known: Callable[[str], bool]) -> None:
        """Remove what units left that no longer exist anywhere: their journals."""
        for engine in self.engines.values():
            for unit in sorted(engine.kept()):
                seen = self.seen(unit)
                if not known(unit) and unit not in self.static and (seen is None or not seen.live):
                    await engine.remove(unit)

    async def close(self) -> None:
        """Let go of everything; units run on."""
        self._active = False
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self.engines.values():
            await engine.close()

    # -- what is known ----------------------------------------------------------------------------------------

    def units(self) -> set[str]:
        """Every unit that is wanted, seen, or known by the log to have run here."""
        names = set(self.wants) | set(self.logged) | set(self._refused)
        for engine in self.engines.values():
            names.update(engine.inventory())
        return names

    def seen(self, unit: str) -> Seen | None:
        """What runs of the unit; else how its last run, or the last attempt to run it, ended."""
        found = [seen for engine in self.engines.values() if (seen := engine.inventory().get(unit)) is not None]
        for seen in found:
            if seen.live:
                return seen
        return self._refused.get(unit) or (found[0] if found else None)

    def blind(self, unit: str) -> bool:
        """Whether the unit may run in a container that nobody can see now: dockerd has not answered yet."""
        logged = self.logged.get(unit)
        docker = self.engines.get("docker")
        return logged is not None and bool(logged.container) and docker is not None and docker.blind

    def track(self, unit: str) -> Track:
        return self.tracks.setdefault(unit, Track())

    def want(self, units: Mapping[str, tuple[Wanted | None, Run | None]]) -> None:
        """What the log says of these units now: what is wanted, and what it knows of their runs."""
        for unit, (want, logged) in units.items():
            _put(self.wants, unit, want)
            _put(self.logged, unit, logged)
        for unit in units:
            self.look(unit)

    def _is_stale(self, unit: str, seen: Seen | None) -> bool:
        """Whether what is seen is fenced, lives, and has lost its right for good."""
        stale = bool(seen is not None and seen.live and seen.fenced and not self.is_open(unit, seen.fence))
        (self.stale.add if stale else self.stale.discard)(unit)
        return stale

    def _spec(self, unit: str, want: Wanted | None) -> UnitSpec | None:
        """The unit's spec, as of the generation that is wanted: newer content waits until it is placed."""
        if want is None:
            return None
        known = self._specs.get(unit)
        if known is None or known[0][:2] != want.key:
            spec, problem = self._read(unit, want.content)
            known = self._specs[unit] = ((*want.key, want.content), spec, problem)
            self.track(unit).problem = problem
        return known[1]

    def _read(self, unit: str, content: str) -> tuple[UnitSpec | None, str]:
        """The spec in a unit file, or why this machine can't run it."""
        try:
            spec = spec_of(parse(unit, content, self._host))
        except UnitFileError as error:
            return None, str(error)
        if spec.engine not in self.engines:
            return None, f"this machine has no engine {spec.engine}"
        return spec, ""

    # -- doing ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """An engine saw a change: look at once, at all that differs."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._compare)

    def _compare(self) -> None:
        self._woken = False
        for unit in sorted(self._unseen):
            if not self.blind(unit):
                self._unseen.discard(unit)
                self.look(unit)
        for unit in sorted(self.units() | set(self._last)):
            seen = self.seen(unit)
            if seen != self._last.get(unit):
                self._last[unit] = seen
                self.look(unit)
                if seen is None or not seen.live:
                    self._retry_blocked()

    def _retry_blocked(self) -> None:
        """Something ended: what waited for its port may start."""
        for unit, want in list(self.wants.items()):
            seen = self.seen(unit)
            if want.state == "launched" and (seen is None or not seen.live):
                self.look(unit)

    def fences_changed(self) -> None:
        """Fenced units may be started now, or no longer."""
        for unit, want in list(self.wants.items()):
            if want.fenced:
                self.look(unit)

    def look(self, unit: str) -> None:
        """Decide on one unit and do it."""
        if unit not in self.static and (not self._active or (self._offline and unit not in self.wants)):
            return
        if self.blind(unit):
            self._unseen.add(unit)
            return
        if (timer := self._timers.pop(unit, None)) is not None:
            timer.cancel()
        want, seen, track, now_s = self.wants.get(unit), self.seen(unit), self.track(unit), self._now()
        spec = self._spec(unit, want)
        if self.templates is not None:
            kept = want is not None and want.state == "launched"
            self.templates.want(unit, spec if kept else None)
        fence_ok = self.fences is None or self.fences.ok
        stale = self._is_stale(unit, seen)
        may_start = not self._holder(spec) and (fence_ok or spec is None or not spec.fenced)
        step = decide.step(want, spec, seen, self.logged.get(unit), track, now_s, may_start, stale)
        for action in step.actions:
            track.busy = True
            self._spawn(self._do(action, spec, track))
        if step.wake_at_s is not None:
            delay_s = max(0.0, step.wake_at_s - now_s)
            self._timers[unit] = asyncio.get_running_loop().call_later(delay_s, self.look, unit)
        if want is None and seen is None and not step.actions and not track.left:
            self._forget(unit)
        self._changed({unit})

    def _holder(self, spec: UnitSpec | None) -> str:
        """A unit that is not wanted any more, still lives, and holds a port that ``spec`` needs; or empty."""
        ports = set(spec.ports) if spec is not None else set()
        for unit in sorted(self.units() - set(self.wants)) if ports else ():
            known, seen = self._specs.get(unit), self.seen(unit)
            if known and known[1] is not None and seen is not None and seen.live and ports & set(known[1].ports):
                return unit
        return ""

    def _forget(self, unit: str) -> None:
        self.stale.discard(unit)
        if unit not in self.logged:
            self.tracks.pop(unit, None)
            self._specs.pop(unit, None)
            self._last.pop(unit, None)

    async def _do(self, action: Action, spec: UnitSpec | None, track: Track) -> None:
        unit = action.unit
        try:
            match action:
                case Start():
                    assert spec is not None
                    await self._start(action, spec, track)
                case Stop():
                    seen = self.seen(unit)
                    if seen is not None and seen.run == action.run:
                        self._logger.info("a unit is stopped", unit=unit, reason=action.reason, kill=action.kill)
                        await self.engines[seen.engine].stop(unit, action.kill)
                case Check():
                    assert spec is not None
                    await self._check(spec, track)
                case Collect():
                    self._refused.pop(unit, None)
                    for engine in self.engines.values():
                        await engine.collect(unit, action.run)
        finally:
            track.busy = False
        self._last[unit] = self.seen(unit)
        self.look(unit)
        if unit in self._due:
            self.renewed(unit)

    def renewed(self, unit: str) -> None:
        """A file of the unit is new: tell it, as it asked."""
        seen, want = self.seen(unit), self.wants.get(unit)
        spec = self._spec(unit, want)
        self._due.discard(unit)
        if spec is None or spec.on_change == "none":
            return
        if self.track(unit).busy:
            self._due.add(unit)
        elif want is not None and want.state == "launched" and seen is not None and seen.live:
            self._logger.info("a file of a unit is new", unit=unit, done=spec.on_change)
            engine = self.engines[seen.engine]
            self._spawn(engine.reload(unit) if spec.on_change == "reload" else engine.stop(unit))

    async def _start(self, action: Start, spec: UnitSpec, track: Track) -> None:
        self._refused.pop(spec.name, None)
        for engine in self.engines.values():  # an earlier run on the other engine is over
            if engine.name != spec.engine and (old := engine.inventory().get(spec.name)) is not None:
                await engine.collect(spec.name, old.run)
        try:
            if self.templates is not None:
                await self.templates.ready(spec)
                self._due.discard(spec.name)
            await self.engines[spec.engine].start(spec, action.fence, action.generation)
        except Refused as error:
            if error.final:
                track.problem = str(error)
            result = "away" if isinstance(error, Away) else "exec"
            self._refused[spec.name] = self._failed_start(action, spec, str(error), result)
        except Exception as error:
            self._refused[spec.name] = self._failed_start(action, spec, f"{type(error).__name__}: {error}", "exec")
            raise
        seen = self.seen(spec.name)
        track.own = seen.run if seen is not None else ""

    def _failed_start(self, action: Start, spec: UnitSpec, reason: str, result: str) -> Seen:
        return Seen(
            unit=spec.name,
            engine=spec.engine,
            run=f"refused at {self._now():.6f}",
            phase="ended",
            fence=action.fence,
            generation=action.generation,
            result=result,
            detail=reason,
        )

    async def _check(self, spec: UnitSpec, track: Track) -> None:
        track.checked, track.problem = track.key, ""
        try:
            await self.engines[spec.engine].check(spec)
        except Refused as error:
            track.problem = str(error)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("an action failed", error=repr(error), exc_info=error)

    # -- going on without the log -----------------------------------------------------------------------------

    def saved(self) -> bytes:
        """What is wanted now, for a start at which the log can't be reached."""
        wants = [want for unit, want in self.wants.items() if unit not in self.static]
        return msgspec.json.encode({"wants": wants, "logged": self.logged})

    def restore(self, raw: bytes) -> int:
        """Want what was saved, but for fenced units: without the log nobody knows whose they are. Returns how many
        units; raises ValueError on bytes that are none of ours."""
        try:
            saved = msgspec.json.decode(raw, type=_Saved)
        except msgspec.DecodeError as error:
            raise ValueError(f"it is damaged: {error}") from error
        for want in saved.wants:
            running = self.seen(want.unit)
            if want.unit in self.static:
                continue
            if not want.fenced or (running is not None and running.live):
                self.wants[want.unit] = want
        self.logged.update({unit: run for unit, run in saved.logged.items() if unit in self.wants})
        return len(self.wants)


def _put(table: dict[str, T], unit: str, value: T | None) -> None:
    if value is None:
        table.pop(unit, None)
    else:
        table[unit] = value


class _Saved(msgspec.Struct):
    wants: list[Wanted]
    logged: dict[str, Run]
