"""The updater of one machine: brings its disk to what the log wants of it, and tells the log what is so."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from actors import start
from actors.control import Control, ControlFold
from actors.host import IDLE, Host, Now, Plan
from actors.running import until_stop
from actors.setting import Setting, Signals
from actors.shell import Shell
from actors.updater import decide
from actors.updater.decide import BackJob, CollectJob, HealthJob, Job, Look, Result, StageJob, World
from actors.updater.effects import Cancel, Effects
from actors.updater.fetch import Terms
from actors.updater.state import Installed
from streams.events import update as says
from streams.replay import Applied, Replica

#: A mending that nobody ordered, or a going back, that failed is tried again after this long.
RETRY_S = 5.0


class Updater:
    """See actors.host.Actor. ``job`` is under way, ``result`` is not said yet."""

    name = "updater"

    def __init__(self, machine: str, gateway: str = "") -> None:
        self.machine = machine
        self.gateway = gateway
        self.world: World | None = None
        self.job: Job | None = None
        self.result: Result | None = None
        self.checked: str | None = None
        self.unhealthy: Result | None = None
        self._cancelled = False
        self._retry_at_s = float("-inf")

    def live(self, replica: Replica, now: Now) -> None:
        return None

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        return None

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        """What was to be said of the result is on the log (a switch's result is said by the world after it)."""
        moved = any(isinstance(applied.event.data, says.Switched | says.RolledBack) for applied in events)
        if self.result is not None and not (moved and isinstance(self.result.job, StageJob | CollectJob)):
            self._learn(self.result, now)

    def noticed(self, observation: Any, now: Now) -> None:
        if isinstance(observation, Result):
            self.result, self.world, self.job = observation, observation.world, None
            self._cancelled = False

    def decide(self, replica: Replica, now: Now) -> Plan:
        control: Control = replica.fold.state  # type: ignore[attr-defined]
        updates = control.updates
        installed = updates.machines.get(self.machine)
        if self.job is not None:
            if decide.obsolete(self.job, installed) and not self._cancelled:
                self._cancelled = True
                return Plan(effects=[Cancel()])
            return IDLE
        if self.world is None:
            return self._start(Look())
        said = decide.facts(self.machine, installed or Installed(), self.world, self.result)
        if said:
            return Plan(said)
        if self.result is not None:
            self._learn(self.result, now)
        if installed is not None and not installed.checking:
            self.unhealthy = None
        if now.boot_s < self._retry_at_s and not (installed and installed.order):
            return Plan(wake_at_s=self._retry_at_s)
        elsewhere = self._elsewhere(control)
        job = decide.next_job(self.machine, updates, self.world, self.checked, self.unhealthy, elsewhere)
        return self._start(self._without_own(job)) if job is not None else IDLE

    def _start(self, job: Job) -> Plan:
        self.job = job
        return Plan(effects=[job])

    def _learn(self, result: Result, now: Now) -> None:
        """The result is said, or needs no saying."""
        self.result = None
        job = result.job
        if isinstance(job, StageJob) and result.ok:
            self.checked = job.order_at
        if isinstance(job, HealthJob):
            self.unhealthy = None if result.ok else result
        mending = isinstance(job, BackJob) or not getattr(job, "order_at", "-")
        if mending and not result.ok:
            self._retry_at_s = now.boot_s + RETRY_S
            structlog.get_logger(actor=self.name).warning("will try again", job=type(job).__name__, why=result.reason)

    def _elsewhere(self, control: Control) -> list[str]:
        machines = [machine for machine in control.cluster.machines.values() if machine.id != self.machine]
        machines.sort(key=lambda machine: not machine.alive)
        return [machine.gateway for machine in machines if machine.gateway]

    def _without_own(self, job: Job) -> Job:
        """This machine's own gateway serves this store: what isn't here isn't there."""
        if isinstance(job, StageJob) and self.gateway in job.gateways:
            return msgspec.structs.replace(job, gateways=[at for at in job.gateways if at != self.gateway])
        return job

    def report(self) -> dict[str, Any]:
        """What it does now, in plain data."""
        return {
            "job": type(self.job).__name__ if self.job else "",
            "running": self.world.running if self.world else "",
        }


def terms(setting: Setting) -> Terms:
    """How to fetch: ``[updater]`` fetch_timeout_s, fetch_patience_s, fetch_rate_min (bytes a second).

    Raises ValueError that names the setting.
    """
    given: dict[str, float] = {}
    for key, field in (
        ("fetch_timeout_s", "timeout_s"),
        ("fetch_patience_s", "patience_s"),
        ("fetch_rate_min", "rate_min"),
    ):
        if key in setting.updater:
            try:
                given[field] = float(setting.updater[key])
            except ValueError:
                raise ValueError(f"updater.{key} = {setting.updater[key]!r} is not a number") from None
            if given[field] < 0:
                raise ValueError(f"updater.{key} = {setting.updater[key]!r} is below 0")
    return msgspec.convert(given, Terms, strict=False)


async def serve(setting: Setting, signals: Signals) -> None:
    """Run the updater until ``signals.stop``. Raises Superseded, Halt, ForeignLog, LogTruncated: it must end then."""
    effects = Effects(Path(setting.folder) / "updater", terms(setting))
    log = await start.opened(setting, Updater.name)
    try:
        actor = Updater(setting.machine, setting.gateway_advertise)
        replica = await start.resumed(setting, ControlFold, log)
        host = Host(actor, replica, f"{actor.name}@{setting.machine}", lambda: secrets.token_hex(8))
        shell = Shell(host, log, effects.perform)

        def status() -> dict[str, Any]:
            return {"applied": shell.host.replica.offset, "live": shell.host.live, **actor.report()}

        await until_stop(shell, signals, status)
    finally:
        effects.close()
        await log.close()
