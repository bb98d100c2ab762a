"""The coordination actor: holds or seeks the mastership, tells that its machine lives, and who doesn't.

Alone on an embedded log it claims once (the file's lock is the term) and is silent from then on. In a cluster it joins
its machine, renews it once a second, and takes part in the election of :mod:`actors.coordination.election`.
"""

import secrets
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from actors import start
from actors.control import Control, ControlFold
from actors.coordination import decide, election, membership
from actors.coordination.admission import DuplicateMachine, Nonces, Removed, admit
from actors.coordination.state import ClusterState
from actors.host import IDLE, Host, Now, Plan
from actors.running import until_stop
from actors.setting import Setting, Signals
from actors.shell import Shell
from streams.events import cluster as says
from streams.events import log as log_says
from streams.events.base import Event, say
from streams.outcomes import Rejected
from streams.replay import Applied, Replica

FOREVER = float("inf")
NEVER = float("-inf")


class Progress(NamedTuple):
    """Observation: an actor of this machine worked at ``boot_s``. Once told, it must be told again within L."""

    actor: str
    boot_s: float


class Drain(NamedTuple):
    """Observation: the node goes down in an orderly way. ``returning``: its units run on, it means to come back."""

    returning: bool = True


class Coordination:
    """Implements :class:`actors.host.Actor`. ``previous``: nonces of earlier starts on this data folder."""

    name = "coordination"

    def __init__(self, setting: Setting, previous: Collection[str] = ()) -> None:
        self.setting = setting
        self.machine = setting.machine
        self.lease_s = setting.lease_ms / 1000
        self.ttl_s = setting.machine_ttl_ms / 1000
        #: set when the orderly end was applied: the node may stop
        self.left = False
        self._previous = set(previous)
        self._leaving: Drain | None = None
        self._resigning = False
        #: the machine that an operator wants as master, in the term named
        self._asked: tuple[int, str] = (0, "")
        #: the term that this process claimed; others of this machine's past are not its own
        self._term = 0
        self._change: tuple[int, int, str] = (0, 0, "")
        #: when the election last changed here, or the countdown was restarted
        self._changed_s = NEVER
        self._in_flight = False
        #: the election's state when our barrier was sent; after it landed in time, a claim may follow
        self._barrier: tuple[int, int, str] | None = None
        self._cleared: tuple[int, int, str] | None = None
        #: the election's state for which we asked early whether the log is live
        self._probed: tuple[int, int, str] | None = None
        self._renewed_s = NEVER
        self._seen_s = NEVER
        self._landed_s = NEVER
        self._heard_s: dict[str, float] = {}
        self._lost_s: dict[str, float] = {}
        self._progress_s: dict[str, float] = {}
        self._mass = False

    # -- inputs -----------------------------------------------------------------------------------------------

    def live(self, replica: Replica, now: Now) -> None:
        """Countdowns start afresh: what happened before our barrier says nothing of how long ago it was."""
        self._in_flight = self._resigning = False
        self._restart(_control(replica).cluster, now)

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        cluster = _control(replica).cluster
        elected = cluster.election
        change = (elected.term, elected.renew_seq, elected.holder)
        if change != self._change:
            if elected.term != self._change[0]:
                self._lost_s.clear()
                self._restart(cluster, now)
            self._change, self._changed_s = change, now.boot_s
        for applied in batch:
            if applied.record.stream != "cluster":
                continue
            data = applied.event.data
            if isinstance(applied.outcome, Rejected):
                continue
            if isinstance(data, says.MachineSeen | says.MachineJoined):
                self._heard_s[applied.event.subject] = now.boot_s
                self._lost_s.pop(applied.event.subject, None)
            elif isinstance(data, says.MasterAsked):
                self._asked = (elected.term, applied.event.subject)
            elif isinstance(data, says.MachineLost):
                self._lost_s[applied.event.subject] = now.boot_s

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        self._in_flight = False
        slow = now.boot_s - sent_s > decide.LOG_SLOW_S
        # nothing of ours came back for long: the log, or this process, stood still
        gap = now.boot_s - self._landed_s > self.lease_s / 4 + decide.LOG_SLOW_S and self._holding(replica)
        if slow or gap:
            self._restart(_control(replica).cluster, now)
        self._landed_s = now.boot_s
        barrier, self._barrier = self._barrier, None
        for applied in events:
            self._landed_one(applied)
            if isinstance(applied.event.data, log_says.Barrier) and not slow and barrier == self._change:
                self._cleared = barrier

    def noticed(self, observation: Any, now: Now) -> None:
        match observation:
            case Progress(actor, boot_s):
                self._progress_s[actor] = max(boot_s, self._progress_s.get(actor, NEVER))
            case Drain():
                self._leaving = observation
            case _:
                raise TypeError(f"coordination can't use the observation {observation!r}")

    def acting(self, replica: Replica, now: Now) -> bool:
        """Whether this process may act as master now."""
        return (not self._resigning and self._holding(replica)) and election.acting(
            _control(replica).cluster.election,
            self.machine,
            self.setting.nonce,
            now.boot_s,
            self.lease_s,
            self.setting.alone,
        )

    # -- decisions --------------------------------------------------------------------------------------------

    def decide(self, replica: Replica, now: Now) -> Plan:
        if self._in_flight:
            # asked again with nothing under way: what we said was refused, so the log is not live
            self._in_flight, self._resigning, self._barrier = False, False, None
            self._restart(_control(replica).cluster, now)
        plan = self._alone(replica, now) if self.setting.alone else self._clustered(replica, now)
        self._in_flight = bool(plan.events)
        return plan

    def _alone(self, replica: Replica, now: Now) -> Plan:
        cluster = _control(replica).cluster
        events: list[Event] = []
        me = cluster.machines.get(self.machine)
        if me is None or me.nonce != self.setting.nonce or not me.alive:
            # the log's lock proves that no other node lives on it
            events.append(self._join(me.nonce if me else "", now))
        if cluster.election.holder_nonce != self.setting.nonce or cluster.election.holder != self.machine:
            events.append(self._claim(cluster.election, now))
        elif not self._holding(replica):
            self._term = cluster.election.term
        else:
            events += decide.levels(replica.log, cluster)
        self.left = self._leaving is not None
        return Plan(events) if events else IDLE

    def _clustered(self, replica: Replica, now: Now) -> Plan:
        if self.left:
            return IDLE
        cluster = _control(replica).cluster
        me = cluster.machines.get(self.machine)
        if me is None or me.nonce != self.setting.nonce or not me.alive:
            if self._leaving is not None:
                self.left = True
                return IDLE
            known = me.nonce if me is not None and me.nonce in self._previous else ""
            self._seen_s = now.boot_s
            return Plan([self._join(known, now)])
        if self._leaving is not None:
            return self._leave(replica, self._leaving, now)
        if membership.is_removed(cluster.membership, self.machine):
            return self._end(replica, now)
        if self._holding(replica):
            return self._hold(replica, now)
        return self._challenge(replica, now)

    def _hold(self, replica: Replica, now: Now) -> Plan:
        elected = _control(replica).cluster.election
        asked_in, asked = self._asked
        if asked_in == elected.term and asked not in ("", self.machine):
            self._asked = (0, "")
            return self._resign(replica, "an operator asked for it", now, asked)
        if stale := self._without_progress(now):
            return self._resign(replica, f"no progress of {stale} within {self.lease_s:g} s", now)
        events, wake_at_s = self._absences(replica, now)
        events += decide.levels(replica.log, _control(replica).cluster)
        self._see(events, now, early=now.boot_s >= self._renewed_s + self.lease_s / 4)
        if events or now.boot_s >= self._renewed_s + self.lease_s / 4:
            # whatever is said carries a renewal: a plan without one under way in a broker's pause would let a
            # challenger's barrier come back with no renewal before it
            events.insert(0, self._renew(elected, now))
        if events:
            return Plan(events)
        return Plan(wake_at_s=min(wake_at_s, self._renewed_s + self.lease_s / 4, self._seen_s + decide.SEEN_S))

    def _absences(self, replica: Replica, now: Now) -> tuple[list[Event], float]:
        """What the holder says of machines that it doesn't hear, and when to look again."""
        fresh = now.boot_s - self._landed_s <= self.lease_s / 4 + decide.LOG_SLOW_S
        if not fresh or not self.acting(replica, now):
            return [], FOREVER  # first a renewal must show that the log is live
        cluster = _control(replica).cluster
        absence = decide.absent(cluster, self.machine, self._heard_s, self._lost_s, now.boot_s, self.ttl_s)
        if self._mass and not absence.mass and cluster.withheld:
            for name in cluster.withheld:
                self._heard_s[name] = now.boot_s
            absence = decide.absent(cluster, self.machine, self._heard_s, self._lost_s, now.boot_s, self.ttl_s)
        self._mass = absence.mass
        term = cluster.election.term
        events = []
        for name in absence.lost:
            seen_at = cluster.machines[name].seen_at
            lost = says.MachineLost(last_seen=seen_at, ttl_ms=self.setting.machine_ttl_ms)
            events.append(say(lost, subject=name, term=term, cause=seen_at))
        if absence.withheld:
            withheld = says.MachinesWithheld(machines=absence.withheld, reason=absence.reason)
            events.append(say(withheld, term=term))
        return events, FOREVER if absence.wake_at_s is None else absence.wake_at_s

    def _challenge(self, replica: Replica, now: Now) -> Plan:
        cluster = _control(replica).cluster
        elected = cluster.election
        events: list[Event] = []
        wake_at_s = self._seen_s + decide.SEEN_S
        if (
            self.setting.control
            and membership.votes(cluster.membership, self.machine)
            and not self._without_progress(now)
        ):
            claim_at_s = self._changed_s + decide.countdown_s(cluster, self.machine, self.lease_s)
            if elected.holder == self.machine:
                claim_at_s = NEVER  # held by an earlier process of this very machine, which is dead
            probe_at_s = self._changed_s + decide.OVERDUE * self.lease_s
            probes = elected.holder not in ("", self.machine) and self._probed != self._change
            if probes and now.boot_s >= probe_at_s:
                self._probed = self._change
                return Plan([say(log_says.Barrier())])
            if now.boot_s < claim_at_s:
                wake_at_s = min(wake_at_s, claim_at_s, probe_at_s if probes else FOREVER)
            elif not elected.holder or elected.holder == self.machine or self._cleared == self._change:
                self._cleared = None
                events.append(self._claim(elected, now))
            else:
                self._barrier = self._change
                return Plan([say(log_says.Barrier())])
        self._see(events, now)
        return Plan(events, wake_at_s=None if events else wake_at_s)

    def _end(self, replica: Replica, now: Now) -> Plan:
        """This member was removed: hand over, then end. Raises Removed."""
        if self._holding(replica) and not self._resigning:
            return self._resign(replica, "removed from the cluster", now)
        raise Removed(f"machine {self.machine} was removed from the cluster")

    def _leave(self, replica: Replica, leaving: Drain, now: Now) -> Plan:
        events: list[Event] = []
        if self._holding(replica):
            events += self._resign(replica, "the node goes down", now).events
        events.append(say(says.MachineLeft(returning=leaving.returning), subject=self.machine))
        return Plan(events)

    # -- what is said -----------------------------------------------------------------------------------------

    def _see(self, events: list[Event], now: Now, early: bool = False) -> None:
        """Add this machine's renewal if it is due, a little ``early`` if a record is written anyway."""
        due_s = self._seen_s + decide.SEEN_S - (decide.SEEN_EARLY_S if events or early else 0.0)
        if now.boot_s >= due_s:
            self._seen_s = now.boot_s
            events.append(
                say(says.MachineSeen(sent_ms=_ms(now), nonce=self.setting.nonce), subject=self.machine),
            )

    def _join(self, previous: str, now: Now) -> Event:
        setting = self.setting
        joined = says.MachineJoined(
            nonce=setting.nonce,
            boot_id=setting.boot_id,
            name=setting.name,
            version=setting.version,
            gateway=setting.gateway_advertise,
            cpu_millis=setting.cpu_millis,
            memory_bytes=setting.memory_bytes,
            metadata=setting.metadata,
            control=setting.control,
            previous=previous,
            sent_ms=_ms(now),
            peers=setting.etcd.initial_advertise_peer_urls,
        )
        return say(joined, subject=self.machine)

    def _claim(self, elected: election.Election, now: Now) -> Event:
        self._renewed_s = now.boot_s
        return say(
            says.Claim(
                expect_term=elected.term,
                expect_renew_seq=elected.renew_seq,
                sent_ms=_ms(now),
                nonce=self.setting.nonce,
            ),
            subject=self.machine,
        )

    def _renew(self, elected: election.Election, now: Now) -> Event:
        self._renewed_s = now.boot_s
        renewal = says.Renew(seq=elected.renew_seq + 1, sent_ms=_ms(now), offset=elected.proof_at, chain=elected.proof)
        return say(renewal, subject=self.machine, term=elected.term)

    def _resign(self, replica: Replica, reason: str, now: Now, to: str = "") -> Plan:
        cluster = _control(replica).cluster
        self._resigning = True
        to = to or decide.successor(cluster, self.machine, self._heard_s, now.boot_s)
        resignation = say(says.Resign(reason=reason, to=to), subject=self.machine, term=cluster.election.term)
        return Plan([resignation])

    # -- what is known ----------------------------------------------------------------------------------------

    def _holding(self, replica: Replica) -> bool:
        elected = _control(replica).cluster.election
        return elected.holder == self.machine and elected.term == self._term

    def _landed_one(self, applied: Applied) -> None:
        refused = isinstance(applied.outcome, Rejected)
        match applied.event.data:
            case says.Claim() if not refused:
                self._term = applied.outcome.result["term"]  # type: ignore[union-attr]
                self._resigning = False
            case says.MachineJoined() if refused and applied.outcome.code == "removed-member":  # type: ignore[union-attr]
                raise Removed(applied.outcome.message)  # type: ignore[union-attr]
            case says.MachineJoined() if refused and applied.outcome.code == "duplicate-machine":  # type: ignore[union-attr]
                raise DuplicateMachine(applied.outcome.message)  # type: ignore[union-attr]
            case says.MachineLeft() if self._leaving is not None:
                self.left = True

    def _without_progress(self, now: Now) -> str:
        """The first actor of this machine that once told of its progress and is silent for longer than L."""
        for actor, at_s in sorted(self._progress_s.items()):
            if now.boot_s - at_s > self.lease_s:
                return actor
        return ""

    def _restart(self, cluster: ClusterState, now: Now) -> None:
        """Restart all countdowns: only time in which the log was live counts as absence."""
        self._changed_s = now.boot_s
        self._cleared = self._probed = None
        self._heard_s = {name: now.boot_s for name, machine in cluster.machines.items() if machine.alive}
        for actor, at_s in self._progress_s.items():
            self._progress_s[actor] = max(now.boot_s, at_s)


