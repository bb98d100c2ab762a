"""etcd's Lock and Election services, with many at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from actors.kv.proto import election_pb2 as election
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import lock_pb2 as lock
from tests.actors.kv.server import Running


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    with Running(tmp_path_factory.mktemp("kv")) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as made:
        yield made


def ask(channel: grpc.Channel, path: str, request: Any, answer: Any, timeout: float = 10) -> Any:
    call = channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
    return call(request, timeout=timeout)


def grant(channel: grpc.Channel, ttl: int = 60) -> int:
    path = "/etcdserverpb.Lease/LeaseGrant"
    return int(ask(channel, path, pb.LeaseGrantRequest(TTL=ttl), pb.LeaseGrantResponse).ID)


def acquire(channel: grpc.Channel, name: bytes, lease: int, timeout: float = 10) -> bytes:
    request = lock.LockRequest(name=name, lease=lease)
    return bytes(ask(channel, "/v3lockpb.Lock/Lock", request, lock.LockResponse, timeout).key)


def release(channel: grpc.Channel, key: bytes) -> None:
    ask(channel, "/v3lockpb.Lock/Unlock", lock.UnlockRequest(key=key), lock.UnlockResponse)


def elect(channel: grpc.Channel, name: str, request: Any, answer: Any) -> Any:
    return ask(channel, f"/v3electionpb.Election/{name}", request, answer)


def test_one_at_a_time_has_the_lock(channel: grpc.Channel) -> None:
    holders, most = [0], [0]

    def work(_: int) -> None:
        key = acquire(channel, b"m", grant(channel))
        holders[0] += 1
        most[0] = max(most[0], holders[0])
        holders[0] -= 1
        release(channel, key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert most == [1]


def test_a_lock_is_had_again_by_its_own_lease(channel: grpc.Channel) -> None:
    lease = grant(channel)
    key = acquire(channel, b"again", lease)
    assert key == b"again/%x" % lease
    assert acquire(channel, b"again", lease) == key
    release(channel, key)


def test_who_gives_up_waiting_leaves_the_queue(channel: grpc.Channel) -> None:
    first = acquire(channel, b"q", grant(channel))
    with pytest.raises(grpc.RpcError) as late:
        acquire(channel, b"q", grant(channel), timeout=0.3)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    release(channel, first)
    release(channel, acquire(channel, b"q", grant(channel), timeout=2))


def test_a_lost_lease_gives_the_lock_to_the_next(channel: grpc.Channel) -> None:
    lease = grant(channel)
    acquire(channel, b"lost", lease)
    with ThreadPoolExecutor(1) as pool:
        next_one = pool.submit(acquire, channel, b"lost", grant(channel))
        ask(channel, "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse)
        release(channel, next_one.result(5))


def test_a_lease_that_isnt_there(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        acquire(channel, b"m", 12345)
    assert (error.value.code(), error.value.details()) == (
        grpc.StatusCode.UNKNOWN,
        "etcdserver: requested lease not found",
    )


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("Proclaim", election.ProclaimRequest(), '"leader" field must be provided'),
        ("Resign", election.ResignRequest(), '"leader" field must be provided'),
        ("Proclaim", election.ProclaimRequest(leader=election.LeaderKey(rev=1)), "etcdserver: key is not provided"),
        ("Resign", election.ResignRequest(leader=election.LeaderKey(rev=1)), "etcdserver: key is not provided"),
        (
            "Proclaim",
            election.ProclaimRequest(leader=election.LeaderKey(name=b"e", key=b"e/1", rev=1, lease=12345)),
            "election: not leader",
        ),
        (
            "Campaign",
            election.CampaignRequest(name=b"e", lease=12345, value=b"v"),
            "etcdserver: requested lease not found",
        ),
    ],
)
def test_of_an_elections_errors_only_the_words_are_told_as_etcd_does(
    channel: grpc.Channel, name: str, asked: Message, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        elect(channel, name, asked, election.CampaignResponse)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNKNOWN, words)


def test_elections(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError, match="election: no leader"):
        elect(channel, "Leader", election.LeaderRequest(name=b"e"), election.LeaderResponse)
    observe = channel.unary_stream(
        "/v3electionpb.Election/Observe", election.LeaderRequest.SerializeToString, election.LeaderResponse.FromString
    )(election.LeaderRequest(name=b"e"), timeout=20)
    asked = election.CampaignRequest(name=b"e", lease=grant(channel), value=b"one")
    leader = elect(channel, "Campaign", asked, election.CampaignResponse).leader
    assert next(observe).kv.value == b"one"
    elect(channel, "Proclaim", election.ProclaimRequest(leader=leader, value=b"new"), election.ProclaimResponse)
    assert next(observe).kv.value == b"new"
    found = elect(channel, "Leader", election.LeaderRequest(name=b"e"), election.LeaderResponse)
    assert (found.kv.value, found.kv.key) == (b"new", leader.key)
    with ThreadPoolExecutor(1) as pool:
        other = election.CampaignRequest(name=b"e", lease=grant(channel), value=b"two")
        waiting = pool.submit(elect, channel, "Campaign", other, election.CampaignResponse)
        elect(channel, "Resign", election.ResignRequest(leader=leader), election.ResignResponse)
        assert waiting.result(5).leader.lease == other.lease
    assert next(observe).kv.value == b"two"
    observe.cancel()
    with pytest.raises(grpc.RpcError, match="election: not leader"):
        elect(channel, "Proclaim", election.ProclaimRequest(leader=leader, value=b"x"), election.ProclaimResponse)


def test_who_proclaims_without_a_lease_gets_a_session(channel: grpc.Channel) -> None:
    asked = election.CampaignRequest(name=b"e0", lease=grant(channel), value=b"one")
    leader = elect(channel, "Campaign", asked, election.CampaignResponse).leader
    leader.lease = 0
    elect(channel, "Proclaim", election.ProclaimRequest(leader=leader, value=b"new"), election.ProclaimResponse)
    found = elect(channel, "Leader", election.LeaderRequest(name=b"e0"), election.LeaderResponse)
    assert found.kv.value == b"new"
    assert found.kv.lease not in (0, asked.lease)


def test_a_lease_below_0_is_named_as_gos_clients_do(channel: grpc.Channel) -> None:
    request = pb.LeaseGrantRequest(ID=-5, TTL=60)
    ask(channel, "/etcdserverpb.Lease/LeaseGrant", request, pb.LeaseGrantResponse)
    assert acquire(channel, b"below", -5) == b"below/-5"
