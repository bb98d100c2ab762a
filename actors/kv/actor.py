"""The kv actor: keeps the replica of the keys, answers etcd's clients, and, where the master is, ends TTLs.

Commands don't pass through its plans: the port submits them to the host. Plans are the master's facts (expiries,
counted TTLs, checkpoints) and where this machine serves clients.
"""

import asyncio
import gc
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from actors import start
from actors.coordination import election
from actors.host import IDLE, Host, Now, Plan
from actors.kv import bootstrap, corrupt, history
from actors.kv.autocompact import AutoCompactor
from actors.kv.countdowns import LeaseClocks
from actors.kv.decide import COUNT_S, Countdowns
from actors.kv.port import Port
from actors.kv.prefixes import PrefixCompactor
from actors.kv.state import KvFold
from actors.kv.v2.nodes import Change
from actors.kv.v3.leases import renewed_ids
from actors.kv.v3.store import CORRUPT
from actors.outcomes import Told, nobody, telling
from actors.running import until_stop
from actors.setting import Setting, Signals
from actors.shell import Shell
from streams.events import kv as says
from streams.events import kv3 as v3_says
from streams.events import log as log_says
from streams.events.base import Event, say
from streams.kinds import ALIKE_FROM_LEVEL
from streams.replay import Applied, Boundary, Diverged, Replica

NAME = "kv"
#: A record of so few commands is made durable on the loop's thread: handing it to another one and back costs more than
#: is done meanwhile (docs/performance.md).
STILL_MAX = 64
#: How often it is looked whether a new cluster's members serve, and after which time it is told who is waited for.
LOOK_S, TELL_S = 0.05, 5.0
#: Objects made and not freed until the youngest are searched for cycles, and rounds until older ones are. Hundreds of
#: requests under way are some thousands, all freed when they are answered: the defaults would search among them for
#: nothing, several times a batch.
GC_THRESHOLDS = (50_000, 20, 20)


