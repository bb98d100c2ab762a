"""Pure decisions of a machine's updater: what to do next, and what to say of what was done.

It compares three things: what the log wants of this machine (orders), what the log knows of it (facts), and what is so
on its disk (:class:`World`). One job at a time; each ends with a result, which becomes a fact, once. After a crash
nothing is remembered: what is so but not said yet is said, what is wanted but not so is done.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.updater.state import Installed, UpdateState, Version
from streams.events import update as says
from streams.events.base import Event, say


class World(msgspec.Struct, frozen=True):
    """What is so on the disk. ``running``: what ``current`` points to. ``staged``: version → tree hash.

    ``leaving_*``: a going back that was begun (see switch.py), empty where there is none.
    """

    running: str = ""
    staged: dict[str, str] = {}
    leaving: str = ""
    leaving_to: str = ""
    leaving_reason: str = ""


# Jobs: what to do in the world. ``order_at`` is the position that asked for it.


class Look(msgspec.Struct, frozen=True):
    """Clean up what a killed process left, then tell the world as it is."""


class StageJob(msgspec.Struct, frozen=True):
    order_at: str
    version: str
    tree: str
    gateways: list[str]


class SwitchJob(msgspec.Struct, frozen=True):
    order_at: str
    version: str


class HealthJob(msgspec.Struct, frozen=True):
    version: str
    previous: str
    command: str
    timeout_ms: int


class BackJob(msgspec.Struct, frozen=True):
    version: str
    to: str
    reason: str


class ForgetJob(msgspec.Struct, frozen=True):
    """The going back is said: strike out the note of it."""


class CollectJob(msgspec.Struct, frozen=True):
    order_at: str
    keep: list[str]
    keep_trees: list[str]
    known_trees: list[str]


Job = Look | StageJob | SwitchJob | HealthJob | BackJob | ForgetJob | CollectJob


class Result(msgspec.Struct, frozen=True):
    """How a job ended, and the world after it. ``step`` and ``reason`` if it failed."""

    job: Any
    world: World
    ok: bool
    step: str = ""
    reason: str = ""
    fetched_bytes: int = 0
    versions: list[str] = []
    freed_bytes: int = 0


def facts(machine: str, installed: Installed, world: World, result: Result | None) -> list[Event]:
    """What has to be said now: what the log doesn't know yet. Empty if there is nothing."""
    by = _Sayer(machine, installed.order_at)
    if world.running != installed.running:
        return _moved(by, installed, world)
    if result is None or (not result.ok and not getattr(result.job, "order_at", "-")):
        return []  # a mending that nobody ordered and that failed is tried again later, not told each time
    match result.job:
        case StageJob() as job:
            by.cause = job.order_at
            if result.ok and job.version in installed.staged and installed.order != "stage":
                return []  # known: it was only looked through again before the switch
            if result.ok:
                return [by.say(job.version, says.Staged(machine, tree=job.tree, fetched_bytes=result.fetched_bytes))]
            return [by.failed(job.version, result)] if result.step != "cancelled" else []
        case SwitchJob() as job if not result.ok:
            by.cause = job.order_at
            return [by.failed(job.version, result)]
        case HealthJob() as job if result.ok and installed.checking and job.version == installed.running:
            return [by.say(job.version, says.Healthy(machine, result.reason))]
        case BackJob() as job if not result.ok:
            return [by.failed(job.version, result)]
        case CollectJob() as job:
            by.cause = job.order_at
            if result.ok:
                return [by.say("", says.Collected(machine, versions=result.versions, freed_bytes=result.freed_bytes))]
            # what can't be dropped now (a disk's error) is told and not tried for ever
            return [by.say("", says.Collected(machine, f"{result.step}: {result.reason}"))]
        case _:
            return []


def _moved(by: "_Sayer", installed: Installed, world: World) -> list[Event]:
    """``current`` points elsewhere than the log knows: a switch or a going back was done and not said."""
    machine = by.machine
    if installed.checking and world.leaving == installed.running and world.leaving_to == world.running:
        return [by.say(installed.running, says.RolledBack(machine, world.leaving_reason, previous=world.running))]
    if not world.running:
        return []  # the link was taken away: it is laid again, see next_job
    asked = installed.order in ("switch", "rollback") and installed.wanted == world.running
    detail = "" if asked else "the link `current` was found to point here; nobody had ordered it"
    if not asked:
        by.cause = ""
    return [by.say(world.running, says.Switched(machine, detail, previous=installed.running))]


class _Sayer:
    def __init__(self, machine: str, cause: str) -> None:
        self.machine = machine
        self.cause = cause

    def say(self, version: str, data: Any) -> Event:
        return say(data, subject=version, cause=self.cause)

    def failed(self, version: str, result: Result) -> Event:
        return self.say(version, says.Failed(self.machine, result.reason, step=result.step))


def next_job(
    machine: str,
    updates: UpdateState,
    world: World,
    checked: str | None,
    unhealthy: Result | None,
    elsewhere: Sequence[str],
) -> Job | None:
    """What to do when all is said.

    checked    the order whose version this process staged or found whole last (empty for a mending, None at the start)
    unhealthy  the result of the health command that failed
    elsewhere  gateways of the other machines
    """
    installed = updates.machines.get(machine)
    if installed is None:
        return None
    running = updates.versions.get(installed.running)
    if installed.running and not world.running and not installed.order:
        # somebody took the link (or the folder) away: lay it again
        if world.staged.get(installed.running) and (running is None or checked == ""):
            return SwitchJob("", installed.running)
        if running is not None:
            return StageJob("", running.version, running.tree, _gateways(running, elsewhere))
    if installed.checking and world.running:
        if unhealthy is not None:
            return BackJob(installed.running, installed.previous, unhealthy.reason)
        command, timeout_ms = (running.health, running.health_timeout_ms) if running else ("", 1)
        return HealthJob(installed.running, installed.previous, command, timeout_ms)
    if world.leaving and not installed.checking:
        return ForgetJob()
    if installed.order and (wanted := updates.versions.get(installed.wanted)) is not None:
        if checked != installed.order_at:
            return StageJob(installed.order_at, wanted.version, wanted.tree, _gateways(wanted, elsewhere))
        return SwitchJob(installed.order_at, wanted.version)
    if installed.collect_at:
        return _collection(machine, updates, installed)
    return None


def _gateways(version: Version, elsewhere: Sequence[str]) -> list[str]:
    """Where to fetch from: where it was published first, then any other machine."""
    return list(dict.fromkeys([*version.gateways, *elsewhere]))


def _collection(machine: str, updates: UpdateState, installed: Installed) -> CollectJob:
    """What a gc keeps: the newest versions, what runs, ran before, is pinned or ordered here; of trees also what any
    machine is ordered to take, so that a gc on the publisher doesn't take it from under them."""
    newest = list(updates.versions)[-installed.keep :] if installed.keep else []
    keep = {*newest, installed.running, installed.previous, *installed.pinned}
    keep |= {installed.wanted} if installed.order else set()
    ordered = {other.wanted for other in updates.machines.values() if other.order}
    versions = updates.versions
    return CollectJob(
        installed.collect_at,
        sorted(keep - {""}),
        sorted({versions[name].tree for name in keep | ordered if name in versions}),
        sorted({version.tree for version in versions.values()}),
    )


def obsolete(job: Job | None, installed: Installed | None) -> bool:
    """Whether the job under way answers an order that was replaced since: then it is broken off."""
    if not isinstance(job, StageJob) or installed is None:
        return False
    return job.order_at != installed.order_at if job.order_at else bool(installed.order)
