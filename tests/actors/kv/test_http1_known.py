"""Heads of HTTP/1 that came before aren't parsed again: what is served is the same as if they were."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv import http1
from actors.kv.exchange import TEXT, Exchange
from actors.kv.http1 import Asked, Http1

HEADS = (
    b"POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    b"POST /v3/kv/put HTTP/1.1\r\nhost: h\r\nContent-length:  5 \r\n\r\n",
    b"PUT /v2/keys/a?x=%20+y HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    b"GET /v2/keys/a?b?c HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"HEAD /v2/keys HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost : h\r\n\r\n",
    b"POST /a HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    b"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
)
BODIES = (b"", b"hello", b"hell", b"hello!", b"5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n")
Seen = tuple[Any, ...]


class Transport:
    def __init__(self) -> None:
        self.closed = False
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = pause_reading = resume_reading = close


def served(chunks: list[bytes], forget: bool, monkey: pytest.MonkeyPatch) -> tuple[list[Seen], bool]:
    """What each exchange said, and whether the connection ended."""
    seen: list[Seen] = []

    def serve(one: Exchange) -> None:
        assert isinstance(one, Asked)
        seen.append((one.method, one.path, one.query, dict(one.headers), one.body, one.keep_alive, one.refused))
        one.respond(200, TEXT, b"ok")

    class Loop:
        def call_later(self, _after_s: float, what: Any) -> None:
            what()

    monkey.setattr(http1.asyncio, "get_running_loop", Loop)
    connection, transport = Http1(serve, set()), Transport()
    connection.connection_made(transport)
    for chunk in chunks:
        if forget:
            http1._heads.clear()
            connection._same = None
        if not transport.closed:
            connection.data_received(chunk)
    return seen, transport.closed


@pytest.fixture(scope="module")
def monkey() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


REQUESTS = st.builds(lambda head, body: head + body, st.sampled_from(HEADS), st.sampled_from(BODIES))
CHUNKS = st.lists(REQUESTS | st.tuples(REQUESTS, REQUESTS).map(b"".join), min_size=1, max_size=8)


@settings(deadline=None, max_examples=300)
@given(CHUNKS, st.lists(st.tuples(st.integers(0, 7), st.integers(1, 60)), max_size=3))
def test_known_heads_are_served_as_new_ones(
    monkey: pytest.MonkeyPatch, chunks: list[bytes], cuts: list[tuple[int, int]]
) -> None:
    for at, where in cuts:
        if at < len(chunks):
            chunks[at : at + 1] = [chunks[at][:where], chunks[at][where:]]
    chunks = [one for one in chunks if one]
    served(chunks, False, monkey)  # so that all that can be known is
    assert served(chunks, False, monkey) == served(chunks, True, monkey)


def test_a_head_is_known_the_second_time(monkey: pytest.MonkeyPatch) -> None:
    http1._heads.clear()
    served([HEADS[0] + b"hello", HEADS[2] + b"hello"], False, monkey)
    assert len(http1._heads) == 1  # the first line isn't part of it
    (headers, length) = next(iter(http1._heads.values()))
    assert (headers, length) == ({b"host": b"h", b"content-length": b"5"}, 5)


def test_not_too_many_are_kept(monkey: pytest.MonkeyPatch) -> None:
    for number in range(2 * http1.HEADS_MAX):
        served([b"GET / HTTP/1.1\r\nX-Own: %d\r\n\r\n" % number], False, monkey)
    assert len(http1._heads) <= http1.HEADS_MAX
