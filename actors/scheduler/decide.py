"""Pure decisions: where each unit shall run, and why; and for those that run nowhere, why not and where not.

    planner = Planner()
    planner.note(applied)                        for every event that is applied
    decisions = planner.decide(control, term)    what to say now; ``planner.pending`` tells whether there is more

The rules, in order: what was asked for (inactive, drained machine, [X-Fleet]) is enforced; what runs is left where it
is unless it must move; the least loaded machine that fits is taken, ties by id. A unit on a lost machine moves when
another one fits, and stays with it otherwise. A unit whose fence is open is placed nowhere.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.coordination.election import EPSILON
from actors.scheduler.fit import Host, enemy, kind_of, misplaced, needs_of, still_holds, unusable, why_not
from actors.scheduler.state import Unit, machine_generation
from actors.scheduler.unitfile import UnitFile
from actors.scheduler.verdict import SETTLED, Verdict, named, no_machine, untallied
from actors.scheduler.view import NO_CAUSE, Cause, View
from streams.events import unit as says
from streams.events.base import Event, say
from streams.replay import Applied

if TYPE_CHECKING:
    from actors.control import Control

#: What the watchdog may need to kill a unit after its deadline (beside the drift of clocks).
KILL_GRACE_S = 2.0
#: What one round says and looks at, about: its record stays small, and the process answers in between.
ROUND_BYTES = 512 * 1024
ROUND_LOOKS = 1000
#: How often a round looks again at those who may use what it has just made free.
PASSES = 8
#: Reasons that forbid a placement that is there already; others only keep new ones away.
_HARD = ("drained", "machine-id", "metadata", "machine-of", "conflict")


class Decision(NamedTuple):
    """``event`` is what the scheduler says of ``unit``; ``reason`` is for people."""

    unit: str
    event: Event
    reason: str


def decide(control: "Control", term: int = 1) -> list[Decision]:
    """All decisions that ``control`` asks for, made from nothing."""
    return Planner().decide(control, term, round_looks=1 << 62, round_bytes=1 << 62)


class Planner:
    """Decides round by round. One owner; call ``note`` for all events, ``decide`` when nothing is in flight."""

    def __init__(self) -> None:
        self.view = View()
        self._control: Control = None  # type: ignore[assignment]  # set for the length of a round
        self._term = 0
        self._decided_at = ""
        self._decisions: list[Decision] = []
        self._verdicts: dict[str, tuple[Verdict, Cause]] = {}
        #: units that a decision of this round made it necessary to look at
        self._queue: dict[str, Cause] = {}
        self._placed: dict[str, None] = {}
        self._no_fit: dict[tuple[object, ...], Verdict] = {}
        #: units whose fence a decision of this round opens
        self._fenced: dict[str, None] = {}
        self._global_why: dict[str, dict[str, str]] = {}
        self._size = 0
        self._looks = 0

    def note(self, applied: Applied) -> None:
        self.view.note(applied)

    @property
    def pending(self) -> bool:
        """Whether something is still to be looked at."""
        return bool(self.view.dirty or self.view.dirty_globals)

    def restart(self) -> None:
        """Forget everything that was derived, and look at all units again."""
        self.view.mark_all()
        self._global_why.clear()

    def decide(
        self,
        control: "Control",
        term: int,
        decided_at: str = "",
        round_looks: int = ROUND_LOOKS,
        round_bytes: int = ROUND_BYTES,
    ) -> list[Decision]:
        """One round, by the state at position ``decided_at``; what is left over (``pending``) is for the next one."""
        self._control, self._term, self._decided_at, self._size = control, term, decided_at, 0
        self._decisions, self._verdicts, self._no_fit, self._placed, self._fenced = [], {}, {}, {}, {}
        view = self.view
        view.refresh(control)
        self._looks = 0
        for _ in range(PASSES):
            self._pass(round_looks, round_bytes)
            view.spread()
            if not self.pending or self._spent(round_looks, round_bytes):
                break
        for name, (verdict, why_now) in sorted(self._verdicts.items()):
            self._say_waiting(name, verdict, why_now)
        self._control = None  # type: ignore[assignment]
        decisions, self._decisions = self._decisions, []
        return decisions

    def _spent(self, looks: int, size_bytes: int) -> bool:
        return self._looks > looks or self._size > size_bytes

    def _pass(self, round_looks: int, round_bytes: int) -> None:
        """Look at what is marked, in order of names: the same state gives the same decisions, whatever came first.

        Global units come first, since they have no choice; then those that replace others: who was just placed isn't
        sent away in the same breath.
        """
        view = self.view
        for name in sorted(view.dirty_globals.keys() | (view.dirty.keys() & view.globals.keys())):
            marked = view.dirty_globals.pop(name, {})
            unit = self._control.units.units.get(name)
            if name in view.dirty or unit is None or unit.destroyed or unit.desired == "inactive":
                self._look(name)
                count = len(view.hosts)
            else:
                self._look_global(unit, view.specs[name], sorted(marked), next(iter(marked.values())))
                count = len(marked)
            self._looks += 1 + count // 8
            if self._spent(round_looks, round_bytes):
                return
        for name in sorted(view.dirty, key=lambda one: (one not in view.replacers, one)):
            if name in view.dirty:
                self._looks += 1
                self._look(name)
            if self._spent(round_looks, round_bytes):
                return

    # -- one unit ---------------------------------------------------------------------------------------------

    def _look(self, name: str) -> None:
        """Decide about one unit, after those it follows, and then about those that this made necessary."""
        for one in self._peers_first(name):
            self._queue.pop(one, None)
            self._look_one(one, self.view.dirty.pop(one, NO_CAUSE))
        while self._queue:
            follower = next(iter(self._queue))
            cause = self._queue.pop(follower)
            self.view.dirty.pop(follower, None)
            self._look_one(follower, cause)

    def _peers_first(self, name: str) -> list[str]:
        """``name`` and those of its MachineOf, directly or not, that are to be looked at; each after its own."""
        found: dict[str, None] = {}
        seen = {name: None}
        stack = [(name, self._dirty_peers(name))]
        while stack:
            at, peers = stack[-1]
            if not peers:
                found[at] = None
                stack.pop()
            elif (peer := peers.pop()) not in seen:
                seen[peer] = None
                stack.append((peer, self._dirty_peers(peer)))
        return list(found)

    def _dirty_peers(self, name: str) -> list[str]:
        spec = self.view.specs.get(name)
        return [peer for peer in (spec.fleet.machine_of if spec else ()) if peer in self.view.dirty]

    def _look_one(self, name: str, cause: Cause) -> None:
        unit, spec = self._control.units.units.get(name), self.view.specs.get(name)
        if unit is None:
            return
        if unit.destroyed:
            self._look_destroyed(unit, cause)
        elif spec is not None and not spec.name.is_template:
            self._look_active(unit, spec, cause)

    def _look_active(self, unit: Unit, spec: UnitFile, cause: Cause) -> None:
        if unit.desired == "inactive":
            for machine in list(self.view.at.get(unit.name, ())):
                self._unplace(unit, machine, "it is to be inactive", cause)
            self._verdicts.pop(unit.name, None)
            self._global_why.pop(unit.name, None)
        elif spec.fleet.is_global:
            self._global_why.pop(unit.name, None)
            gone = [one for one in self.view.at.get(unit.name, ()) if one not in self.view.hosts]
            for machine in gone:
                self._unplace(unit, machine, f"machine {machine[:8]} was removed", cause)
            self._look_global(unit, spec, sorted(self.view.hosts), cause)
        else:
            verdict = self._look_single(unit, spec, cause)
            if verdict is None:
                self._verdicts.pop(unit.name, None)
                return
            self._verdicts[unit.name] = verdict, cause
            if verdict.reason:
                self.view.unsettled[unit.name] = verdict.machines
            else:
                self.view.unsettled.pop(unit.name, None)

    def _look_destroyed(self, unit: Unit, cause: Cause) -> None:
        """Forget it when only machines that are lost still have it: nobody else will say that it stopped."""
        machines = self._control.cluster.machines
        runs = self._control.engines.runs.get(unit.name, {})
        left = [one for one, run in runs.items() if run.state != "stopped" and one in machines]
        if self._control.units.fences.get(unit.name) or any(machines[one].alive for one in left):
            return
        lost = left[0] if left else ""
        reason = f"destroyed, and {self._name(lost)}, which still had it, is lost" if lost else "destroyed"
        self._say(unit, says.Unplaced(lost, unit.generation, reason, self._decided_at), reason, cause)

    def _look_single(self, unit: Unit, spec: UnitFile, cause: Cause) -> Verdict | None:
        places = self.view.at.get(unit.name, {})
        for machine in list(places)[1:]:  # it was global before
            self._unplace(unit, machine, "it is no longer global", cause)
        if not places:
            return self._settle(unit, spec, "", "", cause)
        machine, generation = next(iter(places.items()))
        host = self.view.hosts.get(machine)
        if host is None:
            return self._settle(unit, spec, machine, f"machine {machine[:8]} was removed", cause, hard=True)
        bad = unusable(host)
        why = bad if kind_of(bad) == "drained" else misplaced(spec, host)
        if why:
            return self._settle(unit, spec, machine, self._leaving(host, spec, why), cause, hard=True)
        if kind_of(bad) in ("lost", "left"):
            return self._leave_lost(unit, spec, machine, f"{self._name(machine)} {_dead(bad)}", cause)
        if generation != unit.generation and not bad:
            return self._renew(unit, spec, host, cause)
        return SETTLED

    def _leave_lost(self, unit: Unit, spec: UnitFile, machine: str, reason: str, cause: Cause) -> Verdict | None:
        """A lost machine's unit moves if it can. Under an open fence it waits for the fence's end."""
        fences = self._control.units.fences.get(unit.name, ())
        if fences:
            return Verdict(f"{reason}; fence {fences[0].fence} is open until nothing can run there any more")
        return self._settle(unit, spec, machine, reason, cause)

    def _renew(self, unit: Unit, spec: UnitFile, host: Host, cause: Cause) -> Verdict | None:
        """Its content has changed since it was placed: run the new one, here if it fits."""
        machine = host.machine.id
        why = why_not(unit.name, spec, host)
        if not why:
            self._place(unit, spec, host, "new content, stays where it is", cause)
            return SETTLED
        reason = f"its new content doesn't fit {self._name(machine)} ({why})"
        return self._settle(unit, spec, machine, reason, cause, hard=kind_of(why) in _HARD)

    def _settle(
        self, unit: Unit, spec: UnitFile, source: str, leaving: str, cause: Cause, *, hard: bool = False
    ) -> Verdict | None:
        """Find a machine for a unit that has none (``source`` empty) or should leave the one it has.

        ``hard``: it must leave even when there is no other. None: not known before this round is applied.
        """
        fenced = unit.name in self._control.units.fences or unit.name in self._fenced
        found, verdict = self._choose(unit.name, spec, source)
        if fenced or found is None:
            if source and (hard or found is not None):
                self._unplace(unit, source, leaving, cause)
                source = leaving = ""
            if fenced and not source:
                return self._fence_verdict(unit)
            return self._nowhere(spec, leaving, verdict)
        host, reason = found
        for other in self._in_the_way(unit.name, spec, host):
            leaving_it = f"{unit.name} replaces it on {self._name(host.machine.id)}"
            self._unplace(self._control.units.units[other], host.machine.id, leaving_it, cause)
            self._queue[other] = cause
        source = "" if source == host.machine.id else source
        self._place(unit, spec, host, f"{leaving}; {reason}" if leaving else reason, cause, source)
        return SETTLED

    def _fence_verdict(self, unit: Unit) -> Verdict | None:
        """None: the fence was opened by this very round, which will tell its number when it is applied."""
        for fence in self._control.units.fences.get(unit.name, ()):
            where = self._name(fence.machine)
            return Verdict(f"fence {fence.fence} on {where} is open until the unit has stopped there")
        return None

    def _nowhere(self, spec: UnitFile, leaving: str, verdict: Verdict) -> Verdict:
        stays = f"{leaving}, and " if leaving else ""
        for peer in spec.fleet.machine_of:
            if not self.view.at.get(peer):
                there = self._control.units.units.get(peer)
                how = "waiting"
                if there is None or there.desired == "inactive":
                    how = "not submitted" if there is None else "to be inactive"
                return Verdict(f"{stays}it follows {peer}, which is {how}")
        return Verdict(stays + verdict.reason, verdict.machines) if stays else verdict

    # -- choosing ---------------------------------------------------------------------------------------------

    def _choose(self, name: str, spec: UnitFile, source: str) -> tuple[tuple[Host, str] | None, Verdict]:
        """The machine for a unit and why it, or None and why none of them."""
        view, fleet = self.view, spec.fleet
        if fleet.replaces:
            by_machine: dict[str, list[str]] = {}
            for other, machine in view.matched(name, spec):
                by_machine.setdefault(machine, []).append(other)
            for _, _, machine in sorted(view.hosts[one].load() for one in by_machine if one in view.hosts):
                if not why_not(name, spec, view.hosts[machine], by_machine[machine]):
                    return (view.hosts[machine], f"takes the place of {', '.join(by_machine[machine])}"), SETTLED
        signature = None
        if not (fleet.conflicts or fleet.replaces or fleet.machine_of or source):
            signature = (spec.cpu_millis, spec.memory_bytes, spec.ports, fleet.metadata, fleet.machine_id)
            if (known := self._no_fit.get(signature)) is not None:
                return None, known
        group = {} if fleet.machine_of else self._group(name)
        fits = [machine for _, _, machine in view.order] if not fleet.machine_of else self._of_peers(spec)
        for together in (True, False) if group else (False,):
            for machine in fits:
                host = view.hosts[machine]
                if machine != source and not why_not(name, spec, host):
                    if together and not self._group_fits(name, spec, group, host):
                        continue
                    return (host, self._why_there(spec, machine, group if together else {})), SETTLED
        whys = {machine: why_not(name, spec, host) for machine, host in view.hosts.items()}
        verdict = no_machine(whys)
        if signature is not None and not any(kind_of(why) == "conflict" for why in whys.values()):
            self._no_fit[signature] = verdict
        return None, verdict

    def _of_peers(self, spec: UnitFile) -> list[str]:
        """Machines of the unit that it follows, if they can be used."""
        return [
            machine
            for machine in self.view.at.get(spec.fleet.machine_of[0], ())
            if machine in self.view.hosts and not unusable(self.view.hosts[machine])
        ]

    def _why_there(self, spec: UnitFile, machine: str, group: dict[str, UnitFile]) -> str:
        if spec.fleet.machine_of:
            return f"follows {', '.join(spec.fleet.machine_of)} to {self._name(machine)}"
        if spec.fleet.machine_id:
            return f"{self._name(machine)} is asked for by MachineID"
        beside = f" together with {', '.join(group)}" if group else ""
        return f"{self._name(machine)} is the least loaded machine that fits{beside}"

    def _group(self, name: str) -> dict[str, UnitFile]:
        """Units that follow this one, directly or not, and will have to go where it goes."""
        found: dict[str, UnitFile] = {}
        queue = list(self.view.followers.get(name, ()))
        while queue:
            follower = queue.pop(0)
            unit = self._control.units.units.get(follower)
            spec = self.view.specs.get(follower)
            if follower in found or unit is None or spec is None or unit.desired == "inactive":
                continue
            found[follower] = spec
            queue += self.view.followers.get(follower, ())
        return found

    def _group_fits(self, name: str, spec: UnitFile, group: dict[str, UnitFile], host: Host) -> bool:
        trial = Host(host.machine, host.withheld)
        for other, needs in host.units.items():
            trial.add(other, needs, self.view.specs.get(other))
        trial.add(name, needs_of(spec), spec)
        for follower, follows in group.items():
            others = [peer for peer in follows.fleet.machine_of if peer not in trial.units and peer in group]
            if not others and follower not in trial.units and why_not(follower, follows, trial):
                return False
            trial.add(follower, needs_of(follows), follows)
        return True

    def _in_the_way(self, name: str, spec: UnitFile, host: Host) -> list[str]:
        """Units there that the unit replaces (all others that don't go with it were ruled out before)."""
        found: list[str] = []
        while (other := enemy(name, spec, host, found)) is not None:
            found.append(other)
        return found

    def _push_followers(self, name: str, cause: Cause) -> None:
        """Who follows a unit that was just placed or taken away is looked at in this round, too."""
        for follower in self.view.followers.get(name, ()):
            self._queue.setdefault(follower, cause)

    # -- global units -----------------------------------------------------------------------------------------

    def _look_global(self, unit: Unit, spec: UnitFile, machines: Iterable[str], cause: Cause) -> None:
        """Bring a global unit to the machines that it passes; note for the others why not."""
        whys = self._global_why.setdefault(unit.name, {})
        places = self.view.at.get(unit.name, {})
        for machine in machines:
            whys.pop(machine, None)
            host = self.view.hosts.get(machine)
            if host is None:
                continue
            if machine in places:
                why = self._stay_global(unit, spec, host, places[machine], cause)
            else:
                why = why_not(unit.name, spec, host)
                if not why:
                    self._place(unit, spec, host, "a global unit runs on every machine it fits", cause)
            if why:
                whys[machine] = why
        self._verdicts[unit.name] = self._global_verdict(unit, whys), cause

    def _stay_global(self, unit: Unit, spec: UnitFile, host: Host, generation: int, cause: Cause) -> str:
        machine, bad = host.machine.id, unusable(host)
        if why := (bad if kind_of(bad) == "drained" else misplaced(spec, host)):
            self._unplace(unit, machine, self._leaving(host, spec, why), cause)
            return why
        if bad or generation == unit.generation:
            return ""  # a lost machine may come back, and goes on with it then
        if not (why := why_not(unit.name, spec, host)):
            self._place(unit, spec, host, "new content, stays where it is", cause)
        elif kind_of(why) in _HARD:
            self._unplace(unit, machine, f"its new content doesn't fit {self._name(machine)} ({why})", cause)
        return why

    def _global_verdict(self, unit: Unit, whys: dict[str, str]) -> Verdict:
        """Machines that it isn't meant for don't count, unless there are no others."""
        placed = self.view.at.get(unit.name)
        lacking = {m: why for m, why in whys.items() if kind_of(why) in ("conflict", "port", "cpu", "memory")}
        if lacking:
            return Verdict(f"{len(lacking)} of {len(self.view.hosts)} machines have no room for it", named(lacking))
        if placed:
            return SETTLED
        return Verdict("no machine passes" if whys else "no machine has joined", named(whys))

    # -- saying -----------------------------------------------------------------------------------------------

    def _place(self, unit: Unit, spec: UnitFile, host: Host, reason: str, cause: Cause, source: str = "") -> None:
        machine = host.machine
        if source:
            self.view.take(unit.name, source, cause)
        if source or machine.id in unit.placements:
            self._no_fit.clear()
        self.view.put(unit.name, machine.id, unit.generation, spec, cause)
        self._placed[unit.name] = None
        if spec.fence and machine.id not in unit.placements:
            self._fenced[unit.name] = None
        self._push_followers(unit.name, cause)
        data = says.Placed(machine.id, unit.generation, machine.generation, reason, self._decided_at, source)
        self._say(unit, data, reason, cause)

    def _unplace(self, unit: Unit, machine: str, reason: str, cause: Cause) -> None:
        self.view.take(unit.name, machine, cause)
        self._no_fit.clear()
        self._push_followers(unit.name, cause)
        self._say(unit, says.Unplaced(machine, unit.generation, reason, self._decided_at), reason, cause)

    def _say_waiting(self, name: str, verdict: Verdict, cause: Cause) -> None:
        """Only when it differs from what was said before by more than amounts."""
        unit, spec = self._control.units.units[name], self.view.specs[name]
        old, new = unit.waiting_machines, verdict.machines
        if old.keys() == new.keys() and untallied(unit.waiting) == untallied(verdict.reason):
            hosts = self.view.hosts
            if all(still_holds(old[machine], why, spec, hosts.get(machine)) for machine, why in new.items()):
                return
        if not verdict.reason and name in self._placed and not self.view.specs[name].fleet.is_global:
            return  # the placement says it all, and clears what was waited for
        data = says.Waiting(unit.generation, verdict.reason, verdict.machines)
        self._say(unit, data, verdict.reason or "waits no more", cause)

    def _say(self, unit: Unit, data: Any, reason: str, cause: Cause) -> None:
        correlation = cause.correlation
        event = say(data, subject=unit.name, term=self._term, cause=cause.position, correlation=correlation)
        self._decisions.append(Decision(unit.name, event, reason))
        extra = sum(len(why) + 40 for why in data.machines.values()) if isinstance(data, says.Waiting) else 0
        self._size += 300 + len(reason) + extra

    def _leaving(self, host: Host, spec: UnitFile, why: str) -> str:
        """A reason of ``unusable`` or ``misplaced`` as the first half of a sentence."""
        name = self._name(host.machine.id)
        if kind_of(why) == "drained":
            return f"{name} is drained"
        if kind_of(why) == "machine-of":
            gone = next(peer for peer in spec.fleet.machine_of if peer not in host.units)
            return f"{gone}, which it follows, has left {name}"
        return f"{name} no longer passes ({why})"

    def _name(self, machine: str) -> str:
        found = self._control.cluster.machines.get(machine)
        return found.name if found is not None and found.name else machine[:8]


def _dead(why: str) -> str:
    return "has left" if kind_of(why) == "left" else "is lost"


# -- fences ---------------------------------------------------------------------------------------------------


def fence_wait_s(fence_ms: int) -> float:
    """How long after a loss was applied nothing under a fence can run there: T_a(1+ε) and the kill's grace."""
    return fence_ms / 1000 * (1 + EPSILON) + KILL_GRACE_S


def open_fences_of_the_dead(control: "Control") -> list[tuple[str, int, str, int]]:
    """(unit, fence, machine, machine's generation) of open fences whose machine is lost, has left or was removed."""
    machines = control.cluster.machines
    return [
        (name, fence.fence, fence.machine, machine_generation(control, fence.machine))
        for name, fences in control.units.fences.items()
        for fence in fences
        if (machine := machines.get(fence.machine)) is None or not machine.alive
    ]