def _control(replica: Replica) -> Control:
    state: Control = replica.fold.state  # type: ignore[attr-defined]
    return state


def _ms(now: Now) -> int:
    return int(now.boot_s * 1000)


async def serve(setting: Setting, signals: Signals) -> None:
    """Run coordination until ``signals.stop``; on ``signals.drain`` hand over first (reported as ``left``).

    Raises DuplicateMachine (another live node has this machine id), Superseded, Halt, ForeignLog, LogTruncated:
    the node must end. The observation :class:`Progress` is taken by ``signals.notice``.
    """
    log = await start.opened(setting, Coordination.name)
    try:
        nonces = Nonces(setting.folder)
        known = nonces.read()
        if not setting.alone:
            replaces = await admit(setting, log, known)
            known = [*known, replaces]
        nonces.add(setting.nonce)
        actor = Coordination(setting, known)
        replica = await start.resumed(setting, ControlFold, log)
        host = Host(actor, replica, f"{actor.name}@{setting.machine}", lambda: secrets.token_hex(8))
        shell = Shell(host, log, _no_effects)
        signals.notice = shell.notice
        await until_stop(shell, signals, lambda: _status(shell, actor), _drained(shell, signals))
    finally:
        await log.close()


async def _drained(shell: Shell, signals: Signals) -> None:
    await signals.drain.wait()
    shell.notice(Drain())


def _status(shell: Shell, actor: Coordination) -> dict[str, Any]:
    replica, now = shell.host.replica, shell.now()
    elected = _control(replica).cluster.election
    return {
        "applied": replica.offset,
        "live": shell.host.live,
        "term": elected.term,
        "holder": elected.holder,
        "acting": actor.acting(replica, now),
        "left": actor.left,
    }


async def _no_effects(effect: Any, notice: Any) -> None:
    raise AssertionError(f"coordination has no effects in the world: {effect!r}")
