"""etcd's small pages: version, health, what probes ask (``/livez``, ``/readyz``), v2's members and statistics.

True values only.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec
import orjson

from actors.coordination.membership import Membership, One, full, id_of
from actors.kv import policing
from actors.kv.commands import Commands, NotSent, OutcomeUnknown, Reads
from actors.kv.http1 import JSON, TEXT, Exchange
from actors.kv.rpc.maintenance import CLUSTER_VERSION, VERSION
from actors.kv.rpc.members import shown
from actors.kv.state import KvFold, Member
from actors.kv.v2.watch import Hub
from actors.setting import Setting
from actors.shell import Shell
from streams.events import cluster as cluster_says
from streams.events import kv3 as kv3_says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied

_STORE_COUNTS = {
    "getsSuccess": "getsSuccess",
    "getsFail": "getsFail",
    "setsSuccess": "set",
    "setsFail": "setFail",
    "deleteSuccess": "delete",
    "deleteFail": "deleteFail",
    "updateSuccess": "update",
    "updateFail": "updateFail",
    "createSuccess": "create",
    "createFail": "createFail",
    "compareAndSwapSuccess": "compareAndSwap",
    "compareAndSwapFail": "compareAndSwapFail",
    "compareAndDeleteSuccess": "compareAndDelete",
    "compareAndDeleteFail": "compareAndDeleteFail",
    "expireCount": "expire",
}
_ALARMS = {1: "NOSPACE", 2: "CORRUPT"}


class Info:
    """Serves the pages; a machine's etcd id is the first 16 digits of its machine id."""

    def __init__(
        self, shell: Shell, fold: KvFold, hub: Hub, commands: Commands, reads: Reads, setting: Setting
    ) -> None:
        self._shell, self._fold, self._hub = shell, fold, hub
        self._commands, self._reads, self._setting = commands, reads, setting
        self._cluster = f"X-Etcd-Cluster-Id: {setting.log_id[:16]}\r\n".encode()
        self._policies = policing.Page(fold.v3.revs, commands, reads, lambda: shell.host.replica.offset)
        self._started = time.time()
        self._leader: tuple[int, float] = (-1, 0.0)
        #: Prometheus' text, as the port's metrics write it
        self.metrics: Callable[[], bytes] = bytes

    def serve(self, exchange: Exchange, path: str) -> None:
        """Answers any path that isn't a key's."""
        method = exchange.method
        if path == "/v2/members" or path.startswith("/v2/members/"):
            self._members(exchange, path[11:].strip("/"))
        elif method not in ("GET", "HEAD") and path in _PAGES:
            exchange.respond(405, TEXT + b"Allow: GET,HEAD\r\n", b"Method Not Allowed\n")
        elif path in _PAGES:
            _PAGES[path](self, exchange)
        elif exchange.connection.trusted and path == "/internal/hash":
            replica = self._shell.host.replica
            self._json(exchange, {"offset": replica.offset, "state_hash": replica.state_hash()})
        elif exchange.connection.trusted and path == "/internal/import" and method == "POST":
            self._import(exchange)
        elif exchange.connection.trusted and path == policing.PATH:
            self._policies.serve(exchange)
        else:
            exchange.respond(404, TEXT, b"404 page not found\n")

    def _import(self, exchange: Exchange) -> None:
        """A step of an import, for `corelog kv import`; answered when it is applied."""
        try:
            data = msgspec.json.decode(exchange.body, type=_Step).event
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._json(exchange, {"message": str(error)}, 400)
            return

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                self._json(exchange, {"message": str(result)}, result.status)
            elif isinstance(result.outcome, Rejected):
                self._json(exchange, {"message": result.outcome.message}, 409)
            else:
                self._json(exchange, {"position": str(result.position)})

        self._commands.submit(say(data, principal=exchange.connection.peer), len(exchange.body) + 200, came)

    def serve_metrics(self, exchange: Exchange, path: str) -> None:
        """What is served at ``--listen-metrics-urls``."""
        if path in ("/metrics", "/health", "/livez", "/readyz"):
            self.serve(exchange, path)
        else:
            exchange.respond(404, TEXT, b"404 page not found\n")

    def saw_term(self) -> None:
        """Called when something was applied: remembers since when this process sees the term."""
        term = self._fold.cluster.election.term
        if term != self._leader[0]:
            self._leader = (term, time.time())

    def _json(self, exchange: Exchange, data: Any, status: int = 200, headers: bytes = b"") -> None:
        exchange.respond(status, JSON + headers, orjson.dumps(data) + b"\n")

    def _version(self, exchange: Exchange) -> None:
        version = {"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION, "corelog": self._setting.version}
        self._json(exchange, version)

    def _health(self, exchange: Exchange) -> None:
        """Healthy: no alarm but those that ``exclude`` names, there is a master, and the log answers a linearizable
        read (with ``serializable=true`` that isn't asked)."""
        asked = parse_qs(exchange.query.decode("latin-1"))
        alarm = self._alarm(asked.get("exclude", []))
        if alarm:
            self._told_health(exchange, f"ALARM {alarm}")
        elif asked.get("serializable") == ["true"]:
            self._told_health(exchange, "")
        else:
            self._reads.linearizable(lambda error: self._told_health(exchange, self._unhealthy(error)))

    def _alarm(self, excluded: list[str]) -> str:
        names = [_ALARMS.get(kind, str(kind)) for kind, _ in self._fold.v3.alarms]
        return next((name for name in names if name not in excluded), "")

    def _unhealthy(self, error: NotSent | None) -> str:
        """Why; empty: it is healthy."""
        if not self._fold.cluster.election.holder:
            return "RAFT NO LEADER"
        return "" if error is None else f"RANGE ERROR:{error}"

    def _told_health(self, exchange: Exchange, reason: str) -> None:
        data = {"health": "false" if reason else "true", "reason": reason}
        self._json(exchange, data, 503 if reason else 200)

    def _livez(self, exchange: Exchange) -> None:
        """This process answers."""
        exchange.respond(200, TEXT, b"ok\n")

    def _metrics(self, exchange: Exchange) -> None:
        exchange.respond(200, b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", self.metrics())

    def _readyz(self, exchange: Exchange) -> None:
        """It can serve: there is a master, and the log answers."""

        def answer(error: NotSent | None) -> None:
            why = "ALARM CORRUPT" if self._alarm(["NOSPACE"]) else self._unhealthy(error)
            exchange.respond(503 if why else 200, TEXT, f"{why or 'ok'}\n".encode())

        self._reads.linearizable(answer)

    def _machines(self, exchange: Exchange) -> None:
        urls = [url for member in self._alive().values() for url in member.clients]
        exchange.respond(200, TEXT, ", ".join(urls).encode())

    def _alive(self) -> dict[str, Member]:
        members = self._fold.cluster.members
        return {machine: member for machine, member in members.items() if member.alive and member.control}

    def _members(self, exchange: Exchange, rest: str) -> None:
        if exchange.method not in ("GET", "HEAD"):
            self._change_members(exchange, rest)
            return
        known = shown(self._fold.cluster)
        if not rest:
            listed = [_member(*member) for member in known.values() if not member[0].learner]
            self._json(exchange, {"members": listed}, headers=self._cluster)
        elif rest == "leader":
            holder = self._fold.cluster.election.holder
            leader = next((member for member in known.values() if holder and member[0].machine == holder), None)
            if leader is None:
                self._json(exchange, {"message": "During election"}, 503, self._cluster)
            else:
                self._json(exchange, _member(*leader), headers=self._cluster)
        else:
            self._json(exchange, {"message": "Not found"}, 404, self._cluster)

    def _change_members(self, exchange: Exchange, rest: str) -> None:
        """v2's ``member add``, ``update`` and ``remove``."""
        try:
            data = _change(exchange, rest, full(self._fold.cluster.membership, self._fold.cluster.controls))
        except _MembersError as error:
            if error.status == 405:
                exchange.respond(405, TEXT + b"Allow: GET,POST,DELETE,PUT\r\n", b"Method Not Allowed\n")
            else:
                self._json(exchange, {"message": str(error)}, error.status, self._cluster)
            return

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                self._json(exchange, {"message": str(result)}, result.status, self._cluster)
            elif isinstance(result.outcome, Rejected):
                status = {"v3.5": 404, "v3.3": 400}.get(result.outcome.code, 409)
                self._json(exchange, {"message": result.outcome.message}, status, self._cluster)
            elif isinstance(data, cluster_says.MemberAdd):
                assert isinstance(result.outcome, Accepted)
                added = shown(self._fold.cluster)[result.outcome.result["id"]]
                self._json(exchange, _member(*added), 201, self._cluster)
            else:
                exchange.respond(204, self._cluster, b"")

        event = say(data, principal=exchange.connection.peer)
        self._commands.submit(event, 500, came)

    def _id(self, machine: str) -> str:
        return f"{id_of(self._fold.cluster.membership, machine):x}" if machine else ""

    def _stats_self(self, exchange: Exchange) -> None:
        election = self._fold.cluster.election
        leads = election.holder == self._setting.machine
        since = self._leader[1] or self._started
        data = {
            "name": self._setting.name or self._setting.machine[:16],
            "id": self._id(self._setting.machine),
            "state": "StateLeader" if leads else "StateFollower",
            "startTime": _when(self._started),
            "leaderInfo": {
                "leader": self._id(election.holder),
                "uptime": f"{time.time() - since:.3f}s",
                "startTime": _when(since),
            },
            "recvAppendRequestCnt": 0,
            "sendAppendRequestCnt": self._commands.sent,
        }
        self._json(exchange, data)

    def _stats_store(self, exchange: Exchange) -> None:
        counts = self._fold.counts
        data = {name: counts.get(ours, 0) for name, ours in _STORE_COUNTS.items()}
        self._json(exchange, {**data, "watchers": self._hub.count})

    def _stats_leader(self, exchange: Exchange) -> None:
        election = self._fold.cluster.election
        if election.holder != self._setting.machine:
            self._json(exchange, {"message": "not current leader"}, 403)
            return
        self._json(
            exchange,
            {
                "leader": self._id(election.holder),
                "followers": {},
            },
        )


_PAGES = {
    "/version": Info._version,
    "/health": Info._health,
    "/livez": Info._livez,
    "/readyz": Info._readyz,
    "/metrics": Info._metrics,
    "/v2/machines": Info._machines,
    "/v2/stats/self": Info._stats_self,
    "/v2/stats/store": Info._stats_store,
    "/v2/stats/leader": Info._stats_leader,
}


def _member(one: One, machine: Member, peers: list[str]) -> dict[str, Any]:
    return {"id": f"{one.id:x}", "name": machine.name, "peerURLs": peers, "clientURLs": machine.clients}


class _MembersError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Step(msgspec.Struct):
    """One of the three, as a body says it."""

    begin: kv3_says.ImportBegin | None = None
    part: kv3_says.ImportPart | None = None
    end: kv3_says.ImportEnd | None = None

    @property
    def event(self) -> Data:
        """Raises ValidationError: there is none."""
        found = self.begin or self.part or self.end
        if found is None:
            raise msgspec.ValidationError("a step is begin, part or end")
        return found


class _Peers(msgspec.Struct):
    peerURLs: list[str]


def _change(exchange: Exchange, rest: str, members: Membership) -> Data:
    """The event that a v2 request asks for. Raises _MembersError in etcd's words."""
    method = exchange.method
    if (method == "POST") != (not rest) or method not in ("POST", "PUT", "DELETE"):
        raise _MembersError(405, "Method Not Allowed")
    found = 0
    if rest:
        try:
            found = int(rest, 16)
        except ValueError:
            raise _MembersError(404, f"No such member: {rest}") from None
        if str(found) in members.removed:
            raise _MembersError(410, f"Member permanently removed: {rest}")
        if str(found) not in members.members:
            raise _MembersError(404, f"No such member: {rest}")
    if method == "DELETE":
        return cluster_says.MemberRemove(found)
    kind = exchange.headers.get(b"content-type", b"").decode("latin-1")
    if kind.partition(";")[0].strip() != "application/json":
        raise _MembersError(415, f"Bad Content-Type {kind}, accept application/json")
    try:
        peers = msgspec.json.decode(exchange.body, type=_Peers).peerURLs
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _MembersError(400, str(error)) from None
    return cluster_says.MemberUpdate(found, peers) if rest else cluster_says.MemberAdd(peers)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
