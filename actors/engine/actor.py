"""The engine actor: runs the units that the log places on its machine, and tells the log how they fare.

What runs is the business of :class:`Supervisor`, which goes on while the log can't be reached; this actor tells it
what the log wants, and the log what it sees. The node's end leaves all units running.
"""

import asyncio
import contextlib
import os
import platform
import secrets
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from actors import start
from actors.control import Control, ControlFold
from actors.engine import decide
from actors.engine.decide import Wanted
from actors.engine.fences import Fences
from actors.engine.port import Engine, Place
from actors.engine.process import ProcessEngine
from actors.engine.supervisor import Supervisor
from actors.engine.templates import Templates
from actors.host import IDLE, Host, Now, Plan
from actors.scheduler.specifiers import HostFacts
from actors.setting import Setting, Signals
from actors.shell import Shell
from streams.events import cluster as cluster_says
from streams.events import engine as says
from streams.events.base import Event
from streams.outcomes import Rejected
from streams.replay import Applied, Replica

#: Facts in one plan at most.
FACTS_MAX = 500
#: After this long without the log, the machine goes on by what it last knew.
OFFLINE_S = 3.0
REPORT_S = 1.0
#: What is wanted is saved so soon after it changed.
SAVE_S = 0.1
#: While it catches up: when it is live should be known at once.
SOON_S = 0.02


class EngineActor:
    """Implements :class:`actors.host.Actor`. Static units of the supervisor are not the log's business."""

    name = "engine"

    def __init__(self, setting: Setting, supervisor: Supervisor) -> None:
        self.machine = setting.machine
        self.setting = setting
        self.supervisor = supervisor
        self.is_live = False
        #: called when units may be gone for good: what they left can be removed
        self.tidy_hook: Callable[[], None] = lambda: None
        self.known: Callable[[str], bool] = lambda _unit: True
        #: called when what is wanted may have changed
        self.wanted_hook: Callable[[], None] = lambda: None
        self._unsaid: set[str] = set()
        self._seen_ms = 0
        #: what landed last of each unit
        self._said: dict[str, list[Event]] = {}
        self._logger = structlog.get_logger(actor=self.name)

    def live(self, replica: Replica, now: Now) -> None:
        """Caught up: the world is brought to what the log wants, and the log told what differs."""
        control = _control(replica)
        units = set(control.units.placed.get(self.machine, {})) | self.supervisor.units()
        units.update(unit for unit, runs in control.engines.runs.items() if self.machine in runs)
        units.update(
            unit for unit, fences in control.units.fences.items() if any(f.machine == self.machine for f in fences)
        )
        self._unsaid |= units
        self.known = lambda unit: unit in control.units.units or unit in control.engines.runs
        self.supervisor.is_open = lambda unit, fence: not decide.stale_fence(control, unit, fence)
        self._push(control, units)
        first, self.is_live = not self.is_live, True
        if first:
            self.supervisor.activate()
            self.tidy_hook()
        self._extend(control)

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        if not self.is_live:
            return
        units = {each.event.subject for each in batch if each.record.stream in ("unit", "engine")}
        control = _control(replica)
        self._push(control, units)
        self._unsaid |= units
        if not all(map(self.known, units)):
            self.tidy_hook()
        if any(isinstance(each.event.data, cluster_says.MachineSeen | cluster_says.MachineJoined) for each in batch):
            self._extend(control)

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        for each in events:
            self._said.pop(each.event.subject, None)
        for each in events:
            self._said.setdefault(each.event.subject, []).append(each.event)
            if isinstance(each.event.data, says.Stopped):
                self.supervisor.track(each.event.subject).left = None
            if isinstance(each.outcome, Rejected):
                # said again only when something changes: the log knows better
                self._unsaid.discard(each.event.subject)
                self._logger.warning("a fact was void", unit=each.event.subject, type=each.event.type, why=each.outcome)

    def noticed(self, observation: Any, now: Now) -> None:
        """Names of units of which the world changed."""
        self._unsaid |= observation

    def decide(self, replica: Replica, now: Now) -> Plan:
        control = _control(replica)
        events: list[Event] = []
        for unit in sorted(self._unsaid):
            said = self._facts(control, unit)
            if not said:
                self._unsaid.discard(unit)
            events += said
            if len(events) >= FACTS_MAX:
                break
        return Plan(events) if events else IDLE

    def _facts(self, control: Control, unit: str) -> list[Event]:
        supervisor = self.supervisor
        if unit in supervisor.static or supervisor.blind(unit):
            return []
        said = decide.facts(
            self.machine,
            unit,
            supervisor.wants.get(unit),
            supervisor.seen(unit),
            control.engines.runs.get(unit, {}).get(self.machine),
            supervisor.track(unit),
            decide.open_fences(control, self.machine, unit),
        )
        if said and said == self._said.get(unit):
            # on the log already, and still missing: a fault of ours, which must not fill the log
            self._logger.error("a fact did not tell", unit=unit, facts=[event.type for event in said])
            return []
        return said

    def _push(self, control: Control, units: set[str]) -> None:
        said = {}
        for unit in sorted(units - self.supervisor.static):
            want = decide.wanted(control, self.machine, unit)
            said[unit] = (want, control.engines.runs.get(unit, {}).get(self.machine))
        self.supervisor.want(said)
        self.wanted_hook()

    def _extend(self, control: Control) -> None:
        """The right to fenced units grows with the machine's own renewals, T_a after they were *sent*."""
        fences = self.supervisor.fences
        me = control.cluster.machines.get(self.machine)
        if fences is None or me is None or not me.alive:
            return
        if me.nonce != self.setting.nonce or me.boot_id != self.setting.boot_id or me.seen_ms == self._seen_ms:
            return
        if self.supervisor.stale:
            return  # what has lost its right is being killed; its deadline must not move
        self._seen_ms = me.seen_ms
        fences.extend(me.seen_ms + self.setting.fence_ms)


