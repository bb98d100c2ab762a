"""Updaters of several machines on one log in memory, in one process: the product's host, shell and effects."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from actors.control import Control, ControlFold
from actors.host import IDLE, Host, Plan
from actors.shell import Shell
from actors.updater import objects
from actors.updater.actor import Updater
from actors.updater.effects import Effects
from actors.updater.fetch import Terms
from actors.updater.state import Installed
from actors.updater.store import Step, no_step
from streams.events import cluster as cluster_says
from streams.events import encode, say
from streams.events import log as log_says
from streams.events.base import Data, Event
from streams.log.memory import MemoryLog
from streams.outcomes import Accepted, Outcome
from streams.records import Record
from streams.replay import LEVEL, Applied, Replica
from tests.actors.updater.trees import make

LOG = "cd" * 16
_nonces = itertools.count(1)


class Killed(BaseException):
    """Stands for SIGKILL inside of the process: nothing of the updater goes on."""


class Quiet:
    """An actor that only submits what it is told to."""

    name = "gateway"

    def live(self, *_: Any) -> None: ...

    def applied(self, *_: Any) -> None: ...

    def landed(self, *_: Any) -> None: ...

    def noticed(self, *_: Any) -> None: ...

    def decide(self, *_: Any) -> Plan:
        return IDLE


class Running:
    """One updater (or the operator's gateway) that runs until :meth:`stop`."""

    def __init__(self, actor: Any, machine: str, log: MemoryLog, perform: Any, close: Callable[[], None]) -> None:
        self.actor = actor
        self.replica = Replica(ControlFold())
        host = Host(actor, self.replica, f"{actor.name}@{machine}", lambda: f"nonce{next(_nonces)}")
        self.shell = Shell(host, log, perform)
        self._close = close
        self.task = asyncio.ensure_future(self.shell.run())

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self._close()


class Cluster:
    """``machines`` join at once. Facts are what updaters said, in the log's order."""

    def __init__(self, folder: Path, *machines: str, gateways: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.log = MemoryLog()
        self.names = machines
        self.gateways = gateways or {}
        self.updaters: dict[str, Running] = {}
        self.killed = asyncio.Event()

    async def __aenter__(self) -> "Cluster":
        await self._append("log", "gateway@op", 0, say(log_says.LogOpened(id=LOG, level=LEVEL)))
        for machine in self.names:
            writer = f"coordination@{machine}"
            await self._append("log", writer, 1, say(log_says.ActorOpened(nonce="n")))
            joined = cluster_says.MachineJoined("n", "b", name=machine, gateway=self.gateways.get(machine, ""))
            await self._append("cluster", writer, 1, say(joined, subject=machine))
        self.operator = Running(Quiet(), "op", self.log, None, lambda: None)
        return self

    async def __aexit__(self, *_: object) -> None:
        for running in [*self.updaters.values(), self.operator]:
            await running.stop()

    async def _append(self, stream: str, writer: str, incarnation: int, event: Event) -> None:
        seq = 1 + await self.log.end()  # grows, which is enough
        await self.log.append([Record(LOG, stream, writer, incarnation, seq, 0, encode([event]))])

    def data(self, machine: str) -> Path:
        return self.folder / machine

    def start(self, machine: str, step: Step = no_step, terms: Terms | None = None) -> Running:
        """Start this machine's updater. ``step`` may raise Killed."""
        effects = Effects(self.data(machine) / "updater", terms or Terms(patience_s=0), step)

        async def perform(effect: Any, notice: Callable[[Any], None]) -> None:
            try:
                await effects.perform(effect, notice)
            except Killed:
                self.killed.set()

        running = Running(Updater(machine, self.gateways.get(machine, "")), machine, self.log, perform, effects.close)
        self.updaters[machine] = running
        return running

    async def tell(self, data: Data, subject: str = "") -> Outcome:
        """Say a command; its outcome."""
        applied = await self.operator.shell.submit([say(data, subject=subject, principal="uid:0")])
        return applied[0].outcome

    async def publish(self, machine: str, version: str, files: dict[str, Any], health: str = "", **more: Any) -> None:
        source = make(self.folder / f"source-{machine}-{version}", files)
        said = objects.publish_folder(
            self.data(machine), source, version, health=health, gateways=[self.gateways.get(machine, "")], **more
        )
        assert isinstance(await self.tell(said, version), Accepted)

    @property
    def state(self) -> Control:
        return self.operator.replica.fold.state  # type: ignore[attr-defined,no-any-return]

    def installed(self, machine: str) -> Installed:
        return self.state.updates.machines.get(machine) or Installed()

    async def settled(self, *machines: str) -> None:
        """Until no order, no check and no gc is open on these machines."""
        await until(
            lambda: all(
                not (i.order or i.checking or i.collect_at) for i in map(self.installed, machines or self.names)
            )
        )

    def facts(self) -> list[tuple[str, str, str]]:
        """(machine, type without version, subject) of all that updaters said."""
        return [
            (applied.record.machine, applied.event.type.split(".")[1], applied.event.subject)
            for applied in self._replayed()
            if applied.record.actor == "updater" and applied.record.stream == "update"
        ]

    def _replayed(self) -> list[Applied]:
        replica = Replica(ControlFold())
        return [applied for entry in self.log.entries for applied in replica.apply(entry)]


async def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


Work = Callable[[], Awaitable[None]]
