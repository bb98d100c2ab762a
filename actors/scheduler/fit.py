"""Whether a unit fits a machine, and if not why: the one rule that the scheduler decides by and ``evolve`` checks by.

A reason is ``kind: details``. Kinds: lost, left, withheld, drained, machine-id, metadata, machine-of, conflict, port,
cpu, memory, fence.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from actors.coordination.state import Machine
from actors.scheduler import glob
from actors.scheduler.unitfile import UnitFile, cached

if TYPE_CHECKING:
    from actors.control import Control


class Needs(msgspec.Struct, frozen=True, gc=False):
    """What a placement takes of its machine, as of the content that was placed. Nought isn't counted."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    ports: tuple[tuple[int, str], ...] = ()


def needs_of(spec: UnitFile) -> Needs:
    return Needs(spec.cpu_millis, spec.memory_bytes, spec.ports)


class Host:
    """A machine with what is placed on it, summed up. ``picky``: the patterns of units that others must keep off."""

    __slots__ = ("cpu_millis", "machine", "memory_bytes", "picky", "ports", "units", "withheld")

    def __init__(self, machine: Machine, withheld: bool = False) -> None:
        self.machine = machine
        self.withheld = withheld
        self.units: dict[str, Needs] = {}
        self.ports: dict[tuple[int, str], str] = {}
        self.picky: dict[str, tuple[str, ...]] = {}
        self.cpu_millis = 0
        self.memory_bytes = 0

    def add(self, name: str, needs: Needs, spec: UnitFile | None) -> None:
        """``spec`` None: the unit's content is gone; only what it takes counts."""
        self.remove(name)
        self.units[name] = needs
        self.cpu_millis += needs.cpu_millis
        self.memory_bytes += needs.memory_bytes
        for port in needs.ports:
            self.ports[port] = name
        patterns = spec.fleet.conflicts + spec.fleet.replaces if spec is not None else ()
        if patterns:
            self.picky[name] = patterns

    def remove(self, name: str) -> None:
        needs = self.units.pop(name, None)
        if needs is None:
            return
        self.cpu_millis -= needs.cpu_millis
        self.memory_bytes -= needs.memory_bytes
        for port in needs.ports:
            if self.ports.get(port) == name:
                del self.ports[port]
        self.picky.pop(name, None)

    def load(self) -> tuple[int, int, str]:
        """What "least loaded" compares: the larger share of CPU and memory in thousandths, the units, the id."""
        machine = self.machine
        cpu = self.cpu_millis * 1000 // machine.cpu_millis if machine.cpu_millis else 0
        memory = self.memory_bytes * 1000 // machine.memory_bytes if machine.memory_bytes else 0
        return max(cpu, memory), len(self.units), machine.id


def host_of(control: "Control", machine: Machine, without: str = "") -> Host:
    """``machine`` as the state has it, leaving out one unit."""
    host = Host(machine, machine.id in control.cluster.withheld)
    for name, needs in control.units.placed.get(machine.id, {}).items():
        if name != without:
            unit = control.units.units.get(name)
            host.add(name, needs, cached(name, unit.content) if unit is not None else None)
    return host


def kind_of(why: str) -> str:
    return why.partition(":")[0]


def stays_same(old: str, new: str) -> bool:
    """Whether two reasons say the same but for amounts, which change with every other placement."""
    return old == new or (kind_of(old) == kind_of(new) and kind_of(new) in ("cpu", "memory"))


#: Kinds that say what others have taken.
_TAKEN = ("conflict", "port", "cpu", "memory")


def still_holds(old: str, new: str, spec: UnitFile, host: Host | None) -> bool:
    """Whether the reason that was given before is as good as the new one: there may be several, and each is enough."""
    if old == new:
        return True
    kind = kind_of(old)
    if host is None or kind not in _TAKEN or kind_of(new) not in _TAKEN:
        return False
    match kind:
        case "conflict":
            return old.split(" ")[1] in host.units
        case "port":
            return old.rpartition(" ")[2] in host.units
        case "cpu":
            return host.cpu_millis + spec.cpu_millis > host.machine.cpu_millis
        case _:
            return host.memory_bytes + spec.memory_bytes > host.machine.memory_bytes


