"""A small model of fenced units: scheduler and engine that do only what fencing is about.

Payloads and state structs are the product's; rules are written down again here, as short as they can be.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.control import ControlFold
from actors.coordination import election
from actors.coordination.actor import Coordination
from actors.host import Now, Plan
from actors.scheduler.state import Fence, Placement, Unit
from actors.setting import Setting
from streams.events import cluster as cluster_says
from streams.events import engine as engine_says
from streams.events import unit as says
from streams.events.base import Event, say
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.replay import Applied, Context, Replica
from tests.simulator.world import KILL_GRACE_S

#: The model's master says something this often.
CHATTER_S = 0.4


class ModelFold(ControlFold):
    """The product's control fold, with the model's rules for units and engines."""

    def evolve(self, event: Event, context: Context) -> Outcome:
        if event.data.STREAM == "unit":
            return evolve_unit(self.state, event, context)
        if event.data.STREAM == "engine":
            return evolve_engine(self.state, event, context)
        return super().evolve(event, context)


def evolve_unit(control: Any, event: Event, context: Context) -> Outcome:
    units, machines = control.units, control.cluster.machines
    name, data = event.subject, event.data
    if isinstance(data, says.Submit):
        if name in units.units:
            return Rejected("unit-exists")
        units.units[name] = Unit(name=name, content=data.content, desired="launched")
        return DONE
    unit = units.units.get(name)
    if unit is None or not event.term:
        return Rejected("unknown-unit")
    if isinstance(data, says.Placed):
        machine = machines.get(data.machine)
        if unit.placements or units.fences.get(name):
            return Rejected("fence-open")
        if machine is None or not machine.alive or machine.generation != data.machine_generation:
            return Rejected("machine-changed")
        fence, units.next_fence = units.next_fence, units.next_fence + 1
        at = str(context.position)
        unit.placements[data.machine] = Placement(data.machine, fence, 1, data.reason, at)
        units.fences[name] = [Fence(fence, data.machine, at)]
        return Accepted({"fence": fence})
    if isinstance(data, says.Waiting):
        unit.waiting = data.reason
        return DONE
    if isinstance(data, says.Unplaced):
        return DONE if unit.placements.pop(data.machine, None) else Rejected("not-there")
    if isinstance(data, says.FenceExpired):
        machine = machines.get(data.machine)
        if machine is not None and (machine.alive or machine.generation != data.machine_generation):
            return Rejected("machine-alive")
        return close(control, name, data.fence, data.machine)
    return Rejected("not-modelled")


def evolve_engine(control: Any, event: Event, context: Context) -> Outcome:
    data = event.data
    if isinstance(data, engine_says.Stopped) and data.machine == context.record.machine:
        return close(control, event.subject, data.fence, data.machine)
    return Rejected("not-modelled")


def close(control: Any, name: str, fence: int, machine: str) -> Outcome:
    units = control.units
    left = [f for f in units.fences.get(name, []) if (f.fence, f.machine) != (fence, machine)]
    if len(left) == len(units.fences.get(name, [])):
        return Rejected("fence-closed")
    units.fences[name] = left
    unit = units.units[name]
    if machine in unit.placements and unit.placements[machine].fence == fence:
        del unit.placements[machine]
    return DONE


class _Actor:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def live(self, replica: Replica, now: Now) -> None: ...
    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None: ...
    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None: ...
    def noticed(self, observation: Any, now: Now) -> None: ...


class ModelScheduler(_Actor):
    """Places each unit once; gives a lost machine's fence up after T_a(1+ε) and the kill's grace."""

    name = "scheduler"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._lost_s: dict[tuple[str, str], float] = {}
        self._fence_s = setting.fence_ms / 1000
        self._told_s, self._told = 0.0, 0

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        for applied in batch:
            if isinstance(applied.event.data, cluster_says.MachineLost) and applied.outcome is not None:
                self._lost_s[applied.event.subject, str(applied.position)] = now.boot_s

    def live(self, replica: Replica, now: Now) -> None:
        self._lost_s = dict.fromkeys(self._lost_s, now.boot_s)

    def decide(self, replica: Replica, now: Now) -> Plan:
        control = replica.fold.state  # type: ignore[attr-defined]
        elected, machines, units = control.cluster.election, control.cluster.machines, control.units
        s = self.setting
        if not election.acting(elected, s.machine, s.nonce, now.boot_s, s.lease_ms / 1000, s.alone):
            return Plan()
        term, events, wake = elected.term, [], now.boot_s + 1.0
        usable = [m for m in machines.values() if m.alive and not m.drained and m.id not in control.cluster.withheld]
        load = {m.id: 0 for m in usable}
        for unit in units.units.values():
            for machine in unit.placements:
                load[machine] = load.get(machine, 0) + 1
        for name, unit in units.units.items():
            for fence in units.fences.get(name, []):
                machine = machines.get(fence.machine)
                if machine is not None and not machine.alive:
                    lost_s = self._lost_s.setdefault((machine.id, machine.lost_at), now.boot_s)
                    due = lost_s + self._fence_s * (1 + election.EPSILON) + KILL_GRACE_S * 1.1
                    wake = min(wake, due)
                    if now.boot_s >= due:
                        expired = says.FenceExpired(fence.fence, machine.id, machine.generation)
                        events.append(say(expired, subject=name, term=term, cause=machine.lost_at))
            for machine in unit.placements:
                if machine in machines and machines[machine].alive and machines[machine].drained:
                    moved = says.Unplaced(machine=machine, generation=1, reason="drained")
                    events.append(say(moved, subject=name, term=term))
            if not unit.placements and not units.fences.get(name) and usable:
                best = min(usable, key=lambda m: (load[m.id], m.id))
                load[best.id] += 1
                placed = says.Placed(best.id, 1, best.generation, "least loaded")
                events.append(say(placed, subject=name, term=term))
        if units.units and now.boot_s >= self._told_s + CHATTER_S:
            # a fact that always has an effect, so that an old master's can be told from a new one's
            self._told_s, self._told = now.boot_s, self._told + 1
            waiting = says.Waiting(1, f"{s.machine[-1]}.{self._told}")
            events.append(say(waiting, subject=next(iter(units.units)), term=term))
        return Plan(events, wake_at_s=None if events else min(wake, self._told_s + CHATTER_S))


class Look(NamedTuple):
    pass


class Arm(NamedTuple):
    deadline_s: float


class Start(NamedTuple):
    unit: str
    fence: int


class Stop(NamedTuple):
    unit: str
    fence: int


class Runs(NamedTuple):
    """Observation: what the machine runs now."""

    running: dict[str, int]
    about: tuple[str, int] | None = None


class ModelEngine(_Actor):
    """Keeps what the machine runs equal to its placements, within the watchdog's deadline."""

    name = "engine"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._running: dict[str, int] | None = None
        self._looking = False
        self._busy: set[tuple[str, int]] = set()
        self._armed_s = 0.0

    def noticed(self, observation: Any, now: Now) -> None:
        self._running = observation.running
        self._looking = False
        if observation.about is not None:
            self._busy.discard(observation.about)

    def decide(self, replica: Replica, now: Now) -> Plan:
        control = replica.fold.state  # type: ignore[attr-defined]
        me = control.cluster.machines.get(self.setting.machine)
        if self._running is None:
            effects: list[Any] = [] if self._looking else [Look()]
            self._looking = True
            return Plan(effects=effects)
        deadline_s = float("-inf")
        if me is not None and me.boot_id == self.setting.boot_id:
            deadline_s = me.seen_ms / 1000 + self.setting.fence_ms / 1000
        effects, events = [], []
        if deadline_s > self._armed_s:
            self._armed_s = deadline_s
            effects.append(Arm(deadline_s))
        mine = {}
        for name, unit in control.units.units.items():
            placement = unit.placements.get(self.setting.machine)
            if placement is not None:
                mine[name] = placement.fence
        for name, fence in self._running.items():
            if mine.get(name) != fence and (name, fence) not in self._busy:
                self._busy.add((name, fence))
                effects.append(Stop(name, fence))
        for name, fence in mine.items():
            ready = name not in self._running and (name, fence) not in self._busy
            if ready and now.boot_s + 0.5 < deadline_s:
                self._busy.add((name, fence))
                effects.append(Start(name, fence))
        for name, fences in control.units.fences.items():
            for fence in fences:
                here = fence.machine == self.setting.machine and mine.get(name) != fence.fence
                if here and self._running.get(name) != fence.fence and (name, fence.fence) not in self._busy:
                    stopped = engine_says.Stopped(machine=self.setting.machine, generation=1, fence=fence.fence)
                    events.append(say(stopped, subject=name))
        return Plan(events if not effects else [], effects, wake_at_s=now.boot_s + 1.0)


