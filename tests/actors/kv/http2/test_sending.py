"""What the client's windows, tables and slowness do to what it is sent (RFC 9113, 5.2 and 6.9; RFC 7541, 4.2)."""

import hpack
import pytest

from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from actors.kv.http2.connection import Limits
from tests.actors.kv.http2.peer import ECHO, SILENT, STREAM, Peer, grpc

TABLE_OF_0 = frames.settings([(frames.SET_HEADER_TABLE_SIZE, 0)])


async def test_a_client_without_a_table_is_told_once_that_it_is_empty() -> None:
    peer = Peer(settings=TABLE_OF_0)
    peer._decoder.max_allowed_table_size = 0
    for number in range(3):
        stream = peer.ask(b"%d" % number)
        blocks = [one.payload for one in await peer.frames() if one.stream == stream and one.kind == frames.HEADERS]
        assert blocks[0].startswith(b"\x20") == (number == 0)
        for block in blocks:
            peer._decoder.decode(block)  # raises if it wasn't told


@pytest.mark.parametrize("settings", [frames.settings([]), frames.settings([(frames.SET_HEADER_TABLE_SIZE, 4096)])])
async def test_a_client_that_keeps_its_table_is_told_nothing_of_it(settings: bytes) -> None:
    peer = Peer(settings=settings)
    stream = peer.ask(b"x")
    blocks = [one.payload for one in await peer.frames() if one.stream == stream and one.kind == frames.HEADERS]
    assert len(blocks) == 2
    assert all(block[0] >> 5 != 1 for block in blocks)


async def test_the_first_block_that_is_sent_tells_of_the_table_not_the_first_that_was_made() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 0)]))
    waits = peer.ask(b"waits for its window")
    peer.feed(TABLE_OF_0)
    peer._decoder.max_allowed_table_size = 0
    sooner = peer.ask(b"", "/no.Such/Method")
    assert list(await peer.answers()) == [sooner]
    peer.feed(frames.window_update(waits, 1000))
    assert (await peer.answers())[waits].messages == [b"waits for its window"]


async def test_the_end_of_a_call_without_data_waits_for_no_window() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 20)]))
    hog = peer.ask(bytes(100_000))
    assert len((await peer.answers())[hog].data) == 65535  # the connection's whole window
    other = peer.open(STREAM)
    peer.calls[0].finish(5, "not found")
    assert (await peer.answers())[other].status == (5, "not found")


async def test_the_end_of_a_call_waits_for_the_socket_but_not_behind_a_window() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 20)]))
    peer.ask(bytes(100_000))
    other = peer.open(STREAM)
    await peer.frames()
    peer.server.pause_writing()
    peer.calls[0].finish(5, "not found")
    assert not await peer.frames()
    peer.server.resume_writing()
    assert (await peer.answers())[other].status == (5, "not found")


async def test_many_small_answers_share_the_connections_window() -> None:
    peer = Peer()
    streams = [peer.ask(bytes([number]) * 1000) for number in range(100)]
    first = await peer.answers()
    assert sum(len(answer.data) for answer in first.values()) == 65535
    peer.feed(frames.window_update(0, 1 << 20))
    second = await peer.answers()
    got = {stream: sum(len(part[stream].data) for part in (first, second) if stream in part) for stream in streams}
    assert set(got.values()) == {1005}


async def test_drained_is_told_once_each_time_that_the_queue_falls_below_its_mark() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    (call,) = peer.calls
    for _ in range(2):
        peer.seen.clear()
        call.send(bytes(300_000))
        for _ in range(60):
            before = call.buffered()
            peer.feed(frames.window_update(0, 6000) + frames.window_update(stream, 6000))
            assert ("drained", call) not in peer.seen or before < 64 * 1024 + 6000
        assert peer.seen == [("drained", call)]


async def test_a_deadline_drops_what_waits_for_a_window() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 10)]))
    stream = peer.ask(b"", SILENT, [("grpc-timeout", "1S")])
    peer.calls[0].reply(bytes(100))
    assert len((await peer.answers())[stream].data) == 10
    assert peer.server.queued == 95
    peer.clock.later(2)
    peer.server._expire()
    answer = (await peer.answers())[stream]
    assert (answer.status[0], answer.ended, peer.server.queued) == (4, True, 0)


async def test_a_handler_that_refills_when_drained_keeps_its_place_in_the_queue() -> None:
    """Once: else its turns would multiply with each refill."""
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 0)]))
    first, second = peer.open(STREAM), peer.open(STREAM)
    for call in peer.calls:
        call.on_drained = lambda call=call: call.send(bytes(100_000))  # type: ignore[misc]
        call.send(bytes(100_000))
    peer.feed(frames.window_update(first, 1 << 30) + frames.window_update(second, 1 << 30))
    sizes = {first: 0, second: 0}
    for _ in range(300):
        peer.feed(frames.window_update(0, 32_768))
        for stream, answer in (await peer.answers()).items():
            sizes[stream] += len(answer.data)
        assert len(peer.server._turns) <= 2
    assert sum(sizes.values()) == 65535 + 300 * 32_768
    assert abs(sizes[first] - sizes[second]) <= 65535 + frames.FRAME_BYTES_MAX  # the first had the first window alone


