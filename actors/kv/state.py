"""The ``kv`` fold: etcd's v2 keys, its v3 keys, and of the cluster what the kv replica needs.

That is the election, and who serves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from actors.coordination import election as elections
from actors.coordination import membership as memberships
from actors.kv import members
from actors.kv.members import Cluster as Cluster
from actors.kv.members import Member as Member
from actors.kv.v2 import again, delete, imports, put, restores
from actors.kv.v2 import auth as v2_auth
from actors.kv.v2.errors import MESSAGES, V2Error
from actors.kv.v2.get import get_json
from actors.kv.v2.nodes import Change, Dir, File, clean, shown, text_of
from actors.kv.v2.store import Store
from actors.kv.v3.store import LINE as V3_LINE
from actors.kv.v3.store import Store as V3Store
from streams.events import kv as says
from streams.events import kv2 as v2_says
from streams.events import kv3 as v3_says
from streams.events.base import Blob, Event, unblob
from streams.kinds import ALIKE_FROM_LEVEL
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.records import Record
from streams.replay import Context, LogState

_IMPORTS = frozenset({v3_says.ImportBegin, v3_says.ImportPart, v3_says.ImportEnd})
_RESTORES = frozenset({v3_says.RestoreBegin, v3_says.RestorePart, v3_says.RestoreEnd})
# a constant is sooner there than an import, compiled
_PUT: Final = says.Put
_FILE: Final = File
_V3_PUT: Final = v3_says.Put
_V3_TXN: Final = v3_says.Txn
_ACCEPTED: Final = Accepted
VOID_EXPIRY = Rejected("v2.changed", "the key changed, or its TTL was set anew, before this expiry")


class KvFold:
    """``cluster``, ``store`` (v2) and ``v3``. ``counts``: outcomes by verb since this process began;
    informative only."""

    name = "kv"
    streams = frozenset({"kv", "cluster"})

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.store = Store()
        self.v3 = V3Store()
        self.counts: dict[str, int] = {}

    def guard(self, event: Event, context: Context) -> Outcome | None:
        return elections.guard(self.cluster.election, event, context)

    def evolve(self, event: Event, context: Context) -> Outcome:
        data, time_ms = event.data, context.record.time_ms
        if data.__module__ == v3_says.__name__:
            if data.__class__ in _IMPORTS and imports.is_v2(self, data):
                return imports.change(self, data, context.log.level)
            if data.__class__ in _RESTORES and restores.is_v2(self, data):
                return restores.change(self, data, time_ms)
            return self.v3.evolve(event, context.record.offset, context.log.level)
        if data.__module__ == v2_says.__name__:
            return self._change_users2(event, time_ms)
        match data:
            case says.Put() | says.Set() | says.Append() | says.Delete():
                return self._command(event, time_ms)
            case says.Expired():
                expired = delete.expire(self.store, data, time_ms)
                return VOID_EXPIRY if expired is None else self._accepted(expired)
            case says.TtlsCounted():
                delete.count_ttls(self.store, data)
            case says.Served():
                self.cluster.member(context.record.machine).clients = list(data.clients)
            case _:
                return self._cluster_event(event, context)
        return DONE

    def evolve_many(
        self,
        events: Sequence[Event],
        record: Record,
        log: LogState,
        one: Callable[[Event, int], Outcome],
        results: bool,
    ) -> list[Outcome]:
        """All events of a record, with the same outcomes and state as one by one; plain puts take a short way.

        one: applies a single event (given with its index in the record) with guard and sessions, and counts it.
        results: whether anybody looks at what was accepted; if not, ``DONE`` stands for it.
        """
        store, time_ms = self.store, record.time_ms
        files, dirs, took = store.files, store.dirs, store.history.append
        out: list[Outcome] = [DONE] * len(events)
        index, begun, slow = store.index, log.events, 0
        free = not v2_auth.enabled(self.cluster.users2)
        v3 = self.v3
        staged = v3.staged  # until an import ends, each change may end it
        for at, event in enumerate(events):
            data = event.data
            kind = None if event.client or event.term else type(data)
            if kind is _PUT and free:
                key = data.key
                before = files.get(key)
                if (before is not None and not before.expires_ms) or (before is None and _made(key, dirs)):
                    index += 1
                    files[key] = node = _FILE(data.value, index, index, 0)
                    change = (index, "set", key, node, before, time_ms, False)
                    took(change)
                    if results:
                        out[at] = _ACCEPTED(change)
                    continue
            elif kind is _V3_PUT and staged is None and _plain(data, v3):
                done = v3.plain_put(data)
                slow += 1
                if results:
                    out[at] = _ACCEPTED(done)
                continue
            elif kind is _V3_TXN:
                slow += 1
                if v3.alarms or v3.auth.enabled or staged is not None:
                    out[at] = v3.evolve(event, record.offset, log.level)
                    staged = v3.staged
                else:
                    out[at] = v3.plain_txn(data)
                continue
            store.index, log.events = index, begun + at
            out[at] = one(event, at)
            index, slow, free = store.index, slow + 1, not v2_auth.enabled(self.cluster.users2)
            staged = v3.staged
        store.index, log.events = index, begun + len(events)
        self.counts["set"] = self.counts.get("set", 0) + len(events) - slow
        return out

    def _command(self, event: Event, time_ms: int) -> Outcome:
        data = event.data
        try:
            if isinstance(users := self.cluster.users2, v2_auth.Auth):
                v2_auth.check_command(users, data, event.principal)
            match data:
                case says.Put():
                    change = put.put_text(self.store, data, time_ms)
                case says.Set():
                    change = put.put(self.store, data, time_ms)
                case says.Append():
                    change = put.append(self.store, data, time_ms)
                case _:
                    change = delete.delete(self.store, data, time_ms)
        except V2Error as error:
            self._count(f"{_verb(data)}Fail")
            detail = {"cause": shown(error.cause), "index": error.index}
            return Rejected(f"v2.{error.code}", MESSAGES[error.code], detail)
        return self._accepted(change)

    def _change_users2(self, event: Event, time_ms: int) -> Outcome:
        """v2's users and roles, which etcd keeps in its v2 store: changes take indices of it, but nobody sees them."""
        users = self.cluster.users2
        if not isinstance(users, v2_auth.Auth):
            users = v2_auth.Auth()
        outcome: Outcome
        try:
            v2_auth.check_change(users, event.data, event.principal)
            result, steps = users.change(event.data)
            outcome = Accepted(result)
        except v2_auth.AuthError as error:
            outcome, steps = Rejected(f"v2-auth.{error.status}", str(error)), error.steps
        if steps:
            self.cluster.users2 = users
        self.store.skip(steps, time_ms)
        return outcome

    def _accepted(self, change: Change) -> Outcome:
        self._count(change[1])
        return Accepted(change)

    def kept(self, outcome: Outcome, level: int) -> Outcome:
        if isinstance(outcome, Rejected):
            return outcome
        return Accepted(again.kept(outcome.result, whole=level < ALIKE_FROM_LEVEL))

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _cluster_event(self, event: Event, context: Context) -> Outcome:
        """Elections as coordination evolves them; of the machines their names and whether they live."""
        outcome = elections.evolve(self.cluster.election, event, context)
        if outcome is not None:
            return outcome
        cluster = self.cluster
        changed = memberships.evolve(cluster.membership, cluster.controls, event, context)
        if changed is not None:
            outcome, cluster.membership = changed
            return outcome
        return members.evolve(cluster, event, context)

    def look(self, key: Blob, recursive: bool = False) -> dict[str, Any] | None:
        """What GET of ``key`` shows, as plain data (sorted listings); None where nothing is."""
        try:
            body = get_json(self.store, clean(text_of(key)), recursive, True, 0)
        except V2Error:
            return None
        found: dict[str, Any] = msgspec.json.decode(body)
        return found

    def encode(self) -> Iterator[bytes]:
        yield msgspec.json.encode(self.cluster, order="deterministic") + b"\n"
        yield from self.v3.encode()
        yield from self.store.encode()

    def restore(self, chunks: Iterable[bytes]) -> None:
        lines = _lines(chunks)
        self.cluster = msgspec.json.decode(next(lines), type=Cluster)
        rest: list[bytes] = []
        self.v3.restore(_until_other(lines, rest))
        self.store.restore(chain(rest, lines))


