"""A snapshot that is asked for gives way: by the clock, and for longer where somebody was served meanwhile."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import snapshots
from tests.actors.kv.server import Running
from tests.actors.kv.test_serving import client


class Clock:
    """Goes on by ``step_s`` whenever somebody looks."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.now_s = step_s, 0.0

    def perf_counter(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.parametrize(("turn_s", "rests"), [(0.00005, []), (0.0003, [snapshots.REST_S])])
async def test_after_a_turn_in_which_others_were_served_it_rests(
    turn_s: float, rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(rest_s: float) -> None:
        slept.append(rest_s)

    monkeypatch.setattr(snapshots, "time", Clock(turn_s))
    monkeypatch.setattr(snapshots, "asyncio", SimpleNamespace(sleep=sleep))
    await snapshots._others_turn()
    assert slept == [0, *rests], "a turn of the loop for all others in any case"


def test_others_have_their_turn_as_often_as_a_slice_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0)

    monkeypatch.setattr(snapshots, "_others_turn", turn)
    with Running(tmp_path) as server, client(server) as etcd:
        for number in range(400):
            etcd.put(b"k%d" % number, b"v" * 4000)
        taken: dict[float, tuple[int, int]] = {}
        for step_s in (0.0, snapshots.SLICE_S / 3, snapshots.SLICE_S):
            monkeypatch.setattr(snapshots, "time", Clock(step_s))
            turns = 0
            taken[step_s] = (len(_snapshot(etcd.channel)), turns)
    (size, still), (_, some), (_, most) = taken.values()
    assert size > 400 * 4000
    assert most - still > (some - still) * 2 > 40, taken


def _snapshot(channel: grpc.Channel) -> bytes:
    path = "/etcdserverpb.Maintenance/Snapshot"
    call = channel.unary_stream(path, pb.SnapshotRequest.SerializeToString, pb.SnapshotResponse.FromString)
    return b"".join(message.blob for message in call(pb.SnapshotRequest(), timeout=20))
