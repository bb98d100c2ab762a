"""Held: windows to the byte, what is owed for a frame, deadlines to the instant, and what all of it may cost."""

import pytest

from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from actors.kv.http2.connection import Limits
from actors.kv.http2.deadlines import FAR_S, Deadlines
from tests.actors.kv.http2.peer import ECHO, HEADERS, SILENT, STREAM, Clock, Frame, Peer, grpc


class Still(Clock):
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        super().__init__()
        self.at = super().time()

    def time(self) -> float:
        return self.at


def still(peer: Peer) -> Still:
    clock = Still()
    peer.clock = clock
    peer.server._loop = peer.clock
    return clock


# -- windows --------------------------------------------------------------------------------------------------


async def test_a_window_of_one_byte_takes_a_byte() -> None:
    """Of the connection, or of the call: a client may open either as slowly as it likes."""
    peer = Peer(settings=frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 20)]))
    peer.ask(bytes(65_530))  # the connection's whole window
    await peer.frames()
    stream, heard = peer.ask(b"slow"), b""
    for _ in range(9):
        peer.feed(frames.window_update(0, 1))
        answer = (await peer.answers())[stream]
        assert len(answer.data) == 1
        heard += answer.data
    assert (heard, answer.ended, answer.status) == (grpc(b"slow"), True, (0, ""))


@pytest.mark.parametrize(("before", "code"), [(0, None), (1, frames.FLOW_CONTROL_ERROR)])
async def test_settings_may_open_the_windows_of_open_calls_as_far_as_windows_go(before: int, code: int | None) -> None:
    """2**31-1 (RFC 9113, 6.9.2); a call's own updates stay on top."""
    peer = Peer()
    stream = peer.open(STREAM)
    if before:
        peer.feed(frames.window_update(stream, before))
    peer.feed(frames.settings([(frames.SET_INITIAL_WINDOW, 2**31 - 1)]))
    assert (await peer.goaway() or (None,))[0] == code
    assert (stream in peer.server.calls) == (code is None)


@pytest.mark.parametrize("size", [600, 999, 1000])
async def test_a_client_gets_back_as_much_of_a_calls_window_as_it_used(size: int) -> None:
    """No more: what it may have under way is never above the limit, and what is above it is still refused."""
    peer = Peer(Limits(call_window=1000, connection_window=100_000))
    stream = peer.open(STREAM)
    for _ in range(3):
        await peer.frames()
        peer.data(stream, grpc(bytes(size - 5)))
        assert updates(await peer.frames(), stream) == [size]
    assert len(peer.seen) == 3
    peer.data(stream, grpc(bytes(1001 - 5)))
    assert (await peer.answers())[stream].reset == frames.FLOW_CONTROL_ERROR


def updates(said: list[Frame], stream: int) -> list[int]:
    return [
        int.from_bytes(one.payload, "big") for one in said if one.kind == frames.WINDOW_UPDATE and one.stream == stream
    ]


async def test_a_frame_of_headers_earns_the_client_two_window_updates_and_no_more() -> None:
    """One of its call, and one of the connection."""
    peer = Peer()
    still(peer)
    peer.feed(frames.window_update(0, 1) * 10_000)  # all that a client may send for nothing
    for _ in range(3):
        peer.ask(b"", "/no.Such/Method")
        peer.feed(frames.window_update(0, 1) * 2)
    assert await peer.goaway() is None
    peer.ask(b"", "/no.Such/Method")
    peer.feed(frames.window_update(0, 1) * 3)
    assert (await peer.goaway() or (None,))[0] == frames.ENHANCE_YOUR_CALM


# -- messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ECHO, STREAM])
@pytest.mark.parametrize("size", [0, 1, 5, 10, 40])
async def test_one_frame_is_a_message_only_if_its_prefix_says_its_size(path: str, size: int) -> None:
    """Whatever else it says, there is no message; and a size below leaves a rest that is none."""
    for said in {*range(2 * size + 12), size + 256, size + (1 << 16)} - {size}:
        peer = Peer()
        stream = peer.open(path)
        peer.data(stream, b"\0" + said.to_bytes(4, "big") + b"\xff" * size, end=True)
        answer = (await peer.answers())[stream]
        assert answer.status[0] in (2, 13), said
        assert not answer.data
        assert ("message", b"\xff" * size) not in peer.seen
    peer = Peer()
    stream = peer.open(path)
    peer.data(stream, grpc(b"\xff" * size), end=True)
    found = (await peer.answers())[stream].messages if path == ECHO else [peer.seen[0][1]]
    assert found == [b"\xff" * size]


async def test_the_one_message_of_a_streaming_call_may_come_with_its_end() -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.data(stream, grpc(b"only"), end=True)
    assert peer.seen == [("message", b"only"), ("end", peer.calls[0])]
    assert stream not in await peer.answers()


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_client_that_ends_with_its_last_message_isnt_reset_when_that_is_answered(pieces: int) -> None:
    peer = Peer()
    stream = peer.open(STREAM)
    peer.calls[0].on_message = peer.calls[0].reply
    body = grpc(b"the last one")
    if pieces == 2:
        peer.data(stream, body[:7])
    peer.data(stream, body[7:] if pieces == 2 else body, end=True)
    answer = (await peer.answers())[stream]
    assert (answer.messages, answer.status, answer.ended, answer.reset) == ([b"the last one"], (0, ""), True, None)
    assert not peer.server.ended_early


