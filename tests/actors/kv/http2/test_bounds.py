"""What a client that reads nothing, or sends without end, can make a connection of HTTP/2 keep."""

import dataclasses

import pytest

from actors.kv.exchange import TEXT, Exchange
from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from actors.kv.http2.connection import CALL_BYTES
from actors.kv.http2.limits import RAPID_S, Limits
from actors.kv.pages import Page
from tests.actors.kv.http2.peer import ECHO, SILENT, Peer, grpc

#: Turns that may wait beside those of open calls.
SPARE = 100


async def shut() -> Peer:
    """Its client takes nothing more of any call: the connection's window is used up."""
    peer = Peer()
    peer.ask(bytes(frames.WINDOW_DEFAULT - len(grpc(b""))))
    await peer.answers()
    assert peer.server.window == 0
    return peer


async def test_calls_that_were_reset_while_the_window_is_shut_have_no_turns() -> None:
    peer = await shut()
    waits = peer.ask(b"waits")
    for _ in range(5):
        streams = [peer.ask(b"x" * 100) for _ in range(200)]
        peer.clock.later(RAPID_S + 0.1)
        for stream in streams:
            peer.feed(frames.rst_stream(stream, frames.CANCEL))
        assert len(peer.server._turns) <= SPARE
    await peer.frames()
    peer.feed(frames.window_update(0, 1 << 20))
    answers = await peer.answers()
    assert {stream: answer.messages for stream, answer in answers.items()} == {waits: [b"waits"]}
    assert answers[waits].ended


async def test_calls_whose_time_is_up_while_the_window_is_shut_have_no_turns() -> None:
    peer = await shut()
    for _ in range(5):
        for _ in range(200):
            peer.ask(b"x" * 100, more=[("grpc-timeout", "10S")])
        peer.clock.later(11)
        peer.server._expire()
        assert not peer.server.calls
        assert len(peer.server._turns) <= SPARE


async def test_calls_that_were_reset_while_the_socket_is_full_have_no_ends_to_say() -> None:
    peer = Peer()
    peer.server.pause_writing()
    for _ in range(5):
        streams = [peer.ask(b"", "/no.Such/Method") for _ in range(200)]
        peer.clock.later(RAPID_S + 0.1)
        for stream in streams:
            peer.feed(frames.rst_stream(stream, frames.CANCEL))
        assert not peer.server.calls
        assert len(peer.server._ends) <= SPARE
    stays = peer.ask(b"", "/no.Such/Method")
    peer.server.resume_writing()
    assert list(await peer.answers()) == [stays]


async def test_calls_that_stay_keep_their_turns_when_others_are_reset() -> None:
    peer = await shut()
    streams = [peer.ask(b"%d" % number) for number in range(400)]
    peer.clock.later(RAPID_S + 0.1)
    kept = streams[::10]
    for stream in set(streams) - set(kept):
        peer.feed(frames.rst_stream(stream, frames.CANCEL))
    await peer.frames()
    for _ in range(3):
        peer.feed(frames.window_update(kept[0], 1))
    peer.feed(frames.window_update(0, 1 << 20))
    answers = await peer.answers()
    assert list(answers) == kept
    assert [answer.messages for answer in answers.values()] == [[b"%d" % (10 * number)] for number in range(40)]


# -- bodies of pages ------------------------------------------------------------------------------------------


class Pages:
    """A client of pages; ``served`` when they are whole, and answered if ``answers``."""

    def __init__(self, limits: Limits, answers: bool = True) -> None:
        self.peer = Peer(limits)
        self.served: list[Exchange] = []
        self._answers = answers
        self.peer.server._methods = dataclasses.replace(self.peer.server._methods, pages=self._page)

    def _page(self, call: Call) -> None:
        Page(self._serve, False, call)

    def _serve(self, page: Exchange) -> None:
        self.served.append(page)
        if self._answers:
            page.respond(200, TEXT, b"")

    def put(self, body: bytes, end: bool = False) -> int:
        peer = self.peer
        stream, peer._next = peer._next, peer._next + 2
        fields = [(":method", "PUT"), (":scheme", "https"), (":path", "/v2/keys/x"), (":authority", "x")]
        peer.feed(frames.headers(stream, peer._encoder.encode(fields), end=False))
        peer.data(stream, body, end)
        return stream


async def test_bodies_of_pages_are_bounded_in_all() -> None:
    pages = Pages(Limits(partial_bytes=350_000))
    peer = pages.peer
    streams = [pages.put(bytes(100_000)) for _ in range(5)]
    answers = await peer.answers()
    assert {stream: answer.reset for stream, answer in answers.items()} == dict.fromkeys(
        streams[3:], frames.ENHANCE_YOUR_CALM
    )
    for stream in streams[:3]:
        peer.data(stream, b"the rest", end=True)
    assert [len(page.body) for page in pages.served] == [100_008] * 3
    assert {answer.headers[":status"] for answer in (await peer.answers()).values()} == {"200"}
    for _ in range(10):
        pages.put(bytes(300_000), end=True)
    assert len(pages.served) == 13
    assert peer.server._partial == 0


async def test_a_page_that_isnt_answered_yet_counts_and_one_whose_client_left_doesnt() -> None:
    pages = Pages(Limits(partial_bytes=150_000), answers=False)
    first = pages.put(bytes(100_000), end=True)
    assert len(pages.served) == 1
    second = pages.put(bytes(100_000))
    assert (await pages.peer.answers())[second].reset == frames.ENHANCE_YOUR_CALM
    pages.peer.feed(frames.rst_stream(first, frames.CANCEL))
    pages.put(bytes(100_000), end=True)
    assert len(pages.served) == 2


# -- clients that don't read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), [("/no.Such/Method", b""), (ECHO, b"tiny"), (SILENT, b"")])
async def test_a_client_that_doesnt_read_isnt_read_either_when_it_has_asked_so_often(path: str, body: bytes) -> None:
    peer = Peer(Limits(unsent_bytes=100 * CALL_BYTES))
    peer.server.pause_writing()
    asked = 0
    while peer.transport.reading and asked < 1000:
        peer.ask(body, path)
        asked += 1
    assert 90 <= asked <= 101
    assert not await peer.answers()
    peer.server.resume_writing()
    assert peer.transport.reading
    if path == SILENT:
        for call in peer.calls:
            call.reply(b"")
    answers = await peer.answers()
    assert len(answers) == asked
    assert all(answer.ended for answer in answers.values())
