"""Real etcd 3.4 and ours, asked by v2: connections that are kept, and watches that are read by a thread each."""

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.setting import Etcd
from deploy.kafka.brokers import free_port
from tests import needs
from tests.actors.kv.server import Running

CLIENTS = 3
Answer = tuple[int, dict[str, str], bytes]
#: v2's history has so many events; after more, the first indices are gone.
HISTORY_EVENTS = 1000
#: etcd 3.4's for v2 can't be set; ours is the least.
BCRYPT_COST = 4


class Server:
    """``clients``: connections. ``base``: the index at which the running sequence began."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.base = 0
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(CLIENTS)]
        self.watches: list[Watch] = []

    def ask(self, client: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = self._connections[client]
        for again in (False, True):
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                connection.close()  # kept too long
                if again:
                    raise
        raise AssertionError

    def index(self) -> int:
        return int(self.ask(0, "GET", "/v2/keys/", None, {})[1]["x-etcd-index"])

    def close(self) -> None:
        self.forget_watches()
        for connection in self._connections:
            connection.close()

    def forget_watches(self) -> None:
        for watch in self.watches:
            watch.end()
        self.watches.clear()


class Watch:
    """``status`` and ``headers`` are there once it is made; ``events`` come later. ``body``: of a refusal."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.events: list[Any] = []
        self.body = b""
        self.over = False
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", path, headers=headers)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}
        # an answer with a length is no watch
        if self.status != 200 or "content-length" in self.headers:
            self.body = self._answer.read()
            self.over = True
            return
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def answer(self) -> Answer:
        return self.status, self.headers, self.body

    def _read(self) -> None:
        try:
            for line in self._answer:
                self.events.append(json.loads(line))
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass
        self.over = True

    def end(self) -> None:
        with contextlib.suppress(OSError):
            if self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        if hasattr(self, "_thread"):
            self._thread.join(5)
        self._connection.close()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@contextlib.contextmanager
def real(folder: Path) -> Iterator[Server]:
    """A node of etcd 3.4, Debian's."""
    program = needs.elsewhere("etcd")
    if program is None:
        needs.missing("etcd 3.4 (apt-get install etcd-server)")
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    flags = [f"--data-dir={folder}", "--enable-v2", "--unsafe-no-fsync", "--log-level=error"]
    flags += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    flags += [
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
    process = subprocess.Popen(
        [str(program), *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = Server("etcd", int(client.rpartition(":")[2]))
    try:
        _ready(server)
        yield server
    finally:
        server.close()
        process.kill()
        process.wait()


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Server]:
    with Running(folder, etcd=Etcd(bcrypt_cost=BCRYPT_COST)) as running:
        server = Server("corelog", running.port)
        try:
            _ready(server)
            yield server
        finally:
            server.close()


def _ready(server: Server) -> None:
    """Serves, and its history no longer reaches back to the first index."""
    for _ in range(400):
        try:
            if server.ask(0, "GET", "/health", None, {})[0] == 200:
                break
        except (OSError, http.client.HTTPException):
            server.close()
        time.sleep(0.05)
    else:
        raise AssertionError(f"{server.name} doesn't answer")
    for _ in range(HISTORY_EVENTS + 50):
        server.ask(0, "PUT", "/v2/keys/filling?value=x", None, {})
    server.ask(0, "DELETE", "/v2/keys/filling", None, {})
