"""Units, placements and fences: the ``unit`` part of the control fold.

A unit's life::

    submit ─► inactive ─desire─► waiting ─placed─► placed ─unplaced─► waiting     destroy ─► stopping ─► forgotten
                                    ▲                 │  engine.stopped{fence} of a fenced unit, fence.expired
                                    └─────────────────┘

Rules (each is a property in the tests):

* Only the master's scheduler (a fact with the current term) places, and each placement is checked again here:
  generations of unit and machine, room, ports, conflicts, MachineOf, metadata.
* A fence is open from ``unit.placed`` of a unit with Fence=yes until ``closed`` (that machine's engine said stopped)
  or ``fence.expired``. While one is open the unit is placed nowhere, in a drain or move neither. Either end takes
  the placement with it: a unit that has stopped under a fence starts again only under a new one.
* What an engine has to do is in :func:`placements_of` and :func:`owed`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from actors.scheduler.fit import Needs, host_of, kind_of, needs_of, why_not
from actors.scheduler.specifiers import name_of
from actors.scheduler.syntax import BadValue
from actors.scheduler.unitfile import UnitFile, UnitFileError, cached
from streams.events import unit as says
from streams.events.base import Event
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control

DESIRED = ("inactive", "loaded", "launched")


class Placement(msgspec.Struct, frozen=True):
    """``fence`` is unique and growing over the whole cluster (also for units that don't ask for fencing).

    ``generation``: of the unit, that shall run there; behind the unit's own while new content waits to be placed.
    """

    machine: str
    fence: int
    generation: int
    reason: str
    at: str


class Fence(msgspec.Struct, frozen=True):
    """Open from ``unit.placed`` until that machine's ``engine.stopped`` or the master's ``fence.expired``."""

    fence: int
    machine: str
    at: str


class Unit(msgspec.Struct):
    """``generation`` counts changes of its content and restarts. ``desired``: inactive, loaded, launched.

    ``placements`` by machine: one for an ordinary unit, one per machine for a global one.
    """

    name: str
    content: str
    desired: str = "inactive"
    generation: int = 1
    restarts: int = 0
    submitted_at: str = ""
    placements: dict[str, Placement] = {}
    waiting: str = ""
    waiting_machines: dict[str, str] = {}
    #: set by destroy: kept until every machine said stopped
    destroyed: bool = False

    @property
    def spec(self) -> UnitFile:
        """Its parsed content, which was checked when it was submitted."""
        return cached(self.name, self.content)


class UnitState(msgspec.Struct):
    """``fences``: open fences by unit (only units that ask for fencing).

    ``placed``: by machine what is placed there and what it takes; the same placements as in ``units``.
    """

    units: dict[str, Unit] = {}
    fences: dict[str, list[Fence]] = {}
    next_fence: int = 1
    placed: dict[str, dict[str, Needs]] = {}


NOT_THE_MASTER = Rejected("not-the-master", "only the master's scheduler says this, in its term")


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    """Apply one event of the stream ``unit``. Subject: the unit's name."""
    match event.data:
        case says.Submit():
            return _submit(control, event.subject, event.data, context)
        case says.Desire():
            return _desire(control, event.subject, event.data, context)
        case says.Restart():
            return _restart(control, event.subject)
        case says.Destroy():
            return _destroy(control, event.subject)
    if not event.term:
        return NOT_THE_MASTER
    match event.data:
        case says.Placed():
            return _placed(control, event.subject, event.data, context)
        case says.Unplaced():
            return _unplaced(control, event.subject, event.data)
        case says.Waiting():
            return _waiting(control, event.subject, event.data)
        case says.FenceExpired():
            return _fence_expired(control, event.subject, event.data)
    raise NotImplementedError(f"no rule for {event.type}")


# -- what engines read ----------------------------------------------------------------------------------------


def placements_of(control: "Control", machine: str) -> Iterator[tuple[Unit, Placement]]:
    """What ``machine`` shall have (loaded or launched, as ``unit.desired`` says), in the order it was placed.

    The generation to run is the placement's: one that is behind ``unit.generation`` goes on as it is until
    ``unit.placed`` names the new one. A unit with Fence=yes may run only while its fence is open (:func:`is_open`).
    """
    for name in control.units.placed.get(machine, {}):
        unit = control.units.units[name]
        yield unit, unit.placements[machine]


def is_open(control: "Control", unit: str, fence: int) -> bool:
    """Whether the fence is open: the right to run that only the machine it was given to has."""
    return any(held.fence == fence for held in control.units.fences.get(unit, ()))


def owed(control: "Control", machine: str) -> list[tuple[str, Fence]]:
    """Open fences of units that ``machine`` shall no longer run: it must stop the unit (before it starts others, which
    may need its ports) and say ``engine.stopped`` with this fence, *also when it never started it*."""
    return [
        (name, fence)
        for name, fences in control.units.fences.items()
        for fence in fences
        if fence.machine == machine and not _is_placed(control, name, fence)
    ]


def _is_placed(control: "Control", name: str, fence: Fence) -> bool:
    unit = control.units.units.get(name)
    placement = unit.placements.get(fence.machine) if unit is not None else None
    return placement is not None and placement.fence == fence.fence


def closed(control: "Control", unit: str, machine: str, fence: int) -> None:
    """Called by the engine stream's evolve when ``machine`` said ``engine.stopped{fence}`` and its run is recorded."""
    state = control.units
    if _close_fence(state, unit, machine, fence):
        _drop_placement(state, unit, machine, fence)
    _forget_destroyed(control, unit)


# -- commands -------------------------------------------------------------------------------------------------


def _not_found(name: str) -> Rejected:
    return Rejected("not-found", f"no unit {name!r} was submitted")


def _known(control: "Control", name: str) -> Unit | None:
    unit = control.units.units.get(name)
    return None if unit is None or unit.destroyed else unit


def _template_of(control: "Control", name: str) -> Unit | None:
    """The submitted template of an instance's name."""
    try:
        names = name_of(name)
    except BadValue:
        return None
    return _known(control, names.template) if names.is_instance else None


def _submit(control: "Control", name: str, data: says.Submit, context: Context) -> Outcome:
    content = data.content
    if not content.strip() and (template := _template_of(control, name)) is not None:
        content = template.content
    try:
        spec = cached(name, content)
    except UnitFileError as error:
        return Rejected("bad-unit", str(error), {"line": error.line, "key": error.key})
    if data.desired and data.desired not in DESIRED:
        return _bad_desired(data.desired)
    if spec.name.is_template and data.desired not in ("", "inactive"):
        return _is_template(name)
    old = control.units.units.get(name)
    here = None if old is None or old.destroyed else old
    changed = here is None or here.spec.hash != spec.hash
    if here is not None and changed and not data.replace:
        return Rejected("exists", f"unit {name} exists with other content; say --replace to change it")
    if changed and (cycle := _cycle(control, name, spec)):
        return Rejected("machine-of-cycle", f"a cycle of MachineOf: {' → '.join(cycle)}", {"cycle": cycle})
    if changed and old is not None and old.spec.fence != spec.fence and not _is_idle(control, name):
        return Rejected(
            "fence-change", f"Fence= can't change while {name} runs somewhere; set it inactive (unit unload) and wait"
        )
    return _store(control, name, content, data.desired, spec, context)


def _store(control: "Control", name: str, content: str, desired: str, spec: UnitFile, context: Context) -> Accepted:
    units = control.units.units
    unit = units.get(name)
    created = unit is None or unit.destroyed
    if unit is None:
        unit = units[name] = Unit(name, content, submitted_at=str(context.position))
    elif unit.destroyed or unit.spec.hash != spec.hash:
        unit.content, unit.destroyed = content, False
        unit.generation += 1
        unit.submitted_at = str(context.position)
        unit.waiting, unit.waiting_machines = "", {}
        if created:
            unit.desired, unit.restarts = "inactive", 0
    if desired:
        _set_desired(unit, desired)
    return Accepted({"created": created, "generation": unit.generation, "hash": spec.hash})


def _cycle(control: "Control", name: str, spec: UnitFile) -> list[str]:
    """The units of a cycle of MachineOf that ``spec`` would close, first and last the same; empty if none."""
    came_from = dict.fromkeys(reversed(spec.fleet.machine_of), name)
    stack = list(came_from)
    while stack:
        at = stack.pop()
        unit = _known(control, at)
        for peer in unit.spec.fleet.machine_of if unit is not None else ():
            if peer == name:
                path = [at]
                while path[-1] != name:
                    path.append(came_from[path[-1]])
                return [*reversed(path), name]
            if peer not in came_from:
                came_from[peer] = at
                stack.append(peer)
    return []


def _is_idle(control: "Control", name: str) -> bool:
    """No machine has it, or may have it."""
    unit = control.units.units.get(name)
    return not (unit and unit.placements) and not control.units.fences.get(name) and not _running(control, name)


def _running(control: "Control", name: str, *, alive: bool = False) -> list[str]:
    """Known (or only live) machines whose engine said something of the unit, and not that it stopped."""
    machines = control.cluster.machines
    return [
        machine
        for machine, run in control.engines.runs.get(name, {}).items()
        if run.state != "stopped" and machine in machines and (machines[machine].alive or not alive)
    ]


def _bad_desired(state: str) -> Rejected:
    return Rejected("bad-desired", f"{state!r} is not a desired state; there are {', '.join(DESIRED)}")


def _is_template(name: str) -> Rejected:
    instance = name.replace("@.", "@1.")
    return Rejected("template", f"{name} is a template and never runs; ask for an instance of it, like {instance}")


def _set_desired(unit: Unit, desired: str) -> None:
    unit.desired = desired
    if desired == "inactive":
        unit.waiting, unit.waiting_machines = "", {}


def _desire(control: "Control", name: str, data: says.Desire, context: Context) -> Outcome:
    if data.state not in DESIRED:
        return _bad_desired(data.state)
    unit = _known(control, name)
    if unit is None:
        if (template := _template_of(control, name)) is None:
            return _not_found(name)
        return _submit(control, name, says.Submit(template.content, data.state), context)
    if unit.spec.name.is_template and data.state != "inactive":
        return _is_template(name)
    changed = unit.desired != data.state
    _set_desired(unit, data.state)
    return Accepted({"changed": changed})


def _restart(control: "Control", name: str) -> Outcome:
    """The placements stay; they are to run a newer generation of the same content."""
    unit = _known(control, name)
    if unit is None:
        return _not_found(name)
    if unit.desired != "launched":
        return Rejected("not-launched", f"{name} is to be {unit.desired}, so there is nothing to restart")
    current, unit.generation = unit.generation, unit.generation + 1
    unit.restarts += 1
    for machine, placement in unit.placements.items():
        if placement.generation == current:
            unit.placements[machine] = msgspec.structs.replace(placement, generation=unit.generation)
    return Accepted({"generation": unit.generation, "machines": list(unit.placements)})


def _destroy(control: "Control", name: str) -> Outcome:
    unit = _known(control, name)
    if unit is None:
        return _not_found(name)
    unit.destroyed = True
    _set_desired(unit, "inactive")
    machines = list(unit.placements)
    for machine in machines:
        _drop_placement(control.units, name, machine)
    _forget_destroyed(control, name)
    return Accepted({"stopping": machines})


# -- facts of the master --------------------------------------------------------------------------------------


def _placed(control: "Control", name: str, data: says.Placed, context: Context) -> Outcome:
    unit = _known(control, name)
    if unit is None:
        return _not_found(name)
    if (refused := _refuse_placement(control, unit, data)) is not None:
        return refused
    state, spec = control.units, unit.spec
    at = str(context.position)
    here = unit.placements.get(data.machine)
    if here is not None:
        fence = here.fence  # new content in place: the same machine goes on under the same fence
    else:
        fence = state.next_fence
        state.next_fence += 1
        if spec.fence:
            state.fences.setdefault(name, []).append(Fence(fence, data.machine, at))
    if data.from_machine:
        _drop_placement(state, name, data.from_machine)
    unit.placements[data.machine] = Placement(data.machine, fence, data.generation, data.reason, at)
    state.placed.setdefault(data.machine, {})[name] = needs_of(spec)
    if not spec.fleet.is_global:
        unit.waiting, unit.waiting_machines = "", {}
    return Accepted({"fence": fence})


def _refuse_placement(control: "Control", unit: Unit, data: says.Placed) -> Rejected | None:
    """Why a placement is void by now, or None. The scheduler decided it by an older state than this one."""
    spec = unit.spec
    if spec.name.is_template:
        return _is_template(unit.name)
    if unit.desired == "inactive":
        return Rejected("inactive", f"{unit.name} is to be inactive")
    if data.generation != unit.generation:
        return Rejected("stale-generation", f"{unit.name} is at generation {unit.generation} by now")
    machine = control.cluster.machines.get(data.machine)
    if machine is None or machine.generation != data.machine_generation:
        return Rejected("stale-machine", f"machine {data.machine} has joined, left or changed since")
    here = unit.placements.get(data.machine)
    if here is not None and here.generation == unit.generation:
        return Rejected("already-placed", f"{unit.name} is on {data.machine} already")
    elsewhere = [other for other in unit.placements if other != data.machine]
    if not spec.fleet.is_global and elsewhere != ([data.from_machine] if data.from_machine else []):
        return Rejected("already-placed", f"{unit.name} is on {', '.join(unit.placements) or 'no machine'} by now")
    for fence in control.units.fences.get(unit.name, ()):
        if here is None or fence.fence != here.fence:
            return Rejected("fence-open", f"fence {fence.fence} of {unit.name} on {fence.machine} is still open")
    if why := why_not(unit.name, spec, host_of(control, machine, without=unit.name)):
        return Rejected(f"unfit-{kind_of(why)}", f"{unit.name} doesn't fit {data.machine}: {why}")
    return None


def _unplaced(control: "Control", name: str, data: says.Unplaced) -> Outcome:
    unit = control.units.units.get(name)
    if unit is None:
        return _not_found(name)
    if unit.destroyed:
        _forget_destroyed(control, name, lost_too=True)
        return DONE
    if data.generation != unit.generation:
        return Rejected("stale-generation", f"{name} is at generation {unit.generation} by now")
    if data.machine not in unit.placements:
        return Rejected("not-placed", f"{name} is not on {data.machine}")
    _drop_placement(control.units, name, data.machine)
    return DONE


def _waiting(control: "Control", name: str, data: says.Waiting) -> Outcome:
    unit = _known(control, name)
    if unit is None:
        return _not_found(name)
    if data.generation != unit.generation:
        return Rejected("stale-generation", f"{name} is at generation {unit.generation} by now")
    if unit.desired == "inactive":
        return Rejected("inactive", f"{name} is to be inactive")
    unit.waiting, unit.waiting_machines = data.reason, dict(data.machines)
    return DONE


def machine_generation(control: "Control", machine: str) -> int:
    """The generation of a machine, also of one that was removed; 0 if it never joined."""
    found = control.cluster.machines.get(machine)
    return found.generation if found is not None else control.cluster.removed.get(machine, 0)


def _fence_expired(control: "Control", name: str, data: says.FenceExpired) -> Outcome:
    machine = control.cluster.machines.get(data.machine)
    if machine is not None and machine.alive:
        return Rejected("machine-alive", f"machine {data.machine} is back; it ends the fence itself")
    if machine_generation(control, data.machine) != data.machine_generation:
        # it was back in the meantime: its right to run the unit has grown since the master began to wait
        return Rejected("stale-machine", f"machine {data.machine} was back since the wait began")
    if not _close_fence(control.units, name, data.machine, data.fence):
        return Rejected("no-such-fence", f"{name} has no open fence {data.fence} on {data.machine}")
    _drop_placement(control.units, name, data.machine, data.fence)
    _forget_destroyed(control, name)
    return DONE


# -- parts ----------------------------------------------------------------------------------------------------


def _close_fence(state: UnitState, name: str, machine: str, fence: int) -> bool:
    held = state.fences.get(name, [])
    left = [one for one in held if (one.machine, one.fence) != (machine, fence)]
    if len(left) == len(held):
        return False
    if left:
        state.fences[name] = left
    else:
        del state.fences[name]
    return True


def _drop_placement(state: UnitState, name: str, machine: str, fence: int = 0) -> None:
    """Take a placement away (with ``fence``: only that one) and give its room free."""
    unit = state.units.get(name)
    if unit is None or machine not in unit.placements or (fence and unit.placements[machine].fence != fence):
        return
    del unit.placements[machine]
    held = state.placed[machine]
    del held[name]
    if not held:
        del state.placed[machine]


def _forget_destroyed(control: "Control", name: str, *, lost_too: bool = False) -> None:
    """Forget a destroyed unit when no machine has it any more. ``lost_too``: or only machines that are lost."""
    unit = control.units.units.get(name)
    if unit is None or not unit.destroyed or control.units.fences.get(name):
        return
    if not _running(control, name, alive=lost_too):
        del control.units.units[name]
        control.engines.runs.pop(name, None)
