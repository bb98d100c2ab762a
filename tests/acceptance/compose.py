"""The cluster of docker-compose.yml as the Shows use it: three brokers, three nodes, and what can happen to them.

Ports are those that the compose file publishes (12379 …), or free ones where something listens there already.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

from tests.acceptance.harness import CORELOG, ROOT, Result, free_port, http, until

PROJECT = "corelog-shows"
#: Beside one that a person has up, and the contract's.
NET = "10.213.78"
NODES = ("node1", "node2", "node3")
BROKERS = ("kafka1", "kafka2", "kafka3")
#: Published ports by the variable that moves them.
PORTS = {
    **{f"CORELOG_ETCD{number}_PORT": number * 10_000 + 2379 for number in (1, 2, 3)},
    **{f"CORELOG_GATEWAY{number}_PORT": number * 10_000 + 7379 for number in (1, 2, 3)},
    **{f"CORELOG_KAFKA{number}_PORT": number * 10_000 + 9092 for number in (1, 2, 3)},
}


def docker(*words: str, check: bool = True, timeout_s: float = 120) -> str:
    """stdout of a docker command; fails with what it said."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(words)}: exit {done.returncode}\n{done.stderr}"
    return done.stdout.strip()


class Placed(NamedTuple):
    """Where one copy of a unit is."""

    machine: str
    fence: int
    state: str


