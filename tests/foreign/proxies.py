"""etcd's own ``etcd grpc-proxy`` in front of a cluster: caches of ranges, watches and lease streams put together."""

import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.foreign import installs, servers


class Proxy:
    """A proxy of a version before endpoints (``http://…``, with commas between)."""

    def __init__(self, version: str, endpoints: str) -> None:
        self.version, self.endpoints = version, endpoints
        self.port = servers.free_ports(1)[0]
        self.folder = tempfile.TemporaryDirectory(prefix="corelog-proxy-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Proxy":
        address, log = f"127.0.0.1:{self.port}", Path(self.folder.name) / "log"
        command: list[str | Path] = [servers.program("etcd", self.version), "grpc-proxy", "start"]
        command += [f"--endpoints={self.endpoints}", f"--listen-addr={address}", f"--data-dir={self.folder.name}/data"]
        with open(log, "wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__(None, None, None)
                raise installs.Unavailable(f"etcd {self.version} grpc-proxy didn't come up:\n{log.read_text()[-1000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.folder.cleanup()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
