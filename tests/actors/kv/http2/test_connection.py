"""One connection: calls, windows, ends of calls and of the connection (RFC 9113, gRPC over HTTP/2)."""

import asyncio
import gzip

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.kv.http2 import frames
from actors.kv.http2.connection import Limits
from actors.kv.http2.hpack import encode
from actors.kv.http2.receiving import REQUESTS_MAX
from tests.actors.kv.http2.peer import ECHO, HEADERS, SILENT, STREAM, Peer, grpc


async def test_a_unary_call_is_answered_in_one_write() -> None:
    peer = Peer()
    await peer.frames()
    stream = peer.ask(b"hello")
    answer = (await peer.answers())[stream]
    assert (answer.messages, answer.status, answer.ended) == ([b"hello"], (0, ""), True)
    assert answer.headers[":status"] == "200"
    assert answer.headers["content-type"] == "application/grpc"
    assert not peer.server.calls


async def test_the_same_block_again_is_known() -> None:
    peer = Peer()
    streams = [peer.ask(b"%d" % number) for number in range(5)]
    answers = await peer.answers()
    assert [answers[stream].messages for stream in streams] == [[b"%d" % number] for number in range(5)]


def told(peer: Peer, block: bytes) -> dict[bytes, bytes]:
    """The metadata that a call to SILENT has by this block."""
    stream, peer._next = peer._next, peer._next + 2
    peer.feed(frames.headers(stream, block, end=False))
    peer.data(stream, grpc(b""), end=True)
    return dict(peer.calls[-1].metadata)


async def test_a_known_block_means_something_else_when_the_table_has_changed() -> None:
    peer = Peer()
    plain = encode([(name.encode(), SILENT.encode() if name == ":path" else value.encode()) for name, value in HEADERS])
    newest = plain + b"\xbe"  # with the newest field of the table
    told(peer, plain + b"\x40\x03x-a\x011")
    for _ in range(3):
        assert told(peer, newest)[b"x-a"] == b"1"
    told(peer, plain + b"\x40\x03x-b\x012")
    assert told(peer, newest)[b"x-b"] == b"2"
    assert b"x-a" not in told(peer, newest)


async def test_timeouts_differ_where_all_else_is_known() -> None:
    peer = Peer()
    now = peer.clock.time()
    for seconds in (10, 20, 30, 20):
        peer.ask(b"", SILENT, [("grpc-timeout", f"{seconds}S"), ("x-a", "1")])
    peer.ask(b"", SILENT, [("x-a", "1")])
    *timed, endless = peer.calls
    assert [round((call.deadline_s or 0) - now) for call in timed] == [10, 20, 30, 20]
    assert endless.deadline_s is None
    assert {call.metadata[b"x-a"] for call in peer.calls} == {b"1"}


async def test_a_known_block_as_trailers_is_malformed() -> None:
    peer = Peer()
    plain = encode([(name.encode(), SILENT.encode() if name == ":path" else value.encode()) for name, value in HEADERS])
    for _ in range(2):
        told(peer, plain)
    stream = peer.open(STREAM)
    peer.feed(frames.headers(stream, plain, end=True))
    assert (await peer.answers())[stream].reset == frames.PROTOCOL_ERROR
    assert peer.seen == [("gone", peer.calls[-1])]


async def test_a_message_behind_the_clients_end_resets_the_call() -> None:
    peer = Peer()
    stream = peer.ask(b"1", SILENT)
    peer.data(stream, grpc(b"2"), end=True)
    assert (await peer.answers())[stream].reset == frames.STREAM_CLOSED
    assert len(peer.calls) == 1


async def test_a_call_that_both_sides_ended_isnt_reset() -> None:
    peer = Peer()
    peer.server._methods.streaming[b"/test.Echo/Nothing"] = lambda call: call.finish(5, "at once")
    stream = peer.open("/test.Echo/Nothing", end=True)
    answer = (await peer.answers())[stream]
    assert (answer.status, answer.reset) == ((5, "at once"), None)


async def test_the_end_of_a_message_that_looks_like_one_is_none() -> None:
    peer = Peer()
    stream = peer.open()
    body = grpc(grpc(b"inner"))
    peer.data(stream, body[:5])
    peer.data(stream, body[5:], end=True)
    assert (await peer.answers())[stream].messages == [grpc(b"inner")]


