"""Whatever comes, in whatever pieces: no fault of ours, bounded memory, the same answers."""

import asyncio
from typing import Any

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.http2 import frames
from actors.kv.http2.connection import Limits
from tests.actors.kv.http2.peer import ECHO, SILENT, STREAM, Peer, grpc

kinds = st.one_of(st.integers(0, 9), st.integers(0, 9), st.integers(0, 255))
streams = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2, 99, 2**31 - 1])
payload = st.one_of(
    st.binary(max_size=30),
    st.just(grpc(b"message")),
    st.just(b"\0\0\0\0\xff"),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    st.just(bytes(8)),
)
anything = st.builds(frames.frame, kinds, st.integers(0, 255), streams, payload)
paths = st.sampled_from([ECHO, STREAM, SILENT, "/nobody", ""])


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Mostly sensible frames, and some that aren't."""
    step = st.one_of(
        st.tuples(st.just("open"), st.tuples(paths, st.booleans())),
        st.tuples(st.just("open"), st.tuples(paths, st.booleans())),
        st.tuples(st.just("data"), st.tuples(streams, payload, st.booleans())),
        st.tuples(st.just("data"), st.tuples(streams, payload, st.booleans())),
        st.tuples(st.just("raw"), anything),
        st.tuples(st.just("settings"), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2**32 - 1)), max_size=3)),
    )
    return draw(st.lists(step, max_size=25))


def spoken(conversation: list[tuple[str, Any]]) -> bytes:
    peer = Peer.__new__(Peer)
    peer._encoder = hpack.Encoder()
    out, stream = [frames.settings([])], 1
    for kind, what in conversation:
        match kind:
            case "open":
                path, end = what
                out.append(frames.headers(stream, peer.block(path), end=end))
                stream += 2
            case "data":
                name, body, end = what
                out.append(frames.frame(frames.DATA, int(end), name, body))
            case "settings":
                out.append(frames.settings(what))
            case _:
                out.append(what)
    return b"".join(out)


def counted(peer: Peer) -> None:
    """What is counted of a connection's memory is what it holds."""
    calls = list(peer.server.calls.values())
    assert peer.server.queued == sum(call.buffered() for call in calls)
    kept = sum(call.inbox.size + len(call.held or b"") for call in calls if call.inbox is not None)
    assert peer.server._partial == kept
    assert peer.server.deadlines._items == sum(1 for call in calls if call.deadline_bucket)


def heard(pieces: list[bytes]) -> bytes:
    """All that is answered to bytes that come in these pieces."""

    async def run() -> bytes:
        peer = Peer(Limits(partial_bytes=1 << 20), settings=b"")
        for piece in pieces:
            peer.feed(piece)
            assert len(peer.server._rest) <= frames.FRAME_BYTES_MAX + 9 + len(piece)
            counted(peer)
        for _ in range(3):
            await asyncio.sleep(0)
        answered = bytes(peer.transport.written)
        assert b"internal error" not in answered
        peer.server.connection_lost(None)
        assert not peer.server.calls
        return answered

    return asyncio.run(run())


@settings(max_examples=300, deadline=None)
@given(conversations(), st.data())
def test_pieces_dont_matter(conversation: list[tuple[str, Any]], data: st.DataObject) -> None:
    raw = spoken(conversation)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert heard(pieces) == heard([raw])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes(pieces: list[bytes]) -> None:
    heard(pieces)
