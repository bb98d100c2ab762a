"""etcd's small pages: version, health, what probes ask (``/livez``, ``/readyz``), v2's members and statistics.

True values only.
"""

import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import orjson

from actors.kv.commands import Commands, NotSent, Reads
from actors.kv.http1 import JSON, TEXT, Exchange
from actors.kv.rpc.maintenance import CLUSTER_VERSION, VERSION
from actors.kv.state import KvFold, Member
from actors.kv.v2.watch import Hub
from actors.setting import Setting
from actors.shell import Shell

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
#: Who asks for a member's change gets the way it is done here.
_MEMBERS_CHANGE = "machines join by starting a node on the same log and are removed with `corelog machine remove`"


class Info:
    """Serves the pages; a machine's etcd id is the first 16 digits of its machine id."""

    def __init__(
        self, shell: Shell, fold: KvFold, hub: Hub, commands: Commands, reads: Reads, setting: Setting
    ) -> None:
        self._shell, self._fold, self._hub = shell, fold, hub
        self._commands, self._reads, self._setting = commands, reads, setting
        self._cluster = f"X-Etcd-Cluster-Id: {setting.log_id[:16]}\r\n".encode()
        self._started = time.time()
        self._leader: tuple[int, float] = (-1, 0.0)

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
            if exchange.method in ("POST", "PUT", "DELETE"):
                self._json(exchange, {"message": _MEMBERS_CHANGE}, 403, self._cluster)
            else:
                exchange.respond(405, TEXT + b"Allow: GET,POST,DELETE,PUT\r\n", b"Method Not Allowed\n")
            return
        alive = self._alive()
        holder = self._fold.cluster.election.holder
        if not rest:
            shown = [_member(machine, member) for machine, member in alive.items()]
            self._json(exchange, {"members": shown}, headers=self._cluster)
        elif rest == "leader" and holder in alive:
            self._json(exchange, _member(holder, alive[holder]), headers=self._cluster)
        elif rest == "leader":
            self._json(exchange, {"message": "During election"}, 503, self._cluster)
        else:
            self._json(exchange, {"message": "Not found"}, 404, self._cluster)

    def _stats_self(self, exchange: Exchange) -> None:
        election = self._fold.cluster.election
        leads = election.holder == self._setting.machine
        since = self._leader[1] or self._started
        data = {
            "name": self._setting.name or self._setting.machine[:16],
            "id": self._setting.machine[:16],
            "state": "StateLeader" if leads else "StateFollower",
            "startTime": _when(self._started),
            "leaderInfo": {
                "leader": election.holder[:16],
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
        self._json(exchange, {"leader": election.holder[:16], "followers": {}})


_PAGES = {
    "/version": Info._version,
    "/health": Info._health,
    "/livez": Info._livez,
    "/readyz": Info._readyz,
    "/v2/machines": Info._machines,
    "/v2/stats/self": Info._stats_self,
    "/v2/stats/store": Info._stats_store,
    "/v2/stats/leader": Info._stats_leader,
}


def _member(machine: str, member: Member) -> dict[str, Any]:
    return {"id": machine[:16], "name": member.name, "peerURLs": [], "clientURLs": member.clients}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