@pytest.mark.parametrize("size", [0, 1, 16378, 16379, 16380, 70_000, 1_000_000])
async def test_messages_of_any_size_under_small_windows(size: int) -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 1000)]))
    message = bytes(range(256)) * (size // 256 + 1)
    message = message[:size]
    stream = peer.open()
    body = grpc(message)
    peer.data(stream, body, end=True)
    data, ended = b"", False
    for _ in range(3000):
        answer = (await peer.answers()).get(stream)
        if answer is None:
            break
        assert len(answer.data) <= 1000
        data, ended = data + answer.data, answer.ended
        if ended:
            break
        peer.feed(frames.window_update(stream, 900) + frames.window_update(0, 900))
    assert ended
    assert data == body


async def test_a_window_below_zero_waits_until_it_is_above() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 100)]))
    stream = peer.ask(b"x" * 150)
    assert len((await peer.answers())[stream].data) == 100
    peer.feed(frames.settings([(frames.SET_INITIAL_WINDOW, 10)]))  # 90 below zero
    peer.feed(frames.window_update(stream, 90))
    assert stream not in await peer.answers()
    peer.feed(frames.window_update(stream, 20))
    assert len((await peer.answers())[stream].data) == 20
    peer.feed(frames.settings([(frames.SET_INITIAL_WINDOW, 1000)]))
    answer = (await peer.answers())[stream]
    assert (len(answer.data), answer.ended) == (35, True)


async def test_a_stalled_reader_is_seen_and_told_of_again() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    (call,) = peer.calls
    for _ in range(20):
        call.send(b"y" * 10_000)
    assert len((await peer.answers())[stream].data) == 65535
    assert call.buffered() == 20 * 10_005 - 65535
    peer.feed(frames.window_update(0, 1 << 20) + frames.window_update(stream, 1 << 20))
    assert ("drained", call) in peer.seen
    assert call.buffered() == 0
    assert len((await peer.answers())[stream].data) == 20 * 10_005 - 65535


async def test_calls_take_turns_on_a_narrow_connection() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 20)]))
    streams = [peer.ask(b"z" * 100_000) for _ in range(3)]
    first = await peer.answers()
    peer.feed(frames.window_update(0, 50_000))
    more = await peer.answers()
    assert set(first) | set(more) == set(streams)


async def test_more_than_the_windows_we_gave_ends_it() -> None:
    peer = Peer(Limits(call_window=1000, connection_window=100_000))
    stream = peer.open(STREAM)
    peer.data(stream, grpc(b"a" * 400))
    peer.data(stream, b"b" * 900)
    assert (await peer.answers())[stream].reset == frames.FLOW_CONTROL_ERROR


async def test_the_client_may_go_on_sending() -> None:
    """Our windows are opened again as it comes."""
    peer = Peer(Limits(call_window=1000, connection_window=70_000))
    stream = peer.open(STREAM)
    sent = 0
    given = 1000
    for _ in range(300):
        for one in await peer.frames():
            if one.kind == frames.WINDOW_UPDATE and one.stream == stream:
                given += int.from_bytes(one.payload, "big")
        size = min(given - sent, 400)
        assert size > 0
        peer.data(stream, grpc(b"c" * (size - 5)) if size >= 5 else b"")
        sent += size
    assert sum(5 + len(raw) for kind, raw in peer.seen if kind == "message") == sent


async def test_headers_in_pieces_with_padding_and_priority() -> None:
    peer = Peer()
    block = peer.block()
    pad = bytes((7,)) + (0).to_bytes(4, "big") + b"\x10" + block[:5] + bytes(7)
    peer.feed(frames.frame(frames.HEADERS, frames.PADDED | frames.PRIORITIZED, 1, pad))
    peer.feed(frames.frame(frames.CONTINUATION, 0, 1, block[5:6]))
    peer.feed(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[6:]))
    body = grpc(b"padded")
    peer.feed(frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, bytes((9,)) + body + bytes(9)))
    assert (await peer.answers())[1].messages == [b"padded"]


async def test_nothing_comes_between_the_pieces_of_headers() -> None:
    peer = Peer()
    peer.feed(frames.frame(frames.HEADERS, 0, 1, peer.block()))
    peer.feed(frames.frame(frames.PING, 0, 0, bytes(8)))
    assert (await peer.goaway() or (0,))[0] == frames.PROTOCOL_ERROR