class Cluster:
    """Up after ``up``; gone with its volumes after ``down``. One that runs already is used as it is, and left."""

    def __init__(self) -> None:
        self.found = bool(docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"))
        if self.found:
            self.ports = _published()
        else:
            taken = not all(_free(port) for port in PORTS.values())
            self.ports = {name: free_port() for name in PORTS} if taken else dict(PORTS)
        self.env = {**os.environ, "CORELOG_NET": NET, **{name: str(port) for name, port in self.ports.items()}}
        self._tokens: dict[str, str] = {}

    # -- the whole ----------------------------------------------------------------------------------------------

    def compose(self, *words: str, timeout_s: float = 600) -> str:
        command = ["docker", "compose", "--project-name", PROJECT, "--file", str(ROOT / "docker-compose.yml"), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.env, timeout=timeout_s, check=False, cwd=ROOT
        )
        assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-3000:]}"
        return done.stdout

    def up(self) -> "Cluster":
        if not self.found:
            self.compose("up", "-d", "--wait")
        return self

    def down(self) -> None:
        if not self.found:
            self.compose("down", "--volumes", "--timeout", "3")

    def logs(self, service: str, lines: int = 60) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail", str(lines), self.container(service)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    @staticmethod
    def container(service: str) -> str:
        return f"{PROJECT}-{service}-1"

    # -- speaking to it -----------------------------------------------------------------------------------------

    def etcd(self, node: str) -> int:
        return self.ports[f"CORELOG_ETCD{node[-1]}_PORT"]

    def gateway(self, node: str) -> str:
        return f"127.0.0.1:{self.ports[f'CORELOG_GATEWAY{node[-1]}_PORT']}"

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{self.ports[f'CORELOG_KAFKA{number}_PORT']}" for number in (1, 2, 3))

    def token(self, node: str) -> str:
        if node not in self._tokens:
            raw = docker("exec", self.container(node), "cat", "/var/lib/corelog/token")
            self._tokens[node] = raw.split()[0]
        return self._tokens[node]

    def run(self, node: str, *words: str, code: int | None = 0, timeout_s: float = 150) -> Result:
        """A command of this machine's corelog, spoken to a node over its published port with its token."""
        given = ["--endpoint", self.gateway(node), "--token", self.token(node)]
        done = subprocess.run(
            [*CORELOG, *words, *given],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        result = Result(done)
        assert code is None or result.code == code, f"corelog {' '.join(words)} ({node}): {result!r}"
        return result

    def inside(self, node: str, *words: str) -> str:
        """A command in a node's container."""
        return docker("exec", self.container(node), *words)

    def get(self, node: str, path: str) -> Any:
        """JSON of a gateway's read; KeyError on anything but 200 (``until`` asks again)."""
        status, raw = http(f"http://{self.gateway(node)}{path}")
        if status != 200:
            raise KeyError(f"{path} on {node}: {status} {raw[:300]!r}")
        return json.loads(raw)

    def seen(self, node: str, path: str) -> Any:
        """As ``get``, answered by the node from what it has applied, without the log; None if it doesn't answer."""
        with contextlib.suppress(URLError, OSError, KeyError):
            return self.get(node, f"{path}?consistency=serializable")
        return None

    # -- what is so ---------------------------------------------------------------------------------------------

    def master(self, ask: str | None = None) -> str:
        """The name of the node that is master now (empty: none), as ``ask`` or the first that answers says."""
        for node in (ask,) if ask else NODES:
            if (row := self.seen(node, "/v1/cluster")) is not None:
                return str(row["master_name"])
        return ""

    def settled_master(self) -> str:
        """A master that all nodes agree about, with all three alive."""

        def agreed() -> str:
            rows = [self.seen(node, "/v1/cluster") for node in NODES]
            if None in rows or any(row["alive"] != 3 for row in rows):
                return ""
            names = {row["master_name"] for row in rows}
            return names.pop() if len(names) == 1 else ""

        return str(until(agreed, timeout_s=180, every_s=0.1, says="three nodes that agree about their master"))

    def placed(self, ask: str, unit: str) -> list[Placed]:
        """Where the unit is now; empty while it waits or ``ask`` doesn't answer."""
        row = self.seen(ask, f"/v1/units/{unit}")
        found = row["placements"] if row else []
        return [Placed(one["name"], one["fence"], one["state"]) for one in found]

    def position(self, node: str) -> str:
        return str(self.get(node, "/v1/cluster")["position"])

    @property
    def shared(self) -> Path:
        """The folder on this machine of the volume that all nodes share."""
        return volume("shared")

    def data(self, node: str) -> Path:
        """The folder on this machine of a node's data."""
        return volume(node)

    # -- faults and mending -------------------------------------------------------------------------------------

    def kill(self, service: str) -> None:
        docker("kill", self.container(service))

    def start(self, service: str) -> None:
        docker("start", self.container(service))

    def disconnect(self, service: str) -> None:
        docker("network", "disconnect", f"{PROJECT}_default", self.container(service))

    def connect(self, service: str) -> None:
        docker("network", "connect", "--alias", service, f"{PROJECT}_default", self.container(service))

    def processes(self, service: str) -> dict[int, str]:
        """Pid (on this machine) → command line, of all processes in the container's pid namespace."""
        first = docker("inspect", "--format", "{{.State.Pid}}", self.container(service))
        namespace = os.readlink(f"/proc/{first}/ns/pid")
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == namespace:
                    raw = (entry / "cmdline").read_bytes()
                    found[int(entry.name)] = raw.replace(b"\0", b" ").decode("utf-8", "replace").strip()
        return found

    @contextlib.contextmanager
    def stopped(self, service: str, *but: str) -> Iterator[dict[int, str]]:
        """SIGSTOP to all processes of the container whose command line holds none of ``but``; SIGCONT at the end."""
        chosen = {p: c for p, c in self.processes(service).items() if c and not any(word in c for word in but)}
        try:
            for pid in chosen:
                _signal(pid, signal.SIGSTOP)
            yield chosen
        finally:
            for pid in chosen:
                _signal(pid, signal.SIGCONT)

    def healthy(self) -> None:
        """All brokers and nodes run, are on the network, and answer: whatever an earlier story left."""
        for service in (*BROKERS, *NODES):
            state = json.loads(docker("inspect", self.container(service)))[0]
            if f"{PROJECT}_default" not in state["NetworkSettings"]["Networks"]:
                self.connect(service)
            if not state["State"]["Running"]:
                self.start(service)
        until(
            lambda: all(http(f"http://127.0.0.1:{self.etcd(node)}/health")[0] == 200 for node in NODES),
            timeout_s=240,
            every_s=0.25,
            says="three healthy nodes",
        )
        self.settled_master()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _published() -> dict[str, int]:
    """The ports of a project that runs, by variable."""
    found = {}
    for kind, services, inner in (
        ("ETCD", NODES, "2379/tcp"),
        ("GATEWAY", NODES, "7379/tcp"),
        ("KAFKA", BROKERS, "19092/tcp"),
    ):
        for service in services:
            host = json.loads(docker("inspect", Cluster.container(service)))[0]["HostConfig"]
            found[f"CORELOG_{kind}{service[-1]}_PORT"] = int(host["PortBindings"][inner][0]["HostPort"])
    return found


@functools.cache
def volume(name: str) -> Path:
    """Where a volume of the project is on this machine."""
    return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{PROJECT}_{name}"))
