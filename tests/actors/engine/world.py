"""A cluster's log in memory, with a master written by hand, and real supervisors that live on it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.control import Control, ControlFold
from actors.engine import deadline
from actors.engine.actor import EngineActor, _no_effects
from actors.engine.docker import DockerEngine
from actors.engine.fences import Fences
from actors.engine.port import Place
from actors.engine.process import ProcessEngine
from actors.engine.state import Run
from actors.engine.supervisor import Supervisor
from actors.host import Host
from actors.scheduler.specifiers import HostFacts
from actors.setting import Setting
from actors.shell import Shell
from streams.events import cluster as cluster_says
from streams.events import log as log_says
from streams.events import unit as unit_says
from streams.events.base import Event, encode, say
from streams.log.memory import MemoryLog
from streams.outcomes import Accepted
from streams.records import Record
from streams.replay import Applied, Replica
from tests.actors.engine.rig import WAIT_S, clean, place

LOG_ID = "0" * 32
MASTER = "f" * 32


class World:
    """The log and its master; ``control`` is the fold of all that was written so far."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.replica = Replica(ControlFold())
        self._seq = 0
        self.say("log", "node", MASTER, log_says.LogOpened(id=LOG_ID))
        for actor in ("coordination", "scheduler", "gateway"):
            self.say("log", actor, MASTER, log_says.ActorOpened(nonce="n"))
        self.join(MASTER)
        self.say("cluster", "coordination", MASTER, cluster_says.Claim(expect_term=0, expect_renew_seq=0))

    @property
    def control(self) -> Control:
        self.catch_up()
        return self.replica.fold.state  # type: ignore[attr-defined]

    def catch_up(self) -> list[Applied]:
        out: list[Applied] = []
        for entry in self.log.entries:
            if entry.offset > self.replica.offset:
                out += self.replica.apply(entry)
        return out

    def say(self, stream: str, actor: str, machine: str, data: Any, subject: str = "", term: int = 0) -> Any:
        """Append one event and return its accepted result."""
        self._seq += 1
        event: Event = say(data, subject=subject, term=term)
        record = Record(LOG_ID, stream, f"{actor}@{machine}", 1, self._seq, 1000, encode([event]))
        self.log.put(record.canonical())
        outcome = self.catch_up()[-1].outcome
        assert isinstance(outcome, Accepted), outcome
        return outcome.result

    def join(self, machine: str, sent_ms: int = 0, nonce: str = "n", previous: str = "n") -> None:
        if f"coordination@{machine}" not in self.replica.log.writers:
            self.say("log", "coordination", machine, log_says.ActorOpened(nonce="n"))
        joined = cluster_says.MachineJoined(
            nonce=nonce, boot_id=_boot_id(), previous=previous, sent_ms=sent_ms, cpu_millis=64_000
        )
        self.say("cluster", "coordination", machine, joined, machine)

    def seen(self, machine: str, sent_ms: int | None = None, nonce: str = "n") -> None:
        sent_ms = deadline.now_ms() if sent_ms is None else sent_ms
        data = cluster_says.MachineSeen(sent_ms=sent_ms, nonce=nonce)
        self.say("cluster", "coordination", machine, data, machine)

    def lose(self, machine: str) -> None:
        last = self.control.cluster.machines[machine].seen_at
        self.master("cluster", cluster_says.MachineLost(last_seen=last, ttl_ms=3000), machine)

    def master(self, stream: str, data: Any, subject: str) -> Any:
        actor = "coordination" if stream == "cluster" else "scheduler"
        return self.say(stream, actor, MASTER, data, subject, self.control.cluster.election.term)

    def submit(self, unit: str, content: str, desired: str = "launched", replace: bool = True) -> Any:
        return self.say("unit", "gateway", MASTER, unit_says.Submit(content, desired, replace), unit)

    def desire(self, unit: str, state: str) -> None:
        self.say("unit", "gateway", MASTER, unit_says.Desire(state), unit)

    def restart(self, unit: str) -> None:
        self.say("unit", "gateway", MASTER, unit_says.Restart(), unit)

    def place(self, unit: str, machine: str) -> int:
        """Place the unit as the master would; returns its fence."""
        known = self.control.units.units[unit]
        placed = unit_says.Placed(
            machine=machine,
            generation=known.generation,
            machine_generation=self.control.cluster.machines[machine].generation,
            reason="a test wants it there",
        )
        return self.master("unit", placed, unit)["fence"]

    def unplace(self, unit: str, machine: str) -> None:
        generation = self.control.units.units[unit].generation
        self.master("unit", unit_says.Unplaced(machine=machine, generation=generation, reason="a test"), unit)

    def run(self, unit: str, machine: str) -> Run | None:
        return self.control.engines.runs.get(unit, {}).get(machine)

    def facts(self, unit: str) -> list[Event]:
        """What engines said of the unit, in order (also what was void)."""
        replica, out = Replica(ControlFold()), []
        for entry in self.log.entries:
            out += [each.event for each in replica.apply(entry) if each.record.stream == "engine"]
        return [event for event in out if event.subject == unit]

    def told(self, unit: str) -> str:
        """The facts' names: ``started ready stopped``."""
        return " ".join(event.type.split(".")[1] for event in self.facts(unit))


