"""A read replica beside a member, on one log in memory (tests/cluster/test_replicas.py: on Kafka, with elections)."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from actors import start
from actors.kv import actor
from actors.kv.proto import etcd_pb2 as pb
from actors.setting import Signals
from deploy.kafka.brokers import free_port
from node.config import Config, ConfigError, load
from tests.actors.kv.server import MACHINE, Running
from tests.actors.kv.test_corrupt import Shared
from tests.actors.kv.test_serving import Grpc, client

OTHER = "0d" * 16


def test_it_serves_and_joins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with Running(tmp_path / "a") as server, client(server) as member:
        member.put(b"a", b"before")
        setting = msgspec.structs.replace(
            server.setting,
            machine=OTHER,
            nonce="other",
            folder=str(tmp_path / "b"),
            etcd_listen=[f"127.0.0.1:{port}"],
            alone=False,
            control=False,
            replica=True,
        )

        async def opened(*_: Any) -> Any:
            return Shared(server.log)

        monkeypatch.setattr(start, "opened", opened)
        signals = Signals()
        running = asyncio.run_coroutine_threadsafe(actor.serve(setting, signals), server.loop)
        replica = Grpc(f"127.0.0.1:{port}")
        grpc.channel_ready_future(replica.channel).result(20)
        assert replica.get(b"a").kvs[0].value == b"before"
        for number in range(20):
            one, other = (member, replica) if number % 2 else (replica, member)
            one.put(b"a", b"%d" % number)
            assert other.get(b"a").kvs[0].value == b"%d" % number
        status = replica.ask("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        assert status.leader == int(MACHINE[:16], 16)
        assert (status.header.member_id, status.isLearner) == (int(OTHER[:16], 16), False)
        for etcd in (member, replica):
            listed = etcd.ask("Cluster/MemberList", pb.MemberListRequest(linearizable=True), pb.MemberListResponse)
            assert len(listed.members) <= 1
            assert status.header.member_id not in [one.ID for one in listed.members]
        lease = replica.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse).ID
        left = member.ask("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease), pb.LeaseTimeToLiveResponse)
        assert left.grantedTTL == 60
        # the log hears of no machine: nothing but its actor's start, commands and barriers
        assert OTHER not in server.call(lambda: list(server.fold.cluster.members))
        replica.channel.close()
        server.loop.call_soon_threadsafe(signals.stop.set)
        running.result(20)
        assert said_by(server, OTHER) == {"actor.opened.v1", "kv.v3.put.v1", "kv.v3.lease_grant.v1"}


def said_by(server: Running, machine: str) -> set[str]:
    """Types of all events that a machine said."""
    from streams.events import Event, decode
    from streams.records import parse

    records = [parse(entry) for entry in server.log.entries]
    events = [event for one in records if one.machine == machine for event in decode(one.stream, one.payload)]
    return {event.type for event in events if isinstance(event, Event)}


def test_roles_are_read_from_settings() -> None:
    kafka = {"CORELOG_LOG": "kafka://a:9092"}
    replica = load(None, {**kafka, "CORELOG_ROLE": "replica"}, {})
    assert (replica.replica, replica.alone) == (True, False)
    assert load(None, kafka, {"role": "control"}).replica is False
    assert Config().replica is False
    with pytest.raises(ConfigError, match=r"--role: .* write control .* or replica"):
        load(None, kafka, {"role": "reader"})
    with pytest.raises(ConfigError, match="discovery makes members"):
        load(None, {"CORELOG_ROLE": "replica", "CORELOG_DISCOVERY": "http://127.0.0.1:1/" + "ab" * 16}, {})
    with pytest.raises(ConfigError, match="the log is an embedded one"):
        load(None, {}, {"role": "replica"})