class Kv:
    """Implements :class:`actors.host.Actor`. ``on_changes`` and ``on_live`` are the port's, once it is there.

    Replay isn't followed: at the end of it countdowns are made from the store.
    """

    name = NAME
    follows_replay = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.on_changes: Callable[[Sequence[Change]], None] = lambda _changes: None
        self.on_live: Callable[[], None] = lambda: None
        self.tell: Told = nobody
        #: where clients reach this machine; None until the port listens
        self.clients: list[str] | None = None
        self._countdowns = Countdowns()
        #: of v3's leases; made when the replica is live
        self.leases: LeaseClocks | None = None
        self._compactor = AutoCompactor(setting.etcd.auto_compaction_mode, setting.etcd.auto_compaction_retention)
        self._prefixes = PrefixCompactor()
        self._term = -1
        self._checkpointed = ""
        #: nothing was to be said when it was asked last, and only time, or a boundary, can have changed that
        self._is_at_rest = False
        self._rest: Plan = IDLE
        self._boundary: Boundary | None = None

    # -- inputs -----------------------------------------------------------------------------------------------

    def live(self, replica: Replica, now: Now) -> None:
        self._is_at_rest = False
        self._term = _fold(replica).cluster.election.term
        self._countdowns.restart(_fold(replica).store, now.boot_s)
        self._clocks(replica).restart(now.boot_s)
        self._compactor.restart(now.boot_s)
        self._prefixes.restart(now.boot_s)
        self.on_live()

    def _clocks(self, replica: Replica) -> LeaseClocks:
        if self.leases is None:
            self.leases = LeaseClocks(_fold(replica).v3.leases)
        return self.leases

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        if history.are_plain(batch):
            self.on_changes(())
            self.tell(batch, live)
            return
        self._is_at_rest = False
        # also while a new incarnation is being opened: watchers wait for every change
        changes, leases = history.told(batch)
        fold = _fold(replica)
        if fold.cluster.election.term != self._term:
            self._term = fold.cluster.election.term
            self._countdowns.restart(fold.store, now.boot_s)
            self._clocks(replica).restart(now.boot_s)
            self._compactor.restart(now.boot_s)
            self._prefixes.restart(now.boot_s)
        else:
            if changes:
                self._count(changes, fold, now)
            if any(isinstance(data, v3_says.ImportEnd) for data in leases):
                self._clocks(replica).restart(now.boot_s)
                self._countdowns.restart(fold.store, now.boot_s)
            if ids := [lease for data in leases for lease in _leases(data)]:
                self._clocks(replica).touched(ids, now.boot_s)
        self.on_changes(changes)
        self.tell(batch, live)

    def _count(self, changes: Sequence[Change], fold: KvFold, now: Now) -> None:
        keys = history.with_ttl(changes)
        if keys:
            self._countdowns.touched(fold.store, keys, now.boot_s)

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        """Its facts are applied: ``applied`` saw what they did."""
        self._is_at_rest = False

    def noticed(self, observation: Any, now: Now) -> None:
        """The port listens: :attr:`clients` was set."""
        self._is_at_rest = False

    # -- decisions --------------------------------------------------------------------------------------------

    def decide(self, replica: Replica, now: Now) -> Plan:
        boundaries, rest = replica.log.boundaries, self._rest
        boundary = boundaries[-1] if boundaries else None
        if self._is_at_rest and boundary is self._boundary and (rest.wake_at_s is None or now.boot_s < rest.wake_at_s):
            return rest
        self._boundary, self._rest = boundary, self._decide(replica, now)
        self._is_at_rest = not self._rest.events
        return self._rest

    def _decide(self, replica: Replica, now: Now) -> Plan:
        fold = _fold(replica)
        events = self._served(fold)
        if not self.acting(replica, now):
            return Plan(events) if events else IDLE
        term = fold.cluster.election.term
        due = self._countdowns.due(fold.store, now.boot_s)
        events += [say(expired, term=term) for expired in due]
        clocks = self._clocks(replica)
        if not _are_kept(replica):
            events += [say(expired, term=term) for expired in clocks.due(now.boot_s)]
        if (leases_left := clocks.counted(now.boot_s)) is not None:
            events.append(say(leases_left, term=term))
        if not due and (left := self._countdowns.counted(fold.store, now.boot_s)):
            events.append(say(says.TtlsCounted(left), term=term))
        if (revision := self._compactor.due(now.boot_s, fold.v3.revs.revision, fold.v3.revs.compacted)) is not None:
            # with its term: where users are asked for, nobody's compaction would be refused
            said = v3_says.Compact(revision)
            events.append(say(said, principal=f"machine:{self.setting.machine}", term=term))
        events += [say(compact, term=term) for compact in self._prefixes.due(fold.v3.revs, now.boot_s)]
        if (checkpoint := self._checkpoint(replica)) is not None:
            events.append(checkpoint)
        return Plan(events, wake_at_s=self._wake_at_s(replica, now))

    def acting(self, replica: Replica, now: Now) -> bool:
        """Whether this start of this machine's node is the master, and still within its lease."""
        elected, setting = _fold(replica).cluster.election, self.setting
        lease_s = setting.lease_ms / 1000
        return election.acting(elected, setting.machine, setting.nonce, now.boot_s, lease_s, setting.alone)

    def _wake_at_s(self, replica: Replica, now: Now) -> float | None:
        assert self.leases is not None
        fold = _fold(replica)
        ends_s = None if _are_kept(replica) else self.leases.next_s()
        known = [one for one in (self._countdowns.next_s(fold.store), ends_s) if one is not None]
        known = [*known, now.boot_s + COUNT_S] if known else []
        known += [one for one in (self._compactor.next_s(), self._prefixes.next_s(fold.v3.revs)) if one is not None]
        return min(known) if known else None

    def _served(self, fold: KvFold) -> list[Event]:
        """Where this machine serves clients, if the log doesn't know it yet."""
        known = fold.cluster.members.get(self.setting.machine)
        if self.setting.replica or self.clients is None or (known is not None and known.clients == self.clients):
            return []
        if known is None and not self.clients:
            return []
        return [say(says.Served(self.clients))]

    def _checkpoint(self, replica: Replica) -> Event | None:
        """The newest boundary, once."""
        if not replica.log.boundaries:
            return None
        boundary = replica.log.boundaries[-1]
        if boundary.position == self._checkpointed:
            return None
        self._checkpointed = boundary.position
        said = log_says.Checkpoint(replica.fold.name, boundary.position, boundary.chain, boundary.outcomes)
        return say(said, term=_fold(replica).cluster.election.term)


def _leases(data: Any) -> list[int]:
    """The leases that an event is about."""
    match data:
        case v3_says.LeaseGrant() | v3_says.LeaseRevoke() | v3_says.LeaseExpired():
            return [data.id]
        case v3_says.LeasesRenew():
            return list(renewed_ids(data))
        case v3_says.LeasesCounted():
            return [one.id for one in data.left]
        case _:
            return []


