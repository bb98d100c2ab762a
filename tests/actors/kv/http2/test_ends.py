"""Ends of streams and of connections: GOAWAY, drain, keep-alive, clients that leave or stall (RFC 9113, 5.4, 6.8)."""

import asyncio
import contextlib
import socket

import pytest

from actors.kv.http2 import frames
from actors.kv.http2.connection import Limits
from tests.actors.kv.http2.peer import ECHO, SILENT, STREAM, Frame, Peer, grpc

CALM = frames.ENHANCE_YOUR_CALM


def goaways(said: list[Frame]) -> list[tuple[int, int]]:
    """(last stream, code) of each."""
    heads = [one.payload for one in said if one.kind == frames.GOAWAY]
    return [(int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:8], "big")) for raw in heads]


async def drained(peer: Peer) -> list[Frame]:
    """To the second GOAWAY."""
    peer.server.drain()
    said = await peer.frames()
    peer.feed(frames.frame(frames.PING, frames.ACK, 0, next(one.payload for one in said if one.kind == frames.PING)))
    return said + await peer.frames()


# -- GOAWAY and drain -----------------------------------------------------------------------------------------


async def test_goaways_last_stream_never_rises_and_later_calls_end_nothing() -> None:
    peer = Peer()
    served = peer.ask(b"", SILENT)
    assert goaways(await drained(peer)) == [(frames.WINDOW_MAX, 0), (served, 0)]
    late = peer.open(STREAM)
    peer.data(late, grpc(b"its message"), end=True)
    cancelled = peer.open(STREAM)
    peer.feed(frames.window_update(cancelled, 10) + frames.rst_stream(cancelled, frames.CANCEL))
    assert not await peer.answers()
    assert not peer.transport.ended
    peer.feed(frames.frame(frames.PING, 0, 0, b"not 8"))
    assert goaways(await peer.frames()) == [(served, frames.FRAME_SIZE_ERROR)]


async def test_a_client_that_doesnt_answer_the_drains_ping_is_drained_after_a_while() -> None:
    peer = Peer(Limits(drain_s=0.02))
    peer.server.drain()
    await asyncio.sleep(0.05)
    assert len(goaways(await peer.frames())) == 2
    assert peer.transport.ended


async def test_drain_cuts_nobody_off_who_still_reads() -> None:
    """Our side ends behind the last answer; the socket stays until the client has read it and left."""
    peer = Peer()
    stream = peer.ask(b"", SILENT)
    await drained(peer)
    peer.calls[0].reply(b"the last")
    assert (await peer.answers())[stream].messages == [b"the last"]
    assert (peer.transport.ended, peer.transport.closed) == (True, False)
    peer.server.drain()
    peer.server.close()
    assert peer.transport.closed
    assert not peer.transport.aborted


async def test_a_fault_ends_our_side_and_the_client_may_still_read_why() -> None:
    peer = Peer()
    stream = peer.ask(b"", SILENT)
    peer.feed(frames.frame(frames.DATA, 0, 0, b"") + frames.frame(frames.PING, 0, 0, bytes(8)))
    said = await peer.frames()
    assert goaways(said) == [(stream, frames.PROTOCOL_ERROR)]
    assert said[-1].kind == frames.GOAWAY
    assert peer.seen == [("gone", peer.calls[0])]
    assert (peer.transport.ended, peer.transport.closed) == (True, False)
    peer.calls[0].reply(b"too late")
    peer.feed(frames.frame(frames.PING, 0, 0, bytes(8)))
    assert not await peer.frames()


async def test_the_unread_rest_of_a_faulty_client_is_cut_off_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.kv.http2.connection.LINGER_S", 0.01)
    peer = Peer()
    peer.feed(frames.frame(frames.DATA, 0, 0, b""))
    await asyncio.sleep(0.03)
    assert peer.transport.aborted


async def test_close_says_goodbye() -> None:
    peer = Peer()
    stream = peer.ask(b"", SILENT)
    peer.server.close()
    peer.server.close()
    assert goaways(await peer.frames()) == [(stream, 0)]
    assert (peer.transport.closed, peer.transport.aborted) == (True, False)


async def test_a_client_that_ended_its_side_is_over() -> None:
    peer = Peer()
    peer.ask(b"", SILENT)
    assert not peer.server.eof_received()  # so that asyncio closes
    assert peer.seen == [("gone", peer.calls[0])]
    assert not peer.server.overdue(peer.clock.time() + 1e6)


# -- streams --------------------------------------------------------------------------------------------------


