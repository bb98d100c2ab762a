"""The scheduler actor: on the machine that holds the term it says where units run, and when fences have expired.

On all machines it folds what happens and keeps its planner up to date, so that a new master decides at once. It holds
back nothing: whether its plan still holds is checked again at apply, by every replica.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import structlog

from actors import start
from actors.control import Control, ControlFold
from actors.coordination import election
from actors.host import IDLE, Host, Now, Plan
from actors.outcomes import Told, nobody, telling
from actors.running import until_stop
from actors.scheduler.decide import Planner, fence_wait_s, open_fences_of_the_dead
from actors.setting import Setting, Signals
from actors.shell import Shell
from streams.events import log as log_says
from streams.events import unit as says
from streams.events.base import Event, say
from streams.outcomes import Rejected
from streams.records import Position
from streams.replay import Applied, Replica

#: Unit files parsed in one go when a restored state is taken over.
WARM_STEP = 50
#: Marks kept beyond twice the units on a machine that doesn't hold the term.
IDLE_MARKS_MAX = 1000


class Scheduler:
    """Implements :class:`actors.host.Actor`."""

    name = "scheduler"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.planner = Planner()
        self._lease_s = setting.lease_ms / 1000
        self._fence_wait_s = fence_wait_s(setting.fence_ms)
        self._term = 0
        #: when the loss of (machine, generation) was first reckoned with here, in this term
        self._lost_s: dict[tuple[str, int], float] = {}
        #: a plan was handed out and is not applied yet
        self._sent = False
        self._checkpointed = Position(-1)
        self.tell: Told = nobody
        self._logger = structlog.get_logger(actor=self.name)

    def live(self, replica: Replica, now: Now) -> None:
        """Caught up. A plan of an earlier incarnation may have been lost: look at everything again."""
        self._sent = False
        self.planner.restart()

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        for applied in batch:
            self.planner.note(applied)
            data = applied.event.data
            if isinstance(data, log_says.Checkpoint) and data.fold == replica.fold.name:
                self._checkpointed = max(self._checkpointed, Position.parse(data.position))
        term = _control(replica).cluster.election.term
        if term != self._term:
            self._term = term
            self._lost_s.clear()  # a new term counts afresh
        self.tell(batch, live)

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        self._sent = False
        for applied in events:
            if isinstance(applied.outcome, Rejected):
                self._logger.info("a decision was void", unit=applied.event.subject, why=applied.outcome.message)

    def noticed(self, observation: Any, now: Now) -> None:
        raise AssertionError(f"nobody tells the scheduler anything but the log: {observation!r}")

    def decide(self, replica: Replica, now: Now) -> Plan:
        if self._sent:
            self._sent = False
            self.planner.restart()  # the log took nothing of the last plan
        control = _control(replica)
        if not self.acting(replica, now):
            if len(self.planner.view.dirty) > 2 * len(control.units.units) + IDLE_MARKS_MAX:
                self.planner.restart()  # names that are long gone add up where nothing is decided
            return IDLE
        term = control.cluster.election.term
        events, wake_at_s = self._expired(control, term, now)
        at = str(replica.offset)
        events += [decision.event for decision in self.planner.decide(control, term, at)]
        if (checkpoint := self._checkpoint(replica)) is not None:
            events.append(checkpoint)
        if not events and self.planner.pending:
            wake_at_s = now.boot_s
        self._sent = bool(events)
        return Plan(events, wake_at_s=wake_at_s)

    def acting(self, replica: Replica, now: Now) -> bool:
        """Whether this start of this machine's node is the master, and still within its lease."""
        elected, setting = _control(replica).cluster.election, self.setting
        return election.acting(elected, setting.machine, setting.nonce, now.boot_s, self._lease_s, setting.alone)

    def _expired(self, control: Control, term: int, now: Now) -> tuple[list[Event], float | None]:
        """Fences that nothing can run under any more, and when to look again."""
        events: list[Event] = []
        wake_at_s: float | None = None
        lost_s: dict[tuple[str, int], float] = {}
        for unit, fence, machine, generation in open_fences_of_the_dead(control):
            key = (machine, generation)
            lost_s[key] = self._lost_s.get(key, now.boot_s)
            due_s = lost_s[key] + self._fence_wait_s
            if now.boot_s >= due_s:
                found = control.cluster.machines.get(machine)
                cause = found.lost_at if found is not None else ""
                events.append(say(says.FenceExpired(fence, machine, generation), subject=unit, term=term, cause=cause))
            else:
                wake_at_s = due_s if wake_at_s is None else min(wake_at_s, due_s)
        self._lost_s = lost_s
        return events, wake_at_s

    def _checkpoint(self, replica: Replica) -> Event | None:
        """The newest boundary, if nobody has said it yet."""
        if not replica.log.boundaries:
            return None
        newest = replica.log.boundaries[-1]
        if Position.parse(newest.position) <= self._checkpointed:
            return None
        self._checkpointed = Position.parse(newest.position)
        return say(log_says.Checkpoint(replica.fold.name, newest.position, newest.chain, newest.outcomes))


def _control(replica: Replica) -> Control:
    state: Control = replica.fold.state  # type: ignore[attr-defined]
    return state


async def serve(setting: Setting, signals: Signals) -> None:
    """Run the scheduler until ``signals.stop``. Raises Superseded, Halt, ForeignLog, LogTruncated.

    Reports ``applied``, ``live``, ``acting``, ``units`` and ``waiting``.
    """
    log = await start.opened(setting, Scheduler.name)
    try:
        actor = Scheduler(setting)
        replica = await start.resumed(setting, ControlFold, log)
        await _warm(_control(replica))
        host = Host(actor, replica, f"{actor.name}@{setting.machine}", lambda: secrets.token_hex(8))
        shell = Shell(host, log, _no_effects)

        def acting() -> bool:
            return actor.acting(host.replica, shell.now())

        async with telling(setting, log, ControlFold, acting, lambda: host.replica.log.voided) as actor.tell:
            await until_stop(shell, signals, lambda: _status(shell, actor))
    finally:
        await log.close()


async def _warm(control: Control) -> None:
    """Parse the unit files of a restored state bit by bit, so that the first decision doesn't stop the loop."""
    for index, unit in enumerate(list(control.units.units.values())):
        unit.spec  # noqa: B018 - remembered by the parser
        if index % WARM_STEP == WARM_STEP - 1:
            await asyncio.sleep(0)


def _status(shell: Shell, actor: Scheduler) -> dict[str, Any]:
    replica = shell.host.replica
    return {
        "applied": replica.offset,
        "live": shell.host.live,
        "acting": actor.acting(replica, shell.now()),
        "units": len(_control(replica).units.units),
        "waiting": len(actor.planner.view.unsettled),
    }


async def _no_effects(effect: Any, notice: Any) -> None:
    raise AssertionError(f"the scheduler has no effects in the world: {effect!r}")