def _boot_id() -> str:
    from actors.engine import cgroups

    return cgroups.boot_id()


class Node:
    """One machine's engine on the world's log."""

    def __init__(self, world: World, where: Place, fence_ms: int, alone: bool) -> None:
        self.world = world
        self.machine = where.machine
        self.setting = Setting(
            machine=where.machine,
            nonce="n",
            boot_id=where.boot_id,
            folder=str(Path(where.folder).parent),
            log="memory://",
            log_id=LOG_ID,
            alone=alone,
            fence_ms=fence_ms,
        )
        self.fences = None if alone else Fences(where, fence_ms, lambda: self.supervisor.fences_changed())
        self.process = ProcessEngine(where)
        engines: dict[str, Any] = {"process": self.process}
        if where.options.get("docker"):
            engines["docker"] = DockerEngine(where, self.fences)
        host = HostFacts(where.machine, "host", where.boot_id, "kernel")
        self.supervisor = Supervisor(engines, host, self.fences, self._changed)
        self.actor = EngineActor(self.setting, self.supervisor)
        writer = f"engine@{where.machine}"
        self.host = Host(self.actor, Replica(ControlFold()), writer, lambda: secrets.token_hex(8))
        self.shell = Shell(self.host, world.log, _no_effects)
        self._task: asyncio.Task[None] | None = None

    def _changed(self, units: set[str]) -> None:
        if self.actor.is_live:
            self.shell.notice(units)

    async def up(self) -> None:
        await self.supervisor.open()
        if self.fences is not None:
            live = [seen for e in self.supervisor.engines.values() for seen in e.inventory().values() if seen.live]
            await self.fences.open(any(seen.fenced for seen in live))
        self._task = asyncio.ensure_future(self.shell.run())

    async def down(self) -> None:
        """The node ends; units run on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.supervisor.close()
        if self.fences is not None:
            await self.fences.close()

    async def until(self, unit: str, *states: str, **fields: Any) -> Run:
        """The run on the log, once it is in one of these states and has these fields."""

        def wanted() -> Run | None:
            run = self.world.run(unit, self.machine)
            if run is None or run.state not in states:
                return None
            return run if all(getattr(run, name) == value for name, value in fields.items()) else None

        try:
            async with asyncio.timeout(WAIT_S):
                while (run := wanted()) is None:
                    if self._task is not None and self._task.done():
                        self._task.result()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            told = [(e.type, e.data) for e in self.world.facts(unit)]
            raise AssertionError(f"{unit} is not {states} {fields}: {told}, {self.supervisor.seen(unit)}") from None
        return run

    async def told(self, unit: str, facts: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.world.told(unit) != facts:
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        """Nothing is under way, and the log knows all."""
        calm = 0
        while calm < 10:
            busy = self.supervisor._tasks or self.host._flights or self.actor._unsaid
            calm = 0 if busy else calm + 1
            await asyncio.sleep(0.01)


@asynccontextmanager
async def node(
    world: World, folder: Path, *, machine: str = "a" * 32, fence_ms: int = 10_000, alone: bool = True, **options: str
) -> AsyncIterator[Node]:
    where = place(folder, machine=machine, fences=not alone, options=options)
    it = Node(world, where, fence_ms, alone)
    await it.up()
    try:
        yield it
    finally:
        await it.down()
        clean(Path(where.folder))
