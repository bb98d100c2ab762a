"""Changes and their compaction that are applied together: who watches is told of them, who waits for a lock has it."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import lock_pb2 as lock
from tests.actors.kv.server import Running
from tests.differential.servers import Client


@pytest.fixture
def running(tmp_path: Any) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    client = Client(f"127.0.0.1:{running.port}")
    yield client
    client.close()


def call(client: Client, path: str, request: Any, answer: Any) -> Any:
    """By a future."""
    ask = client._channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
    return ask.future(request, timeout=10)


def together(running: Running, client: Client, *asked: tuple[str, Any, Any]) -> None:
    """These come while the server does something else: it reads them, and applies them, at once."""
    sent = running.kv_port.commands.sent
    busy = threading.Thread(target=lambda: running.call(lambda: time.sleep(0.3)))
    busy.start()
    time.sleep(0.05)
    futures = []
    for path, request, answer in asked:
        futures.append(call(client, f"/etcdserverpb.KV/{path}", request, answer))
        time.sleep(0.02)
    for future in futures:
        future.result()
    busy.join()
    assert running.kv_port.commands.sent == sent + 1, "they weren't one record"


def put(key: bytes, value: bytes = b"") -> tuple[str, Any, Any]:
    return "Put", pb.PutRequest(key=key, value=value), pb.PutResponse


def compact(revision: int) -> tuple[str, Any, Any]:
    return "Compact", pb.CompactionRequest(revision=revision), pb.CompactionResponse


def test_a_watcher_is_told_of_what_is_compacted_at_once(running: Running, client: Client) -> None:
    client.watches().create(pb.WatchCreateRequest(key=b"a", prev_kv=True))
    together(running, client, put(b"a", b"x"), put(b"a", b"y"), compact(3))
    watch = client.watches()
    assert watch.until(lambda: sum(map(len, watch.events.values())) >= 2)
    assert [one["kv"]["value"] for one in watch.events[0]] == ["eA==", "eQ=="]
    assert not any(told.get("canceled") for told in watch.controls[0])


def test_who_waits_for_a_lock_has_it_though_its_owner_is_compacted_at_once(running: Running, client: Client) -> None:
    for lease in (11, 12):
        client.call("LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=1000))
    path = "/v3lockpb.Lock/Lock"
    owner = call(client, path, lock.LockRequest(name=b"l", lease=11), lock.LockResponse).result()
    waits = call(client, path, lock.LockRequest(name=b"l", lease=12), lock.LockResponse)
    with pytest.raises(grpc.FutureTimeoutError):
        waits.result(timeout=0.3)
    revision = int(client.call("Range", pb.RangeRequest(key=b"a"))["header"]["revision"])
    deleted = ("DeleteRange", pb.DeleteRangeRequest(key=owner.key), pb.DeleteRangeResponse)
    together(running, client, deleted, put(b"x"), compact(revision + 2))
    assert waits.result(timeout=5).key == b"l/c"
