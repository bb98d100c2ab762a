"""gRPC's JSON gateway under ``/v3/`` (and ``/v3beta/``): the services of gRPC over HTTP/1.1."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from actors.kv.exchange import JSON, Connection, Exchange
from actors.kv.http2.request import Methods
from actors.kv.http2.tally import Tally
from actors.kv.rpc import json_form
from actors.kv.rpc.json_form import BadJson
from actors.kv.rpc.json_short import SHORT
from actors.kv.rpc.service import Method
from actors.kv.v3 import errors

#: gRPC status → HTTP status.
HTTP = {0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501}
HTTP |= {13: 500, 14: 503, 15: 500, 16: 401}

_SERVICES = {
    "/etcdserverpb.KV/": {"Range": "kv/range", "Put": "kv/put", "DeleteRange": "kv/deleterange", "Txn": "kv/txn",
                          "Compact": "kv/compaction"},
    "/etcdserverpb.Watch/": {"Watch": "watch"},
    "/etcdserverpb.Lease/": {"LeaseGrant": "lease/grant", "LeaseRevoke": "lease/revoke kv/lease/revoke",
                             "LeaseKeepAlive": "lease/keepalive",
                             "LeaseTimeToLive": "lease/timetolive kv/lease/timetolive",
                             "LeaseLeases": "lease/leases kv/lease/leases"},
    "/etcdserverpb.Cluster/": {"MemberAdd": "cluster/member/add", "MemberRemove": "cluster/member/remove",
                               "MemberUpdate": "cluster/member/update", "MemberList": "cluster/member/list",
                               "MemberPromote": "cluster/member/promote"},
    "/etcdserverpb.Maintenance/": {"Alarm": "maintenance/alarm", "Status": "maintenance/status",
                                   "Defragment": "maintenance/defragment", "Hash": "maintenance/hash",
                                   "HashKV": "maintenance/hashkv", "Snapshot": "maintenance/snapshot",
                                   "MoveLeader": "maintenance/transfer-leadership",
                                   "Downgrade": "maintenance/downgrade"},
    "/etcdserverpb.Auth/": {"AuthEnable": "auth/enable", "AuthDisable": "auth/disable", "AuthStatus": "auth/status",
                            "Authenticate": "auth/authenticate", "UserAdd": "auth/user/add",
                            "UserGet": "auth/user/get", "UserList": "auth/user/list",
                            "UserDelete": "auth/user/delete", "UserChangePassword": "auth/user/changepw",
                            "UserGrantRole": "auth/user/grant", "UserRevokeRole": "auth/user/revoke",
                            "RoleAdd": "auth/role/add", "RoleGet": "auth/role/get", "RoleList": "auth/role/list",
                            "RoleDelete": "auth/role/delete", "RoleGrantPermission": "auth/role/grant",
                            "RoleRevokePermission": "auth/role/revoke"},
    "/v3electionpb.Election/": {"Campaign": "election/campaign", "Proclaim": "election/proclaim",
                                "Leader": "election/leader", "Observe": "election/observe",
                                "Resign": "election/resign"},
    "/v3lockpb.Lock/": {"Lock": "lock/lock", "Unlock": "lock/unlock"},
}  # fmt: skip


def _nothing(*_: Any) -> None:
    """Nobody wants to know."""


#: Reads a request, of which it tells the bytes in protobuf; None: it isn't one that is read the short way.
Load = Callable[[bytes], tuple[Any, int] | None]


class _Route:
    """``load``, ``in_json``: the short way, if there is one; ``dump``: of the long way's answer."""

    def __init__(self, method: Method, serve: Callable[..., None], tally: Tally) -> None:
        self.method, self.serve, self.tally = method, serve, tally
        self.timed = tally.took is not None
        self.asks_many, self.answers_many = method.asks_many, method.answers_many
        #: a client that ended its sending has left, as it has for etcd
        self.waits = method.waits or method.asks_many or method.answers_many
        self.load: Load | None = None
        self.dump: Callable[[bytes], bytes] | None = None
        self.in_json: Callable[..., None] | None = None


