"""etcd's interface beside etcd itself: one machine, one run, the others stopped while one is measured.

    make bench-kv            or: python -m bench.kv3 [--rounds 5] [--seconds 3] [--rows "put 16x16,range 16x16"]
                             python -m bench.kv3three    three nodes on Kafka beside three etcd

A closed loop of requests by bench/load3 (C, libnghttp2), which looks at each call's grpc-status. A server's revision
must have grown by just the puts acknowledged. Ours is a whole node; all sync to the same disk. The figure of a row is
the median of its rounds, the peer the faster of etcd 3.5 and 3.7 (v2: 3.4).
"""

import argparse
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.acceptance.harness import free_port
from tests.actors.kv.pki import Authority
from tests.foreign import servers

KEYS, VALUE_BYTES = 100_000, 256
SOURCES = Path(__file__).parent / "load3"


class Work(NamedTuple):
    """``writes``: each answer is a revision. ``tls``: by TLS, with a certificate of the server's."""

    what: str
    mode: str
    connections: int
    streams: int
    reach: float
    writes: bool
    tls: bool = False


WORK = (
    Work("gRPC put, 1 client", "put", 1, 1, 1.0, True),
    Work("gRPC put, 16 connections", "put", 16, 1, 1.5, True),
    Work("gRPC put, 16×16", "put", 16, 16, 2.0, True),
    Work("linearizable range, 16×16", "range", 16, 16, 1.2, False),
    Work("JSON put, 64", "jput", 64, 1, 3.0, True),
    Work("JSON range, 64", "jrange", 64, 1, 2.0, False),
    Work("txn (compare + put + get), 16×16", "txn", 16, 16, 1.5, True),
    Work("v2 put, 64", "v2put", 64, 1, 1.5, True),
)
#: On servers of their own.
TLS = (
    Work("gRPC put, 16×16, TLS", "put", 16, 16, 1.0, True, True),
    Work("linearizable range, 16×16, TLS", "range", 16, 16, 1.0, False, True),
)
_UNCHECKED = ssl.create_default_context()
_UNCHECKED.check_hostname, _UNCHECKED.verify_mode = False, ssl.CERT_NONE


class Server:
    """A process group that can be stopped and go on. ``tls``: it answers no other requests."""

    def __init__(
        self, name: str, port: int, command: list[str], environment: dict[str, str] | None = None, tls: bool = False
    ) -> None:
        self.name, self.port, self.tls = name, port, tls
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ready(self) -> "Server":
        for _ in range(300):
            with contextlib.suppress(OSError), self._open("/health", 5):
                return self
            time.sleep(0.1)
        raise SystemExit(f"{self.name} doesn't serve on port {self.port}")

    @property
    def _url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def _open(self, request: str | urllib.request.Request, timeout_s: float = 10) -> Any:
        request = request if isinstance(request, urllib.request.Request) else f"{self._url}{request}"
        return urllib.request.urlopen(request, timeout=timeout_s, context=_UNCHECKED)

    def revision(self, v2: bool) -> int:
        if v2:
            with self._open("/v2/keys/") as answer:
                return int(answer.headers["X-Etcd-Index"])
        ask = json.dumps({"key": base64.b64encode(b"\0").decode()}).encode()
        kind = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self._url}/v3/kv/range", ask, kind)
        with self._open(request) as answer:
            return int(json.loads(answer.read())["header"]["revision"])

    def page(self, path: str) -> bytes:
        with self._open(path) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        self.go_on()
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def tool() -> Path:
    """The load generator, built when its source changed. Raises SystemExit: a compiler or nghttp2 isn't there."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in sources)).hexdigest()[:16]
    cache = os.environ.get("CORELOG_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "corelog"
    )
    program = Path(cache) / "bench" / f"load3-{digest}"
    if program.exists():
        return program
    if shutil.which("cc") is None:
        raise SystemExit(
            "bench.kv3 needs a C compiler, libnghttp2 and OpenSSL (Debian: gcc, libnghttp2-dev, libssl-dev)"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    beside = program.with_suffix(f".{os.getpid()}")
    flags = ["-O2", "-D_GNU_SOURCE", "-Wno-deprecated-declarations"]
    made = subprocess.run(
        ["cc", *flags, "-o", beside, *(one for one in sources if one.suffix == ".c"), "-lnghttp2", "-lssl", "-lcrypto"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise SystemExit(f"load3 can't be built (Debian: gcc, libnghttp2-dev, libssl-dev):\n{made.stderr}")
    os.replace(beside, program)
    return program


@contextlib.contextmanager
def serving(v2: bool, tls: bool = False) -> Iterator[list[Server]]:
    """Ours first, then the peers, each on an empty folder of this disk, all stopped."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-kv3-") as text, contextlib.ExitStack() as stack:
        folder, found = Path(text).absolute(), []
        pair = Authority(folder).sign("server")[:2] if tls else ()
        for name in ("ours", "3.4") if v2 else ("ours", "3.5.1", "3.7"):
            server = _ours(folder / name, pair) if name == "ours" else _etcd(name, folder / name, pair)
            stack.callback(server.end)
            found.append(server.ready())
        for server in found:
            server.stop()
        yield found


