"""etcd's port: sockets, the protocol by a connection's first bytes, and which page serves a path.

HTTP/1.1 carries etcd's v2 and, as JSON under ``/v3/``, its v3; HTTP/2 is gRPC, etcd's v3.
The same is served on the unix socket ``<folder>/run/kv.sock`` (mode 0600), whose callers are trusted to name their
principal.
"""

import asyncio
import contextlib
import dataclasses
import enum
import math
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

from actors.kv import places
from actors.kv.certificates import Certificates, common_name, named
from actors.kv.commands import Commands, Reads
from actors.kv.discovery import Discovery
from actors.kv.gateway import Gateway
from actors.kv.http1 import Http1
from actors.kv.http2.connection import Call, Http2, Methods
from actors.kv.http2.limits import Limits
from actors.kv.info import Info
from actors.kv.keys import Keys
from actors.kv.metrics import Metrics
from actors.kv.pages import Page
from actors.kv.routes import Routes
from actors.kv.rpc.leases import Clocks
from actors.kv.rpc.v3 import V3
from actors.kv.state import KvFold
from actors.kv.v2users import V2Users
from actors.setting import Etcd, Setting
from actors.shell import Shell

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Like a request line, but with no method of HTTP's and no path: somebody who means to speak HTTP/2 is told by the end
#: of the connection.
_NO_REQUEST = re.compile(rb"(?!(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE) )[A-Z]{3,} [A-Z]")
BACKLOG = 1024
SWEEP_S = 5.0
#: How long commands on their way are waited for when the port closes.
LAST_S = 2.0