class Gateway:
    """``methods``: the services, by gRPC path; ``in_json``: who takes one that was read already."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        http2: Methods,
        in_json: Mapping[str, Callable[["GatewayCall", Any, int], None]],
    ) -> None:
        self._routes: dict[str, _Route] = {}
        for service, paths in _SERVICES.items():
            for name, http_paths in paths.items():
                method = methods.get(service + name)
                if method is not None:
                    raw = method.path.encode()
                    serve: Callable[..., None] = http2.streaming[raw] if method.asks_many else http2.unary[raw]
                    route = _Route(method, serve, http2.tally(raw))
                    if method.path in SHORT:
                        route.load, route.dump = SHORT[method.path]
                        route.in_json = in_json[method.path]
                    for path in http_paths.split():
                        self._routes["/v3/" + path] = self._routes["/v3beta/" + path] = route

    def serve(self, exchange: Exchange, path: str) -> None:
        """``path`` begins with ``/v3/`` or ``/v3beta/``."""
        route = self._routes.get(path)
        if route is None:
            _error(exchange, 404, errors.NOT_FOUND, "Not Found")
            return
        if exchange.method != "POST":
            _error(exchange, 405, errors.UNIMPLEMENTED, "Method Not Allowed")
            return
        route.tally.started += 1
        exchange.streams = route.waits
        call = GatewayCall(exchange, route)
        try:
            if route.asks_many:
                messages = json_form.load_all(exchange.body, route.method.request)
                route.serve(call)
                for message in messages:
                    call.on_message(message.SerializeToString())
                call.on_end()
                return
            short = None if route.load is None else route.load(exchange.body)
            if short is not None and route.in_json is not None:
                call.in_json = True
                route.in_json(call, short[0], short[1])
            else:
                asked = json_form.loads(exchange.body or b"{}", route.method.request)
                route.serve(call, asked.SerializeToString())
        except BadJson as error:
            call.finish(errors.INVALID, str(error))
        except Exception:
            call.finish(errors.INTERNAL, "internal error")
            raise


class GatewayCall:
    """Implements :class:`actors.kv.rpc.service.Call` on an exchange."""

    __slots__ = (
        "_begun",
        "_exchange",
        "_opened_s",
        "_route",
        "connection",
        "gone",
        "in_json",
        "on_drained",
        "on_end",
        "on_gone",
        "on_message",
    )

    def __init__(self, exchange: Exchange, route: _Route) -> None:
        self.gone = False
        self.connection: Connection = exchange.connection
        self.on_message: Callable[[bytes], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        self.on_gone: Callable[[], None] = _nothing
        self.on_drained: Callable[[], None] = _nothing
        self._exchange = exchange
        self._route = route
        self._opened_s = time.monotonic() if route.timed else 0.0
        self._begun = False
        #: the answer is JSON already
        self.in_json = False
        exchange.gone, exchange.drained = self._left, self._drained

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        return dict(_metadata(self._exchange.headers))

    def reply(self, message: bytes) -> None:
        route = self._route
        if route.answers_many:
            self.send(message)
            self.finish()
        elif not self.gone:
            self.gone = True
            self._over(0)
            if not self.in_json:
                message = self._dumps(message) if route.dump is None else route.dump(message)
            self._exchange.respond(200, JSON, message)

    def send(self, message: bytes) -> None:
        if not self.gone:
            self._begin()
            self._exchange.send(b'{"result":' + self._dumps(message) + b"}\n")

    def _dumps(self, message: bytes) -> bytes:
        return json_form.dumps(self._route.method.response.FromString(message))

    def parts(self, message: Any) -> Iterator[bytes]:
        return message.json()  # type: ignore[no-any-return]

    def part(self, data: bytes) -> None:
        if not self.gone:
            self._begin()
            self._exchange.send(data)

    def finish(self, status: int = 0, message: str = "", trailers: object = ()) -> None:
        if self.gone:
            return
        self.gone = True
        self._over(status)
        if status and not self._begun:
            _error(self._exchange, HTTP.get(status, 500), status, message)
            return
        self._begin()
        if status:
            told = {"grpc_code": status, "http_code": HTTP.get(status, 500), "message": message}
            self._exchange.send(orjson.dumps({"error": told}) + b"\n")
        self._exchange.end()

    def _over(self, status: int) -> None:
        """It is answered: count it. The exchange holds the call no more, so that no cycle is left to be searched."""
        self._route.tally.end(status, self._opened_s)
        self._exchange.gone = self._exchange.drained = None

    def buffered(self) -> int:
        return self._exchange.connection.unsent()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._exchange.begin(200, JSON)

    def _left(self) -> None:
        if not self.gone:
            self.gone = True
            self.on_gone()

    def _drained(self) -> None:
        if not self.gone:
            self.on_drained()


def _metadata(headers: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """HTTP's headers as gRPC's metadata."""
    for name, value in headers.items():
        if name.startswith(b"grpc-metadata-"):
            yield name[14:], value
        elif name == b"authorization" or name.startswith(b"x-corelog-"):
            yield name, value


def _error(exchange: Exchange, http: int, code: int, message: str) -> None:
    exchange.respond(http, JSON, orjson.dumps({"error": message, "code": code, "message": message}))
