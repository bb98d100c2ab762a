"""After the storm: what every node tells of the whole history, what is wrong with it, and whether states are equal."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec

from actors.folds import FOLDS
from actors.kv.proto import etcd_pb2 as pb
from streams.history.at import state_at
from streams.log.open import open_log
from streams.records import Position
from tests.histories import leases, linear, watches
from tests.histories.ops import FIRST, Changes, Op
from tests.histories.watches import Watch
from tests.storm import wire
from tests.storm.clients import Channel
from tests.storm.cluster import Cluster

WHOLE_S = 120.0


class Story(msgspec.Struct):
    """All that is needed to judge a run again: ``python -m tests.storm --judge FILE``. ``until``: the revision up to
    which all watches should have been told everything."""

    seed: int
    faults: list[str]
    ops: list[Op]
    changes: Changes
    watches: list[Watch]
    until: int
    #: found while it ran
    wrong: list[str] = []

    def violations(self) -> list[str]:
        verdict = linear.check(self.ops, self.changes)
        found = [f"not linearizable: {one}" for one in verdict.violations]
        for watch in self.watches:
            found += [f"watch: {one}" for one in watches.check(watch, self.changes, self.until)]
        found += [f"lease: {one}" for one in leases.check(self.ops, verdict.ended, self.watches)]
        return found + self.wrong


async def changes(address: str, until: int) -> Changes:
    """All revisions up to ``until``, as one node tells them in a watch from the first on."""
    channel = Channel(address)
    found: Changes = []
    try:
        call = channel.stream("Watch/Watch", pb.WatchResponse)(timeout=WHOLE_S)
        create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1, prev_kv=True)
        await call.write(pb.WatchRequest(create_request=create))
        while len(found) < until - FIRST + 1:
            told = await call.read()
            if told is grpc.aio.EOF:
                raise AssertionError(f"{address} ended the watch of all at {len(found) + FIRST}")
            for one in told.events:
                event = wire.event(one)
                if event.kv.mod == len(found) + FIRST:
                    found.append([])
                if event.kv.mod != len(found) + FIRST - 1:
                    raise AssertionError(f"{address} left out what is between {len(found) + FIRST - 1} and {event}")
                found[-1].append(event)
        call.cancel()
    finally:
        await channel.channel.close()
    return found


async def alike(cluster: Cluster, until: int) -> list[str]:
    """What differs between the replicas that serve: the whole history, HashKV, leases."""
    told = [await _told(node.etcd, until) for node in cluster.nodes]
    return [
        f"the nodes' {name} differ: " + " | ".join(repr(one[name])[:300] for one in told)
        for name in told[0]
        if len({repr(one[name]) for one in told}) > 1
    ]


async def _told(address: str, until: int) -> dict[str, Any]:
    channel = Channel(address)
    try:
        hashed = await channel.unary("Maintenance/HashKV", pb.HashKVResponse)(
            pb.HashKVRequest(revision=until), timeout=30
        )
        held = await channel.unary("Lease/LeaseLeases", pb.LeaseLeasesResponse)(pb.LeaseLeasesRequest(), timeout=30)
    finally:
        await channel.channel.close()
    return {
        "history": await changes(address, until),
        "HashKV": (hashed.hash, hashed.compact_revision),
        "leases": sorted(one.ID for one in held.leases),
    }


async def never_ended(address: str, left: list[int]) -> list[str]:
    """Leases that nobody renews any more, and that are still there."""
    channel = Channel(address)
    try:
        ask = channel.unary("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse)
        told = [(lease, await ask(pb.LeaseTimeToLiveRequest(ID=lease), timeout=10)) for lease in left]
        return [f"lease {lease:x} never ended: {one.TTL} s left" for lease, one in told if one.TTL >= 0]
    finally:
        await channel.channel.close()


async def states(log_address: str, folders: list[Path]) -> tuple[int, list[str]]:
    """Every fold at the log's end, byte for byte, made from each node's newest snapshot and the tail, and once from
    the first record on. Returns how many bytes were compared, and what differs."""
    log_id = (folders[0] / "log-id").read_text().strip()
    log = await open_log(log_address, {})
    size, out = 0, []
    try:
        end = Position(await log.end() - 1, 0)
        for name, make in FOLDS.items():
            found = {}
            for folder in (None, *(one / "snapshots" / name for one in folders)):
                replica = await state_at(
                    log, make, Position(end.offset, 1 << 20), snapshots_folder=folder, log_id=log_id
                )
                raw = msgspec.json.encode(replica.log) + b"".join(replica.fold.encode())
                found[str(folder)] = raw
                size += len(raw)
            if len(set(found.values())) > 1:
                out.append(
                    f"the states of {name} at {end} differ: " + ", ".join(f"{k}: {len(v)}" for k, v in found.items())
                )
    finally:
        await log.close()
    return size, out


def keep(story: Story, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(story))


def kept(path: Path) -> Story:
    return msgspec.json.decode(path.read_bytes(), type=Story)
