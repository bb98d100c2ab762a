"""Many watchers: each is told all of its keys' changes in their order, a slow one costs what its own buffer holds, and
of those that left nothing stays."""

import gc
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.kv.http2 import frames, hpack
from actors.kv.http2.connection import Http2
from actors.kv.port import Serves
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import watches, watching
from tests.actors.kv.http2.peer import Transport
from tests.actors.kv.server import Running

BLOCK = hpack.encode(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/etcdserverpb.Watch/Watch"),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
)
ALL = frames.WINDOW_MAX


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


class Client:
    """A connection without a socket. ``window``: bytes that it takes in all, and of each stream, before it reads."""

    def __init__(self, server: Running, window: int = ALL) -> None:
        self.transport = Transport()
        self.connection: Http2 = server.kv_port.http2(False, "addr:test", "", Serves.ALL, False)
        self.connection.connection_made(self.transport)
        more = frames.window_update(0, window - frames.WINDOW_DEFAULT) if window > frames.WINDOW_DEFAULT else b""
        self.connection.data_received(frames.PREFACE + frames.settings([(frames.SET_INITIAL_WINDOW, window)]) + more)
        self._streams = 0
        self._told: dict[int, bytearray] = {}

    def say(self, stream: int, request: pb.WatchRequest, opens: bool = False) -> None:
        raw = request.SerializeToString()
        head = frames.headers(stream, BLOCK, end=False) if opens else b""
        self.connection.data_received(
            head + frames.frame(frames.DATA, 0, stream, struct.pack(">BI", 0, len(raw)) + raw)
        )

    def watch(self, key: bytes, **more: Any) -> int:
        stream, self._streams = 2 * self._streams + 1, self._streams + 1
        self.say(stream, pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key, **more)), opens=True)
        return stream

    def take(self) -> int:
        """Read what was sent; how many bytes of messages."""
        self.connection.flush()
        data, at, size = bytes(self.transport.written), 0, 0
        self.transport.written.clear()
        while at < len(data):
            length, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind == frames.DATA:
                self._told.setdefault(stream, bytearray()).extend(data[at + 9 : at + 9 + length])
                size += length
            at += 9 + length
        return size

    def read_on(self) -> int:
        """Read, and let as much come again on each stream; how many bytes there were."""
        before = {stream: len(told) for stream, told in self._told.items()}
        size = self.take()
        grown = [(stream, len(told) - before.get(stream, 0)) for stream, told in self._told.items()]
        updates = b"".join(frames.window_update(stream, more) for stream, more in grown if more)
        if size:
            self.connection.data_received(frames.window_update(0, size) + updates)
        return size

    def responses(self, stream: int) -> list[pb.WatchResponse]:
        """All that the stream was told so far."""
        raw, at, found = bytes(self._told[stream]), 0, []
        while at < len(raw):
            size = int.from_bytes(raw[at + 1 : at + 5], "big")
            found.append(pb.WatchResponse.FromString(raw[at + 5 : at + 5 + size]))
            at += 5 + size
        return found

    def mods(self, stream: int) -> list[int]:
        return [event.kv.mod_revision for answer in self.responses(stream) for event in answer.events]


class History:
    """Puts on the store, told in batches; which revisions each key got."""

    def __init__(self, server: Running, seed: int) -> None:
        self._server, self._random = server, random.Random(seed)
        self.mods: dict[bytes, list[int]] = {}

    def puts(self, count: int, keys: int, value_bytes: int) -> None:
        revs, applied = self._server.fold.v3.revs, self._server.kv_port.v3.watches.applied
        while count > 0:
            for _ in range(self._random.randint(1, 4)):
                key = b"k%d" % self._random.randrange(keys)
                revs.revision += 1
                revs.put(key, bytes(value_bytes), 0, revs.revision, 0)
                self.mods.setdefault(key, []).append(revs.revision)
                count -= 1
            applied()


def settled(server: Running, clients: list[Client]) -> None:
    """Until nothing more comes; slow watchers read pages in turns of the loop."""
    quiet = 0
    while quiet < 3:
        quiet = 0 if server.call(lambda: sum(client.read_on() for client in clients)) else quiet + 1


def test_every_watcher_is_told_every_change_of_its_key_in_order_also_a_slow_one(server: Running) -> None:
    history, keys = History(server, 1), 200
    watched: list[tuple[Client, int, bytes]] = []
    clients: list[Client] = []

    def watch() -> None:
        for number in range(20):
            client = Client(server, ALL if number < 18 else 16 * 1024)
            clients.append(client)
            for each in range(100):
                key = b"k%d" % ((number * 100 + each) % keys)
                watched.append((client, client.watch(key), key))

    server.call(watch)
    fast, slow = clients[:18], clients[18:]
    for _ in range(10):
        server.call(lambda: history.puts(400, keys, 2000))
        server.call(lambda: [client.take() for client in fast])
    for client, stream, key in watched:
        if client in fast:
            assert client.mods(stream) == history.mods[key]
    held = [call.buffered() for client in slow for call in client.connection.calls.values()]
    assert max(held) > 0
    assert max(held) <= watches.STREAM_BYTES_MAX + 5000
    settled(server, slow)
    for client, stream, key in watched:
        assert client.mods(stream) == history.mods[key]


