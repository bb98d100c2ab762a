"""Real etcd servers on free loopback ports, to prove the runners and to compare with."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from deploy.kafka.brokers import free_port
from tests import needs
from tests.foreign import installs

VERSIONS = ("3.4", "3.5.1", "3.7")
#: Several members on a busy machine hold no election of their own then. The shortest TTL is longer, too.
PATIENT = ("--election-timeout=2500", "--heartbeat-interval=250")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no outgoing connection gets meanwhile."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def program(name: str, version: str) -> Path:
    """``etcd``, ``etcdctl`` or ``etcdutl`` of a version; 3.4 is Debian's."""
    if version != "3.4":
        return installs.etcd() / f"{name}-{version}"
    found = needs.elsewhere(name)
    if found is None:
        raise installs.Unavailable(f"no {name} 3.4 here: apt-get install -y etcd-server etcd-client")
    return Path(found)


def healthy(endpoint: str) -> bool:
    try:
        with urlopen(f"{endpoint}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        error.close()
        return False
    except (URLError, OSError):
        return False


class Etcd:
    """A cluster of ``members`` real servers of one version, each with a folder of its own.

    Their names are those that etcd3's tests ask for: they look for the processes by them, to stop all but the first.
    """

    def __init__(
        self, version: str, members: int = 1, options: Sequence[str] = (), *, other: Path | None = None
    ) -> None:
        """``other``: a program in etcd's place."""
        self.version, self.options = version, options
        self.program = other or program("etcd", version)
        ports = free_ports(2 * members)
        self.clients = [f"http://127.0.0.1:{port}" for port in ports[:members]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
        self.folder = Path(tempfile.mkdtemp(prefix="corelog-etcd-"))
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        return self.clients[0]

    def __enter__(self) -> "Etcd":
        try:
            self.processes = [self._start(number) for number in range(len(self.clients))]
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes:
            # one that isn't etcd has processes of its own to end
            process.send_signal(signal.SIGKILL if self.program == program("etcd", self.version) else signal.SIGTERM)
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        client, peer = self.clients[number], self.peers[number]
        cluster = ",".join(f"pifpaf{index}={url}" for index, url in enumerate(self.peers))
        command: list[str | Path] = [
            self.program,
            *("--name", f"pifpaf{number}", "--data-dir", self.folder / f"pifpaf{number}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", cluster, "--log-level", "error", *self.options),
        ]
        if self.version == "3.4":
            command.append("--enable-v2=true")
        with open(self.folder / f"pifpaf{number}.log", "wb") as log:
            env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)

    def _wait(self, timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while not all(healthy(client) for client in self.clients):
            ended = [process.poll() for process in self.processes]
            if any(code is not None for code in ended) or time.monotonic() > end:
                said = "\n".join(path.read_text()[-1000:] for path in self.folder.glob("*.log"))
                raise installs.Unavailable(f"etcd {self.version} didn't come up:\n{said}")
            time.sleep(0.05)
