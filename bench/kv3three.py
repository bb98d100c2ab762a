"""Three nodes on three Kafka brokers beside three etcd, all on this machine: the table of bench.kv3 for a cluster.

    python -m bench.kv3three [--passes 3] [--seconds 3] [--rows "put 16x16,range 16x16"] [--flush]

A system is started, filled, asked for all its rows and ended before the next one starts: brokers and members that were
stopped meanwhile would hold elections first. Rows begin when no node takes a snapshot any more (at most a twentieth of
the time one does): which rows met the one of the filling was chance. Connections are spread over the three members; a
lone client asks the one that leads. ``--flush``: Kafka syncs each record to disk (its default leaves that to
replication; etcd always syncs).
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.kv3 import WORK, Server, Work, etcd_command, load, our_command, row, tool
from deploy.kafka.brokers import Brokers
from tests.acceptance.harness import free_port
from tests.storm.places import DIE_WITH_PARENT

#: After the filling, and between rows: what is behind catches up, and new brokers compile themselves meanwhile.
WARM_S, REST_S = 60.0, 4.0
#: A snapshot that is taken when the machine has nothing else to do takes no longer.
SNAPSHOT_S = 120.0
#: Each broker in a session of its own, as a service, a node and an etcd are: Linux shares the processor by those first.
APART = [*DIE_WITH_PARENT, "setsid"]
#: What is to be reached here, by mode, connections and streams.
REACH = {
    ("put", 1, 1): 1.0,
    ("put", 16, 1): 1.3,
    ("put", 16, 16): 2.0,
    ("range", 16, 16): 1.2,
    ("jput", 64, 1): 2.0,
    ("jrange", 64, 1): 2.0,
    ("txn", 16, 16): 1.5,
    ("v2put", 64, 1): 1.5,
}


@contextlib.contextmanager
def ours(folder: Path, flush: bool) -> Iterator[list[Server]]:
    extra = "log.flush.interval.messages=1\n" if flush else ""
    with Brokers(3, folder / "kafka", extra, within=[APART] * 3).up() as brokers, contextlib.ExitStack() as stack:
        found = []
        for number in range(3):
            port = free_port()
            command = our_command(folder / f"n{number}", port)
            command += ["--name", f"n{number}", "--log", f"kafka://{brokers.bootstrap}/bench"]
            server = Server("ours", port, command)
            stack.callback(server.end)
            found.append(server)
        yield [server.ready() for server in found]


@contextlib.contextmanager
def etcd(version: str, folder: Path) -> Iterator[list[Server]]:
    ports = [(free_port(), free_port()) for _ in range(3)]
    cluster = ",".join(f"n{number}=http://127.0.0.1:{peers}" for number, (_, peers) in enumerate(ports))
    with contextlib.ExitStack() as stack:
        found = []
        for number, (clients, peers) in enumerate(ports):
            name = f"n{number}"
            command = etcd_command(version, folder / name, clients, peers, cluster, name)
            server = Server(f"etcd {version}", clients, *command)
            stack.callback(server.end)
            found.append(server)
        yield [server.ready() for server in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rows", default="", help="only those whose name has one of these words, with commas")
    parser.add_argument("--flush", action="store_true")
    asked = parser.parse_args()
    words = [word for word in asked.rows.split(",") if word]
    rows = [work for work in WORK if not words or any(word in work.what for word in words)]
    rates: dict[Work, dict[str, list[float]]] = {work: {} for work in rows}
    p99s: dict[Work, dict[str, list[float]]] = {work: {} for work in rows}
    program = tool()
    for _ in range(asked.passes):
        for name in ("ours", "3.5.1", "3.7", "3.4"):
            some = [work for work in rows if name == "ours" or (work.mode == "v2put") == (name == "3.4")]
            if some:
                _pass(program, name, asked.flush, some, asked.seconds, rates, p99s)
    print("| work, 256 B values | ours, 3 nodes, 3 brokers | 3 etcd | ratio | reach | met |\n|---|---|---|---|---|---|")
    for work in rows:
        print(row(work.what, rates[work], p99s[work], REACH[work.mode, work.connections, work.streams]))


def _pass(
    program: Path,
    name: str,
    flush: bool,
    rows: list[Work],
    seconds: float,
    rates: dict[Work, dict[str, list[float]]],
    p99s: dict[Work, dict[str, list[float]]],
) -> None:
    """One system from its start to its end."""
    folder = Path(tempfile.mkdtemp(dir=".", prefix=".bench-kv3three-")).absolute()
    try:
        with ours(folder, flush) if name == "ours" else etcd(name, folder) as members:
            leader = next(iter(member for member in members if _leads(member)), members[0])
            ports = ",".join(str(member.port) for member in members)
            load(program, leader, ports, WORK[-1] if name == "3.4" else WORK[2], WARM_S if name == "ours" else seconds)
            for work in rows:
                time.sleep(REST_S)
                _without_snapshots()
                told = load(program, leader, ports if work.connections > 1 else str(leader.port), work, seconds)
                rates[work].setdefault(leader.name, []).append(told["done"] / told["seconds"])
                p99s[work].setdefault(leader.name, []).append(told["p99_us"] / 1000)
                print(
                    f"{leader.name}: {work.what}: {told['done'] / told['seconds']:,.0f}/s", file=sys.stderr, flush=True
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _without_snapshots() -> None:
    """Wait until no node of this machine takes one. Raises SystemExit after SNAPSHOT_S."""
    until_s = time.monotonic() + SNAPSHOT_S
    while any(b"actors.snapshotter" in words for words in _commands()):
        if time.monotonic() > until_s:
            raise SystemExit(f"a snapshot takes over {SNAPSHOT_S:g} s")
        time.sleep(0.2)


def _commands() -> Iterator[bytes]:
    """The command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def _leads(member: Server) -> bool:
    return b"etcd_server_is_leader 1" in member.page("/metrics")


if __name__ == "__main__":
    main()
