"""Machines and the election: the ``cluster`` part of the control fold.

A machine's life:

    joined ──► alive ──left──► gone          seen: extends its life and its right to fenced units, only while alive
                 │  ▲
               lost │ joined again           lost: the master's word, void where the machine was seen since
                 ▼  │
                 lost ──removed──► forgotten (its generation is remembered: it never counts back)

A live machine can be replaced only by a join that names its nonce (compare and set): of two nodes with one machine id
at most one wins, and the other learns it at its own record.
"""

from typing import TYPE_CHECKING

import msgspec

from actors.coordination import election, lives, membership
from actors.coordination.election import Election
from actors.coordination.membership import Members
from streams.events import cluster as says
from streams.events.base import Event
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control


class Machine(msgspec.Struct):
    """``generation`` counts joins, losses, drains and metadata changes: a placement names the one it was decided at.

    ``alive``: joined and neither lost nor left. ``seen_at``: position of its last renewal; ``seen_ms``: its own
    boot-time clock at the sending of it (only for processes of that machine, of the start named by ``nonce``).
    ``labels``: what operators set (null: removed) over the metadata of its joins; ``metadata`` is the sum of both.
    """

    id: str
    nonce: str
    boot_id: str
    name: str = ""
    version: str = ""
    level: int = 1
    gateway: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    metadata: dict[str, str] = {}
    labels: dict[str, str | None] = {}
    control: bool = True
    generation: int = 1
    alive: bool = True
    drained: bool = False
    left: bool = False
    seen_at: str = ""
    seen_ms: int = 0
    joined_at: str = ""
    lost_at: str = ""


class ClusterState(msgspec.Struct):
    """``withheld``: machines that vanished together with many others, by the position that said so: they count as
    alive, nothing is moved away from them. ``removed``: the last generation of machines that were removed."""

    election: Election = msgspec.field(default_factory=Election)
    machines: dict[str, Machine] = {}
    withheld: dict[str, str] = {}
    removed: dict[str, int] = {}
    membership: Members = msgspec.UNSET


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    """Apply one event of the stream ``cluster``. Raises Diverged (a renewal quotes another chain than ours)."""
    cluster = control.cluster
    outcome = election.evolve(cluster.election, event, context)
    if outcome is not None:
        return outcome
    changed = membership.evolve(cluster.membership, _controls(cluster), event, context)
    if changed is not None:
        outcome, cluster.membership = changed
        return outcome
    match event.data:
        case says.MachineSeen():
            return _seen(cluster, event, event.data, context)
        case says.MachineJoined():
            return _joined(cluster, event, event.data, context)
        case says.MachineLeft():
            return _left(cluster, event, event.data, context)
        case says.MachineLost():
            return _lost(cluster, event, event.data, context)
        case says.MachinesWithheld():
            return _withheld(cluster, event, event.data, context)
        case says.MachineRemoved():
            return _removed(cluster, event)
        case says.MasterAsked():
            return _asked(cluster, event)
        case says.MachineLabelled():
            return _labelled(cluster, event, event.data)
        case says.MachineDrain():
            return _drain(cluster, event, event.data)
    raise NotImplementedError(f"no rule for {event.type}")


def _controls(cluster: ClusterState) -> list[str]:
    return [name for name, machine in cluster.machines.items() if machine.control]


def _seen(cluster: ClusterState, event: Event, data: says.MachineSeen, context: Context) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if (refused := lives.seen(machine, event, data, context)) is not None:
        return refused
    assert machine is not None
    machine.seen_at, machine.seen_ms = str(context.position), data.sent_ms
    cluster.withheld.pop(event.subject, None)
    return DONE


