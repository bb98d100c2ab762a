"""Leases kept alive beside etcd: CPU of the server and bytes on its log for a renewal.

    python -m bench.leases3 [--leases 10000] [--streams 100] [--seconds 20]

Each lease is renewed every 2 s over one of the streams; every answer must tell its full time. One server at a time, on
an empty folder of this disk. CPU is that of all processes of a server while all are renewed, less what it takes idle.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import grpc.aio

from actors.kv.proto import etcd_pb2 as pb
from bench.kv3 import Server, etcd_command, our_command
from bench.watch3 import cpu_s
from tests.acceptance.harness import free_port

TTL_S, EVERY_S = 10, 2.0
IDLE_S = 5.0


class Told(NamedTuple):
    """``cpu_us``: of the server for a renewal; ``log_bytes``: for a renewal."""

    renewals: int
    cpu_us: float
    log_bytes: float


class Load:
    def __init__(self, port: int, leases: int, streams: int) -> None:
        self._port = port
        self._shares = [range(1 + at, leases + 1, streams) for at in range(streams)]
        self.renewed = 0
        self._over = False

    async def grant(self) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            call = channel.unary_unary(
                "/etcdserverpb.Lease/LeaseGrant",
                pb.LeaseGrantRequest.SerializeToString,
                pb.LeaseGrantResponse.FromString,
            )
            for share in self._shares:
                await asyncio.gather(*(call(pb.LeaseGrantRequest(ID=lease, TTL=TTL_S)) for lease in share))

    async def renew(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for at, share in enumerate(self._shares):
                group.create_task(self._stream(share, at * EVERY_S / len(self._shares)))
            await asyncio.sleep(seconds)
            self._over = True

    async def _stream(self, share: range, after_s: float) -> None:
        async def asked() -> AsyncIterator[pb.LeaseKeepAliveRequest]:
            await asyncio.sleep(after_s)
            while not self._over:
                due_s = time.monotonic() + EVERY_S
                for lease in share:
                    yield pb.LeaseKeepAliveRequest(ID=lease)
                await asyncio.sleep(due_s - time.monotonic())

        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{self._port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call = channel.stream_stream(
                "/etcdserverpb.Lease/LeaseKeepAlive",
                pb.LeaseKeepAliveRequest.SerializeToString,
                pb.LeaseKeepAliveResponse.FromString,
            )
            async for answer in call(asked()):
                if answer.TTL != TTL_S:
                    raise SystemExit(f"lease {answer.ID} has {answer.TTL} s after its renewal, not {TTL_S}")
                self.renewed += 1


async def measured(server: Server, folder: Path, leases: int, streams: int, seconds: float) -> Told:
    load = Load(server.port, leases, streams)
    await load.grant()
    before_s = cpu_s(server)
    renewing = asyncio.ensure_future(load.renew(seconds))
    size = _size(folder)
    await renewing
    used_s = cpu_s(server) - before_s
    grown = _size(folder) - size
    before_s = cpu_s(server)
    await asyncio.sleep(IDLE_S)
    idle_s = (cpu_s(server) - before_s) / IDLE_S * seconds
    return Told(load.renewed, (used_s - idle_s) / load.renewed * 1e6, grown / load.renewed)


def _size(folder: Path) -> int:
    """Bytes that the log holds: its segments, without what is allocated ahead."""
    return sum(len(file.read_bytes().rstrip(b"\0")) for file in folder.glob("log/*.seg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    found: dict[str, Told] = {}
    for name in ("ours", "3.5.1", "3.7"):
        folder, ports = Path(tempfile.mkdtemp(dir=".", prefix=".bench-leases-")).absolute(), (free_port(), free_port())
        command = (our_command(folder, ports[0]),) if name == "ours" else etcd_command(name, folder, *ports)
        server = Server(name, ports[0], *command)
        try:
            server.ready()
            found[name] = asyncio.run(measured(server, folder, asked.leases, asked.streams, asked.seconds))
        finally:
            server.end()
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    ours, peer = found["ours"], min((name for name in found if name != "ours"), key=lambda name: found[name].cpu_us)
    ratio = ours.cpu_us / found[peer].cpu_us
    print("| what | ours | etcd | ratio | reach | met |\n|---|---|---|---|---|---|")
    cells = [f"CPU of a renewal, {asked.leases:,} leases each 2 s", f"{ours.cpu_us:.1f} µs"]
    cells += [f"{peer}: {found[peer].cpu_us:.1f} µs", f"{ratio:.2f}×", "≤ 1.5×", "yes" if ratio <= 1.5 else "**no**"]
    print("| " + " | ".join(cells) + " |")
    met = "yes" if ours.log_bytes <= 20 else "**no**"
    print(f"| log of a renewal | {ours.log_bytes:.1f} bytes | | | ≤ 20 bytes | {met} |")


if __name__ == "__main__":
    main()
