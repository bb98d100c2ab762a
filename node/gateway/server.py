"""The gateway's process: a shell over the control fold, and two servers (TCP and the unix socket) on one app."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from actors.control import ControlFold
from actors.host import Host
from actors.setting import Setting, Signals
from actors.shell import Shell
from actors.start import resumed
from streams.log.open import open_log

from . import snapshotting
from .access import Access
from .context import Context, Passive
from .guard import Users
from .problem import HANDLERS
from .routes import starlette_routes

SOCKET = "run/corelog.sock"


class PeerProtocol(HttpToolsProtocol):
    """Notes who connected: over the unix socket the peer's uid stands where an address stands otherwise."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid, uid, _gid = struct.unpack("3i", credentials)
            self.client = (f"uid:{uid}", pid)


def application(context: Context) -> Starlette:
    app = Starlette(routes=starlette_routes(), exception_handlers=HANDLERS)
    app.state.context = context
    return app


def names(setting: Setting) -> frozenset[str]:
    """Names by which this gateway may be called, beside addresses and localhost."""
    known = {setting.name, socket.gethostname(), setting.gateway_advertise.rpartition(":")[0]}
    return frozenset(known - {""})


async def serve(setting: Setting, signals: Signals) -> None:
    """Serve until ``signals.stop``. Raises OSError when an address can't be listened on."""
    folder = Path(setting.folder)
    log = await open_log(setting.log, setting.log_options, setting.log_checked)
    replica = await resumed(setting, ControlFold, log)
    host = Host(Passive(), replica, f"gateway@{setting.machine}", lambda: os.urandom(8).hex())
    shell = Shell(host, log, _no_effects)
    context = Context(setting, shell, Access(folder / "token", names(setting)), Users(folder / "run" / "kv.sock"))
    app = application(context)
    unix = _unix_server(app, folder / SOCKET)
    servers = [_server(app) for _ in setting.gateway_listen]
    sockets = [[tcp_socket(listen)] for listen in setting.gateway_listen]
    driving = asyncio.ensure_future(shell.run())
    # the socket first: who finds the port open may use the command line at once
    serving = [asyncio.ensure_future(unix.serve())]
    while not unix.started and not serving[0].done():
        await asyncio.sleep(0.001)
    serving += [
        asyncio.ensure_future(server.serve(sockets=bound)) for server, bound in zip(servers, sockets, strict=True)
    ]
    servers.append(unix)
    keeping = asyncio.ensure_future(snapshotting.keep(setting, shell))
    telling = asyncio.ensure_future(_tell(shell, servers, signals))
    stopping = asyncio.ensure_future(signals.stop.wait())
    try:
        done, _ = await asyncio.wait([driving, stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for server in servers:
            server.should_exit = True
            server.force_exit = True
        stopping.cancel()
        keeping.cancel()
        telling.cancel()
        await asyncio.wait(serving, timeout=3)
        driving.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await driving
        await log.close()


async def _tell(shell: Shell, servers: list["_Server"], signals: Signals) -> None:
    """Tell the supervisor when this actor serves, and now and then how far it is."""
    while True:
        live = shell.host.live and all(server.started for server in servers)
        signals.report({"applied": shell.host.replica.offset, "live": live})
        await asyncio.sleep(1.0 if live else 0.02)


class _Server(uvicorn.Server):
    """Signals belong to the node, not to a server in one of its threads."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Starlette) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=60,
        )
    )


def _unix_server(app: Starlette, path: Path) -> _Server:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = _server(app)
    server.config.uds = str(path)
    return server


def tcp_socket(listen: str) -> socket.socket:
    """A bound socket for ``host:port``. Raises OSError that names the address."""
    host, _, port = listen.rpartition(":")
    try:
        return socket.create_server(
            (host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise OSError(error.errno, f"can't listen on {listen}: {error.strerror}") from error


async def _no_effects(_effect: Any, _notice: Any) -> None:
    return None