def _ours(folder: Path, pair: tuple[str, ...]) -> Server:
    port = free_port()
    flags = ["--etcd", f"cert-file={pair[0]}", "--etcd", f"key-file={pair[1]}"] if pair else []
    return Server("ours", port, [*our_command(folder, port), *flags], tls=bool(pair))


def our_command(folder: Path, port: int) -> list[str]:
    here = ["--data", str(folder), "--etcd-listen", f"127.0.0.1:{port}", "--gateway-listen", "none"]
    return [sys.executable, "-m", "node.cli.main", "up", *here]


def _etcd(version: str, folder: Path, pair: tuple[str, ...]) -> Server:
    clients, peers = free_port(), free_port()
    command, environment = etcd_command(version, folder, clients, peers)
    if pair:
        here = f"https://127.0.0.1:{clients}"
        command += ["--listen-client-urls", here, "--advertise-client-urls", here]
        command += ["--cert-file", pair[0], "--key-file", pair[1]]
    return Server(f"etcd {version}", clients, command, environment, bool(pair))


def etcd_command(
    version: str, folder: Path, clients: int, peers: int, cluster: str = "", name: str = "default"
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of one member."""
    here, there = f"http://127.0.0.1:{clients}", f"http://127.0.0.1:{peers}"
    command = [str(servers.program("etcd", version)), "--data-dir", str(folder), "--log-level", "error"]
    command += ["--name", name, "--listen-client-urls", here, "--advertise-client-urls", here]
    command += ["--listen-peer-urls", there, "--initial-advertise-peer-urls", there]
    command += ["--initial-cluster", cluster or f"{name}={there}"]
    if version == "3.4":
        command.append("--enable-v2")
    return command, {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}


def turn(program: Path, server: Server, work: Work, seconds: float) -> dict[str, Any]:
    """One round at one server that is stopped before and after. Raises as :func:`load`."""
    server.go_on()
    try:
        time.sleep(0.3)
        return load(program, server, str(server.port), work, seconds)
    finally:
        server.stop()


def load(
    program: Path, server: Server, ports: str, work: Work, seconds: float, keys: int = KEYS, rate: float = 0
) -> dict[str, Any]:
    """Raises SystemExit: an answer was wrong, or one that was given isn't in the store. ``rate``: of an open loop."""
    v2 = work.mode == "v2put"
    before = server.revision(v2) if work.writes else 0
    where = f"tls:{ports}" if work.tls else ports
    words = [where, work.mode, work.connections, work.streams, seconds, keys, VALUE_BYTES, rate]
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    if told["errors"]:
        raise SystemExit(f"{server.name}, {work.what}: {told['errors']} requests failed, first: {told['error']}")
    if work.writes and (grown := server.revision(v2) - before) != told["done"]:
        raise SystemExit(f"{server.name}, {work.what}: {told['done']} acknowledged, the revision grew by {grown}")
    return told


def measured(program: Path, all_servers: list[Server], work: Work, rounds: int, seconds: float) -> str:
    """A row of the table: ours and the best peer."""
    rates: dict[str, list[float]] = {server.name: [] for server in all_servers}
    p99s: dict[str, list[float]] = {server.name: [] for server in all_servers}
    for number in range(rounds + 1):
        for server in all_servers:
            told = turn(program, server, work, seconds if number else seconds / 2)
            if number:  # the first warms up
                rates[server.name].append(told["done"] / told["seconds"])
                p99s[server.name].append(told["p99_us"] / 1000)
    return row(work.what, rates, p99s, work.reach)


def row(what: str, rates: dict[str, list[float]], p99s: dict[str, list[float]], reach: float) -> str:
    """By a system's name what its rounds gave: answers a second, and 99% of them within so many ms."""
    ours = statistics.median(rates["ours"])
    peer = max((name for name in rates if name != "ours"), key=lambda name: statistics.median(rates[name]))
    ratio = ours / statistics.median(rates[peer])
    cells = [what, f"{ours:,.0f}/s, p99 {statistics.median(p99s['ours']):.1f} ms"]
    cells += [f"{peer}: {statistics.median(rates[peer]):,.0f}/s, p99 {statistics.median(p99s[peer]):.1f} ms"]
    cells += [f"{ratio:.2f}×", f"≥ {reach:g}×", "yes" if ratio >= reach else "**no**"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rows", default="", help="only those whose name has one of these words, with commas")
    asked = parser.parse_args()
    words = [word for word in asked.rows.split(",") if word]
    rows = [work for work in WORK + TLS if not words or any(word in work.what for word in words)]
    program = tool()
    print(
        "| work, 256 B values | ours, one node, embedded log | etcd | ratio | reach | met |\n|---|---|---|---|---|---|"
    )
    for v2, tls in ((False, False), (True, False), (False, True)):
        some = [work for work in rows if (work.mode == "v2put", work.tls) == (v2, tls)]
        if not some:
            continue
        with serving(v2, tls) as all_servers:
            if not v2:
                for server in all_servers:  # so that ranges find keys
                    turn(program, server, TLS[0] if tls else WORK[2], asked.seconds)
            for work in some:
                print(measured(program, all_servers, work, asked.rounds, asked.seconds), flush=True)


if __name__ == "__main__":
    main()
