"""Which page serves a whole request of HTTP, and what is refused before one is asked."""

from actors.kv.discovery import Discovery
from actors.kv.exchange import TEXT, Exchange
from actors.kv.gateway import Gateway
from actors.kv.info import Info
from actors.kv.keys import Keys
from actors.kv.v2 import errors, request
from actors.kv.v2.errors import V2Error
from actors.setting import Etcd

_CORS = (
    b"Access-Control-Allow-Headers: accept, content-type, authorization\r\n"
    b"Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"
    b"Access-Control-Allow-Origin: %s\r\n"
)


class Routes:
    """``secure``: connections are over TLS anyway; then a host isn't looked at."""

    def __init__(self, keys: Keys, gateway: Gateway, info: Info, discovery: Discovery, etcd: Etcd) -> None:
        self.secure = False
        self._keys, self._gateway, self._info, self._discovery = keys, gateway, info, discovery
        self._cors: list[str] = list(etcd.cors)
        self._hosts: list[str] = list(etcd.host_whitelist)
        self._any_host = not etcd.host_whitelist or "*" in etcd.host_whitelist
        self._has_gateway: bool = etcd.enable_grpc_gateway

    def serve(self, exchange: Exchange) -> None:
        refused, connection = exchange.refused, exchange.connection
        if refused is not None and connection.trusted and exchange.path.startswith(b"/internal/"):
            self._info.refuse(exchange, *refused)
            return
        if refused is not None:
            self._keys.error(exchange, V2Error(errors.INVALID_FORM, refused[1], 0, refused[0]))
            return
        if self._cors:
            connection.lines = _cors(exchange, self._cors)
            if exchange.method == "OPTIONS":
                exchange.respond(200, b"", b"")
                return
        if not connection.lines and not _same_origin(exchange):
            why = "a page of another site asks: Origin and Host differ"
            self._keys.error(exchange, V2Error(errors.UNAUTHORIZED, why, 0, 403))
            return
        if not self._any_host and not self._whitelisted(exchange):
            exchange.respond(403, TEXT, b"this host isn't among those of --host-whitelist\n")
            return
        try:
            path = request.unescape(exchange.path, False)
        except V2Error:
            exchange.respond(400, TEXT, b"400 Bad Request: the path has an invalid escape\n")
            return
        if connection.metrics_only:
            self._info.serve_metrics(exchange, path)
        elif path.startswith("/v2/keys") and (len(path) == 8 or path[8] == "/"):
            self._keys.serve(exchange, path)
        elif self._has_gateway and path.startswith(("/v3/", "/v3beta/")):
            self._gateway.serve(exchange, path)
        elif not self._discovery.serve(exchange, path):
            self._info.serve(exchange, path)

    def _whitelisted(self, exchange: Exchange) -> bool:
        """As etcd's guard against rebound names: only where a connection isn't secure anyway."""
        if exchange.connection.trusted or self.secure:
            return True
        known, host = self._hosts, exchange.headers.get(b"host", b"").decode("latin-1")
        return host in known or host.rpartition(":")[0].strip("[]") in known or host.partition(":")[0] == "localhost"


def _cors(exchange: Exchange, allowed: list[str]) -> bytes:
    """What tells a browser that a page of the site that it names may ask; nothing: it may not. As etcd's ``--cors``."""
    origin = exchange.headers.get(b"origin", b"")
    if "*" not in allowed and origin.decode("latin-1") not in allowed:
        return b""
    return _CORS % (b"*" if "*" in allowed else origin)


def _same_origin(exchange: Exchange) -> bool:
    """Browsers name the page that asks; a form post of any site would else write keys on this machine."""
    origin = exchange.headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == exchange.headers.get(b"host", b"")
