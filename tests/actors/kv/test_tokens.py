"""Simple tokens, good on every member: also on one that hasn't heard of them yet."""

import asyncio
import base64
import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import AsyncGenerator, Collection, Iterator
from itertools import count
from pathlib import Path

import grpc
import msgspec

from actors.kv.proto import etcd_pb2 as pb
from actors.setting import Etcd
from streams.events.base import Base64, Data, Event, encode, say
from streams.events.kv3 import AuthDisable, AuthEnable, AuthToken, Permission, RoleGrant
from streams.events.log import ActorOpened
from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.records import Entry, Record
from streams.replay import LEVEL
from tests.actors.kv.server import LOG, Running
from tests.actors.kv.test_serving import client, enabled, refused

ELSEWHERE = "kv@" + "6f" * 16


class Lagging(MemoryLog):
    """What comes while it is ``held`` is read only then."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()

    async def tail(self, start: int, streams: Collection[str] | None = None) -> AsyncGenerator[list[Entry], None]:
        async for batch in super().tail(start, streams):
            await self.free.wait()
            yield batch


async def lagging() -> Log:
    return Lagging()


def elsewhere(stream: str, seq: int, *events: Event) -> bytes:
    """A record of another member."""
    return Record(LOG, stream, ELSEWHERE, 1, seq, 0, encode(list(events))).canonical()


def soon(server: Running) -> None:
    """What was held is read, in a moment."""
    threading.Timer(0.3, lambda: server.call(server.log.free.set)).start()


def test_a_token_that_another_member_made_a_moment_ago_is_waited_for(tmp_path: Path) -> None:
    """Reads, commands, watches; one that nobody made is refused when this member has caught up."""

    def made_elsewhere(token: bytes, seq: int) -> None:
        server.log.free.clear()
        event = AuthToken("ann", Base64(hashlib.sha256(token).digest()), server.fold.v3.auth.revision)
        server.log.put(elsewhere("kv", seq, say(event, principal="addr:10.0.0.1")))

    with Running(tmp_path / "n", lagging, Etcd(bcrypt_cost=4)) as server, client(server) as etcd:
        enabled(etcd)
        server.call(lambda: server.log.put(elsewhere("log", 1, say(ActorOpened(nonce="n", level=LEVEL)))))
        server.call(lambda: made_elsewhere(b"one", 2))
        soon(server)
        assert etcd.get(b"a1", "one").count == 0
        server.call(lambda: made_elsewhere(b"two", 3))
        soon(server)
        etcd.put(b"a1", b"v", "two")
        server.call(lambda: made_elsewhere(b"three", 4))
        watch = etcd.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString
        )
        over = threading.Event()

        def asks() -> Iterator[pb.WatchRequest]:
            yield pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a1", start_revision=1))
            yield pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a2"))
            over.wait(30)

        soon(server)
        told = watch(asks(), metadata=[("token", "three")])
        answers = [next(told), next(told), next(told)]
        assert [(one.watch_id, one.created, len(one.events)) for one in answers if not one.canceled] == [
            (0, True, 0),
            (1, True, 0),
            (0, False, 1),
        ]
        over.set()
        told.cancel()
        # who has no token at all doesn't fill the memory meanwhile
        server.call(lambda: made_elsewhere(b"five", 5))
        much = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k" * 100_000))
        refused(
            grpc.StatusCode.UNAUTHENTICATED,
            "invalid auth token",
            next,
            watch(iter([much] * 20), metadata=[("token", "six")], timeout=10),
        )
        server.call(server.log.free.set)
        refused(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token", etcd.put, b"a1", b"v", "four")


def test_who_was_let_at_another_member_a_moment_ago_is_let(tmp_path: Path) -> None:
    """And who wasn't is refused when this member has caught up. By gRPC, by JSON, and where a coroutine serves."""

    seqs = count(2)

    def said_elsewhere(*said: Data) -> None:
        server.log.free.clear()
        auth = server.fold.v3.auth.revision
        events = [say(msgspec.structs.replace(data, auth=auth), principal="user:root") for data in said]
        server.log.put(elsewhere("kv", next(seqs), *events))

    with Running(tmp_path / "n", lagging, Etcd(bcrypt_cost=4)) as server, client(server) as etcd:
        enabled(etcd)
        server.call(lambda: server.log.put(elsewhere("log", 1, say(ActorOpened(nonce="n", level=LEVEL)))))
        ask = pb.AuthenticateRequest(name="ann", password="a")
        ann = etcd.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token
        denied = grpc.StatusCode.PERMISSION_DENIED, "permission denied"
        for key in (b"b1", b"c1"):
            refused(*denied, etcd.get, key, ann)
        grant = RoleGrant("as", Permission(2, "b", "c"))
        server.call(lambda: said_elsewhere(grant))
        soon(server)
        assert etcd.get(b"b1", ann).count == 0
        refused(*denied, etcd.get, b"c1", ann)
        server.call(lambda: said_elsewhere(RoleGrant("as", Permission(2, "c", "d"))))
        soon(server)
        body = json.dumps({"key": base64.b64encode(b"c1").decode()}).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/v3/kv/range", body, {"Authorization": ann})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert "kvs" not in json.load(answer)
        server.call(lambda: said_elsewhere(AuthDisable()))
        soon(server)
        etcd.ask("Auth/UserAdd", pb.AuthUserAddRequest(name="eve", password="e"), pb.AuthUserAddResponse)
        server.call(lambda: said_elsewhere(AuthEnable()))
        server.call(server.log.free.set)
        empty = grpc.StatusCode.INVALID_ARGUMENT, "user name is empty"
        refused(*empty, etcd.ask, "Auth/UserDelete", pb.AuthUserDeleteRequest(name="eve"), pb.AuthUserDeleteResponse)
        server.call(lambda: said_elsewhere(AuthDisable()))
        soon(server)
        etcd.ask("Auth/UserDelete", pb.AuthUserDeleteRequest(name="eve"), pb.AuthUserDeleteResponse)


def test_no_time_is_the_time_by_default(tmp_path: Path) -> None:
    with Running(tmp_path / "n", etcd=Etcd(bcrypt_cost=4, auth_token_ttl=0)) as server, client(server) as etcd:
        enabled(etcd)
        ask = pb.AuthenticateRequest(name="ann", password="a")
        token = etcd.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token
        time.sleep(0.05)
        etcd.get(b"a", token)


def test_a_token_is_good_for_as_long_as_it_is_used_and_no_longer_though_it_never_was(tmp_path: Path) -> None:
    with Running(tmp_path / "n", etcd=Etcd(bcrypt_cost=4, auth_token_ttl=2)) as server, client(server) as etcd:
        enabled(etcd)
        ann = pb.AuthenticateRequest(name="ann", password="a")
        used, idle = (etcd.ask("Auth/Authenticate", ann, pb.AuthenticateResponse).token for _ in range(2))
        until_s = time.monotonic() + 2.5
        while time.monotonic() < until_s:
            etcd.get(b"a", used)
            time.sleep(0.3)
        refused(grpc.StatusCode.UNAUTHENTICATED, "invalid auth token", etcd.get, b"a", idle)
        etcd.get(b"a", used)
