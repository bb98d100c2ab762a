"""One run: a cluster, its clients, ten faults in sixty seconds, then quiet in which all must come right again."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from actors.coordination import election
from actors.coordination.decide import JITTER_MAX_S
from streams.events import cluster as cluster_says
from streams.events import log as log_says
from streams.events import unit as unit_says
from streams.events.base import encode, say
from streams.records import Record
from streams.replay import LEVEL
from tests.simulator import cache, faults, loop
from tests.simulator.checks import CommandsCheck, MasterCheck, Observer, UnitsCheck
from tests.simulator.core import Time, Violation
from tests.simulator.log import SimLog
from tests.simulator.node import Node, Process
from tests.simulator.product import ProductParts

FAULTY_S = 60.0
FAULTS = 10
UNITS = 4
#: Nodes of a run: the small clusters, where one machine counts most, oftener.
SIZES, SIZE_WEIGHTS = (3, 4, 5, 6, 7), (55, 20, 15, 5, 5)
DRIFT = 0.02
#: What a step, a delivery and a respawn may add to the bound on the next master.
SLACK_S = 0.05
LOG_ID = "5" * 32


class Report(NamedTuple):
    seed: int
    nodes: int
    records: int
    steps: int
    terms: int
    stale: int
    commands: int
    master_after_s: float
    state_hash: str


class Simulation:
    """``parts`` supplies the actors (the product's, or planted bugs); ``kinds`` the faults to draw from.

    ``steady``: nothing but the broker fails, so the first master must stay and no machine may be given up.
    """

    def __init__(
        self,
        seed: int,
        parts: Any = None,
        kinds: Sequence[faults.Fault] = faults.ALL,
        fault_count: int = FAULTS,
        nodes: int = 0,
        drift: float = DRIFT,
        steady: bool = False,
    ) -> None:
        cache.clear()
        self.seed = seed
        self.time = Time(seed)
        rng = self.time.random
        self.drift = drift
        self.lease_ms, self.machine_ttl_ms, self.fence_ms = 1000, 3000, 5000
        self.log_id = LOG_ID
        self.parts = parts or ProductParts()
        self.log = SimLog(self.time)
        self.steady = steady
        self.observer = Observer(self)
        self.log.observers.append(self.observer)
        self.masters = MasterCheck(self)
        self.units_check = UnitsCheck(self)
        self.commands = CommandsCheck(self)
        self.kinds, self.fault_count = kinds, fault_count
        self.faults_end = FAULTY_S
        self.sequence = 0
        self.clients_until = FAULTY_S
        founding = Record(
            LOG_ID, "log", "node@founder", 1, 1, 0, encode([say(log_says.LogOpened(id=LOG_ID, level=LEVEL))])
        )
        self.log.put(founding.canonical())
        self.nodes = [Node(self, index, self.parts) for index in range(nodes or rng.choices(SIZES, SIZE_WEIGHTS)[0])]

    def stepped(self, process: Process) -> None:
        if process.name == "coordination":
            self.masters.stepped(process)
        elif process.shares:
            return  # its replica is compared in coordination's steps
        self.observer.compare(process)

    # -- clients ------------------------------------------------------------------------------------------------

    def _client(self) -> None:
        """A command now and then: through any live process, once, never again if its outcome is unknown."""
        if self.time.now > self.clients_until:
            return
        rng = self.time.random
        self.time.after(rng.uniform(0.4, 1.6), self._client)
        node = rng.choice(self.nodes)
        process = node.processes.get("coordination")
        if process is None or process.dead_at is not None or node.stopped:
            return
        self.sequence += 1
        subject = rng.choice(self.nodes).machine
        label = f"k{self.sequence}"
        if rng.random() < 0.1:
            data: Any = cluster_says.MachineDrain(drain=rng.random() < 0.4)
            label = ""
        else:
            data = cluster_says.MachineLabelled(metadata={label: "v"})
        self._submit(process, say(data, subject=subject, **self._session()), label)

    def _session(self) -> dict[str, Any]:
        return {"client": f"c{self.sequence}", "sequence": 1, "principal": "uid:0"}

    def _submit(self, process: Process, event: Any, label: str) -> None:
        key = (event.client, event.sequence)
        process.host.submit([event], lambda answer: self.commands.answered(key, label, answer), process.now())
        process._step(process.host.tick)

    def _submit_units(self, left: int) -> None:
        if not left:
            return
        self.time.after(0.5, self._submit_units, left - 1)
        process = self.nodes[0].processes["coordination"]
        self.sequence += 1
        name = f"u{left}.service"
        self._submit(
            process,
            say(unit_says.Submit(content=self.parts.unit, desired="launched"), subject=name, **self._session()),
            "",
        )

    # -- the run --------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        for node in self.nodes:
            self.time.after(self.time.random.uniform(0, 0.3), node.start)
        self.time.after(1.0, self._client)
        self.time.after(1.5, self._submit_units, UNITS)
        rng = self.time.random
        for when in sorted(rng.uniform(4, FAULTY_S - 5) for _ in range(self.fault_count)):
            self.time.at(when, self._fault, rng.choice(self.kinds))
        self.time.run(FAULTY_S)
        after_s = self._quiet()
        return Report(
            self.seed,
            len(self.nodes),
            len(self.log.entries),
            self.time.steps,
            self.observer.term,
            self.observer.stale,
            len(self.commands.acknowledged),
            after_s,
            self.observer.replica.state_hash(),
        )

    def _fault(self, fault: faults.Fault) -> None:
        self.faults_end = max(self.faults_end, self.time.now + fault(self))

    def _quiet(self) -> float:
        """The liveness phase. Returns how long after the faults' end there was a master."""
        time = self.time
        time.run(max(self.faults_end, self.log.settled_at))
        limit = time.now + 5.0
        while not all(self._settled(node) for node in self.nodes):
            time.run(time.now + 0.02)
            if time.now > limit:
                raise Violation("every node joins again when faults are over: not after 5 s")
            if self.log.settled_at > time.now:
                limit += 0.02
        quiet_at = time.now
        slowest = 1 - self.drift
        bound = (self.lease_ms / 1000 * (1 + election.EPSILON) + JITTER_MAX_S) / slowest + 2 * 0.02 + SLACK_S
        while not self._master():
            time.run(time.now + 0.01)
            if time.now > quiet_at + bound:
                raise Violation(f"someone is master within {bound:.3f} s after the faults stop")
        after_s = time.now - quiet_at
        for node in self.nodes:
            process = node.processes["coordination"]
            self.sequence += 1
            undrain = say(cluster_says.MachineDrain(drain=False), subject=node.machine, **self._session())
            self._submit(process, undrain, "")
        limit = time.now + 2 * self.fence_ms / 1000 + self.machine_ttl_ms / 1000
        time.run(time.now + 1.0)
        while self._missing() and time.now < limit:
            time.run(time.now + 0.25)
        self._finish()
        return after_s

    def _missing(self) -> list[str]:
        """Units that run nowhere."""
        where = self.units_check.where
        return sorted(unit for unit in self.observer.replica.fold.state.units.units if not where.get(unit))

    def _settled(self, node: Node) -> bool:
        if set(node.processes) != set(self.parts.names):
            return False
        cluster = self.observer.replica.fold.state.cluster
        machine = cluster.machines.get(node.machine)
        joined = machine is not None and machine.alive and machine.nonce == node.nonces[-1]
        return joined and not node.stopped and all(p.dead_at is None and p.host.live for p in node.processes.values())

    def _master(self) -> bool:
        return any((p := node.processes["coordination"]).actor.acting(p.host.replica, p.now()) for node in self.nodes)

    def _finish(self) -> None:
        if not self._master():
            raise Violation("a master that is undisturbed stays")
        self.commands.finish()
        if self.steady:
            self.observer.steady()
        if missing := self._missing():
            raise Violation(f"each unit runs again when faults are over: {missing} don't")
        self.time.run(self.time.now + 0.2)
        for node in self.nodes:
            for process in node.processes.values():
                ours = process.host.replica
                if (
                    ours.offset == self.observer.replica.offset
                    and ours.state_hash() != self.observer.replica.state_hash()
                ):
                    raise Violation(f"replicas' hashes agree: {process.host.writer} at the end")


def run(seed: int, **options: Any) -> Report:
    """Run one seed. Raises Violation, whose message begins with the seed."""
    with cache.shared(), loop.installed(), _no_gc():
        try:
            return Simulation(seed, **options).run()
        except Violation as error:
            raise Violation(f"seed {seed}: {error}") from error


@contextmanager
def _no_gc() -> Iterator[None]:
    """A run's garbage is its own cycle: collected once, at its end."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
