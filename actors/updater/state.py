"""Versions and what each machine runs: the ``update`` part of the control fold.

An order is a command to machines; a machine has one at a time, a newer one replaces it. Its updater answers with facts
whose ``cause`` is the order's position; a fact with another cause tells what is so but ends no order.

    ordered ─► staged ─► switched ─► healthy          (stage ends at staged)
        └────────┴─► failed: the old version runs on
                            switched ─► rolledback: unhealthy, the version before runs again
"""

from typing import TYPE_CHECKING, Any

import msgspec

from actors.updater.manifest import is_hash, version_fault
from streams.events import update as says
from streams.events.base import Event
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control

#: The actor that says a machine's facts.
SPEAKER = "updater"
NOT_OWN = Rejected("not-own", "a machine's facts are said by its own updater only")


class Version(msgspec.Struct, frozen=True):
    version: str
    tree: str
    files: int
    size_bytes: int
    health: str = ""
    health_timeout_ms: int = 30000
    gateways: list[str] = []
    machine: str = ""
    at: str = ""


class Installed(msgspec.Struct):
    """One machine. ``wanted``, ``order_at``: the last order to it and its position; ``order`` is empty when it is done.

    ``state``: empty, ordered, staged, switched, healthy, rolledback or failed; ``detail`` says why.
    ``checking``: it runs ``running`` and its health isn't known yet. ``previous`` ran before ``running``, ``earlier``
    before ``previous``. ``collect_at``: a gc is wanted that keeps ``keep`` versions.
    """

    running: str = ""
    previous: str = ""
    earlier: str = ""
    state: str = ""
    detail: str = ""
    checking: bool = False
    staged: list[str] = []
    pinned: list[str] = []
    wanted: str = ""
    order: str = ""
    order_at: str = ""
    collect_at: str = ""
    keep: int = 3


class UpdateState(msgspec.Struct):
    versions: dict[str, Version] = {}
    machines: dict[str, Installed] = {}


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    """Apply one event of the stream ``update``."""
    match event.data:
        case says.Publish():
            return _publish(control.updates, event, event.data, context)
        case says.Stage() | says.Switch() | says.Rollback():
            return _order(control, event, event.data, context)
        case says.Pin():
            return _pin(control, event, event.data)
        case says.Collect():
            return _collect(control, event.data, context)
        case _:
            return _fact(control.updates, event, context)


def _publish(updates: UpdateState, event: Event, said: says.Publish, context: Context) -> Outcome:
    version = event.subject
    if fault := version_fault(version):
        return Rejected("bad-version", fault)
    if not is_hash(said.tree):
        return Rejected("bad-tree", f"{said.tree[:80]!r} is not a SHA-256 in lower-case hex")
    if said.files < 0 or said.size_bytes < 0 or said.health_timeout_ms <= 0:
        return Rejected("bad-version", "files and size can't be negative, the health time-out must be above 0")
    known = updates.versions.get(version)
    if known is not None and known.tree != said.tree:
        return Rejected("version-exists", f"version {version} is another tree already; a version never changes")
    fields: dict[str, Any] = {name: getattr(said, name) for name in said.__struct_fields__}
    if known is not None:
        # the same tree once more: another place to fetch it from, or another health command
        fields["gateways"] = list(dict.fromkeys([*known.gateways, *said.gateways]))
        fields["machine"] = known.machine
    updates.versions[version] = Version(version=version, at=known.at if known else str(context.position), **fields)
    return Accepted({"version": version, "tree": said.tree})


def _targets(control: "Control", machines: list[str]) -> list[str] | Rejected:
    """The machines that a command means, each once: all that have joined (lost ones do it when they are back)."""
    known = control.cluster.machines
    if unknown := [machine for machine in machines if machine not in known]:
        return Rejected("unknown-machine", f"not joined: {', '.join(unknown)}", {"machines": unknown})
    targets = list(dict.fromkeys(machines)) or sorted(known)
    return targets or Rejected("no-machine", "no machine has joined")


def _installed(updates: UpdateState, machine: str) -> Installed:
    return updates.machines.setdefault(machine, Installed())


