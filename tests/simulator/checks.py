"""The properties, checked from outside: by the log's bytes, true time and rules of their own."""

from typing import Any

from actors.host import Unresolved, Unwritten
from streams.events import cluster as cluster_says
from streams.events import log as log_says
from streams.events.base import Event
from streams.outcomes import Outcome, Rejected
from streams.records import Entry, Position
from streams.replay import Applied, Replica
from tests.simulator import cache
from tests.simulator.core import Violation

#: Replicas are compared with the observer's at every offset divisible by this.
COMPARE_EVERY = 64


class Observer:
    """Reads every record when it is committed, and knows by a small model of its own who is master at each offset."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim
        self.replica = Replica(sim.parts.fold())
        self.outcomes: dict[Position, Outcome] = {}
        self.hashes: dict[int, str] = {}
        self.chains: list[bytes] = []
        self.stale = 0
        self.term, self.holder, self.seq = 0, "", 0
        self.writers: dict[str, tuple[int, str]] = {}
        self.seqs: dict[str, int] = {}
        self.effective: dict[tuple[str, int], Position] = {}
        self.changes: list[tuple[float, int, str]] = []

    def committed(self, entry: Entry) -> None:
        record = cache.parsed(entry)
        events = cache.decoded(record.stream, record.payload)
        expected = self._expect(record, events)
        before = self._state() if any(word == "stale" for word in expected) else None
        for index, applied in enumerate(self.replica.apply(entry)):
            self.outcomes[applied.position] = applied.outcome
            refused = isinstance(applied.outcome, Rejected)
            if applied.event.client and not refused:
                key = (applied.event.client, applied.event.sequence)
                self.effective.setdefault(key, applied.position)
            word = expected[index]
            if word == "accept" and refused:
                self._violated(applied, "a claim or renewal that was due was refused")
            if word == "again" and not refused:
                self._violated(applied, "a record that comes twice counts once")
            if word in ("refuse", "stale") and not refused:
                self._violated(applied, "an old master's facts change nothing" if word == "stale" else "one per term")
        if before is not None:
            self.stale += 1
            if all(word == "stale" for word in expected) and self._state() != before:
                raise Violation(f"an old master's facts change nothing: the state changed at {entry.offset}")
        if self.replica.log.offset % COMPARE_EVERY == 0:
            self.hashes[entry.offset] = self.replica.state_hash()

    def _violated(self, applied: Applied, what: str) -> None:
        raise Violation(
            f"{what}: {applied.event.type} of {applied.record.writer} (term {applied.event.term}) at "
            f"{applied.position} came to {applied.outcome}; the model has term {self.term} of {self.holder[-2:]}"
        )

    def _state(self) -> bytes:
        return b"".join(self.replica.fold.encode())

    def _expect(self, record: Any, events: list) -> list[str]:
        """Per event: accept, refuse, stale, again or "" (not the model's business)."""
        first = events[0].data
        known = self.writers.get(record.writer)
        if isinstance(first, log_says.ActorOpened):
            if known is None or record.incarnation > known[0]:
                self.writers[record.writer] = (record.incarnation, first.nonce)
                self.seqs[record.writer] = record.seq
            return [""] * len(events)
        if isinstance(first, log_says.LogOpened):
            return [""] * len(events)
        if known is None or known[0] != record.incarnation:
            return ["refuse"] * len(events)
        if record.seq <= self.seqs[record.writer]:
            return ["again"] * len(events)
        self.seqs[record.writer] = record.seq
        return [self._expect_one(record, event) for event in events]

    def _expect_one(self, record: Any, event: Event) -> str:
        data, machine = event.data, record.writer.partition("@")[2]
        if isinstance(data, cluster_says.Claim):
            if (data.expect_term, data.expect_renew_seq) != (self.term, self.seq):
                return "refuse"
            self.term, self.holder, self.seq = self.term + 1, machine, 0
            self.changes.append((self.sim.time.now, self.term, machine))
            return "accept"
        if not event.term:
            return ""
        if event.term != self.term or machine != self.holder:
            return "stale"
        if isinstance(data, cluster_says.Renew):
            if data.seq != self.seq + 1:
                return "refuse"
            self.seq += 1
            return "accept"
        if isinstance(data, cluster_says.Resign):
            self.holder = ""
            self.changes.append((self.sim.time.now, self.term, ""))
            return "accept"
        return ""

    def steady(self) -> None:
        """Where only the broker paused: a broker's pause changes no master and looks like nobody's death."""
        if self.term != 1:
            raise Violation(f"a broker's pause changes no master: term {self.term}, {self.changes}")
        machines = self.replica.fold.state.cluster.machines.values()
        if gone := [machine.id[-2:] for machine in machines if machine.lost_at]:
            raise Violation(f"a broker's pause looks like nobody's death: {gone} were given up")

    def compare(self, process: Any) -> None:
        """Replicas' hashes agree at equal offsets."""
        replica = process.host.replica
        offset = replica.log.offset
        if offset % COMPARE_EVERY or offset == process.compared_at:
            return
        process.compared_at = offset
        if replica.state_hash() != self.hashes.get(offset):
            raise Violation(f"replicas' hashes agree: {process.host.writer} differs at offset {offset}")


class MasterCheck:
    """No two nodes act as master at one true instant."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim
        self.acting: set[int] = set()
        self.reigns = 0

    def stepped(self, process: Any) -> None:
        """Called after each step of a coordination process: acting can only begin in one of its own steps."""
        index = process.node.index
        if not process.actor.acting(process.host.replica, process.now()):
            self.acting.discard(index)
            return
        if index in self.acting:
            return
        self.acting.add(index)
        self.reigns += 1
        for other in self.sim.nodes:
            rival = other.processes.get("coordination")
            if other.index == index or rival is None or rival.dead_at is not None:
                continue
            if rival.actor.acting(rival.host.replica, rival.now()):
                raise Violation(
                    f"no two nodes act as master at one true instant: {process.node.machine[-2:]} and "
                    f"{other.machine[-2:]} at {self.sim.time.now:.4f} s"
                )


class UnitsCheck:
    """No two copies of a fenced unit run at one true instant."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim
        self.where: dict[str, set[int]] = {}
        self.starts = 0

    def started(self, unit: str, node: Any) -> None:
        where = self.where.setdefault(unit, set())
        self.starts += 1
        if where - {node.index}:
            raise Violation(
                f"no two copies of a fenced unit run at one true instant: {unit} starts on {node.machine[-2:]} at "
                f"{self.sim.time.now:.3f} s, and runs on {sorted(where)}"
            )
        where.add(node.index)

    def ended(self, unit: str, node: Any) -> None:
        self.where.get(unit, set()).discard(node.index)


class CommandsCheck:
    """No acknowledged command is lost, and what was called unwritten never takes effect."""

    def __init__(self, sim: Any) -> None:
        self.sim = sim
        self.acknowledged: dict[tuple[str, int], tuple[Position, Outcome]] = {}
        self.unwritten: set[tuple[str, int]] = set()
        self.labels: dict[str, str] = {}

    def answered(self, key: tuple[str, int], label: str, answer: Any) -> None:
        if isinstance(answer, Unwritten):
            self.unwritten.add(key)
        elif not isinstance(answer, Unresolved):
            applied = answer[0]
            self.acknowledged[key] = (applied.position, applied.outcome)
            if label and not isinstance(applied.outcome, Rejected):
                self.labels[label] = applied.event.subject

    def finish(self) -> None:
        observer = self.sim.observer
        for key, (position, outcome) in self.acknowledged.items():
            if type(observer.outcomes.get(position)) is not type(outcome):
                raise Violation(f"no acknowledged command is lost: {key} at {position} was answered {outcome}")
        machines = observer.replica.fold.state.cluster.machines
        for label, machine in self.labels.items():
            if label not in machines[machine].labels:
                raise Violation(f"no acknowledged command is lost: label {label} of {machine[-2:]}")
        for key in self.unwritten:
            if key in observer.effective:
                raise Violation(f"what was called unwritten took effect: {key} at {observer.effective[key]}")