def _joined(cluster: ClusterState, event: Event, data: says.MachineJoined, context: Context) -> Outcome:
    if (refused := lives.speaks_for(event, context)) is not None:
        return refused
    old = cluster.machines.get(event.subject)
    if old is not None and lives.is_duplicate(old, data):
        return Rejected(
            "duplicate-machine",
            f"a live node of machine {event.subject} ({old.name or 'no name'}) has joined at {old.joined_at}; "
            "give this node another data folder, or stop the other one",
            {"joined_at": old.joined_at, "name": old.name},
        )
    if membership.is_removed(cluster.membership, event.subject):
        return Rejected(
            "removed-member",
            f"machine {event.subject} was removed from the cluster for good; give its node another data folder to "
            "join as a new one",
        )
    cluster.membership = membership.joined(cluster.membership, _controls(cluster), event.subject, data)
    at = str(context.position)
    labels = dict(old.labels) if old else {}
    generation = (old.generation if old else cluster.removed.pop(event.subject, 0)) + 1
    new = Machine(
        id=event.subject,
        nonce=data.nonce,
        boot_id=data.boot_id,
        name=data.name,
        version=data.version,
        level=data.level,
        gateway=data.gateway,
        cpu_millis=data.cpu_millis,
        memory_bytes=data.memory_bytes,
        metadata=_labelled_metadata(data.metadata, labels),
        labels=labels,
        control=data.control,
        generation=generation,
        drained=old.drained if old else False,
        seen_at=at,
        seen_ms=data.sent_ms,
        joined_at=at,
        lost_at=old.lost_at if old else "",
    )
    cluster.machines[event.subject] = new
    cluster.withheld.pop(event.subject, None)
    return Accepted({"generation": generation})


def _left(cluster: ClusterState, event: Event, data: says.MachineLeft, context: Context) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if (refused := lives.left(machine, event, context)) is not None:
        return refused
    assert machine is not None
    cluster.withheld.pop(event.subject, None)
    if data.returning:
        return DONE  # its units run on; it has a TTL from now to come back
    machine.alive, machine.left = False, True
    machine.generation += 1
    return DONE


def _lost(cluster: ClusterState, event: Event, data: says.MachineLost, context: Context) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if (refused := lives.lost(machine, event, data)) is not None:
        return refused
    assert machine is not None
    machine.alive, machine.lost_at = False, str(context.position)
    machine.generation += 1
    cluster.withheld.pop(event.subject, None)
    return Accepted({"generation": machine.generation})


def _withheld(cluster: ClusterState, event: Event, data: says.MachinesWithheld, context: Context) -> Outcome:
    if not event.term:
        return lives.NOT_THE_MASTER
    fresh = [
        machine.id
        for name in data.machines
        if (machine := cluster.machines.get(name)) is not None and machine.alive and name not in cluster.withheld
    ]
    if not fresh:
        return Rejected("nothing-new", "all of these are withheld already, or not alive")
    for name in fresh:
        cluster.withheld[name] = str(context.position)
    return Accepted({"machines": fresh})


def _asked(cluster: ClusterState, event: Event) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if machine is None:
        return lives.unknown(event.subject)
    if not (machine.alive and machine.control):
        return Rejected("not-a-candidate", f"machine {event.subject} can't become master: not alive, or control is off")
    return DONE


def _removed(cluster: ClusterState, event: Event) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if (refused := lives.removed(machine, event, event.subject in cluster.withheld)) is not None:
        return refused
    assert machine is not None
    del cluster.machines[event.subject]
    cluster.withheld.pop(event.subject, None)
    cluster.removed[event.subject] = machine.generation + 1
    membership.forget(cluster.membership, event.subject)
    return DONE


def _labelled(cluster: ClusterState, event: Event, data: says.MachineLabelled) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if machine is None:
        return lives.unknown(event.subject)
    labels = {**machine.labels, **data.metadata}
    metadata = _labelled_metadata(machine.metadata, labels)
    machine.labels = labels
    if metadata != machine.metadata:
        machine.metadata = metadata
        machine.generation += 1
    return Accepted({"metadata": dict(metadata)})


def _labelled_metadata(metadata: dict[str, str], labels: dict[str, str | None]) -> dict[str, str]:
    merged = {**metadata, **{key: value for key, value in labels.items() if value is not None}}
    return {key: merged[key] for key in sorted(merged) if labels.get(key, "") is not None}


def _drain(cluster: ClusterState, event: Event, data: says.MachineDrain) -> Outcome:
    machine = cluster.machines.get(event.subject)
    if machine is None:
        return lives.unknown(event.subject)
    if machine.drained != data.drain:
        machine.drained = data.drain
        machine.generation += 1
    return Accepted({"drained": data.drain})
