"""A cluster in memory: the product's fold and planner, without processes and clocks."""

from typing import Any

import msgspec

from actors.control import Control, ControlFold
from actors.scheduler.decide import Decision, Planner, decide
from actors.scheduler.fit import kind_of
from actors.scheduler.state import Placement, Unit
from streams.events import cluster as of_cluster
from streams.events import engine as of_engine
from streams.events import log as of_log
from streams.events import unit as of_unit
from streams.events.base import Data, Event, encode, say
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Entry, Record
from streams.replay import Applied, Replica

LOG = "cd" * 16
MASTER = "m1"


def ident(name: str) -> str:
    """A machine id of 32 digits that begins with 8 that are the name's own."""
    return name.ljust(8, "x").ljust(32, "f")


def unit_file(*, exec_start: str = "/bin/true", **sections: str) -> str:
    """A service; ``fleet`` and ``corelog`` are the lines of [X-Fleet] and [X-Corelog]."""
    text = f"[Service]\nExecStart={exec_start}\n"
    for title, lines in sections.items():
        text += f"\n[X-{title.capitalize()}]\n{lines}\n"
    return text


class Cluster:
    """Machines ``m1`` … ``mN`` (``m1`` is the master), and verbs. ``run`` decides until nothing is left to decide."""

    def __init__(self, machines: int = 3, **machine: Any) -> None:
        self.replica = Replica(ControlFold())
        self.planner = Planner()
        self.offset = 0
        self.opened: dict[str, int] = {}
        self.history: list[Applied] = []
        self.entries: list[Entry] = []
        self._apply("log", "node@" + ident(MASTER), [say(of_log.LogOpened(LOG))])
        for number in range(1, machines + 1):
            self.join(f"m{number}", **machine)
        self.term = 0
        self.elect(MASTER)

    @property
    def control(self) -> Control:
        state: Control = self.replica.fold.state  # type: ignore[attr-defined]
        return state

    # -- saying things ----------------------------------------------------------------------------------------

    def say(
        self, data: Data, subject: str = "", writer: str = "gateway@" + ident(MASTER), **attributes: Any
    ) -> Outcome:
        return self.tell(writer, [say(data, subject=subject, **attributes)])[0].outcome

    def tell(self, writer: str, events: list[Event]) -> list[Applied]:
        if writer not in self.opened:
            self.opened[writer] = 1
            self._apply("log", writer, [say(of_log.ActorOpened(nonce="n"))])
        out: list[Applied] = []
        streams: dict[str, list[Event]] = {}
        for event in events:
            streams.setdefault(event.data.STREAM, []).append(event)
        for stream, some in streams.items():
            out += self._apply(stream, writer, some)
        return out

    def _apply(self, stream: str, writer: str, events: list[Event]) -> list[Applied]:
        return self.append(Record(LOG, stream, writer, 1, self.offset + 1, self.offset, encode(events)))

    def append(self, record: Record) -> list[Applied]:
        """A record of whatever writer, at the end of the log."""
        self.entries.append(Entry(self.offset, record.canonical()))
        applied = self.replica.apply(self.entries[-1])
        self.offset += 1
        for one in applied:
            self.planner.note(one)
        self.history += applied
        return applied

    # -- machines ---------------------------------------------------------------------------------------------

    def join(self, name: str, **fields: Any) -> Outcome:
        id_ = ident(name)
        known = self.control.cluster.machines.get(id_)
        data = of_cluster.MachineJoined(
            nonce=f"n{self.offset}", boot_id="b", name=name, previous=known.nonce if known else "", **fields
        )
        return self.say(data, id_, "coordination@" + id_)

    def elect(self, name: str) -> None:
        found = self.control.cluster.election
        data = of_cluster.Claim(found.term, found.renew_seq, nonce="n", sent_ms=0)
        outcome = self.say(data, writer="coordination@" + ident(name))
        assert isinstance(outcome, Accepted)
        self.term, self.master = self.control.cluster.election.term, ident(name)

    def lose(self, name: str) -> Outcome:
        machine = self.control.cluster.machines[ident(name)]
        return self.fact(of_cluster.MachineLost(machine.seen_at, 3000), ident(name), "coordination")

    def leave(self, name: str) -> Outcome:
        return self.say(of_cluster.MachineLeft(), ident(name), "coordination@" + ident(name))

    def withhold(self, *names: str) -> Outcome:
        return self.fact(of_cluster.MachinesWithheld([ident(one) for one in names], "many"), "", "coordination")

    def seen(self, name: str) -> Outcome:
        machine = self.control.cluster.machines[ident(name)]
        return self.say(of_cluster.MachineSeen(1, machine.nonce), ident(name), "coordination@" + ident(name))

    def drain(self, name: str, drain: bool = True) -> Outcome:
        return self.say(of_cluster.MachineDrain(drain), ident(name))

    def label(self, name: str, **metadata: str | None) -> Outcome:
        return self.say(of_cluster.MachineLabelled(metadata), ident(name))

    def remove(self, name: str) -> Outcome:
        return self.say(of_cluster.MachineRemoved(), ident(name))

    # -- units ------------------------------------------------------------------------------------------------

    def submit(
        self, name: str, content: str | None = None, desired: str = "launched", replace: bool = False
    ) -> Outcome:
        return self.say(of_unit.Submit(unit_file() if content is None else content, desired, replace), name)

    def start(self, name: str, **sections: str) -> None:
        """Submit a unit that shall run; decide."""
        outcome = self.submit(name, unit_file(**sections))
        assert isinstance(outcome, Accepted), outcome
        self.run()

    def desire(self, name: str, state: str) -> Outcome:
        return self.say(of_unit.Desire(state), name)

    def destroy(self, name: str) -> Outcome:
        return self.say(of_unit.Destroy(), name)

    def fact(self, data: Data, subject: str, actor: str = "scheduler", term: int | None = None) -> Outcome:
        """Something only the master says."""
        return self.say(data, subject, f"{actor}@{self.master}", term=self.term if term is None else term)

    def placed(self, name: str, on: str, **changes: Any) -> Outcome:
        """A placement as a scheduler would say it that decides by the present state, but for ``changes``."""
        found = self.control.cluster.machines.get(ident(on))
        unit = self.control.units.units.get(name)
        fields = {
            "machine": ident(on),
            "generation": unit.generation if unit else 1,
            "machine_generation": found.generation if found else 1,
            "reason": "by hand",
        }
        term = changes.pop("term", None)
        return self.fact(of_unit.Placed(**{**fields, **changes}), name, term=term)

    def engine(
        self, name: str, machine: str, kind: type[Data] = of_engine.Started, fence: int | None = None
    ) -> Outcome:
        """What the machine's engine says of a unit, by default of its placement (or else its run) there."""
        unit = self.control.units.units.get(name)
        placement = unit.placements.get(ident(machine)) if unit else None
        run = self.control.engines.runs.get(name, {}).get(ident(machine))
        number = fence if fence is not None else placement.fence if placement else run.fence if run else 0
        data = kind(machine=ident(machine), generation=unit.generation if unit else 1, fence=number)
        return self.say(data, name, "engine@" + ident(machine))

    def stopped(self, name: str, machine: str, fence: int | None = None) -> Outcome:
        return self.engine(name, machine, of_engine.Stopped, fence)

    def unit(self, name: str) -> Unit:
        return self.control.units.units[name]

    def placement(self, name: str) -> Placement:
        return next(iter(self.unit(name).placements.values()))

    def where(self, name: str) -> list[str]:
        """Names of the machines that a unit is placed on."""
        unit = self.control.units.units.get(name)
        return sorted(self.control.cluster.machines[one].name for one in unit.placements) if unit else []

    def placements(self) -> dict[str, list[str]]:
        return {name: self.where(name) for name in self.control.units.units}

    # -- deciding ---------------------------------------------------------------------------------------------

    def run(self, rounds_max: int = 20) -> list[Decision]:
        """Rounds until nothing is decided. The planner that was kept up to date must decide as one made from
        nothing does."""
        out: list[Decision] = []
        for _ in range(rounds_max):
            fresh = decide(self.control, self.term)
            decisions = self.planner.decide(self.control, self.term, str(self.offset), 1 << 30, 1 << 30)
            assert by_unit(decisions) == by_unit(fresh)
            if not decisions:
                return out
            out += decisions
            applied = self.tell(f"scheduler@{self.master}", [one.event for one in decisions])
            refused = [(one.event.data, one.outcome) for one in applied if isinstance(one.outcome, Rejected)]
            assert not refused, refused
        raise AssertionError(f"still deciding after {rounds_max} rounds: {out[-3:]}")