async def test_what_follows_a_refused_call_is_ignored() -> None:
    peer = Peer(Limits(calls=1))
    peer.ask(b"", SILENT)
    refused = peer.open(STREAM)
    peer.data(refused, grpc(b"sent before the refusal was read"))
    peer.feed(frames.headers(refused, peer._encoder.encode([("x-trailer", "1")]), end=True))
    said = await peer.frames()
    assert [one.payload for one in said if one.kind == frames.RST_STREAM] == [b"\0\0\0\x07"]
    assert not goaways(said)


async def test_what_follows_an_early_answer_is_ignored_until_its_end() -> None:
    peer = Peer()
    stream = peer.open("/no.Such/Method")
    answer = (await peer.answers())[stream]
    assert (answer.status[0], answer.reset) == (12, frames.NO_ERROR)
    peer.data(stream, grpc(b"1"))
    peer.data(stream, grpc(b"2"), end=True)
    assert not await peer.answers()
    peer.data(stream, b"behind its end")
    assert (await peer.answers())[stream].reset == frames.STREAM_CLOSED


async def test_a_malformed_grpc_request_is_refused_before_its_end() -> None:
    """A streaming client may never end its side."""
    peer = Peer()
    stream = peer.open(STREAM, [("grpc-timeout", "soon")])
    assert (await peer.answers())[stream].status[0] == 13
    assert not peer.server.calls


async def test_the_reserved_bit_of_a_streams_number_is_no_part_of_it() -> None:
    peer = Peer()
    peer.ask(b"so that the block is known")
    peer.ask(b"so that the block is known")
    await peer.frames()
    high = 0x80000000
    peer.feed(frames.headers(5 | high, peer.block(), end=False))
    peer.feed(frames.frame(frames.DATA, frames.END_STREAM, 5 | high, grpc(b"five")))
    assert (await peer.answers())[5].messages == [b"five"]
    assert peer.server.last_stream == 5


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_stream_that_depends_on_itself_is_reset(pieces: int) -> None:
    peer = Peer()
    block = (1).to_bytes(4, "big") + b"\x10" + peer.block()
    if pieces == 1:
        peer.feed(frames.frame(frames.HEADERS, frames.PRIORITIZED | frames.END_HEADERS, 1, block))
    else:
        peer.feed(frames.frame(frames.HEADERS, frames.PRIORITIZED, 1, block[:9]))
        peer.feed(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:]))
    assert (await peer.answers())[1].reset == frames.PROTOCOL_ERROR
    assert not peer.server.calls


@pytest.mark.parametrize(
    "field",
    [("X-Upper", "1"), ("x y", "1"), ("x\x7f", "1"), ("", "1"), ("x-a", "a\r\nb: c"), ("x-a", "\0"), ("te", "gzip"),
     ("connection", "close"), (":late", "1"), (":path", "/again"), ("content-length", "x")],
)  # fmt: skip
async def test_malformed_headers_reset_their_stream_alone(field: tuple[str, str]) -> None:
    peer = Peer()
    stream = peer.open(ECHO, [field])
    assert (await peer.answers())[stream].reset == frames.PROTOCOL_ERROR
    assert peer.ask(b"next") in await peer.answers()


@pytest.mark.parametrize("path", [ECHO, STREAM])
@pytest.mark.parametrize(("length", "reset"), [(11, None), (10, 1), (12, 1), (0, 1)])
async def test_content_length_is_the_datas_length(path: str, length: int, reset: int | None) -> None:
    peer = Peer()
    stream = peer.open(path, [("content-length", str(length))])
    peer.data(stream, grpc(b"sixsix"), end=True)
    answer = (await peer.answers()).get(stream)
    assert (answer and answer.reset) == reset


async def test_an_unfinished_message_at_the_end_is_told() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.data(stream, grpc(b"whole") + grpc(b"not whole")[:-1], end=True)
    assert (await peer.answers())[stream].status == (13, "unexpected EOF")
    assert [kind for kind, _ in peer.seen] == ["message", "gone"]


async def test_unfinished_messages_are_bounded_in_all() -> None:
    peer = Peer(Limits(partial_bytes=110_000))
    streams = [peer.open(STREAM) for _ in range(10)]
    for stream in streams:
        peer.data(stream, grpc(bytes(50_000))[:-1])
    refused = [stream for stream, answer in (await peer.answers()).items() if answer.headers and answer.status[0] == 8]
    assert len(refused) == 8
    assert peer.server._partial <= 110_000
    for stream in streams:
        peer.feed(frames.rst_stream(stream, frames.CANCEL))
    assert peer.server._partial == 0


@pytest.mark.parametrize("refused", [grpc(b"x", 1), grpc(b"x", 7), grpc(bytes(3000))])
async def test_refused_messages_leave_nothing_behind(refused: bytes) -> None:
    peer = Peer(Limits(message_bytes=2000))
    for _ in range(5):
        stream = peer.open(STREAM)
        peer.data(stream, grpc(b"begun")[:7])
        peer.data(stream, b"gun" + refused)
        assert (await peer.answers())[stream].status[0] in (8, 13)
    assert peer.server._partial == 0


