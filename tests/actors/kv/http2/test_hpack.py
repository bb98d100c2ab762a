"""HPACK beside the ``hpack`` package, both ways, and on whatever bytes may come."""

import hpack as other
import pytest
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from actors.kv.http2 import huffman
from actors.kv.http2.hpack import Decoder, HpackError, ListTooLarge, encode

name = st.one_of(
    st.sampled_from([b":path", b":method", b"content-type", b"grpc-timeout", b"x-a", b"cookie"]),
    st.binary(min_size=1, max_size=40).map(bytes.lower),
)
field = st.tuples(name, st.one_of(st.sampled_from([b"POST", b"/", b"1S"]), st.binary(max_size=300)))
fields = st.lists(field, max_size=12)


@given(st.lists(st.tuples(fields, st.booleans(), st.sampled_from([None, 0, 64, 500, 4096])), max_size=6))
def test_reads_what_hpack_writes(blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]]) -> None:
    """Blocks of one connection, with its table growing, shrinking and overflowing."""
    writer, reader = other.Encoder(), Decoder(1 << 20)
    for some, coded, table in blocks:
        if table is not None:
            writer.header_table_size = table
        assert reader.decode(writer.encode(some, huffman=coded)) == some


@given(st.lists(fields, max_size=4))
def test_hpack_reads_what_is_written(blocks: list[list[tuple[bytes, bytes]]]) -> None:
    reader = other.Decoder(max_header_list_size=1 << 20)
    for some in blocks:
        assert [(bytes(n), bytes(v)) for n, v in reader.decode(encode(some), raw=True)] == some


@given(st.binary(max_size=80))
def test_any_bytes_are_read_as_hpack_reads_them(raw: bytes) -> None:
    """Or both refuse them."""
    ours: object
    try:
        ours = Decoder(1 << 20).decode(raw)
    except HpackError:
        ours = None
    try:
        theirs = [(bytes(n), bytes(v)) for n, v in other.Decoder(1 << 20).decode(raw, raw=True)]
    except (HPACKError, IndexError):
        theirs = None
    if ours is not None:
        assert ours == theirs


@given(st.binary(max_size=300))
def test_huffman_there_and_back(text: bytes) -> None:
    assert huffman.decode(huffman.encode(text)) == text


def test_too_large_a_list_is_refused_and_the_table_goes_on() -> None:
    writer, reader = other.Encoder(), Decoder(200)
    reader.decode(writer.encode([("x-known", "1")]))
    with pytest.raises(ListTooLarge):
        reader.decode(writer.encode([("x-big", "y" * 300), ("x-new", "2")]))
    assert reader.decode(writer.encode([("x-known", "1"), ("x-new", "2")])) == [(b"x-known", b"1"), (b"x-new", b"2")]


def test_a_small_block_cant_make_a_large_list() -> None:
    """One field of the table, named over and over: the list is cut, not built."""
    writer, reader = other.Encoder(), Decoder(64 * 1024)
    reader.decode(writer.encode([("x-bomb", "y" * 3000)]))
    with pytest.raises(ListTooLarge):
        reader.decode(b"\xbe" * 60_000)
    assert len(reader._decode(b"\xbe" * 60_000)[0]) < 30


#: padded by zeros, by more than seven bits, and with the end's code inside
BAD_HUFFMAN = [b"\x00\x81\x00\x01a", b"\x00\x82\x07\xff\x01a", b"\x00\x84\xff\xff\xff\xff\x01a"]


@pytest.mark.parametrize(
    "raw", [b"\x80", b"\xff\xff\xff\xff\xff\xff\x7f", b"\x3f\xff\xff\x03", b"\x00\x05ab", b"\xbe", *BAD_HUFFMAN]
)
def test_what_ends_a_connection(raw: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder(1000).decode(raw)


def test_what_no_longer_fits_into_the_table_is_gone() -> None:
    """RFC 7541, 4.4: and an index that it had means nothing any more."""
    decoder = Decoder(1 << 20)
    value = b"v" * (1000 - 32 - 1)
    for name in (b"a", b"b", b"c", b"d"):  # 1000 bytes each of 4096
        decoder.decode(
            b"\x40\x01" + name + b"\x7f" + bytes((0x80 | (len(value) - 127) & 0x7F, (len(value) - 127) >> 7)) + value
        )
    assert decoder.decode(bytes((0x80 | 65,))) == [(b"a", value)]  # the oldest
    decoder.decode(b"\x40\x01e\x7f" + bytes((0x80 | (len(value) - 127) & 0x7F, (len(value) - 127) >> 7)) + value)
    assert decoder.decode(bytes((0x80 | 65,))) == [(b"b", value)]
    assert decoder.decode(bytes((0x80 | 62,))) == [(b"e", value)]
    with pytest.raises(HpackError):
        decoder.decode(bytes((0x80 | 66,)))
    decoder.decode(b"\x20")  # the table is empty
    with pytest.raises(HpackError):
        decoder.decode(bytes((0x80 | 62,)))
