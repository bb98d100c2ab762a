"""What the scheduler knows of machines and units in a form made for deciding: sums, orders and indexes.

All of it is derived from the control state, and brought up to date by what was noted as changed, so that one change in
a large cluster costs little. A view that starts anew marks everything: it decides the same (a property in the tests).
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from actors.scheduler import glob
from actors.scheduler.fit import Host, needs_of, stays_same, unusable, why_not
from actors.scheduler.state import Unit
from actors.scheduler.unitfile import UnitFile
from actors.scheduler.verdict import NAMED_MAX
from streams.events import cluster as of_cluster
from streams.events import engine as of_engine
from streams.events import unit as of_unit
from streams.outcomes import Rejected
from streams.replay import Applied

if TYPE_CHECKING:
    from actors.control import Control


class Cause(NamedTuple):
    """Why something is looked at: the position of the event, and the command that started it all."""

    position: str = ""
    correlation: str = ""


NO_CAUSE = Cause()
Load = tuple[int, int, str]


class View:
    """``hosts`` holds every machine, ``order`` the usable ones with the least loaded first.

    ``at``: where each unit is, as far as decided in the round that is going on.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.order: list[Load] = []
        self.at: dict[str, dict[str, int]] = {}
        self.specs: dict[str, UnitFile] = {}
        self.followers: dict[str, dict[str, None]] = {}
        self.globals: dict[str, None] = {}
        self.replacers: dict[str, None] = {}
        self.destroyed: dict[str, None] = {}
        #: active units that were left unplaced, or where they shouldn't be, and why not on which machine
        self.unsettled: dict[str, dict[str, str]] = {}
        self.dirty: dict[str, Cause] = {}
        #: machines that global units are to be looked at for
        self.dirty_globals: dict[str, dict[str, Cause]] = {}
        self._loads: dict[str, Load] = {}
        self._keys: dict[str, tuple[object, ...]] = {}
        self._changed_machines: dict[str, Cause] = {}
        self._machines_changed = NO_CAUSE
        self._look_at_machines = True
        self._touched: dict[str, None] = {}
        #: machines that got room by what the last round decided
        self._freed: dict[str, Cause] = {}
        self._all = True

    # -- noting what changed ----------------------------------------------------------------------------------

    def note(self, applied: Applied) -> None:
        """An event was applied. Call for each one, also in replay and on machines that don't hold the term."""
        event, data, refused = applied.event, applied.event.data, isinstance(applied.outcome, Rejected)
        match data.STREAM:
            case "unit":
                if not isinstance(data, of_unit.Waiting) or refused:
                    self.dirty[event.subject] = Cause(str(applied.position), event.correlation)
            case "engine":
                if isinstance(data, of_engine.Stopped) and not refused:
                    self.dirty[event.subject] = Cause(str(applied.position), event.correlation)
            case "cluster" if not refused:
                self._note_machine(applied)

    def _note_machine(self, applied: Applied) -> None:
        data, machine = applied.event.data, applied.event.subject
        if isinstance(data, of_cluster.Claim | of_cluster.Renew | of_cluster.Resign):
            return
        host = self.hosts.get(machine)
        if isinstance(data, of_cluster.MachineSeen) and (host is None or not host.withheld):
            return
        self._machines_changed = Cause(str(applied.position), applied.event.correlation)
        if machine:
            self._changed_machines[machine] = self._machines_changed
        self._look_at_machines = True

    def mark_all(self) -> None:
        """Forget what was derived: everything is looked at again."""
        self.__init__()  # type: ignore[misc]

    # -- bringing up to date ----------------------------------------------------------------------------------

    def refresh(self, control: "Control") -> None:
        """Take over what changed in ``control``, and mark what may have to be decided anew."""
        if self._all:
            self._all = False
            self.dirty = {name: self.dirty.get(name, NO_CAUSE) for name in control.units.units} | self.dirty
        freed, self._freed = self._freed, {}
        if self._look_at_machines:
            self._refresh_machines(control, freed)
        for name in [*self._touched, *self.dirty]:
            self._sync(control, name, freed)
        self._touched.clear()
        for machine, cause in freed.items():
            self._room_at(machine, cause)

    def spread(self) -> None:
        """Mark who may use the room that this round's decisions have made."""
        freed, self._freed = self._freed, {}
        for machine, cause in freed.items():
            self._room_at(machine, cause)

    def _refresh_machines(self, control: "Control", freed: dict[str, Cause]) -> None:
        machines, withheld = control.cluster.machines, control.cluster.withheld
        for machine in [one for one in self.hosts if one not in machines]:
            self._set_order(machine, None)
            host = self.hosts.pop(machine)
            self._keys.pop(machine, None)
            self._mark(host.units, self._changed_machines.get(machine, self._machines_changed))
            for name in [*self.globals, *self.unsettled]:
                self.dirty.setdefault(name, self._machines_changed)
        for machine, state in machines.items():
            key = (state.generation, state.alive, state.drained, machine in withheld)
            if self._keys.get(machine) == key:
                continue
            cause = self._changed_machines.get(machine, self._machines_changed)
            self._keys[machine] = key
            old = self.hosts.get(machine)
            host = self.hosts[machine] = Host(state, machine in withheld)
            for name, needs in (old.units if old is not None else {}).items():
                host.add(name, needs, self.specs.get(name))
            self._set_order(machine, host)
            self._mark(host.units, cause)
            self._mark(self.destroyed, cause)
            freed[machine] = cause
        self._look_at_machines = False
        self._changed_machines.clear()

    def _mark(self, names: Iterable[str], cause: Cause) -> None:
        for name in names:
            self.dirty.setdefault(name, cause)

    def _set_order(self, machine: str, host: Host | None) -> None:
        old = self._loads.pop(machine, None)
        if old is not None:
            del self.order[bisect_left(self.order, old)]
        if host is not None and not unusable(host):
            self._loads[machine] = host.load()
            insort(self.order, self._loads[machine])

    def _sync(self, control: "Control", name: str, freed: dict[str, Cause]) -> None:
        """Take a unit over as the state has it: its indexes, and the machines it is on."""
        unit = control.units.units.get(name)
        spec = unit.spec if unit is not None else None
        other_content = self.specs.get(name) is not spec
        if other_content or (unit is not None and unit.destroyed) or name in self.destroyed:
            self._index(name, unit, spec)
        before = self.at.get(name, {})
        after = {machine: p.generation for machine, p in unit.placements.items()} if unit is not None else {}
        for machine in {**before, **after}:
            host = self.hosts.get(machine)
            if host is None:
                continue
            needs = control.units.placed.get(machine, {}).get(name)
            if needs is None:
                host.remove(name)
                freed.setdefault(machine, self.dirty.get(name, NO_CAUSE))
            else:
                other_needs = host.units.get(name, needs) != needs
                host.add(name, needs, spec)
                if other_content or other_needs:
                    freed.setdefault(machine, self.dirty.get(name, NO_CAUSE))
            self._set_order(machine, host)
        for follower in self.followers.get(name, ()):
            if before.keys() != after.keys() or follower in self.unsettled:
                self.dirty.setdefault(follower, self.dirty.get(name, NO_CAUSE))
        if after:
            self.at[name] = after
        else:
            self.at.pop(name, None)
        if unit is None or unit.desired == "inactive":
            self.unsettled.pop(name, None)

    def _index(self, name: str, unit: Unit | None, spec: UnitFile | None) -> None:
        old = self.specs.pop(name, None)
        if old is not None:
            for peer in old.fleet.machine_of:
                self.followers.get(peer, {}).pop(name, None)
        for index in (self.globals, self.replacers, self.destroyed):
            index.pop(name, None)
        if unit is None or spec is None:
            return
        if unit.destroyed:
            self.destroyed[name] = None
            return
        self.specs[name] = spec
        for peer in spec.fleet.machine_of:
            self.followers.setdefault(peer, {})[name] = None
        if spec.fleet.is_global and not spec.name.is_template:
            self.globals[name] = None
        if spec.fleet.replaces:
            self.replacers[name] = None

    def _room_at(self, machine: str, cause: Cause) -> None:
        """A machine came, changed, or has more room: who waits may go there; who waits no more for it says so."""
        host = self.hosts.get(machine)
        if host is None:
            return
        for name in self.globals:
            self.dirty_globals.setdefault(name, {}).setdefault(machine, cause)
        for name, known in self.unsettled.items():
            spec = self.specs.get(name)
            if spec is None or name in self.dirty:
                continue
            why = why_not(name, spec, host)
            # of many machines only some are named: why not another one is no news
            told = stays_same(known.get(machine, ""), why) or (machine not in known and len(known) >= NAMED_MAX)
            if not why or spec.fleet.replaces or not told:
                self.dirty[name] = cause

    # -- within a round ---------------------------------------------------------------------------------------

    def put(self, name: str, machine: str, generation: int, spec: UnitFile, cause: Cause) -> None:
        """Reckon with a placement that was just decided."""
        self.at.setdefault(name, {})[machine] = generation
        host = self.hosts[machine]
        if name in host.units:
            self._freed.setdefault(machine, cause)  # its new content may need less
        host.add(name, needs_of(spec), spec)
        self._set_order(machine, host)
        self._touched[name] = None

    def take(self, name: str, machine: str, cause: Cause) -> None:
        """Reckon with the end of a placement."""
        self._freed.setdefault(machine, cause)
        self.at.get(name, {}).pop(machine, None)
        host = self.hosts.get(machine)
        if host is not None:
            host.remove(name)
            self._set_order(machine, host)
        self._touched[name] = None

    def matched(self, name: str, spec: UnitFile) -> Iterator[tuple[str, str]]:
        """(unit, machine) of placed units that ``name`` replaces; not those that replace it, directly or by others:
        they would drive each other round for ever."""
        for pattern in spec.fleet.replaces:
            for other in [pattern] if glob.is_plain(pattern) else list(self.at):
                there = self.specs.get(other)
                if other == name or there is None or there.fleet.is_global or not glob.matches(pattern, other):
                    continue
                if not self._replaces(other, name):
                    for machine in self.at.get(other, ()):
                        yield other, machine

    def _replaces(self, name: str, target: str) -> bool:
        """Whether ``name`` replaces ``target``, or one that does, and so on."""
        seen = {name: None}
        queue = [name]
        while queue:
            spec = self.specs.get(queue.pop())
            for pattern in spec.fleet.replaces if spec is not None else ():
                if glob.matches(pattern, target):
                    return True
                for other in self.replacers:
                    if other not in seen and glob.matches(pattern, other):
                        seen[other] = None
                        queue.append(other)
        return False
