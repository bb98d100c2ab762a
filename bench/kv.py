"""The kv replica: replay beside orjson, v2 PUT beside a real etcd 3.4, and the memory of a million keys.

    python -m bench.kv

Replay is measured in CPU time (one core, whoever else is there), in turns of 50,000 events. PUTs: one load tool
(bench/load/http_put.c) for both servers, in short turns, both syncing to the same disk; the server that waits is idle.
Ours runs as in a node, kv and coordination in a process each.
"""

import asyncio
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import orjson
import uvloop

from actors.coordination import actor as coordination
from actors.kv import actor as kv_actor
from actors.kv.state import KvFold
from actors.setting import Setting, Signals
from bench.row import Row
from streams.events import encode, say
from streams.events import kv as says
from streams.events import log as log_says
from streams.log.segments import SegmentsLog
from streams.records import Entry, Record
from streams.replay import Replica
from tests import needs

LOG, MACHINE = "ab" * 16, "5e" * 16
PUTS, KEYS, VALUE_BYTES = 1_000_000, 100_000, 256
#: Puts of one record: what a loaded port gathers while a record is synced.
RECORD_PUTS = 128
TURN_PUTS = 50_000
ROUNDS, ROUND_S = 8, 1.0


def run() -> list[Row]:
    """All rows; takes about two minutes and a gigabyte."""
    rows = [*replay_rows(), memory_row()]
    if (missing := [name for name in ("etcd", "cc") if shutil.which(name) is None]) != []:
        raise SystemExit(f"bench.kv needs {' and '.join(missing)} on the PATH (Debian: etcd-server, gcc)")
    return rows + put_rows()


# -- replay ---------------------------------------------------------------------------------------------------------


def _begin() -> list[Entry]:
    events = [[say(log_says.LogOpened(id=LOG))], [say(log_says.ActorOpened(nonce="n"))]]
    return [_entry(offset, "log", one) for offset, one in enumerate(events)]


def _entry(offset: int, stream: str, events: list) -> Entry:
    return Entry(
        offset, Record(LOG, stream, f"kv@{MACHINE}", 1, offset + 1, 1_700_000_000_000, encode(events)).canonical()
    )


def _puts(first: int, count: int, key: Callable[[int], int]) -> list:
    filler = "v" * (VALUE_BYTES - 8)
    return [
        say(says.Put(f"/d{key(n) % 100:02d}/key{key(n):06d}", f"{n:08d}{filler}"), principal="addr:127.0.0.1")
        for n in range(first, first + count)
    ]


