"""The product's scheduler, engine actor and supervisor, over simulated engines and a simulated watchdog."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from actors.control import ControlFold
from actors.coordination.actor import Coordination
from actors.engine.actor import EngineActor
from actors.engine.fences import START_MARGIN_MS
from actors.engine.port import Refused, Seen
from actors.engine.spec import UnitSpec
from actors.engine.supervisor import Supervisor
from actors.scheduler.actor import Scheduler
from actors.scheduler.specifiers import HostFacts

UNIT = "[Service]\nExecStart=/bin/serve\nRestart=always\n\n[X-Corelog]\nFence=yes\n"


class SimEngine:
    """The engine port over a machine's world, which outlives it."""

    name = "process"

    def __init__(self, process: Any) -> None:
        self.process = process
        self.world = process.node.world
        self.runs: dict[str, Seen] = self.world.seen
        self.changed: Callable[[], None] = lambda: None

    def inventory(self) -> dict[str, Seen]:
        return self.runs

    async def check(self, spec: UnitSpec) -> None: ...

    async def start(self, spec: UnitSpec, fence: int, generation: int) -> None:
        if spec.fenced and not self.world.start(spec.name, fence):
            raise Refused("past the deadline")
        self.world.pids += 1
        self.runs[spec.name] = Seen(
            unit=spec.name,
            engine=self.name,
            run=f"run {self.world.pids}",
            phase="running",
            fence=fence,
            generation=generation,
            fenced=spec.fenced,
            ready=True,
            pid=self.world.pids,
            started_ticks=self.world.pids,
            boot_id=f"boot {self.process.node.boots}",
        )
        self.changed()

    async def stop(self, unit: str, kill: bool = False) -> None:
        time = self.process.time
        time.after(time.random.uniform(0.01, 0.3), self.process.node.parts.ended, self.process.node, unit, "stopped")

    async def collect(self, unit: str, run: str) -> None:
        if unit in self.runs and self.runs[unit].run == run and not self.runs[unit].live:
            del self.runs[unit]

    async def remove(self, unit: str) -> None: ...

    async def close(self) -> None: ...


class SimFences:
    def __init__(self, process: Any, fence_ms: int) -> None:
        self.process = process
        self.fence_ms = fence_ms

    @property
    def ok(self) -> bool:
        node = self.process.node
        return node.clock.read(node.time.now) + START_MARGIN_MS / 1000 < node.world.deadline_s

    def extend(self, deadline_ms: int) -> None:
        was = self.ok
        self.process.node.world.arm(deadline_ms / 1000)
        if self.ok and not was:
            self.process.actor.supervisor.fences_changed()


class ProductParts:
    """All three actors are the product's own."""

    names = ("coordination", "scheduler", "engine")
    unit = UNIT
    coordination = Coordination

    def fold(self) -> ControlFold:
        return ControlFold()

    def actor(self, process: Any, name: str) -> Any:
        node = process.node
        setting = node.setting()
        if name == "coordination":
            return self.coordination(setting, node.nonces)
        if name == "scheduler":
            return Scheduler(setting)
        engine = SimEngine(process)
        fences: Any = SimFences(process, setting.fence_ms)
        host = HostFacts(setting.machine, setting.name, setting.boot_id, "6.1", "x86_64")
        supervisor = Supervisor({"process": engine}, host, fences, process.notice, lambda: process.now().boot_s)
        engine.changed = supervisor.wake
        process.engine = engine
        return EngineActor(setting, supervisor)

    def perform(self, process: Any, effect: Any) -> None:
        raise AssertionError(f"nobody has effects: {effect!r}")

    def looked(self, node: Any) -> None:
        """The watchdog killed what ran."""
        for unit, seen in list(node.world.seen.items()):
            if seen.live and unit not in node.world.running:
                self._end(node, unit, "fence")

    def ended(self, node: Any, unit: str, result: str) -> None:
        seen = node.world.seen.get(unit)
        if seen is not None and seen.live:
            node.world.stop(unit, seen.fence)
            self._end(node, unit, result)

    def _end(self, node: Any, unit: str, result: str) -> None:
        node.world.seen[unit] = replace(node.world.seen[unit], phase="ended", result=result)
        process = node.processes.get("engine")
        if process is not None:
            process.within(process.engine.changed)
