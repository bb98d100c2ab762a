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

from actors.coordination.membership import id_of
from actors.kv import policing, probes, v2users
from actors.kv.commands import Commands, NotSent, OutcomeUnknown, Reads
from actors.kv.exchange import JSON, TEXT, Exchange
from actors.kv.rpc.maintenance import CLUSTER_VERSION, VERSION
from actors.kv.state import KvFold
from actors.kv.v2 import imports
from actors.kv.v2.restores import Restored
from actors.kv.v2.watch import Hub
from actors.kv.v2members import V2Members
from actors.kv.v3.store import Result
from actors.setting import Setting
from actors.shell import Shell
from streams.events import kv3 as kv3_says
from streams.events.base import Data, say
from streams.kinds import ALIKE_FROM_LEVEL
from streams.outcomes import Rejected
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
#: Unsent bytes of a store on its way out.
POUR_BYTES = 1024 * 1024
_ONLY_GET = frozenset({"/version", "/health", "/v2/stats/self", "/v2/stats/store", "/v2/stats/leader"})
_ALARMS = {1: "NOSPACE", 2: "CORRUPT"}


class Info:
    """Serves the pages; a machine's etcd id is the first 16 digits of its machine id."""

    def __init__(
        self,
        shell: Shell,
        fold: KvFold,
        hub: Hub,
        commands: Commands,
        reads: Reads,
        setting: Setting,
        users: v2users.V2Users,
    ) -> None:
        self._shell, self._fold, self._hub = shell, fold, hub
        self._commands, self._reads, self._setting = commands, reads, setting
        self._users = users
        cluster = f"X-Etcd-Cluster-Id: {setting.log_id[:16]}\r\n".encode()
        self._members = V2Members(fold, commands, users, cluster)
        self._policies = policing.Page(fold.v3.revs, commands, reads, lambda: shell.host.replica.offset)
        self._probes = probes.Probes(fold, reads, setting.machine)
        self._started = time.time()
        self._leader: tuple[int, float] = (-1, 0.0)
        #: Prometheus' text, as the port's metrics write it
        self.metrics: Callable[[], bytes] = bytes

    def serve(self, exchange: Exchange, path: str) -> None:
        """Answers any path that isn't a key's."""
        method = exchange.method
        if path == "/v2/members" or path.startswith("/v2/members/"):
            self._members.serve(exchange, path)
        elif path.startswith(v2users.PREFIX):
            self._users.serve(exchange, path)
        elif (checks := probes.asked(path) if path.startswith(("/livez", "/readyz")) else ()) and method == "GET":
            self._probes.serve(exchange, checks)
        elif checks or (path in _PAGES and method != "GET" and (path in _ONLY_GET or method != "HEAD")):
            allowed = "GET" if checks or path in _ONLY_GET else "GET,HEAD"
            exchange.respond(405, TEXT + f"Allow: {allowed}\r\n".encode(), b"Method Not Allowed\n")
        elif path in _PAGES:
            _PAGES[path](self, exchange)
        elif exchange.connection.trusted and path == "/internal/hash":
            replica = self._shell.host.replica
            self._json(exchange, {"offset": replica.offset, "state_hash": replica.state_hash()})
        elif exchange.connection.trusted and path == "/internal/import" and method == "POST":
            self._step(exchange, _Step)
        elif exchange.connection.trusted and path == "/internal/restore" and method == "POST":
            self._step(exchange, _RestoreStep)
        elif exchange.connection.trusted and path == policing.PATH:
            self._policies.serve(exchange)
        elif exchange.connection.trusted and path == "/internal/v2":
            _pour(exchange, list(imports.lines(self._fold.store, self._fold.cluster.users2)))
        else:
            exchange.respond(404, TEXT, b"404 page not found\n")

    def _step(self, exchange: Exchange, kind: "type[_Step | _RestoreStep]") -> None:
        """A step of `corelog kv import` or `restore`; answered when it is applied."""
        try:
            data = msgspec.json.decode(exchange.body, type=kind).event
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._json(exchange, {"message": str(error)}, 400)
            return

        level = self._shell.host.replica.log.level
        if level < ALIKE_FROM_LEVEL and isinstance(data, kv3_says.RestoreBegin) and data.v2:
            message = "a node of this cluster is older than restores of v2's keys; upgrade all of them first"
            self._json(exchange, {"message": message, "code": "v2-restore.level"}, 409)
            return

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                self._json(exchange, {"message": str(result)}, result.status)
            elif isinstance(result.outcome, Rejected):
                outcome = result.outcome
                self._json(exchange, {"message": outcome.message, "code": outcome.code}, 409)
            else:
                came_to = result.outcome.result
                self._json(exchange, {"position": str(result.position), **_came_to(came_to)})

        who = exchange.headers.get(b"x-corelog-principal", b"").decode("ascii", "replace") or exchange.connection.peer
        self._commands.submit(say(data, principal=who), len(exchange.body) + 200, came)

    def refuse(self, exchange: Exchange, status: int, why: str) -> None:
        """A step that could not be read."""
        self._json(exchange, {"message": why}, status)

    def serve_metrics(self, exchange: Exchange, path: str) -> None:
        """What is served at ``--listen-metrics-urls``."""
        if path in ("/metrics", "/health") or path.startswith(("/livez", "/readyz")):
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
        kinds = [kind for kind, _ in self._fold.v3.alarms if _ALARMS.get(kind, str(kind)) not in excluded]
        return _ALARMS.get(kinds[0], "UNKNOWN") if kinds else ""

    def _unhealthy(self, error: NotSent | None) -> str:
        """Why; empty: it is healthy."""
        if not self._fold.cluster.election.holder:
            return "RAFT NO LEADER"
        return "" if error is None else f"RANGE ERROR:{error}"

    def _told_health(self, exchange: Exchange, reason: str) -> None:
        data = {"health": "false" if reason else "true", "reason": reason}
        self._json(exchange, data, 503 if reason else 200)

    def _metrics(self, exchange: Exchange) -> None:
        exchange.respond(200, b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", self.metrics())

    def _machines(self, exchange: Exchange) -> None:
        self._members.machines(exchange)

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
    "/metrics": Info._metrics,
    "/v2/machines": Info._machines,
    "/v2/stats/self": Info._stats_self,
    "/v2/stats/store": Info._stats_store,
    "/v2/stats/leader": Info._stats_leader,
}


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


class _RestoreStep(msgspec.Struct):
    """One of the three, as a body says it."""

    begin: kv3_says.RestoreBegin | None = None
    part: kv3_says.RestorePart | None = None
    end: kv3_says.RestoreEnd | None = None

    @property
    def event(self) -> Data:
        """Raises ValidationError: there is none."""
        found = self.begin or self.part or self.end
        if found is None:
            raise msgspec.ValidationError("a step is begin, part or end")
        return found


def _came_to(result: Any) -> dict[str, int]:
    """The revision, or v2's index, that a step made."""
    if isinstance(result, Restored):
        return {"index": result.index}
    return {"revision": result.revision} if isinstance(result, Result) else {}


def _pour(exchange: Exchange, pieces: list[bytes]) -> None:
    """Answer with pieces, as fast as they are taken."""
    left = iter(pieces)

    def pump() -> None:
        while exchange.connection.serves(exchange) and exchange.connection.unsent() < POUR_BYTES:
            piece = next(left, None)
            if piece is None:
                exchange.end()
                return
            exchange.send(piece)

    exchange.drained = pump
    exchange.begin(200, TEXT)
    pump()


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