@pytest.mark.parametrize("path", [SILENT, STREAM])
@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
async def test_unfinished_messages_may_take_as_much_as_their_limit(path: str, over: int, refused: bool) -> None:
    peer = Peer(Limits(partial_bytes=10_000))
    first, second = peer.open(path), peer.open(path)
    peer.data(first, grpc(bytes(9000))[:4000])
    peer.data(second, grpc(bytes(9000))[: 6000 + over])
    answers = await peer.answers()
    assert [stream for stream, answer in answers.items() if answer.headers] == [second] * refused
    assert not refused or answers[second].status[0] == 8


@pytest.mark.parametrize("ends", ["cancelled", "finished", "malformed"])
async def test_a_whole_message_that_waits_for_its_clients_end_is_forgotten_with_its_call(ends: str) -> None:
    """Else a connection had no room for messages any more after a while."""
    peer = Peer(Limits(partial_bytes=100_000))
    for _ in range(25):
        stream = peer.open(SILENT)
        peer.data(stream, grpc(bytes(9000)))
        match ends:
            case "cancelled":
                peer.feed(frames.rst_stream(stream, frames.CANCEL))
            case "finished":
                peer.data(stream, b"", end=True)
                peer.calls[-1].finish()
            case _:
                peer.feed(frames.headers(stream, b"", end=False))
    assert not peer.server.calls
    assert peer.server._partial == 0
    stream = peer.open()
    peer.data(stream, grpc(bytes(60_000)))
    peer.data(stream, b"", end=True)
    assert (await peer.answers())[stream].messages == [bytes(60_000)]


# -- handlers and counts --------------------------------------------------------------------------------------


async def test_a_handler_that_fails_at_a_path_that_is_no_text_ends_its_call_alone() -> None:
    peer = Peer()
    path = b"/no text: \xff\xfe"

    def fails(call: Call, raw: bytes) -> None:
        raise RuntimeError(raw)

    peer.server._methods.unary[path] = fails
    fields = [(name.encode(), path if name == ":path" else value.encode()) for name, value in HEADERS]
    peer.feed(frames.headers(1, peer._encoder.encode(fields), end=False))
    peer._next = 3
    peer.data(1, grpc(b"x"), end=True)
    good = peer.ask(b"fine")
    answers = await peer.answers()
    assert answers[1].status == (13, "internal error")
    assert answers[good].messages == [b"fine"]


async def test_traffic_is_every_byte_of_both_ways() -> None:
    peer = Peer(settings=b"")
    traffic, fed, heard = peer.server.traffic, len(frames.PREFACE), 0
    for said in (
        frames.settings([]),
        frames.headers(1, peer.block(), end=False),
        frames.frame(0, 1, 1, grpc(b"hello")),
    ):
        peer.feed(said)
        fed += len(said)
        heard += sum(9 + len(one.payload) for one in await peer.frames())
        assert (traffic.received, traffic.sent) == (fed, heard)
    assert heard > 0


# -- deadlines ------------------------------------------------------------------------------------------------


def test_a_deadline_is_due_at_the_time_that_it_was_given() -> None:
    """The timer that is set for it would find nothing, else."""
    book = Deadlines[str]()
    soon, far = book.add("soon", 1000.25, 1000.0), book.add("far", 1100.25, 1000.0)
    assert book.next() == soon
    assert book.due(soon - 1e-9) == []
    assert book.due(soon) == ["soon"]
    assert book.next() == far
    assert book.due(far) == ["far"]
    assert book.next() is None


def test_deadlines_as_far_as_that_share_a_time_whatever_their_fractions() -> None:
    """From FAR_S on a second's deadlines cost one timer; nearer ones are kept apart."""
    far, near = Deadlines[int](), Deadlines[int]()
    assert len({far.add(number, FAR_S + number / 64, 0.0) for number in range(64)}) == 1
    assert len({near.add(number, FAR_S - 1 + number / 64, 0.0) for number in range(64)}) == 64


def test_deadlines_that_came_due_leave_no_room_for_empty_ones() -> None:
    book = Deadlines[int]()
    for number in range(5000):
        book.add(number, 10.0, 0.0)
    assert len(book.due(20.0)) == 5000
    for number in range(3000):
        book.discard(number, book.add(number, 1000.0 + number, 20.0))
    assert len(book._buckets) == len(book._order) < 1000


@pytest.mark.parametrize("early_s", [0.0, 0.0005])
async def test_a_timer_that_comes_on_time_or_a_bit_early_ends_its_call(early_s: float) -> None:
    """As the loop's do, by their clock's resolution: it would be set again and again until then."""
    peer = Peer()
    clock = still(peer)
    stream = peer.ask(b"", SILENT, [("grpc-timeout", "5S")])
    (call,) = peer.calls
    assert call.deadline_s == clock.at + 5
    clock.at = call.deadline_bucket - early_s
    peer.server._expire()
    assert (await peer.answers())[stream].status == (4, "context deadline exceeded")
    assert peer.server._alarm is None
