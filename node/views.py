"""What people ask to see of the control state, as plain rows. Pure: ``(control, …) -> JSON data``."""

from typing import Any

import msgspec

from actors.control import Control
from actors.coordination.state import Machine
from actors.engine.state import Run
from actors.scheduler.state import Unit
from streams.replay import Replica

Row = dict[str, Any]


def machine_name(control: Control, machine: str) -> str:
    """The name people gave it, else the first 8 digits of its id."""
    found = control.cluster.machines.get(machine)
    return found.name if found is not None and found.name else machine[:8]


def machine_row(control: Control, machine: Machine) -> Row:
    election = control.cluster.election
    units = sorted(name for name, unit in control.units.units.items() if machine.id in unit.placements)
    state = "alive" if machine.alive else "left" if machine.left else "lost"
    return {
        "id": machine.id,
        "name": machine.name,
        "state": state,
        "drained": machine.drained,
        "master": election.holder == machine.id,
        "gateway": machine.gateway,
        "version": machine.version,
        "metadata": dict(machine.metadata),
        "cpu_millis": machine.cpu_millis,
        "memory_bytes": machine.memory_bytes,
        "generation": machine.generation,
        "seen_at": machine.seen_at,
        "units": units,
    }


def unit_row(control: Control, unit: Unit) -> Row:
    """One unit with its placements; ``state`` is the worst of its runs, ``reason`` why it is where (or isn't) it is."""
    runs = control.engines.runs.get(unit.name, {})
    placements = [
        {
            "machine": machine,
            "name": machine_name(control, machine),
            "fence": placement.fence,
            "reason": placement.reason,
            "at": placement.at,
            **run_row(runs.get(machine), placement.fence),
        }
        for machine, placement in unit.placements.items()
    ]
    states = [placement["state"] for placement in placements]
    if placements:
        state = next((one for one in _WORST_FIRST if one in states), "inactive")
        reason = placements[0]["detail"] or placements[0]["reason"]
    else:
        state, reason = ("waiting", unit.waiting) if unit.desired != "inactive" else ("inactive", "")
    return {
        "name": unit.name,
        "desired": unit.desired,
        "state": state,
        "reason": reason,
        "machine": placements[0]["machine"] if placements else "",
        "machine_name": placements[0]["name"] if placements else "",
        "generation": unit.generation,
        "placements": placements,
        "waiting_machines": {machine_name(control, one): why for one, why in unit.waiting_machines.items()},
        "content": unit.content,
    }


_WORST_FIRST = ("failed", "exited", "placed", "loaded", "started", "ready", "stopped")


def run_row(run: Run | None, fence: int) -> Row:
    """What the engine said of a placement; ``placed`` while it said nothing of this fence yet."""
    if run is None or run.fence < fence:
        return {"state": "placed", "pid": 0, "container": "", "restarts": 0, "detail": ""}
    return {
        "state": run.state,
        "pid": run.pid,
        "container": run.container,
        "restarts": run.restarts,
        "detail": run.detail,
    }


def version_rows(control: Control) -> list[Row]:
    """Published versions, and on which machines each is staged or runs."""
    rows = []
    for version in control.updates.versions.values():
        machines = control.updates.machines
        rows.append(
            {
                **msgspec.to_builtins(version),
                "running": sorted(
                    machine_name(control, m) for m, i in machines.items() if i.running == version.version
                ),
                "staged": sorted(machine_name(control, m) for m, i in machines.items() if version.version in i.staged),
                "pinned": sorted(machine_name(control, m) for m, i in machines.items() if version.version in i.pinned),
            }
        )
    return rows


def update_status(control: Control) -> list[Row]:
    return [
        {"machine": machine, "name": machine_name(control, machine), **msgspec.to_builtins(installed)}
        for machine, installed in control.updates.machines.items()
    ]


def cluster_row(replica: Replica, control: Control, log_address: str) -> Row:
    election, log = control.cluster.election, replica.log
    machines = control.cluster.machines.values()
    return {
        "log": log_address,
        "log_id": log.log_id,
        "position": str(replica.offset),
        "level": log.level,
        "term": election.term,
        "master": election.holder,
        "master_name": machine_name(control, election.holder) if election.holder else "",
        "machines": len(control.cluster.machines),
        "alive": sum(machine.alive for machine in machines),
        "units": len(control.units.units),
        "running": sum(
            run.state in ("started", "ready") for runs in control.engines.runs.values() for run in runs.values()
        ),
        "sealed": log.sealed_next if log.sealed_at >= 0 else "",
        "foreign": log.foreign,
        "void": log.void_incarnations + log.void_terms + sum(opened.repeats for opened in log.writers.values()),
        "chain": log.chain.hex(),
    }


def resolve_machine(control: Control, text: str) -> str:
    """A machine's id from its id, a unique prefix (4 digits or more) or its name. Raises KeyError with the choices."""
    machines = control.cluster.machines
    if text in machines:
        return text
    matches = [m.id for m in machines.values() if m.name == text or (len(text) >= 4 and m.id.startswith(text))]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(machine_name(control, machine) for machine in machines) or "none"
    what = "is not one of the machines" if not matches else "means more than one machine"
    raise KeyError(f"{text!r} {what}; known: {known}")