def test_a_watch_from_the_past_catches_up_in_pages_while_others_are_told_the_present(server: Running) -> None:
    history = History(server, 2)
    server.call(lambda: history.puts(3000, 50, 2000))
    past, present = server.call(lambda: (Client(server, 64 * 1024), Client(server)))
    old = server.call(lambda: past.watch(b"k", range_end=b"l", start_revision=2, prev_kv=True))
    server.call(lambda: present.watch(b"k", range_end=b"l"))
    everything = sorted(mod for mods in history.mods.values() for mod in mods)
    (call,) = past.connection.calls.values()
    before = len(everything)
    while server.call(past.read_on):
        assert call.buffered() <= watches.STREAM_BYTES_MAX + 2 * watching.PAGE_BYTES + 10_000
        if before < 3200:
            server.call(lambda: history.puts(20, 50, 2000))
            before += 20
    settled(server, [past])
    everything = sorted(mod for mods in history.mods.values() for mod in mods)
    assert past.mods(old) == everything
    server.call(present.take)
    assert present.mods(1) == [mod for mod in everything if mod > 3001]


def test_filters_fragments_and_numbers_of_watchers_that_share_what_they_watch(server: Running) -> None:
    client = server.call(lambda: Client(server))

    def say() -> None:
        filters = pb.WatchCreateRequest
        client.watch(b"k0")
        for more in (
            {"watch_id": 7, "prev_kv": True},
            {"watch_id": 8, "filters": [filters.NOPUT]},
            {"watch_id": 9, "fragment": True, "prev_kv": True},
            {"watch_id": 10, "start_revision": 5},
        ):
            client.say(1, pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k0", **more)))  # type: ignore[arg-type]
        client.watch(b"k0", prev_kv=True)

    server.call(say)
    revs = server.fold.v3.revs

    def change() -> None:
        for value in (b"a", b"b" * 1_000_000, b"c" * 1_000_000, b"d" * 1_000_000, b""):
            revs.revision += 1
            if value:
                revs.put(b"k0", value, 0, revs.revision, 0)
            else:
                revs.delete(revs.newest[b"k0"], revs.revision, 0)
        server.kv_port.v3.watches.applied()

    server.call(change)
    settled(server, [client])
    told: dict[int, list[tuple[int, int]]] = {}
    more = 0
    for answer in client.responses(1):
        told.setdefault(answer.watch_id, []).extend(
            (one.kv.mod_revision, one.prev_kv.mod_revision) for one in answer.events
        )
        more += answer.fragment
    plain, with_prev = [(mod, 0) for mod in range(2, 7)], [(2, 0), (3, 2), (4, 3), (5, 4), (6, 5)]
    assert told == {0: plain, 7: with_prev, 8: [(6, 0)], 9: with_prev, 10: plain[3:]}
    assert more > 0
    assert [one.prev_kv.mod_revision for answer in client.responses(3) for one in answer.events] == [0, 2, 3, 4, 5]


#: Within so long all of a client is gone.
GONE_S = 10.0


def test_of_watchers_that_were_cancelled_or_died_nothing_stays(server: Running) -> None:
    history, all_watches = History(server, 3), server.kv_port.v3.watches

    def opened() -> list[Client]:
        clients = [Client(server, ALL if number % 2 else 4096) for number in range(4)]
        for client in clients:
            for each in range(30):
                client.watch(b"k%d" % (each % 10), progress_notify=each % 3 == 0)
                client.watch(b"k", range_end=b"l", start_revision=1)
        history.puts(100, 10, 500)
        return clients

    def left() -> tuple[int, int, int]:
        kinds = (watches.Stream, watching.Watcher)
        alive = sum(isinstance(one, kinds) for one in gc.get_objects())
        return all_watches.index.count, len(all_watches.streams), alive

    def die(clients: list[Client]) -> None:
        for client in clients:
            client.connection.connection_lost(None)

    def reset(clients: list[Client]) -> None:
        for client in clients:
            for stream in list(client.connection.calls):
                client.connection.data_received(frames.frame(frames.RST_STREAM, 0, stream, struct.pack(">I", 8)))

    def cancel(clients: list[Client]) -> None:
        for client in clients:
            for stream in list(client.connection.calls):
                client.say(stream, pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=0)))
        assert all_watches.index.count == 0

    gc.collect()
    gc.disable()  # what is left is counted, not what a search for cycles would find
    others = server.call(left)[2]  # of tests before this one
    try:
        for end in (die, reset, cancel):
            clients = server.call(opened)
            assert all_watches.index.count > 0
            server.call(lambda end=end, clients=clients: end(clients))
            if end is cancel:
                server.call(lambda clients=clients: die(clients))
            del clients
            until_s = time.monotonic() + GONE_S
            while server.call(left) != (0, 0, others):  # what was to be done in the loop's next turns holds some
                assert time.monotonic() < until_s, (end, server.call(left))
    finally:
        gc.enable()


def test_a_watcher_costs_less_than_8_kb(server: Running) -> None:
    def rss() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def opened() -> list[Client]:
        clients = [Client(server) for _ in range(100)]
        for number, client in enumerate(clients):
            for each in range(100):
                client.watch(b"k%d" % ((number * 100 + each) % 1000))
            client.take()
            client._told.clear()
        return clients

    gc.collect()
    before = rss()
    kept = server.call(opened)
    gc.collect()
    assert server.kv_port.v3.watches.index.count == 10_000
    assert (rss() - before) / 10_000 < 8192
    server.call(lambda: [client.connection.connection_lost(None) for client in kept])
