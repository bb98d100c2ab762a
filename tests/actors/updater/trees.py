"""Trees on disk for the updater's tests, and gateways that serve a store."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from actors.updater import objects


def make(folder: Path, files: dict[str, bytes | str | None]) -> Path:
    """Files by path: bytes are a content (mode 755 below ``bin/``), text is a link's target, None an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if name.startswith("bin/") else 0o644)
    return folder


def read(folder: Path) -> dict[str, bytes | str | None]:
    """The inverse of :func:`make`."""
    out: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            out[name] = os.readlink(path)
        elif path.is_file():
            out[name] = path.read_bytes()
        elif not any(path.iterdir()):
            out[name] = None
    return out


#: Two versions that share most: some contents twice, some in two modes, links, an empty folder.
V1: dict[str, bytes | str | None] = {
    "VERSION": b"1\n",
    "bin/tool": b"#!/bin/sh\nexit 0\n",
    "bin/again": b"#!/bin/sh\nexit 0\n",
    "lib/same.txt": b"#!/bin/sh\nexit 0\n",
    "lib/empty": b"",
    "lib/deep/er/data": bytes(range(256)) * 40,
    "lib/large": bytes(700_000) + b"end",
    "etc/link": "../VERSION",
    "etc/out": "/etc/hostname",
    "var": None,
}
V2 = {**V1, "VERSION": b"2\n", "lib/new": b"new in 2"}


class Serving:
    """A gateway of ``folder`` on a free port: the product's functions behind the framework it uses."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.asked: list[str] = []
        self.ranges: list[str] = []
        routes = [
            Route("/v1/objects/{hash}", self._object),
            Route("/v1/trees/{hash}", self._tree),
        ]
        self._folder = folder
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    async def _object(self, request: Request) -> Response:
        return self._send(request, objects.open_object)

    async def _tree(self, request: Request) -> Response:
        return self._send(request, objects.manifest_path)

    def _send(self, request: Request, find: Callable[[Path, str], Path | None]) -> Response:
        self.asked.append(request.path_params["hash"])
        if "range" in request.headers:
            self.ranges.append(request.headers["range"])
        path = find(self._folder, request.path_params["hash"])
        return FileResponse(path) if path else Response(status_code=404)

    def __enter__(self) -> "Serving":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens (the port is held, not listened on)."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