# -- keep-alive -----------------------------------------------------------------------------------------------


def ping(peer: Peer) -> None:
    peer.feed(frames.frame(frames.PING, 0, 0, bytes(8)))


async def test_pings_five_seconds_apart_are_welcome_while_a_call_is_open() -> None:
    peer = Peer()
    peer.open(STREAM)
    for _ in range(20):
        peer.clock.later(5.01)
        ping(peer)
    assert await peer.goaway() is None
    for _ in range(3):
        peer.clock.later(4)
        ping(peer)
    assert await peer.goaway() == (CALM, "too_many_pings")
    assert [kind for kind, _ in peer.seen] == ["gone"]


async def test_pings_without_a_call_are_counted_for_two_hours() -> None:
    peer = Peer()
    for _ in range(3):
        ping(peer)
        peer.clock.later(100)
    assert await peer.goaway() is None
    peer.clock.later(2 * 3600)
    ping(peer)
    assert await peer.goaway() is None
    ping(peer)
    assert await peer.goaway() == (CALM, "too_many_pings")


async def test_pings_are_forgiven_to_a_client_that_is_being_sent_something() -> None:
    peer = Peer()
    peer.open(STREAM)
    for _ in range(20):
        peer.calls[0].send(b"news")
        ping(peer)
        ping(peer)
    assert await peer.goaway() is None


async def test_headers_are_something_that_is_sent() -> None:
    """Those of a call's beginning beside its first message, and those of a refusal alone."""
    peer = Peer()
    for number in range(20):
        stream = peer.open(STREAM)
        peer.calls[number].send(b"first")
        ping(peer)
        ping(peer)
        peer.feed(frames.rst_stream(stream, frames.CANCEL))
    assert await peer.goaway() is None
    for _ in range(5000):
        peer.ask(b"", "/no.Such/Method")
        peer.feed(frames.window_update(0, 1) * 4)
        peer.clock.later(0.001)
    assert await peer.goaway() is None


async def test_a_client_that_never_says_settings_or_leaves_a_head_open_is_overdue() -> None:
    peer = Peer(Limits(head_s=30), settings=b"")
    now = peer.clock.time()
    assert not peer.server.overdue(now + 29)
    assert peer.server.overdue(now + 31)
    peer = Peer(Limits(head_s=30))
    assert not peer.server.overdue(peer.clock.time() + 31)
    peer.feed(frames.frame(frames.HEADERS, 0, 1, b""))
    assert peer.server.overdue(peer.clock.time() + 31)
    peer.server.too_slow()
    assert peer.transport.aborted


async def test_a_client_that_reads_nothing_is_overdue() -> None:
    peer = Peer(Limits(stall_s=300))
    peer.server.pause_writing()
    assert not peer.server.overdue(peer.clock.time() + 299)
    assert peer.server.overdue(peer.clock.time() + 301)
    peer.server.resume_writing()
    assert not peer.server.overdue(peer.clock.time() + 301)


# -- floods ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        frames.SETTINGS_ACK,
        frames.frame(frames.PING, frames.ACK, 0, bytes(8)),
        frames.frame(frames.GOAWAY, 0, 0, bytes(8)),
        frames.rst_stream(1, 0),
        frames.window_update(1, 1),
        frames.frame(frames.DATA, frames.PADDED, 3, b"\x63" + bytes(99)),
        frames.frame(frames.DATA, 0, 1, b"behind the end"),
    ],
    ids=["settings answered", "ping answered", "goaway", "reset again", "window", "padding alone", "closed stream"],
)
async def test_floods_of_what_has_no_use_end_by_calm(junk: bytes) -> None:
    peer = Peer()
    peer.ask(b"")
    peer.open(STREAM)
    fed = 0
    while not peer.transport.ended and fed < 20_000:
        peer.feed(junk)
        fed += 1
    assert 100 <= fed < 11_000
    assert (await peer.goaway() or (None,))[0] == CALM


async def test_cancelling_now_and_then_is_no_flood() -> None:
    peer = Peer()
    for _ in range(3000):
        peer.feed(frames.rst_stream(peer.open(STREAM), frames.CANCEL))
        peer.clock.later(0.02)
    assert await peer.goaway() is None


# -- on a socket ----------------------------------------------------------------------------------------------


async def test_a_faulty_client_reads_goaway_and_the_end_at_once() -> None:
    from tests.actors.kv.http2.server import Serving

    with Serving() as serving, contextlib.closing(socket.create_connection(("127.0.0.1", serving.port))) as client:
        client.settimeout(5)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(100_000))
        heard = b""
        while piece := client.recv(65536):
            heard += piece
        assert b"not HTTP/2's preface" in heard