def _control(replica: Replica) -> Control:
    state: Control = replica.fold.state  # type: ignore[attr-defined]
    return state


async def serve(setting: Setting, signals: Signals) -> None:
    """Run the engine until ``signals.stop``; units run on. Raises Superseded, Halt, ForeignLog, LogTruncated.

    Keys of ``setting.engine``: ``static_units`` (a folder of unit files that this machine runs whatever the log says),
    ``cgroup_root`` (a hierarchy, or ``none``), ``docker`` (dockerd's socket, or ``none``), ``journal_bytes``.
    """
    node = _Node(setting, signals)
    await node.open()
    try:
        await node.run()
    finally:
        await node.close()


class _Node:
    """What ``serve`` holds together."""

    def __init__(self, setting: Setting, signals: Signals) -> None:
        self.setting = setting
        self.signals = signals
        self.folder = Path(setting.folder).resolve() / "engine"
        place = Place(
            folder=str(self.folder),
            machine=setting.machine,
            log_id=setting.log_id,
            boot_id=setting.boot_id,
            name=setting.name,
            fences=not setting.alone,
            options=setting.engine,
        )
        self.shell: Shell | None = None
        self.fences = None if setting.alone else Fences(place, setting.fence_ms, self._fences_changed)
        engines: dict[str, Engine] = {"process": ProcessEngine(place)}
        if setting.engine.get("docker") != "none":
            from actors.engine.docker import DockerEngine

            engines["docker"] = DockerEngine(place, self.fences)
        uname = platform.uname()
        host = HostFacts(setting.machine, uname.node, setting.boot_id, uname.release, uname.machine)
        data = self.folder.parent
        self.templates = Templates(self.folder / "templates", data, lambda unit: self.supervisor.renewed(unit))
        self.supervisor = Supervisor(engines, host, self.fences, self._changed, templates=self.templates)
        self.actor = EngineActor(setting, self.supervisor)
        self.actor.wanted_hook = self._save_soon
        self.actor.tidy_hook = self._tidy
        self._tidying: set[asyncio.Future[None]] = set()
        self._saved = b""
        self._saving: asyncio.TimerHandle | None = None
        self._logger = structlog.get_logger(actor="engine")

    async def open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.supervisor.open()
        if self.fences is not None:
            inventories = [engine.inventory() for engine in self.supervisor.engines.values()]
            await self.fences.open(any(seen.live and seen.fenced for all_ in inventories for seen in all_.values()))
        self.supervisor.run_static(static_units(self.setting.engine.get("static_units", "")))

    async def run(self) -> None:
        tasks = [
            asyncio.ensure_future(work) for work in (self._on_the_log(), self.signals.stop.wait(), self._offline())
        ]
        reporter = asyncio.ensure_future(self._report())
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in (*tasks, reporter):
                task.cancel()
            await asyncio.gather(*tasks, reporter, return_exceptions=True)

    async def close(self) -> None:
        if self.actor.is_live:
            self._save()
        await self.supervisor.close()
        await self.templates.close()
        if self.fences is not None:
            await self.fences.close()

    async def _on_the_log(self) -> None:
        log = await start.opened(self.setting, self.actor.name)
        try:
            replica = await start.resumed(self.setting, ControlFold, log)
            host = Host(self.actor, replica, f"{self.actor.name}@{self.setting.machine}", lambda: secrets.token_hex(8))
            self.shell = Shell(host, log, _no_effects)
            await self.shell.run()
        finally:
            self.shell = None
            await log.close()

    async def _offline(self) -> None:
        """Static units don't wait for the log; the others do for a while, then the last known state is enough."""
        await asyncio.sleep(OFFLINE_S)
        if self.actor.is_live:
            return
        path = self.folder / "desired"
        count = 0
        with contextlib.suppress(FileNotFoundError):
            try:
                count = self.supervisor.restore(path.read_bytes())
            except ValueError as error:
                self._logger.warning("the last known state can't be used", path=str(path), error=str(error))
        self._logger.warning("the log can't be reached: going on by the last known state", units=count)
        self.supervisor.activate(offline=True)

    def _changed(self, units: set[str]) -> None:
        if self.shell is not None and self.actor.is_live:
            self.shell.notice(units)

    def _fences_changed(self) -> None:
        self.supervisor.fences_changed()

    async def _report(self) -> None:
        while True:
            shell = self.shell
            live = shell is not None and shell.host.live
            self.signals.report(
                {
                    "applied": shell.host.replica.offset if shell is not None else -1,
                    "live": live,
                    "units": sum(1 for unit in self.supervisor.units() if self._lives(unit)),
                    "fences": self.fences is None or self.fences.ok,
                }
            )
            await asyncio.sleep(REPORT_S if live else SOON_S)

    def _lives(self, unit: str) -> bool:
        seen = self.supervisor.seen(unit)
        return seen is not None and seen.live

    def _tidy(self) -> None:
        work = asyncio.ensure_future(self.supervisor.tidy(self.actor.known))
        self._tidying.add(work)
        work.add_done_callback(self._tidying.discard)

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_S, self._save)

    def _save(self) -> None:
        """Keep what is wanted for a start without the log; written only when it differs."""
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        raw = self.supervisor.saved()
        if raw == self._saved:
            return
        path = self.folder / "desired"
        new = path.with_suffix(".new")
        try:
            with new.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            self._logger.warning("the desired state can't be saved", path=str(path), error=str(error))
        self._saved = raw


async def _no_effects(effect: Any, notice: Any) -> None:
    raise AssertionError(f"the engine's effects are its supervisor's: {effect!r}")


def static_units(folder: str) -> dict[str, Wanted]:
    """The unit files of a folder, to be run on this machine always. They have fence 0; their generation is taken from
    their content, so that a changed file is a restart."""
    out: dict[str, Wanted] = {}
    if not folder:
        return out
    for path in sorted(Path(folder).glob("*.service")):
        content = path.read_text()
        out[path.name] = Wanted(path.name, content, "launched", 0, zlib.crc32(content.encode()))
    return out