async def test_a_handler_that_refills_when_drained_lets_no_other_call_take_two_turns() -> None:
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 24)]))
    first, second = peer.open(STREAM), peer.open(STREAM)
    peer.server.pause_writing()
    for call in peer.calls:
        call.on_drained = lambda call=call: call.send(bytes(50_000))  # type: ignore[misc]
        call.send(bytes(100_000))
    peer.feed(frames.window_update(0, 1 << 24))
    await peer.frames()
    peer.server.resume_writing()
    turns = [one.stream for one in await peer.frames() if one.kind == frames.DATA]
    assert len(turns) > 12
    assert turns == [first, second] * (len(turns) // 2)


async def test_a_client_that_asks_but_doesnt_read_may_send_no_more_than_a_window() -> None:
    """Its answers' memory is bounded; when it has read, it may go on."""
    peer = Peer(Limits(unsent_bytes=200_000, connection_window=65535, call_window=1 << 20))
    stream = peer.open(STREAM)
    peer.calls[0].on_message = peer.calls[0].send
    sent, given = 0, 65535
    for _ in range(1000):
        for one in await peer.frames():
            if one.kind == frames.WINDOW_UPDATE and not one.stream:
                given += int.from_bytes(one.payload, "big")
        if given - sent < 16_000:
            break
        peer.data(stream, grpc(bytes(15_995)))
        sent += 16_000
    assert 200_000 < peer.server.queued < 200_000 + 2 * 65535
    assert not await peer.answers()
    peer.feed(frames.window_update(stream, 1 << 20) + frames.window_update(0, 1 << 20))
    assert peer.server.queued == 0
    assert any(one.kind == frames.WINDOW_UPDATE and not one.stream for one in await peer.frames())


async def test_new_calls_are_refused_while_too_much_is_unsent() -> None:
    peer = Peer(Limits(unsent_bytes=100_000))
    slow = peer.ask(bytes(200_000))
    refused = peer.ask(b"one more")
    assert (await peer.answers())[refused].reset == frames.REFUSED_STREAM
    peer.feed(frames.window_update(slow, 1 << 20) + frames.window_update(0, 1 << 20))
    assert peer.ask(b"again") in await peer.answers()


async def test_a_call_whose_client_resets_it_leaves_nothing_queued() -> None:
    peer = Peer()
    stream = peer.ask(bytes(200_000))
    assert peer.server.queued > 0
    peer.feed(frames.rst_stream(stream, frames.CANCEL))
    assert (peer.server.queued, len(peer.server.calls)) == (0, 0)
    peer.feed(frames.window_update(0, 1 << 20))
    assert peer.ask(b"next") in await peer.answers()


async def test_a_full_socket_holds_calls_back_until_it_is_empty() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    (call,) = peer.calls
    call.send(b"1")
    await peer.frames()
    peer.server.pause_writing()
    call.send(b"2")
    call.finish()
    assert call.buffered() == 6
    assert not await peer.frames()
    peer.server.resume_writing()
    answer = (await peer.answers())[stream]
    assert (answer.messages, answer.ended) == ([b"2"], True)


async def test_a_client_that_reads_nothing_but_asks_for_control_answers_isnt_read_either() -> None:
    peer = Peer(Limits(control_bytes=100))
    peer.server.pause_writing()
    peer.server.sent += 1
    for _ in range(90):
        peer.server.sent += 1  # so that its pings are fair
        peer.feed(frames.frame(frames.PING, 0, 0, bytes(8)))
        if not peer.transport.reading:
            break
    assert not peer.transport.reading
    assert peer.server.control_unsent <= 100 + 17
    peer.server.resume_writing()
    assert peer.transport.reading


async def test_a_fast_reader_may_update_its_windows_as_often_as_it_is_sent_something() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    (call,) = peer.calls
    for _ in range(20_000):
        call.send(b"x")
        peer.feed(frames.window_update(0, 6) + frames.window_update(stream, 6))
    assert await peer.goaway() is None
    for _ in range(20_000):
        peer.feed(frames.window_update(0, 1))
    assert await peer.goaway() == (frames.ENHANCE_YOUR_CALM, "too many window updates")


@pytest.mark.parametrize("size", [16_379, 16_380, 50_000])
async def test_headers_of_an_answer_come_before_its_messages_whatever_their_size(size: int) -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.calls[0].send(bytes(size))
    peer.calls[0].finish(0, "", [(b"x-end", b"z" * 20_000)])
    kinds = [(one.kind, one.flags) for one in await peer.frames() if one.stream == stream]
    assert kinds[0] == (frames.HEADERS, frames.END_HEADERS)
    assert kinds[-3:-1] == [(frames.HEADERS, frames.END_STREAM), (frames.CONTINUATION, frames.END_HEADERS)]
    assert kinds[-1] == (frames.RST_STREAM, 0)  # the client had not ended its side


async def test_the_handlers_of_a_finished_call_are_let_go() -> None:
    peer = Peer()
    peer.open(STREAM)
    (call,) = peer.calls
    call.reply(b"the one answer")
    assert call.on_gone is call.on_message is call.on_end is call.on_drained
    assert isinstance(call, Call)


async def test_hpack_of_answers_needs_no_table() -> None:
    """Each block can be read by itself, so that it may be sent on any connection."""
    peer = Peer()
    for path in (ECHO, "/no.Such/Method"):
        stream = peer.ask(b"x", path)
        for one in await peer.frames():
            if one.stream == stream and one.kind == frames.HEADERS:
                assert hpack.Decoder(max_header_list_size=1000).decode(one.payload)