async def test_trailers_of_the_client_end_its_side() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.data(stream, grpc(b"one"))
    peer.feed(frames.headers(stream, peer._encoder.encode([("x-trailer", "1")]), end=True))
    assert peer.seen == [("message", b"one"), ("end", peer.calls[0])]
    peer.calls[0].finish(9, "näh\n")
    assert (await peer.answers())[stream].status == (9, "n%C3%A4h%0A")


async def test_a_cancelled_call_is_gone_once() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    (call,) = peer.calls
    peer.feed(frames.rst_stream(stream, frames.CANCEL))
    assert peer.seen == [("gone", call)]
    call.send(b"late")
    call.finish()
    peer.server.connection_lost(None)
    assert peer.seen == [("gone", call)]
    assert stream not in await peer.answers()
    assert not peer.open_ones


async def test_a_deadline_ends_a_call() -> None:
    peer = Peer()
    stream = peer.ask(b"", SILENT, [("grpc-timeout", "30m")])
    assert not (await peer.answers()).get(stream)
    await asyncio.sleep(0.08)
    assert (await peer.answers())[stream].status == (4, "context deadline exceeded")
    assert peer.seen == [("gone", peer.calls[0])]


async def test_a_lost_connection_ends_all_calls() -> None:
    peer = Peer()
    peer.open(STREAM)
    peer.ask(b"", SILENT)
    peer.server.connection_lost(ConnectionResetError())
    assert sorted(kind for kind, _ in peer.seen) == ["gone", "gone"]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([("content-type", "text/html")], None),
        ([("grpc-timeout", "1x")], (13, 'malformed grpc-timeout: transport: timeout unit is not recognized: "1x"')),
        ([("grpc-encoding", "snappy")], (12, 'grpc: Decompressor is not installed for grpc-encoding "snappy"')),
    ],
)
async def test_wrong_headers(more: list[tuple[str, str]], status: tuple[int, str] | None) -> None:
    peer = Peer()
    stream = peer.open(ECHO, [one for one in more if one[0] != "content-type"])
    if status is None:
        block = peer._encoder.encode([(":method", "GET"), (":scheme", "http"), (":path", "/"), *more])
        peer.feed(frames.headers(stream + 2, block, end=True))
        answer = (await peer.answers())[stream + 2]
        assert answer.headers[":status"] == "415"
        return
    peer.data(stream, grpc(b""), end=True)
    assert (await peer.answers())[stream].status == status


async def test_the_body_of_what_isnt_grpc_is_not_read_as_messages() -> None:
    peer = Peer()
    block = peer._encoder.encode([*HEADERS[:4], ("content-type", "text/html")])
    peer.feed(frames.headers(1, block, end=False))
    peer.data(1, b"<p>more than a prefix")
    assert not await peer.answers()
    peer.data(1, b"</p>", end=True)
    answer = (await peer.answers())[1]
    assert (answer.headers[":status"], answer.headers["content-type"]) == ("415", "text/plain")
    assert answer.data == b'this is a gRPC port: invalid gRPC request content-type "text/html"\n'


async def test_what_is_sent_to_a_call_that_was_answered_changes_nothing_of_its_answer() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 10)]))
    stream = peer.open(STREAM)
    peer.calls[0].send(b"an answer that waits for its window")
    peer.calls[0].finish(5, "not found")
    peer.data(stream, b"\7 this is no message")
    peer.feed(frames.window_update(stream, 1000))
    answer = (await peer.answers())[stream]
    assert (answer.messages, answer.status) == ([b"an answer that waits for its window"], (5, "not found"))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/a.B/C", "unknown service a.B"),
        ("/test.Echo/X", "unknown method X for service test.Echo"),
        ("/noslash", 'malformed method name: "/noslash"'),
    ],
)
async def test_an_unknown_method_is_unimplemented(path: str, why: str) -> None:
    peer = Peer()
    stream = peer.ask(b"", path)
    assert (await peer.answers())[stream].status == (12, why)