def why_not(name: str, spec: UnitFile, host: Host, ignoring: Collection[str] = ()) -> str:
    """Why the unit can't be placed on the host, empty if it can. Units in ``ignoring`` are taken as gone."""
    return unusable(host) or misplaced(spec, host) or crowded(name, spec, host, ignoring)


def unusable(host: Host) -> str:
    """Why no unit may be placed there."""
    machine = host.machine
    if not machine.alive:
        return "left: the machine's node was stopped" if machine.left else f"lost: not seen since {machine.seen_at}"
    if host.withheld:
        return "withheld: not seen, together with many other machines"
    if machine.drained:
        return "drained: by an operator"
    return ""


def misplaced(spec: UnitFile, host: Host) -> str:
    """Why the unit's own choice of machines leaves this one out."""
    machine, fleet = host.machine, spec.fleet
    if fleet.machine_id and not machine.id.startswith(fleet.machine_id):
        return f"machine-id: the unit asks for {fleet.machine_id}"
    for key, values in fleet.metadata:
        if machine.metadata.get(key) not in values:
            have = machine.metadata.get(key)
            return f"metadata: {key} is {have or 'not set'}, the unit asks for {' or '.join(values)}"
    for peer in fleet.machine_of:
        if peer not in host.units:
            return f"machine-of: {peer} is not here"
    return ""


def crowded(name: str, spec: UnitFile, host: Host, ignoring: Collection[str] = ()) -> str:
    """Why what is placed there already leaves no room for the unit."""
    if (other := enemy(name, spec, host, ignoring)) is not None:
        return f"conflict: {other} is here"
    for port in spec.ports:
        holder = host.ports.get(port)
        if holder is not None and holder != name and holder not in ignoring:
            return f"port: {port[0]}/{port[1]} is taken by {holder}"
    return _resources(name, spec, host, ignoring)


def enemy(name: str, spec: UnitFile, host: Host, ignoring: Collection[str] = ()) -> str | None:
    """A unit there (the first by name) that may not share a machine with this one, by Conflicts or Replaces of
    either."""
    found: list[str] = []
    for pattern in spec.fleet.conflicts + spec.fleet.replaces:
        if glob.is_plain(pattern):
            found += [pattern] if pattern in host.units else []
        else:
            found += [other for other in host.units if glob.matches(pattern, other)]
    for other, patterns in host.picky.items():
        if any(glob.matches(pattern, name) for pattern in patterns):
            found.append(other)
    return min((other for other in found if other != name and other not in ignoring), default=None)


def _resources(name: str, spec: UnitFile, host: Host, ignoring: Collection[str]) -> str:
    machine = host.machine
    leaving = [host.units[other] for other in (name, *ignoring) if other in host.units]
    if spec.cpu_millis and machine.cpu_millis:
        free = machine.cpu_millis - host.cpu_millis + sum(needs.cpu_millis for needs in leaving)
        if spec.cpu_millis > free:
            return f"cpu: needs {spec.cpu_millis}m, {max(0, free)}m of {machine.cpu_millis}m is free"
    if spec.memory_bytes and machine.memory_bytes:
        free = machine.memory_bytes - host.memory_bytes + sum(needs.memory_bytes for needs in leaving)
        if spec.memory_bytes > free:
            total = _mib(machine.memory_bytes)
            return f"memory: needs {_mib(spec.memory_bytes)} MiB, {_mib(max(0, free))} of {total} MiB is free"
    return ""


def _mib(size_bytes: int) -> str:
    whole, rest = divmod(size_bytes, 1024 * 1024)
    return str(whole) if not rest else f"{whole}.{rest * 10 // (1024 * 1024)}"
