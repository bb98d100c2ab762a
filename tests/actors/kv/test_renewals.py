"""Keep-alives of many clients share events; who asks for one after the other is answered at once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.leases import APART_S
from streams.events.kv3 import LeasesRenew
from tests.actors.kv.server import Running
from tests.actors.kv.test_serving import Grpc

TTL_S = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


def renewed(server: Running, leases: list[int]) -> list[int]:
    """The TTLs that a stream of its own answers for these."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            pb.LeaseKeepAliveRequest.SerializeToString,
            pb.LeaseKeepAliveResponse.FromString,
        )
        return [answer.TTL for answer in call(iter(pb.LeaseKeepAliveRequest(ID=lease) for lease in leases))]


def events(server: Running) -> int:
    return sum(LeasesRenew.TYPE.encode() in entry.raw for entry in server.log.entries)


def test_many_share_events_and_each_is_answered(server: Running) -> None:
    etcd = Grpc(f"127.0.0.1:{server.port}")
    for lease in range(1, 201):
        etcd.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=TTL_S), pb.LeaseGrantResponse)
    shares = [list(range(first, 201, 10)) * 5 for first in range(1, 11)]
    began_s = time.monotonic()
    with ThreadPoolExecutor(len(shares)) as pool:
        answers = list(pool.map(lambda share: renewed(server, share), shares))
    took_s = time.monotonic() - began_s
    assert answers == [[TTL_S] * 100] * 10
    # the lone ones of the beginning and the end beside
    assert events(server) <= took_s / APART_S + 20
    etcd.channel.close()


def test_one_after_the_other_waits_for_nobody(server: Running) -> None:
    etcd = Grpc(f"127.0.0.1:{server.port}")
    etcd.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=TTL_S), pb.LeaseGrantResponse)
    assert renewed(server, [7]) == [TTL_S]
    for count in range(2, 12):
        assert renewed(server, [7]) == [TTL_S]
        assert events(server) == count
    assert renewed(server, [8]) == [0], "one that isn't there"
    etcd.channel.close()