async def test_a_message_over_the_limit_is_refused_by_its_prefix() -> None:
    peer = Peer(Limits(message_bytes=1000))
    stream = peer.open()
    peer.data(stream, grpc(bytes(1001))[:20])
    assert (await peer.answers())[stream].status == (8, "grpc: received message larger than max (1001 vs. 1000)")
    assert peer.ask(b"next") in await peer.answers()


async def test_gzip_both_ways_and_a_bomb() -> None:
    peer = Peer(Limits(message_bytes=10_000))
    stream = peer.open(ECHO, [("grpc-encoding", "gzip")])
    peer.data(stream, grpc(gzip.compress(b"hello" * 100), 1), end=True)
    answer = (await peer.answers())[stream]
    assert answer.headers["grpc-encoding"] == "gzip"
    assert gzip.decompress(answer.messages[0]) == b"hello" * 100
    bomb = peer.open(ECHO, [("grpc-encoding", "gzip")])
    peer.data(bomb, grpc(gzip.compress(bytes(1 << 20)), 1), end=True)
    assert (await peer.answers())[bomb].status[0] == 8


async def test_a_unary_call_with_no_message_or_two() -> None:
    peer = Peer()
    none = peer.open(end=True)
    two = peer.open()
    peer.data(two, grpc(b"1") + grpc(b"2"), end=True)
    answers = await peer.answers()
    assert [answers[stream].status[0] for stream in (none, two)] == [13, 13]


async def test_handlers_that_fail_end_their_call_alone() -> None:
    peer = Peer()
    peer.server._methods.unary[SILENT.encode()] = lambda call, raw: call.reply(raw[99])  # type: ignore[arg-type]
    bad = peer.ask(b"short", SILENT)
    good = peer.ask(b"fine")
    answers = await peer.answers()
    assert answers[bad].status == (13, "internal error")
    assert answers[good].messages == [b"fine"]


# -- the connection -------------------------------------------------------------------------------------------


async def test_drain_serves_what_is_under_way_and_no_more() -> None:
    peer = Peer()
    stream = peer.ask(b"", SILENT)
    peer.server.drain()
    said = await peer.frames()
    ping = next(one for one in said if one.kind == frames.PING)
    assert [one.kind for one in said if one.kind == frames.GOAWAY] == [frames.GOAWAY]
    meanwhile = peer.ask(b"on its way")
    assert (await peer.answers())[meanwhile].messages == [b"on its way"]
    peer.feed(frames.frame(frames.PING, frames.ACK, 0, ping.payload))
    late = peer.ask(b"late")
    peer.calls[0].reply(b"done")
    answers = await peer.answers()
    assert answers[stream].messages == [b"done"]
    assert late not in answers
    assert peer.transport.ended


async def test_calls_over_the_limit_are_refused() -> None:
    peer = Peer(Limits(calls=2))
    streams = [peer.ask(b"", SILENT) for _ in range(3)]
    assert {stream: one.reset for stream, one in (await peer.answers()).items()} == {streams[2]: frames.REFUSED_STREAM}


async def test_pings_are_answered_and_too_many_end_it() -> None:
    peer = Peer()
    await peer.frames()
    peer.feed(frames.frame(frames.PING, 0, 0, b"12345678"))
    assert [(one.kind, one.flags, one.payload) for one in await peer.frames()] == [(frames.PING, 1, b"12345678")]
    for _ in range(4):
        peer.feed(frames.frame(frames.PING, 0, 0, bytes(8)))
    assert await peer.goaway() == (frames.ENHANCE_YOUR_CALM, "too_many_pings")


async def test_a_silent_client_is_pinged_and_cut_off() -> None:
    peer = Peer(Limits(ping_after_s=10, ping_wait_s=5))
    await peer.frames()
    now = peer.server.heard_s
    assert not peer.server.overdue(now + 9)
    assert not peer.server.overdue(now + 11)
    assert [one.kind for one in await peer.frames()] == [frames.PING]
    assert not peer.server.overdue(now + 15)
    assert peer.server.overdue(now + 17)


