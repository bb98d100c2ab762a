"""A million keys of 256 B beside etcd: memory of all processes after the load and after a restart, and the restart.

    python -m bench.million3 [--keys 1000000]

One server at a time, each on an empty folder of this disk; filled by transactions of 100 puts. Ours takes a snapshot,
as it does by itself every 20,000 records, and starts from it. Memory is PSS; a server has started when it answers a
linearizable range of a key.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc

from actors.kv.proto import etcd_pb2 as pb
from bench.kv3 import VALUE_BYTES, Server, etcd_command, our_command
from bench.watch3 import pss_bytes
from tests.acceptance.harness import free_port

BATCH = 100
#: So long after the load, or the start, memory is looked at.
REST_S = 5.0


class Told(NamedTuple):
    loaded_s: float
    pss_bytes: int
    start_s: float
    pss_after_bytes: int


def measured(name: str, folder: Path, keys: int) -> Told:
    ports = free_port(), free_port()

    def start() -> Server:
        if name == "ours":
            return Server(name, ports[0], our_command(folder, ports[0]))
        return Server(f"etcd {name}", ports[0], *etcd_command(name, folder, *ports))

    server = start()
    try:
        server.ready()
        loaded_s = fill(server.port, keys)
        if name == "ours":
            words = [sys.executable, "-m", "node.cli.main", "log", "snapshot", "--data", str(folder)]
            subprocess.run(words, check=True, capture_output=True)
        time.sleep(REST_S)
        before = pss_bytes(server)
    finally:
        server.end()
    began_s = time.monotonic()
    server = start()
    try:
        while not _answers(server.port, b"%08d" % (keys - 1)):
            time.sleep(0.01)
        took_s = time.monotonic() - began_s
        time.sleep(REST_S)
        return Told(loaded_s, before, took_s, pss_bytes(server))
    finally:
        server.end()


def fill(port: int, keys: int, name: bytes = b"%08d") -> float:
    """So many keys, by transactions; how long it took."""
    began_s = time.monotonic()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Callable[..., grpc.Future] = channel.unary_unary(
            "/etcdserverpb.KV/Txn", pb.TxnRequest.SerializeToString, pb.TxnResponse.FromString
        ).future
        under_way: list[grpc.Future] = []
        for first in range(0, keys, BATCH):
            puts = [
                pb.RequestOp(request_put=pb.PutRequest(key=name % number, value=b"%08d" % number * (VALUE_BYTES // 8)))
                for number in range(first, first + BATCH)
            ]
            under_way.append(call(pb.TxnRequest(success=puts), timeout=60))
            if len(under_way) == 16:
                under_way.pop(0).result()
        for one in under_way:
            one.result()
    return time.monotonic() - began_s


def _answers(port: int, key: bytes) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, contextlib.suppress(grpc.RpcError):
        call = channel.unary_unary(
            "/etcdserverpb.KV/Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString
        )
        return len(call(pb.RangeRequest(key=key), timeout=2).kvs) == 1
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    asked = parser.parse_args()
    found: dict[str, Told] = {}
    for name in ("ours", "3.5.1", "3.7"):
        folder = Path(tempfile.mkdtemp(dir=".", prefix=".bench-million-")).absolute()
        try:
            found[name] = told = measured(name, folder / "data", asked.keys)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {told}", file=sys.stderr, flush=True)
    peer = min((name for name in found if name != "ours"), key=lambda name: found[name].pss_bytes)
    print(f"| {asked.keys:,} keys of 256 B | ours | etcd {peer} | ratio | reach | met |\n|---|---|---|---|---|---|")
    for what, ours, theirs in (
        ("PSS of all processes after the load", found["ours"].pss_bytes, found[peer].pss_bytes),
        ("PSS after a restart", found["ours"].pss_after_bytes, found[peer].pss_after_bytes),
    ):
        ratio = ours / theirs
        met = "yes" if ratio <= 1.5 else "**no**"
        print(f"| {what} | {ours / 2**20:,.0f} MiB | {theirs / 2**20:,.0f} MiB | {ratio:.2f}× | ≤ 1.5× | {met} |")
    ours_s, theirs_s = found["ours"].start_s, found[peer].start_s
    cells = ["start (ours from a snapshot)", f"{ours_s:.1f} s", f"{theirs_s:.1f} s", f"{ours_s / theirs_s:.2f}×"]
    print("| " + " | ".join([*cells, "≤ 10 s", "yes" if ours_s <= 10 else "**no**"]) + " |")


if __name__ == "__main__":
    main()