def _are_kept(replica: Replica) -> bool:
    """Whether the store, corrupt, refuses that leases end: it would be said again and again."""
    return replica.log.level >= ALIKE_FROM_LEVEL and any(kind == CORRUPT for kind, _ in _fold(replica).v3.alarms)


def _fold(replica: Replica) -> KvFold:
    fold = replica.fold
    assert isinstance(fold, KvFold)
    return fold


async def serve(setting: Setting, signals: Signals) -> None:
    """Run the kv replica and etcd's port until ``signals.stop``.

    Raises PortInUse, and what a Shell raises (Superseded, Halt, ForeignLog, LogTruncated): the actor must end.
    """
    log = await start.opened(setting, NAME)
    try:
        replica = await start.resumed(setting, KvFold, log)
        # a million keys are no garbage: keep them out of every collection from now on
        gc.collect()
        gc.freeze()
        actor = Kv(setting)
        host = Host(actor, replica, f"{actor.name}@{setting.machine}", lambda: secrets.token_hex(8))
        shell = Shell(host, log, _no_effects, still_max=STILL_MAX)

        def acting() -> bool:
            return actor.acting(host.replica, shell.now())

        async with telling(setting, log, KvFold, acting, lambda: host.replica.log.voided) as actor.tell:
            try:
                await _run(shell, actor, setting, signals)
            except Diverged as error:
                await corrupt.tell(setting, log, _fold(host.replica), error)
                raise
    finally:
        await log.close()


async def _run(shell: Shell, actor: Kv, setting: Setting, signals: Signals) -> None:
    """Tail; when live, open the port; report until the end."""
    live = asyncio.Event()
    actor.on_live = live.set
    serving = False

    async def serve_clients() -> None:
        nonlocal serving
        await live.wait()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        port = await opened(shell, actor, setting)
        try:
            await begun(port, _fold(shell.host.replica), setting.etcd.initial_cluster)
            serving = True
            await asyncio.Event().wait()
        finally:
            await port.close()

    def status() -> dict[str, Any]:
        live = shell.host.live and (serving or not setting.etcd.initial_cluster)
        return {"applied": shell.host.replica.offset, "live": live, "serving": serving}

    await until_stop(shell, signals, status, serve_clients())


async def begun(port: Port, fold: KvFold, names: Sequence[str]) -> None:
    """Clients are let in when most of a new cluster's members serve."""
    loop = asyncio.get_running_loop()
    told_s = loop.time() + TELL_S
    while port.holding and (missing := bootstrap.missing(names, fold.cluster)):
        if loop.time() >= told_s:
            told_s = math.inf
            structlog.get_logger(actor=NAME).warning(
                "clients wait until most of the initial members serve", missing=", ".join(missing)
            )
        await asyncio.sleep(LOOK_S)
    port.let_in()


async def opened(shell: Shell, actor: Kv, setting: Setting) -> Port:
    """The port over a live replica, wired to its actor; it holds a new cluster's clients. Raises PortInUse."""
    clocks = actor.leases
    assert clocks is not None, "the replica is live"
    fold = _fold(shell.host.replica)
    port = Port(shell, fold, setting, _Left(clocks, shell))
    if bootstrap.is_new(setting.etcd.initial_cluster, setting.machine, fold.cluster):
        port.hold()
    await port.open()

    def changed(changes: Sequence[Change]) -> None:
        port.info.saw_term()
        if changes and port.keys.hub.count:
            port.keys.hub.applied(changes)
        port.v3.applied()
        shell.calm(not (port.v3.is_watched or port.keys.hub.count))

    actor.on_changes = changed
    # not only when something is applied next: it would come late
    port.v3.watches.index.on_first = port.keys.hub.on_first = lambda: shell.calm(False)
    actor.on_live = port.commands.wake
    actor.clients = setting.etcd.advertise_client_urls or port.urls
    port.info.saw_term()
    shell.notice("listening")
    return port


class _Left:
    """Implements :class:`actors.kv.rpc.leases.Clocks`."""

    def __init__(self, clocks: LeaseClocks, shell: Shell) -> None:
        self._clocks, self._shell = clocks, shell

    def left_s(self, lease: int) -> float:
        return self._clocks.due_s(lease) - self._shell.now().boot_s


async def _no_effects(effect: Any, notice: Any) -> None:
    raise AssertionError(f"the kv actor has no effects in the world: {effect!r}")