def by_unit(decisions: list[Decision]) -> list[tuple[str, Any]]:
    return sorted((plain(one) for one in decisions), key=lambda one: one[0])


def plain(decision: Decision) -> tuple[str, Any]:
    """A decision without what made the scheduler look at it, and without which of several good reasons was named."""
    data = decision.event.data
    if isinstance(data, of_unit.Waiting):
        machines = {m: "taken" if kind_of(why) in _TAKEN else why for m, why in data.machines.items()}
        return decision.unit, ("waiting", data.generation, data.reason.partition("no machine fits:")[:2], machines)
    return decision.unit, msgspec.structs.replace(data, decided_at="")


_TAKEN = ("conflict", "port", "cpu", "memory")


def reasons(decisions: list[Decision]) -> list[str]:
    """Decisions as lines of text."""
    out = []
    for unit, event, reason in decisions:
        data = event.data
        match data:
            case of_unit.Placed():
                source = f" from {short(data.from_machine)}" if data.from_machine else ""
                out.append(f"{unit} placed on {short(data.machine)}{source}: {reason}")
            case of_unit.Unplaced():
                out.append(f"{unit} unplaced from {short(data.machine)}: {reason}")
            case of_unit.Waiting():
                out.append(f"{unit} waiting: {reason}")
                out += [f"    {short(machine)}  {why}" for machine, why in data.machines.items()]
    return out


def short(machine: str) -> str:
    return machine[:8].rstrip("x")