def _turns(key: Callable[[int], int]) -> Iterator[list[Entry]]:
    offset, first = 2, 0
    while first < PUTS:
        turn: list[Entry] = []
        for _ in range(TURN_PUTS // RECORD_PUTS):
            turn.append(_entry(offset, "kv", _puts(first, RECORD_PUTS, key)))
            offset, first = offset + 1, first + RECORD_PUTS
        yield turn


def replay_rows() -> list[Row]:
    rows = []
    numbers = random.Random(1)
    scattered = [numbers.randrange(KEYS) for _ in range(PUTS + TURN_PUTS)]
    for how, key in (("keys in turn", lambda n: n % KEYS), ("keys at random", scattered.__getitem__)):
        replica = Replica(KvFold())
        for entry in _begin():
            replica.replay(entry)
        ours = peer = 0.0
        puts = 0
        for turn in _turns(key):
            gc.collect()
            gc.freeze()
            payloads = [entry.raw.partition(b"\n")[2] for entry in turn]
            begun = time.process_time()
            for payload in payloads:
                orjson.loads(payload)
            middle = time.process_time()
            for entry in turn:
                replica.replay(entry)
            ours += time.process_time() - middle
            peer += middle - begun
            puts += len(turn) * RECORD_PUTS
        ratio = peer / ours
        rows.append(
            Row(
                f"replay of {puts / 1e6:.1f}M puts on 100k keys, chain on, a core ({how})",
                f"{ours / puts * 1e6:.2f} µs a put",
                f"orjson.loads {peer / puts * 1e6:.2f} µs",
                f"{ratio:.2f}",
                "≥ 0.3",
                ratio >= 0.3,
                "CPU time; what bounds it is below",
            )
        )
        gc.unfreeze()
    return rows


def memory_row() -> Row:
    """PSS of a process that holds a million keys of 256 bytes, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.kv", "million"], capture_output=True, text=True, check=True)
    megabytes = float(done.stdout)
    return Row(
        "a million keys of 256 B, PSS of the process", f"{megabytes:.0f} MB", "-", "-", "≤ 650 MB", megabytes <= 650
    )


def _million() -> None:
    replica = Replica(KvFold())
    for entry in _begin():
        replica.replay(entry)
    for offset, first in enumerate(range(0, 1_000_000, 200), start=2):
        replica.replay(_entry(offset, "kv", _puts(first, 200, lambda n: n)))
    rollup = Path("/proc/self/smaps_rollup").read_text()
    print(int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]) / 1024)


# -- v2 PUT ---------------------------------------------------------------------------------------------------------


def put_rows() -> list[Row]:
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-kv-") as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        tool = folder / "http_put"
        subprocess.run(["cc", "-O2", "-o", tool, Path(__file__).parent / "load" / "http_put.c"], check=True)
        ports = {"ours": _ours(folder / "ours", stack), "etcd": _etcd(folder / "etcd", stack)}
        rows = []
        for connections in (1, 64):
            rates: dict[str, list[float]] = {"ours": [], "etcd": []}
            p50s: dict[str, list[int]] = {"ours": [], "etcd": []}
            for turn in range(ROUNDS + 1):
                for name, port in ports.items():
                    told = _load(tool, port, connections, turn)
                    if turn:  # the first warms up
                        rates[name].append(told["requests"] / told["seconds"])
                        p50s[name].append(told["p50_us"])
            rows.append(_put_row(connections, rates, p50s))
        return rows


def _put_row(connections: int, rates: dict[str, list[float]], p50s: dict[str, list[int]]) -> Row:
    ours, etcd = (statistics.median(rates[name]) for name in ("ours", "etcd"))
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["etcd"], strict=True))
    shown = {name: f"p50 {statistics.median(p50s[name]) / 1000:.2f} ms" for name in p50s}
    return Row(
        f"v2 PUT of {VALUE_BYTES} B, {connections} connection{'s' * (connections > 1)}, embedded log",
        f"{ours:.0f}/s, {shown['ours']}",
        f"etcd 3.4: {etcd:.0f}/s, {shown['etcd']}",
        f"{ratio:.2f}",
        "≥ 1.0",
        ratio >= 1.0,
        f"median of {ROUNDS} turns of {ROUND_S:g} s each",
    )


def _load(tool: Path, port: int, connections: int, seed: int) -> dict:
    command = [tool, "127.0.0.1", str(port), str(connections), str(ROUND_S), "10000", str(VALUE_BYTES), str(seed)]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if told["errors"]:
        raise SystemExit(f"{told['errors']} requests failed on port {port}")
    return dict(told)


def _ours(folder: Path, stack: contextlib.ExitStack) -> int:
    folder.mkdir()
    port = _free_port()
    setting = Setting(
        machine=MACHINE,
        nonce="n" * 16,
        boot_id="b",
        folder=str(folder.absolute()),
        log=f"segments://{folder.absolute()}/log",
        log_id=LOG,
        etcd_listen=[f"127.0.0.1:{port}"],
    )
    asyncio.run(_found(setting))
    for name in ("kv", "coordination"):
        process = subprocess.Popen([sys.executable, "-m", "bench.kv", name], stdin=subprocess.PIPE)
        stack.callback(_end, process)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(setting))
        process.stdin.close()
    _wait(port)
    return port


async def _found(setting: Setting) -> None:
    log = await SegmentsLog.open(setting.log.partition("://")[2])
    payload = encode([say(log_says.LogOpened(id=LOG))])
    await log.append([Record(LOG, "log", f"node@{MACHINE}", 1, 1, time.time_ns() // 1_000_000, payload)])
    await log.close()


def _etcd(folder: Path, stack: contextlib.ExitStack) -> int:
    clients, peers = _free_port(), _free_port()
    here, there = f"http://127.0.0.1:{clients}", f"http://127.0.0.1:{peers}"
    command = [needs.program("etcd"), "--enable-v2", "--data-dir", str(folder), "--log-level", "error"]
    command += ["--listen-client-urls", here, "--advertise-client-urls", here, "--listen-peer-urls", there]
    command += ["--initial-advertise-peer-urls", there, "--initial-cluster", f"default={there}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(_end, process)
    _wait(clients)
    return clients


def _wait(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"nobody serves on port {port}")


def _end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(name: str) -> None:
    """A process of our node, as supervision runs it."""
    setting = msgspec.json.decode(sys.stdin.buffer.read(), type=Setting)
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serve = kv_actor.serve if name == "kv" else coordination.serve
    uvloop.run(serve(setting, Signals()))


if __name__ == "__main__":
    if sys.argv[1:] == ["million"]:
        _million()
    elif sys.argv[1:]:
        _serve(sys.argv[1])
    else:
        for row in run():
            print(*row, sep=" | ")