def _plain(data: v3_says.Put, v3: V3Store) -> bool:
    """Whether a put needs nothing looked up but its key."""
    if data.lease or data.ignore_value or data.ignore_lease or v3.auth.enabled or v3.alarms:
        return False
    policies = v3.revs.policies
    return policies is None or policies.fits(v3.revs, unblob(data.key), unblob(data.value))


def _made(key: str, dirs: dict[str, Dir]) -> bool:
    """Enter ``key`` (no file's) in its directory, if it is clean, no directory's, and its directory is there."""
    head, slash, name = key.rpartition("/")
    parent = dirs.get(head)
    if parent is None or not slash or key in dirs or name in ("", ".", ".."):
        return False
    parent.children[key] = None
    return True


def _verb(data: object) -> str:
    """etcd's name of what failed, as its statistics count it."""
    match data:
        case says.Put():
            return "set"
        case says.Set() if data.prev_exist is False:
            return "create"
        case says.Set() if data.prev_index or data.prev_value:
            return "compareAndSwap"
        case says.Set():
            return "update" if data.prev_exist else "set"
        case says.Delete():
            return "compareAndDelete" if data.prev_index or data.prev_value else "delete"
        case _:
            return "create"


def _until_other(lines: Iterator[bytes], rest: list[bytes]) -> Iterator[bytes]:
    """The lines of the v3 store; the first one behind them goes into ``rest``."""
    for line in lines:
        if not line.startswith(V3_LINE):
            rest.append(line)
            return
        yield line


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines from chunks that may be cut anywhere."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        raise ValueError("the snapshot ends in the middle of a line")