class Port:
    """Listens from ``open`` to ``close``. ``keys.hub`` and ``v3`` want what is applied."""

    def __init__(self, shell: Shell, fold: KvFold, setting: Setting, clocks: Clocks) -> None:
        self.commands = Commands(shell)
        self.reads = Reads(shell, self.commands.turn)
        cluster = f"X-Etcd-Cluster-Id: {setting.log_id[:16]}\r\n".encode()
        self.users2 = V2Users(fold, self.commands, cluster, setting.etcd.bcrypt_cost)
        self.keys = Keys(shell, fold, self.commands, self.reads, setting.log_id[:16], self.users2)
        self.info = Info(shell, fold, self.keys.hub, self.commands, self.reads, setting, self.users2)
        self.v3 = V3(shell, fold, self.commands, self.reads, setting, clocks)
        gateway = Gateway(self.v3.methods, self.v3.http2, self.v3.in_json)
        discovery = Discovery(self.keys, self.commands, self.users2, self._base)
        self._routes = Routes(self.keys, gateway, self.info, discovery, setting.etcd)
        self.info.metrics = Metrics(shell, fold, setting, self.commands, self.v3, self.keys.hub).text
        self._setting = setting
        self._servers: list[asyncio.Server] = []
        self._certificates: Certificates | None = None
        self._limits = limits(setting.etcd)
        self._open_ones: set[Any] = set()
        #: connections of clients that wait to be served; None: none has to
        self._held: set[Front] | None = None
        self._closed = False
        self._socket_path = Path(setting.folder) / "run" / "kv.sock"
        self._sweeper: asyncio.TimerHandle | None = None
        #: host:port of clients' listeners, as they came out (port 0 asks for a free one), and their URLs
        self.addresses: list[str] = []
        self.urls: list[str] = []

    async def open(self) -> None:
        """Raises PortInUse, naming the address, and CertificateError, naming the file."""
        loop, etcd = asyncio.get_running_loop(), self._setting.etcd
        if etcd.tls:
            self._certificates = Certificates(etcd, Path(self._setting.folder) / "tls")
            self._routes.secure = True
        clients = Serves.GRPC if etcd.listen_client_http_urls else Serves.ALL
        for texts, serves in (
            (self._setting.etcd_listen, clients),
            (etcd.listen_client_http_urls, Serves.HTTP),
            (etcd.listen_metrics_urls, Serves.METRICS),
        ):
            for text in texts:
                try:
                    await self._listen(loop, places.parse(text, etcd.tls), serves)
                except OSError as error:
                    await self.close()
                    raise PortInUse(f"can't listen on {text} for etcd's clients: {error.strerror or error}") from error
        await self._open_socket(loop)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    async def _listen(self, loop: asyncio.AbstractEventLoop, place: places.Place, serves: "Serves") -> None:
        def front() -> Front:
            return Front(self, serves)

        context = self._certificates.context if place.tls and self._certificates is not None else None
        if place.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place.path)
            self._servers.append(await loop.create_unix_server(front, place.path, ssl=context, backlog=BACKLOG))
            if serves in (Serves.ALL, Serves.GRPC):
                self.urls.append(f"{place.scheme}://{place.path}")
            return
        server = await loop.create_server(front, place.host or None, place.port, ssl=context, backlog=BACKLOG)
        self._servers.append(server)
        if serves in (Serves.ALL, Serves.GRPC):
            found = [_address(one) for one in server.sockets]
            self.addresses += found
            self.urls += [f"{place.scheme}://{address}" for address in found]

    async def _open_socket(self, loop: asyncio.AbstractEventLoop) -> None:
        path = self._socket_path
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # a socket's address has room for 107 bytes only: go by the folder's descriptor
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        before = os.umask(0o177)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.umask(before)
            os.close(folder)
        server = await loop.create_unix_server(
            lambda: Front(self, Serves.ALL, trusted=True), sock=listener, backlog=BACKLOG
        )
        self._servers.append(server)

    def hold(self) -> None:
        """Clients connect, but nobody looks at what they say until :meth:`let_in`; monitors and our own are served."""
        self._held = set()

    @property
    def holding(self) -> bool:
        return self._held is not None

    def let_in(self) -> None:
        held, self._held = self._held or (), None
        for front in held:
            front.resume()

    def holds(self, front: "Front") -> bool:
        if self._held is not None:
            self._held.add(front)
        return self._held is not None

    async def close(self) -> None:
        """Stop listening, end all connections, refuse what wasn't sent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._closed = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.commands.close()
        for connection in list(self._open_ones):
            if isinstance(connection, Http2):
                connection.drain()
        loop = asyncio.get_running_loop()
        last_s = loop.time() + LAST_S
        while self.commands.pending and loop.time() < last_s:  # what is on its way to the log is answered
            await asyncio.sleep(0.005)
        self.v3.close()
        self.users2.close()
        self.reads.close()
        for connection in list(self._open_ones):
            connection.close()
        with contextlib.suppress(FileNotFoundError):
            self._socket_path.unlink()

    def http1(self, trusted: bool, peer: str) -> Http1:
        made = Http1(self._routes.serve, self._open_ones, peer)
        made.trusted = trusted
        return made

    def http2(self, trusted: bool, peer: str, client_cn: str, serves: "Serves", tls: bool) -> Http2 | None:
        """None: it isn't spoken there. Over TLS, where clients choose it without being asked to, it has the pages."""
        methods = self.v3.http2 if serves in (Serves.ALL, Serves.GRPC) else Methods()
        if tls and serves is not Serves.GRPC:

            def page(call: Call) -> None:
                Page(self._routes.serve, serves is Serves.METRICS, call)

            methods = dataclasses.replace(methods, pages=page)
        elif serves not in (Serves.ALL, Serves.GRPC):
            return None
        return Http2(methods, self._open_ones, peer, trusted, client_cn, self._limits, self.commands.turn.soon)

    def welcome(self, transport: Any) -> str | None:
        """The common name of a client's certificate where it stands for a user, else "". None: it isn't let in."""
        if self._closed:
            return None  # accepted before, made now
        certificates = self._certificates
        certificate = transport.get_extra_info("peercert") if certificates is not None else None
        if certificates is None or not certificate:
            return ""
        if certificates.has_revoked(transport.get_extra_info("ssl_object")):
            return None
        etcd = self._setting.etcd
        if etcd.client_cert_allowed_hostname and not named(certificate, etcd.client_cert_allowed_hostname):
            return None
        if etcd.client_cert_allowed_cn and common_name(certificate) not in etcd.client_cert_allowed_cn:
            return None
        return common_name(certificate) if etcd.client_cert_auth else ""

    def opened(self, front: "Front") -> None:
        self._open_ones.add(front)

    def over(self, front: "Front") -> None:
        self._open_ones.discard(front)
        if self._held is not None:
            self._held.discard(front)

    def _base(self) -> str:
        """Where clients find this node."""
        return next(iter(self._setting.etcd.advertise_client_urls or self.urls), "")

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        now = time.monotonic()
        for connection in list(self._open_ones):
            if connection.overdue(now):
                connection.too_slow()