@pytest.mark.parametrize("flood", ["reset", "settings", "empty data", "priority", "continuation", "unknown"])
async def test_floods_end_by_calm(flood: str) -> None:
    peer = Peer()
    for number in range(3000):
        if peer.server._deaf:
            break
        match flood:
            case "reset":
                peer.feed(frames.rst_stream(peer.open(STREAM), frames.CANCEL))
            case "settings":
                peer.feed(frames.settings([]))
            case "empty data":
                peer.data(peer.open(STREAM) if not number else 1, b"")
            case "priority":
                peer.feed(frames.frame(frames.PRIORITY, 0, 1, (3).to_bytes(4, "big") + b"\0"))
            case "continuation":
                kind = frames.HEADERS if not number else frames.CONTINUATION
                peer.feed(frames.frame(kind, 0, 1, b"\0\1a\1b"))
            case _:
                peer.feed(frames.frame(77, 0, 0, b""))
    assert (await peer.goaway() or (0,))[0] == frames.ENHANCE_YOUR_CALM
    assert not peer.server.calls


async def test_headers_over_the_limit_are_refused() -> None:
    peer = Peer(Limits(header_bytes=2000))
    stream = peer.open(ECHO, [("x-big", "v" * 3000)])
    answer = (await peer.answers())[stream]
    assert (answer.headers[":status"], answer.status[0]) == ("431", 8)
    assert peer.ask(b"still here") in await peer.answers()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frames.frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 99, b"x"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 4, 2, b""), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 4, 1, b"\x80"), frames.COMPRESSION_ERROR),
        (frames.frame(frames.PING, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 1, 0, b"xxxxxx"), frames.FRAME_SIZE_ERROR),
        (frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 31)]), frames.FLOW_CONTROL_ERROR),
        (frames.settings([(frames.SET_FRAME_MAX, (1 << 14) - 1)]), frames.PROTOCOL_ERROR),
        (frames.settings([(frames.SET_FRAME_MAX, 1 << 14), (frames.SET_FRAME_MAX, (1 << 24) - 1)]), None),
        (frames.settings([(frames.SET_FRAME_MAX, 1 << 24)]), frames.PROTOCOL_ERROR),
        (frames.settings([(frames.SET_ENABLE_PUSH, 1), (frames.SET_INITIAL_WINDOW, frames.WINDOW_MAX)]), None),
        (frames.settings([(frames.SET_ENABLE_PUSH, 2)]), frames.PROTOCOL_ERROR),
        (frames.settings([(77, 1 << 31)]), None),
        (frames.frame(frames.SETTINGS, 0, 1, b""), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PRIORITY, 0, 0, bytes(5)), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PRIORITY, 0, 1, (3).to_bytes(4, "big") + b"\0"), None),
        (frames.window_update(1, 1), frames.PROTOCOL_ERROR),
        (frames.rst_stream(1, frames.CANCEL), frames.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"xxx"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.HEADERS, 4 | frames.PRIORITIZED, 1, b"xxxx"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.HEADERS, 4 | frames.PADDED, 1, b""), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 4 | frames.PADDED, 1, b"\2xx"), None),
        (frames.frame(frames.HEADERS, 4 | frames.PADDED, 1, b"\3xx"), frames.PROTOCOL_ERROR),
        (frames.window_update(0, 0), frames.PROTOCOL_ERROR),
        (frames.window_update(0, 0x7FFFFFFF), frames.FLOW_CONTROL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), frames.PROTOCOL_ERROR),
        (frames.frame(frames.CONTINUATION, 4, 1, b""), frames.PROTOCOL_ERROR),
        (b"\x00\x40\x01" + bytes((frames.DATA, 0, 0, 0, 0, 1)), frames.FRAME_SIZE_ERROR),
    ],
)
async def test_what_ends_a_connection_and_what_does_not(raw: bytes, code: int | None) -> None:
    peer = Peer()
    peer.feed(raw)
    assert (await peer.goaway() or (None,))[0] == code


async def test_no_preface_no_http2() -> None:
    peer = Peer(settings=b"")
    peer.feed(frames.frame(frames.PING, 0, 0, bytes(8)))  # SETTINGS have to come first
    assert (await peer.goaway() or (None,))[0] == frames.PROTOCOL_ERROR


async def test_a_priority_of_another_size_resets_its_stream_alone() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.feed(frames.frame(frames.PRIORITY, 0, stream, bytes(4)))
    assert (await peer.answers())[stream].reset == frames.FRAME_SIZE_ERROR
    assert peer.ask(b"next") in await peer.answers()