def _order(control: "Control", event: Event, said: Any, context: Context) -> Outcome:
    updates = control.updates
    back = isinstance(said, says.Rollback)
    if not back and event.subject not in updates.versions:
        return Rejected("unknown-version", f"no version {event.subject!r} is published")
    targets = _targets(control, said.machines)
    if isinstance(targets, Rejected):
        return targets
    goals = {m: updates.machines.get(m, Installed()).previous if back else event.subject for m in targets}
    if nowhere := [machine for machine, goal in goals.items() if not goal]:
        if said.machines or len(nowhere) == len(targets):
            return Rejected("no-previous", f"ran nothing before: {', '.join(nowhere)}", {"machines": nowhere})
        goals = {machine: goal for machine, goal in goals.items() if goal}
    pinned = [] if isinstance(said, says.Stage) else [m for m in goals if _is_pinned(updates, m, goals[m])]
    if pinned and (said.machines or len(pinned) == len(goals)):
        return Rejected(
            "pinned", f"what runs is pinned on {', '.join(pinned)}; `corelog update unpin` it", {"machines": pinned}
        )
    given: list[str] = []
    already: list[str] = []
    for machine, goal in goals.items():
        if machine not in pinned:
            installed = _installed(updates, machine)
            (already if _give(installed, type(said).__name__.lower(), goal, context) else given).append(machine)
    return Accepted({"machines": given, "already": already, "pinned": pinned})


def _is_pinned(updates: UpdateState, machine: str, goal: str) -> bool:
    installed = updates.machines.get(machine)
    return installed is not None and installed.running in installed.pinned and installed.running != goal


def _give(installed: Installed, order: str, goal: str, context: Context) -> bool:
    """Put an order; True if the machine has nothing to do: it runs that version, healthy."""
    installed.wanted, installed.order_at, installed.detail = goal, str(context.position), ""
    if order != "stage" and installed.running == goal and not installed.checking:
        installed.order, installed.state = "", "healthy"
        return True
    installed.order, installed.state = order, "ordered"
    return False


def _pin(control: "Control", event: Event, said: says.Pin) -> Outcome:
    if event.subject not in control.updates.versions:
        return Rejected("unknown-version", f"no version {event.subject!r} is published")
    targets = _targets(control, said.machines)
    if isinstance(targets, Rejected):
        return targets
    for machine in targets:
        installed = _installed(control.updates, machine)
        rest = [version for version in installed.pinned if version != event.subject]
        installed.pinned = sorted([*rest, event.subject]) if said.pinned else rest
    return Accepted({"machines": targets})


def _collect(control: "Control", said: says.Collect, context: Context) -> Outcome:
    if said.keep < 0:
        return Rejected("bad-keep", f"can't keep {said.keep} versions")
    targets = _targets(control, said.machines)
    if isinstance(targets, Rejected):
        return targets
    for machine in targets:
        installed = _installed(control.updates, machine)
        installed.collect_at, installed.keep = str(context.position), said.keep
    return Accepted({"machines": targets})


def _fact(updates: UpdateState, event: Event, context: Context) -> Outcome:
    data, version = event.data, event.subject
    if data.machine != context.record.machine or context.record.actor != SPEAKER:
        return NOT_OWN
    installed = _installed(updates, data.machine)
    answers = bool(event.cause) and event.cause == installed.order_at
    match data:
        case says.Staged():
            installed.staged = sorted({*installed.staged, version})
            _end(installed, answers, "staged", data.detail, ended=installed.order == "stage")
        case says.Switched():
            if version != installed.running:
                installed.earlier, installed.previous = installed.previous, installed.running
            installed.running, installed.checking = version, True
            _end(installed, answers or not installed.order, "switched", data.detail, ended=False)
        case says.Healthy():
            if version != installed.running:
                return Rejected("not-running", f"{installed.running or 'nothing'} runs")
            installed.checking = False
            _end(installed, answers or not installed.order, "healthy", data.detail)
        case says.RolledBack():
            if version != installed.running:
                return Rejected("not-running", f"{installed.running or 'nothing'} runs")
            installed.running, installed.previous, installed.earlier = data.previous, installed.earlier, ""
            installed.checking = False
            _end(installed, answers or not installed.order, "rolledback", data.detail)
        case says.Failed():
            installed.staged = [kept for kept in installed.staged if kept != version or data.step != "verify"]
            _end(installed, answers, "failed", f"{data.step}: {data.detail}")
        case says.Collected():
            installed.staged = [kept for kept in installed.staged if kept not in data.versions]
            if event.cause == installed.collect_at:
                installed.collect_at = ""
    return DONE


def _end(installed: Installed, answers: bool, state: str, detail: str, *, ended: bool = True) -> None:
    """The state that people see moves with facts of the order under way; an order given since keeps its own."""
    if answers:
        installed.state, installed.detail = state, detail
        if ended:
            installed.order = ""