class Serves(enum.Enum):
    """What is served at a listener: of both protocols all, one of them, or only what monitoring asks for."""

    ALL = "all"
    GRPC = "grpc"
    HTTP = "http"
    METRICS = "metrics"


class PortInUse(Exception):
    """An address can't be listened on; the message names it."""

    exit_code = 4


class Front(asyncio.Protocol):
    """A new connection, until its first bytes tell the protocol."""

    def __init__(self, port: Port, serves: Serves, trusted: bool = False) -> None:
        self._port, self._serves = port, serves
        self._trusted = trusted
        self._client_cn = ""
        self._transport: Any = None
        self._bytes = b""
        self._since = time.monotonic()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._port.opened(self)
        name = self._port.welcome(transport)
        if name is None:
            transport.abort()
        else:
            self._client_cn = name

    def resume(self) -> None:
        """What was held back is looked at."""
        self._since = time.monotonic()
        self._transport.resume_reading()
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        serves = self._serves
        if serves is not Serves.METRICS and not self._trusted and self._port.holds(self):
            self._transport.pause_reading()
            return
        if self._bytes.startswith(HTTP2_PREFACE):
            tls = self._transport.get_extra_info("sslcontext") is not None
            made = self._port.http2(self._trusted, self._peer(), self._client_cn, serves, tls)
            if made is None:
                self._transport.close()
            else:
                self._become(made)
        elif _NO_REQUEST.match(self._bytes):
            self._transport.close()
        elif not HTTP2_PREFACE.startswith(self._bytes):
            if serves is Serves.GRPC:
                self._transport.close()
                return
            plain = self._port.http1(self._trusted, self._peer())
            plain.metrics_only, plain.user_cn = serves is Serves.METRICS, self._client_cn
            self._become(plain)

    def connection_lost(self, error: Exception | None) -> None:
        self._port.over(self)

    def overdue(self, now: float) -> bool:
        return bool(self._bytes) and not self._port.holding and now - self._since > SWEEP_S

    def too_slow(self) -> None:
        self._transport.close()

    def close(self) -> None:
        self._transport.abort()

    def _become(self, protocol: Http1 | Http2) -> None:
        self._port.over(self)
        transport, data = self._transport, self._bytes
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    def _peer(self) -> str:
        connection = self._transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return f"uid:{struct.unpack('3i', raw)[1]}"
        # so that a watcher whose machine vanished doesn't stay for ever
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # an answer behind another one that isn't acknowledged yet would wait for 40 ms
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return f"addr:{self._transport.get_extra_info('peername')[0]}"


def limits(etcd: Etcd) -> Limits:
    """What etcd's flags say of a connection. A message may be half a MiB more than a request, as etcd's."""
    return Limits(
        message_bytes=etcd.max_request_bytes + 512 * 1024,
        calls=min(etcd.max_concurrent_streams, 2**31 - 1),
        ping_after_s=etcd.grpc_keepalive_interval_s or math.inf,
        ping_wait_s=etcd.grpc_keepalive_timeout_s or math.inf,
        client_ping_s=etcd.grpc_keepalive_min_time_s,
    )


def _address(listener: Any) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
