"""etcd's port: sockets, the protocol by a connection's first bytes, and which page serves a path.

HTTP/1.1 carries etcd's v2 and, as JSON under ``/v3/``, its v3; HTTP/2 is gRPC, etcd's v3.
The same is served on the unix socket ``<folder>/run/kv.sock`` (mode 0600), whose callers are trusted to name their
principal.
"""

import asyncio
import contextlib
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

from actors.kv.commands import Commands, Reads
from actors.kv.gateway import Gateway
from actors.kv.http1 import TEXT, Exchange, Http1
from actors.kv.http2.connection import Http2
from actors.kv.info import Info
from actors.kv.keys import Keys
from actors.kv.rpc.leases import Clocks
from actors.kv.rpc.v3 import V3
from actors.kv.state import KvFold
from actors.kv.v2 import errors, request
from actors.kv.v2.errors import V2Error
from actors.setting import Setting
from actors.shell import Shell

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Like a request line, but with no method of HTTP's and no path: somebody who means to speak HTTP/2 is told by the end
#: of the connection.
_NO_REQUEST = re.compile(rb"(?!(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE) )[A-Z]{3,} [A-Z]")
BACKLOG = 1024
SWEEP_S = 5.0


class Port:
    """Listens from ``open`` to ``close``. ``keys.hub`` and ``v3`` want what is applied."""

    def __init__(self, shell: Shell, fold: KvFold, setting: Setting, clocks: Clocks) -> None:
        self.commands = Commands(shell)
        self.reads = Reads(shell)
        self.keys = Keys(shell, fold, self.commands, self.reads, setting.log_id[:16])
        self.info = Info(shell, fold, self.keys.hub, self.commands, self.reads, setting)
        self.v3 = V3(shell, fold, self.commands, self.reads, setting, clocks)
        self._gateway = Gateway(self.v3.methods)
        self._setting = setting
        self._servers: list[asyncio.Server] = []
        self._open_ones: set[Any] = set()
        self._socket_path = Path(setting.folder) / "run" / "kv.sock"
        self._sweeper: asyncio.TimerHandle | None = None
        #: host:port of the listeners, as they came out (port 0 asks for a free one)
        self.addresses: list[str] = []

    async def open(self) -> None:
        """Raises PortInUse, naming the address."""
        loop = asyncio.get_running_loop()
        for address in self._setting.etcd_listen:
            host, _, port = address.rpartition(":")
            try:
                server = await loop.create_server(
                    lambda: Front(self), host.strip("[]") or None, int(port), backlog=BACKLOG
                )
            except OSError as error:
                await self.close()
                raise PortInUse(f"can't listen on {address} for etcd's clients: {error.strerror or error}") from error
            self._servers.append(server)
            self.addresses += [_address(one) for one in server.sockets]
        await self._open_socket(loop)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

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
        server = await loop.create_unix_server(lambda: Front(self, trusted=True), sock=listener, backlog=BACKLOG)
        self._servers.append(server)

    async def close(self) -> None:
        """Stop listening, end all connections, refuse what wasn't sent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.v3.close()
        self.commands.close()
        self.reads.close()
        for connection in list(self._open_ones):
            connection.close()
        with contextlib.suppress(FileNotFoundError):
            self._socket_path.unlink()

    def http1(self, trusted: bool, peer: str) -> Http1:
        made = Http1(self.serve, self._open_ones, peer)
        made.trusted = trusted
        return made

    def http2(self, trusted: bool, peer: str) -> Http2:
        return Http2(self.v3.http2, self._open_ones, peer, trusted)

    def opened(self, front: "Front") -> None:
        self._open_ones.add(front)

    def over(self, front: "Front") -> None:
        self._open_ones.discard(front)

    def serve(self, exchange: Exchange) -> None:
        """Route a whole request."""
        if exchange.refused is not None:
            status, why = exchange.refused
            self.keys.error(exchange, V2Error(errors.INVALID_FORM, why, 0, status))
            return
        if not _same_origin(exchange):
            why = "a page of another site asks: Origin and Host differ"
            self.keys.error(exchange, V2Error(errors.UNAUTHORIZED, why, 0, 403))
            return
        try:
            path = request.unescape(exchange.path, plus=False)
        except V2Error:
            exchange.respond(400, TEXT, b"400 Bad Request: the path has an invalid escape\n")
            return
        if path.startswith("/v2/keys") and (len(path) == 8 or path[8] == "/"):
            self.keys.serve(exchange, path)
        elif path.startswith(("/v3/", "/v3beta/")):
            self._gateway.serve(exchange, path)
        else:
            self.info.serve(exchange, path)

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        now = time.monotonic()
        for connection in list(self._open_ones):
            if connection.overdue(now):
                connection.too_slow()


class PortInUse(Exception):
    """An address can't be listened on; the message names it."""

    exit_code = 4


class Front(asyncio.Protocol):
    """A new connection, until its first bytes tell the protocol."""

    def __init__(self, port: Port, trusted: bool = False) -> None:
        self._port = port
        self._trusted = trusted
        self._transport: Any = None
        self._bytes = b""
        self._since = time.monotonic()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._port.opened(self)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if self._bytes.startswith(HTTP2_PREFACE):
            self._become(self._port.http2(self._trusted, self._peer()))
        elif _NO_REQUEST.match(self._bytes):
            self._transport.close()
        elif not HTTP2_PREFACE.startswith(self._bytes):
            self._become(self._port.http1(self._trusted, self._peer()))

    def connection_lost(self, error: Exception | None) -> None:
        self._port.over(self)

    def overdue(self, now: float) -> bool:
        return bool(self._bytes) and now - self._since > SWEEP_S

    def too_slow(self) -> None:
        self._transport.close()

    def close(self) -> None:
        self._transport.abort()

    def _become(self, protocol: asyncio.Protocol) -> None:
        self._port.over(self)
        transport, data = self._transport, self._bytes
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    def _peer(self) -> str:
        connection = self._transport.get_extra_info("socket")
        if self._trusted:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return f"uid:{struct.unpack('3i', raw)[1]}"
        # so that a watcher whose machine vanished doesn't stay for ever
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return f"addr:{self._transport.get_extra_info('peername')[0]}"


def _same_origin(exchange: Exchange) -> bool:
    """Browsers name the page that asks; a form post of any site would else write keys on this machine."""
    origin = exchange.headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == exchange.headers.get(b"host", b"")


def _address(listener: Any) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
