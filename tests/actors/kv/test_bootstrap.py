"""Clients of a new cluster wait until most of its members serve."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import socket
import ssl
import time
from pathlib import Path

import msgspec
import pytest

from actors.kv import bootstrap
from actors.kv.members import Cluster, Member
from actors.setting import Etcd
from streams.events import cluster as says
from streams.events import kv as kv_says
from streams.events import log as log_says
from streams.events.base import encode, say
from streams.records import Record
from streams.replay import LEVEL
from tests.actors.kv.pki import Authority
from tests.actors.kv.server import LOG, Running

NAMES = ["test", "b", "c"]


def cluster(**served: list[str]) -> Cluster:
    return Cluster(members={f"id-{name}": Member(name, clients=urls) for name, urls in served.items()})


@pytest.mark.parametrize(
    ("serving", "missing"),
    [
        ({}, NAMES),
        ({"test": ["u"]}, ["b", "c"]),
        ({"test": ["u"], "b": []}, ["b", "c"]),
        ({"test": ["u"], "stranger": ["u"]}, ["b", "c"]),
        ({"test": ["u"], "b": ["u"]}, []),
        ({"c": ["u"], "b": ["u"]}, []),
    ],
)
def test_who_is_missing(serving: dict[str, list[str]], missing: list[str]) -> None:
    assert bootstrap.missing(NAMES, cluster(**serving)) == missing


def test_half_of_an_even_number_is_not_most() -> None:
    names = [*NAMES, "d"]
    assert bootstrap.missing(names, cluster(b=["u"], c=["u"])) == ["test", "d"]
    assert bootstrap.missing(names, cluster(b=["u"], c=["u"], d=["u"])) == []


def test_only_a_member_that_never_served_waits_for_others() -> None:
    assert bootstrap.is_new(NAMES, "id-test", cluster())
    assert bootstrap.is_new(NAMES, "id-test", cluster(test=[], b=["u"]))
    assert not bootstrap.is_new(NAMES, "id-test", cluster(test=["u"]))
    assert not bootstrap.is_new(["test"], "id-test", cluster())
    assert not bootstrap.is_new([], "id-test", cluster())


def other(server: Running, name: str) -> None:
    """Another machine joins and serves."""
    machine = name * 32
    joined = says.MachineJoined(nonce="n", boot_id="b", name=name)
    opened = say(log_says.ActorOpened(nonce="n", level=LEVEL))
    now_ms = time.time_ns() // 1_000_000
    records = []
    for actor, stream, told in (
        ("coordination", "cluster", say(joined, subject=machine)),
        ("kv", "kv", say(kv_says.Served(["u"]))),
    ):
        for seq, (where, one) in enumerate([("log", opened), (stream, told)], 1):
            records.append(Record(LOG, where, f"{actor}@{machine}", 1, seq, now_ms, encode([one])))
    asyncio.run_coroutine_threadsafe(server.log.append(records), server.loop).result(10)


def ask(server: Running, context: ssl.SSLContext | None) -> bytes:
    """The machines, as a client is told them."""
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    else:
        connection = http.client.HTTPSConnection("localhost", server.port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/v2/machines")
        return connection.getresponse().read()


@pytest.mark.parametrize("tls", [False, True])
def test_clients_are_connected_and_answered_when_most_serve(tmp_path: Path, tls: bool) -> None:
    etcd, context, at = Etcd(initial_cluster=NAMES), None, ""
    if tls:
        ca = Authority(tmp_path)
        cert, key, _ = ca.sign("server")
        etcd, at = msgspec.structs.replace(etcd, cert_file=cert, key_file=key), "https://127.0.0.1:0"
        context = ssl.create_default_context(cafile=str(ca.file))
    with Running(tmp_path / "n", etcd=etcd, at=at) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, server, context) for _ in range(3)]
        time.sleep(0.5)
        other(server, "d")  # not one of them
        time.sleep(0.5)
        assert not any(one.done() for one in asked)
        other(server, "b")
        assert {one.result(10) for one in asked} == {", ".join(sorted(["u", "u", server.kv_port.urls[0]])).encode()}
        assert ask(server, context) == asked[0].result()


def test_the_nodes_own_socket_does_not_wait(tmp_path: Path) -> None:
    with Running(tmp_path, etcd=Etcd(initial_cluster=NAMES)), socket.socket(socket.AF_UNIX) as own:
        own.connect(str(tmp_path / "run" / "kv.sock"))
        own.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        own.settimeout(10)
        assert own.recv(100).startswith(b"HTTP/1.1 200 OK")
