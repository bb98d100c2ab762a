"""Random conversations of a correct client and handlers: the server never breaks a rule, and all arrives whole."""

import asyncio
from typing import Any

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from tests.actors.kv.http2.peer import ECHO, SILENT, STREAM, Peer, grpc
from tests.actors.kv.http2.test_fuzz import counted

WINDOWS = [0, 1, 7, 100, 16_384, 65_535, 1 << 20]
SIZES = [0, 1, 95, 16_379, 16_380, 40_000, 70_000, 200_000]
which = st.integers(0, 3)
step = st.one_of(
    st.tuples(st.just("open"), st.sampled_from([ECHO, SILENT, STREAM, STREAM]), st.booleans()),
    st.tuples(st.just("message"), which, st.sampled_from([0, 1, 300, 20_000])),
    st.tuples(st.just("end"), which, st.none()),
    st.tuples(st.just("reset"), which, st.none()),
    st.tuples(st.just("settings"), st.sampled_from(WINDOWS), st.sampled_from([None, 0, 50, 4096])),
    st.tuples(st.just("update"), st.sampled_from([0, 1, 100, 50_000, 1 << 20]), which),
    st.tuples(st.just("connection"), st.sampled_from([1, 100, 50_000]), st.none()),
    st.tuples(st.just("send"), which, st.sampled_from(SIZES)),
    st.tuples(st.just("send"), which, st.sampled_from(SIZES)),
    st.tuples(st.just("finish"), which, st.sampled_from([0, 5])),
    st.tuples(st.just("reply"), which, st.sampled_from(SIZES)),
    st.tuples(st.just("pause"), st.none(), st.none()),
    st.tuples(st.just("resume"), st.none(), st.none()),
)


class Strict:
    """A client that keeps the rules and checks that the server does."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.window = self.initial = 65_535
        self.windows: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.headed: set[int] = set()
        self.ended: set[int] = set()
        #: streams that one of us reset, and those whose side we ended
        self.reset: set[int] = set()
        self.closed: set[int] = set()
        #: what the handlers said
        self.said: dict[int, bytes] = {}

    def pick(self, number: int) -> int | None:
        """A stream that we may still send on."""
        able = [one for one in self.windows if one not in self.closed | self.reset]
        return able[number % len(able)] if able else None

    def call(self, number: int) -> Call | None:
        able = [one for one in self.peer.calls if not one.gone]
        return able[number % len(able)] if able else None

    def do(self, kind: str, one: Any, two: Any) -> None:
        peer = self.peer
        match kind:
            case "open":
                stream = peer._next
                self.windows[stream], self.said[stream], self.bodies[stream] = self.initial, b"", b""
                peer.open(one, end=two)
                if two:
                    self.closed.add(stream)
            case "message" | "end" | "reset":
                stream_or_none = self.pick(one)
                if stream_or_none is not None:
                    self.speak(kind, stream_or_none, two)
            case "settings":
                self.resize(one, two)
            case "update":
                able = sorted(self.windows)
                if able and one:
                    self.windows[able[two % len(able)]] += one
                    peer.feed(frames.window_update(able[two % len(able)], one))
            case "connection":
                self.window += one
                peer.feed(frames.window_update(0, one))
            case "pause":
                peer.server.pause_writing()
            case "resume":
                peer.server.resume_writing()
            case _:
                call = self.call(one)
                if call is not None:
                    self.handle(kind, call, two)

    def speak(self, kind: str, stream: int, size: int | None) -> None:
        if kind == "message":
            raw = grpc(bytes([stream % 256]) * (size or 0))
            call = self.peer.server.calls.get(stream)
            if call is not None and call.path == ECHO.encode() and call.held is None and not call.gone:
                self.said[stream] = raw
            self.peer.data(stream, raw)
        elif kind == "end":
            self.closed.add(stream)
            self.peer.data(stream, b"", end=True)
        else:
            self.reset.add(stream)
            self.peer.feed(frames.rst_stream(stream, frames.CANCEL))

    def resize(self, window: int, table: int | None) -> None:
        pairs = [(frames.SET_INITIAL_WINDOW, window)]
        if table is not None:
            pairs.append((frames.SET_HEADER_TABLE_SIZE, table))
        for stream in self.windows:
            self.windows[stream] += window - self.initial
        self.initial = window
        self.peer.feed(frames.settings(pairs))
        self.listen(table)

    def handle(self, kind: str, call: Call, what: int) -> None:
        if kind == "finish":
            call.finish(what, "said so" if what else "")
        else:
            message = bytes([what % 251]) * what
            self.said[call.stream] += grpc(message)
            call.send(message) if kind == "send" else call.reply(message)

    def listen(self, table: int | None = None) -> None:
        """Check all frames that were written; from our SETTINGS' answer on, blocks know our table."""
        self.peer.server.flush()
        raw = bytes(self.peer.transport.written)
        self.peer.transport.written.clear()
        at = 0
        while at < len(raw):
            size, kind, flags = int.from_bytes(raw[at : at + 3], "big"), raw[at + 3], raw[at + 4]
            stream, payload = int.from_bytes(raw[at + 5 : at + 9], "big"), raw[at + 9 : at + 9 + size]
            at += 9 + size
            assert kind not in (frames.GOAWAY, frames.CONTINUATION), payload
            if kind == frames.SETTINGS and flags & frames.ACK and table is not None:
                self.decoder.max_allowed_table_size = table
            elif kind == frames.RST_STREAM:
                assert stream in self.windows
                assert payload == bytes(4) or stream not in self.ended, payload
                self.reset.add(stream)
            elif kind in (frames.HEADERS, frames.DATA):
                self.check(kind, flags, stream, payload)

    def check(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert stream in self.windows
        assert stream not in self.ended | self.reset
        if kind == frames.DATA:
            assert stream in self.headed
            self.window -= len(payload)
            self.windows[stream] -= len(payload)
            assert not payload or (self.window >= 0 and self.windows[stream] >= 0)
            self.bodies[stream] += payload
        else:
            fields = dict(self.decoder.decode(payload))
            assert (":status" in fields) == (stream not in self.headed)
            self.headed.add(stream)
            assert ("grpc-status" in fields) == bool(flags & frames.END_STREAM)
        if flags & frames.END_STREAM:
            self.ended.add(stream)

    def finish(self) -> None:
        """Open all windows, end all calls: whatever a handler said and nobody reset has come."""
        self.do("resume", None, None)
        self.resize(1 << 24, None)
        self.do("connection", 1 << 28, None)
        self.listen()
        while (stream := self.pick(0)) is not None:
            self.speak("end", stream, None)
            self.listen()
        for call in list(self.peer.calls):
            call.finish()
        self.listen()
        server = self.peer.server
        assert not server.calls, server.calls
        assert (server.queued, server._partial, len(server._turns) + len(server._ends)) == (0, 0, 0)
        for stream, body in self.bodies.items():
            if stream in self.ended:
                assert body == self.said[stream] or not body
            else:
                assert stream in self.reset


@settings(max_examples=1000, deadline=None)
@given(st.lists(step, max_size=40))
def test_no_rule_is_broken_and_all_arrives(steps: list[tuple[str, Any, Any]]) -> None:
    async def run() -> None:
        client = Strict()
        for one in steps:
            client.do(*one)
            counted(client.peer)
            client.listen()
        client.finish()

    asyncio.run(run())
