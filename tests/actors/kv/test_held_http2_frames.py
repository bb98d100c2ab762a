"""Held: numbers and tables of HTTP/2 as their RFCs have them, written here once more or taken from another library."""

from enum import IntEnum

import hpack
import pytest
from hpack.table import HeaderTable

from actors.kv.http2 import frames
from actors.kv.http2.hpack import Decoder, encode
from actors.kv.http2.receiving import REQUESTS_MAX
from tests.actors.kv.http2.peer import HEADERS, SILENT, STREAM, Peer, grpc


class ErrorCodes(IntEnum):
    """RFC 9113, 7."""

    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    FRAME_SIZE_ERROR = 0x6
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


PLAIN = encode([(name.encode(), SILENT.encode() if name == ":path" else value.encode()) for name, value in HEADERS])
#: Nothing about the table: its size is what it is by default, 4096.
SAME_SIZE = b"\x3f\xe1\x1f"


def told(peer: Peer, block: bytes) -> dict[bytes, bytes]:
    """The metadata that a call to SILENT has by this block."""
    stream, peer._next = peer._next, peer._next + 2
    peer.feed(frames.headers(stream, block, end=False))
    peer.data(stream, grpc(b""), end=True)
    assert peer.calls[-1].stream == stream
    return dict(peer.calls[-1].metadata)


def insert(name: bytes, value: bytes) -> bytes:
    """A field that goes into the reader's table."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frames.frame(frames.DATA, 0, 0, b"x"), ErrorCodes.PROTOCOL_ERROR),
        (frames.settings([(frames.SET_INITIAL_WINDOW, 1 << 31)]), ErrorCodes.FLOW_CONTROL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"x"), ErrorCodes.FRAME_SIZE_ERROR),
        (frames.frame(frames.HEADERS, 4, 1, b"\x80"), ErrorCodes.COMPRESSION_ERROR),
        (frames.frame(frames.PING, 0, 0, bytes(8)) * 4, ErrorCodes.ENHANCE_YOUR_CALM),
    ],
)
async def test_goaway_has_the_rfcs_number_for_what_was_wrong(raw: bytes, code: ErrorCodes) -> None:
    peer = Peer()
    peer.feed(raw)
    assert (await peer.goaway() or (None,))[0] == code


def test_each_index_of_the_static_table_names_what_the_rfc_has_there() -> None:
    table = HeaderTable.STATIC_TABLE
    assert len(table) == 61
    for index, field in enumerate(table, 1):
        assert Decoder(1000).decode(bytes((0x80 | index,))) == [field]
        assert other(encode([field])) == [field]


def other(block: bytes) -> list[tuple[bytes, bytes]]:
    """What the ``hpack`` package reads."""
    return [(bytes(n), bytes(v)) for n, v in hpack.Decoder(1 << 20).decode(block, raw=True)]


@pytest.mark.parametrize("size", [126, 127, 128, 254, 255, 256, 16_510, 16_511])
def test_names_and_values_of_any_length_are_written_as_numbers_are(size: int) -> None:
    """127 is where a length no longer fits into its prefix, and 127 + 128 where it takes a byte more."""
    fields = [(b"n" * size, b"v"), (b"n", b"v" * size), (b"grpc-message", b"w" * size)]
    assert other(encode(fields)) == fields


@pytest.mark.parametrize("name", [b"accept-charset", b"accept-encoding", b"accept-language"])
def test_names_by_an_index_about_the_end_of_its_prefix_are_written_whole(name: bytes) -> None:
    """15, 16 and 17, where 15 is all ones of four bits."""
    assert other(encode([(name, b"another value"), (b"x", b"y")])) == [(name, b"another value"), (b"x", b"y")]


def test_every_entry_of_a_full_table_is_found_also_by_an_index_of_two_bytes() -> None:
    """Short fields: more than 66 of them fit, and from the index 127 on a number goes on behind its prefix."""
    writer, reader = hpack.Encoder(), Decoder(1 << 20)
    fields = [(b"%02d" % number, b"%d" % (number % 10)) for number in range(100)]
    reader.decode(writer.encode(fields, huffman=False))
    block = writer.encode(fields)
    assert len(block) == 65 + 2 * 35  # all by their indices
    assert reader.decode(block) == fields


# -- what a connection knows of blocks ------------------------------------------------------------------------


async def test_a_block_that_fills_the_table_fills_it_each_time_that_it_comes() -> None:
    peer = Peer()
    block = PLAIN + insert(b"x-a", b"1")
    for _ in range(3):
        assert told(peer, block)[b"x-a"] == b"1"
    for index in (b"\xbe", b"\xbf", b"\xc0"):  # one entry of each
        assert told(peer, PLAIN + index)[b"x-a"] == b"1"


@pytest.mark.parametrize("prefix", [b"", SAME_SIZE, SAME_SIZE * 2])
@pytest.mark.parametrize("inserts", [1, 2])
async def test_known_blocks_are_read_anew_behind_one_that_sets_the_tables_size_and_fills_it(
    prefix: bytes, inserts: int
) -> None:
    peer = Peer()
    newest = PLAIN + b"\xbe"
    told(peer, PLAIN + insert(b"x-a", b"old"))
    for _ in range(2):
        assert told(peer, newest)[b"x-a"] == b"old"
    told(peer, prefix + PLAIN + insert(b"x-a", b"new") * inserts)
    assert told(peer, newest)[b"x-a"] == b"new"


async def test_the_blocks_that_are_known_are_bounded_when_they_leave_the_table_alone() -> None:
    peer = Peer()
    for number in range(REQUESTS_MAX + 2):
        block = PLAIN + encode([(b"x-number", b"%d" % number)])
        assert told(peer, block)[b"x-number"] == b"%d" % number
        assert 0 < len(peer.server.requests) <= REQUESTS_MAX
    assert told(peer, PLAIN + encode([(b"x-number", b"0")]))[b"x-number"] == b"0"


# -- PRIORITY -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (bytes(4), ErrorCodes.FRAME_SIZE_ERROR),
        (bytes(5), None),
        (bytes(6), ErrorCodes.FRAME_SIZE_ERROR),
        (b"\0\0\0\1\0", ErrorCodes.PROTOCOL_ERROR),
        (b"\x80\0\0\1\0", ErrorCodes.PROTOCOL_ERROR),
        (b"\0\0\0\3\0", None),
        (b"\x80\0\0\3\0", None),
    ],
)
async def test_a_priority_is_ignored_but_one_of_another_size_or_of_a_stream_on_itself_resets_that_stream(
    payload: bytes, code: ErrorCodes | None
) -> None:
    peer = Peer()
    assert peer.open(STREAM) == 1
    peer.feed(frames.frame(frames.PRIORITY, 0, 1, payload))
    answer = (await peer.answers()).get(1)
    assert (answer and answer.reset) == code
    assert (1 in peer.server.calls) == (code is None)
    assert peer.ask(b"next") in await peer.answers()