class ModelParts:
    """Coordination is the product's, scheduler and engine are the model."""

    names = ("coordination", "scheduler", "engine")
    unit = "x"
    coordination = Coordination

    def fold(self) -> ControlFold:
        return ModelFold()

    def actor(self, process: Any, name: str) -> Any:
        node = process.node
        if name == "coordination":
            return self.coordination(node.setting(), node.nonces)
        return ModelScheduler(node.setting()) if name == "scheduler" else ModelEngine(node.setting())

    def perform(self, process: Any, effect: Any) -> None:
        world, time = process.node.world, process.time
        match effect:
            case Look():
                process.notice(Runs(dict(world.running)))
            case Arm(deadline_s):
                world.arm(deadline_s)
            case Start(unit, fence):
                world.start(unit, fence)
                process.notice(Runs(dict(world.running), (unit, fence)))
            case Stop(unit, fence):
                time.after(time.random.uniform(0.01, 0.3), self._stopped, process, unit, fence)

    def looked(self, node: Any) -> None:
        """The watchdog killed something: the engine, if it lives, hears of it."""
        if "engine" in node.processes:
            node.processes["engine"].notice(Runs(dict(node.world.running)))

    def _stopped(self, process: Any, unit: str, fence: int) -> None:
        process.node.world.stop(unit, fence)
        process.notice(Runs(dict(process.node.world.running), (unit, fence)))