@pytest.mark.parametrize(("again", "code"), [("last", frames.STREAM_CLOSED), ("before", frames.PROTOCOL_ERROR)])
async def test_headers_on_a_stream_that_is_closed(again: str, code: int) -> None:
    peer = Peer()
    before, last = peer.ask(b"one"), peer.ask(b"two")
    await peer.frames()
    peer.feed(frames.headers(last if again == "last" else before, peer.block(), end=True))
    assert (await peer.goaway() or (None,))[0] == code


async def test_headers_on_a_stream_whose_client_has_ended_reset_it() -> None:
    peer = Peer()
    stream = peer.open(STREAM, end=True)
    peer.feed(frames.headers(stream, b"", end=True))
    assert (await peer.answers())[stream].reset == frames.STREAM_CLOSED


@given(st.integers(0, 4 * frames.FRAME_BYTES_MAX), st.booleans())
@example(frames.FRAME_BYTES_MAX, False)
@example(2 * frames.FRAME_BYTES_MAX, True)
@example(2 * frames.FRAME_BYTES_MAX + 1, True)
def test_headers_of_any_size_are_in_frames_that_may_be_sent(size: int, end: bool) -> None:
    """And their pieces are the block."""
    block = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]
    raw, at, pieces = frames.headers(7, block, end), 0, []
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 3], "big")
        assert size <= frames.FRAME_BYTES_MAX
        assert size or not block
        pieces.append((raw[at + 3], raw[at + 4], raw[at + 5 : at + 9], raw[at + 9 : at + 9 + size]))
        at += 9 + size
    assert b"".join(piece[3] for piece in pieces) == block
    assert {piece[2] for piece in pieces} == {(7).to_bytes(4, "big")}
    assert [piece[0] for piece in pieces] == [frames.HEADERS] + [frames.CONTINUATION] * (len(pieces) - 1)
    ended = [bool(piece[1] & frames.END_HEADERS) for piece in pieces]
    assert ended == [False] * (len(pieces) - 1) + [True]
    assert [bool(piece[1] & frames.END_STREAM) for piece in pieces] == [end] + [False] * (len(pieces) - 1)


@given(st.binary(), st.integers(0, 255))
def test_padding_is_taken_off(payload: bytes, padding: int) -> None:
    assert frames.unpadded(bytes((padding,)) + payload + bytes(padding)) == payload


async def test_a_ping_comes_back_as_it_was_and_its_answer_is_not_answered() -> None:
    peer = Peer()
    await peer.frames()
    peer.feed(frames.frame(frames.PING, 0, 0, b"12345678") + frames.frame(frames.PING, frames.ACK, 0, b"12345678"))
    assert await peer.frames() == [(frames.PING, frames.ACK, 0, b"12345678")]


async def test_only_the_drains_own_ping_ends_the_time_for_new_calls() -> None:
    peer = Peer()
    held = peer.ask(b"", SILENT)
    peer.server.drain()
    await peer.frames()
    peer.feed(frames.frame(frames.PING, frames.ACK, 0, b"another!"))
    assert peer.ask(b"on its way") in await peer.answers()
    assert held in peer.server.calls


async def test_trailers_have_to_end_the_clients_side() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.feed(frames.headers(stream, b"", end=False))
    assert (await peer.answers())[stream].reset == frames.PROTOCOL_ERROR
    assert ("gone", peer.calls[0]) in peer.seen


async def test_what_is_remembered_of_requests_has_an_end() -> None:
    peer = Peer()
    for number in range(3 * REQUESTS_MAX):
        peer.ask(b"x", more=[("x-number", str(number))])
        assert len(peer.server._requests_by_fields) <= REQUESTS_MAX
        assert len(peer.server.requests) <= REQUESTS_MAX


@pytest.mark.parametrize(("more", "http"), [(0, "200"), (1, "431")])
async def test_the_size_of_a_list_of_headers_is_that_of_names_and_values_and_32_each(more: int, http: str) -> None:
    """RFC 9113, 6.5.2."""
    size = sum(len(name) + len(value) + 32 for name, value in [*HEADERS, ("x", "")])
    peer = Peer(Limits(header_bytes=size + 100))
    stream = peer.ask(b"x", more=[("x", "v" * (100 + more))])
    assert (await peer.answers())[stream].headers[":status"] == http
