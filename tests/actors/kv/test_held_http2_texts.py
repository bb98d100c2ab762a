"""Held: what grpc-go says of a request that can't be, to the letter; clients' logs and tests look for it."""

import gzip

import pytest

from actors.kv.http2 import frames, messages
from actors.kv.v3 import errors
from tests.actors.kv.http2.peer import ECHO, HEADERS, Peer


@pytest.mark.parametrize(
    ("value", "where"), [("AB!D", 2), ("!", 0), ("AB-_", 2), ("AAAA*", 4), ("A B", 1), ('a"b\\', 1), ("YWI*YWI=", 3)]
)
async def test_binary_metadata_that_is_no_base64_is_refused_with_its_place(value: str, where: int) -> None:
    """As grpc-go 1.83 does (that of etcd 3.4 let it pass). Name and value as Go quotes them."""
    peer = Peer()
    stream = peer.open(ECHO, [("x-good-bin", "YQ"), ("x-bad-bin", value)])
    answer = (await peer.answers())[stream]
    shown = value.replace("\\", "\\\\").replace('"', '\\"')
    why = f'malformed binary metadata "{shown}" in header "x-bad-bin": illegal base64 data at input byte {where}'
    assert (answer.headers[":status"], answer.status) == ("400", (13, why))


@pytest.mark.parametrize("raw", [b"AA\xff", b"\xe4\xf6", b"\x80AAA"])
async def test_binary_metadata_that_is_no_text_ends_no_connection(raw: bytes) -> None:
    peer = Peer()
    fields = [*((name.encode(), value.encode()) for name, value in HEADERS), (b"x-bin", raw)]
    peer.feed(frames.headers(1, peer._encoder.encode(fields), end=False))
    assert (await peer.answers())[1].status[0] == 13
    peer._next = 3
    assert peer.ask(b"next") in await peer.answers()


@pytest.mark.parametrize(
    ("raw", "go"),
    [
        (b"plain", '"plain"'),
        (b"", '""'),
        (b"a\\b", '"a\\\\b"'),
        (b'"', '"\\""'),
        (b'\\"', '"\\\\\\""'),
        (b"\\\\", '"\\\\\\\\"'),
        (b"a\tb\r\n\a\b\f\v", '"a\\tb\\r\\n\\a\\b\\f\\v"'),
        (b"\0\x1b\x7f", '"\\x00\\x1b\\x7f"'),
        (b"a\xffb\xc3", '"a\\xffb\\xc3"'),
        ("ä€😀".encode(), '"ä€😀"'),
        ("\x85\xa0\xad".encode(), '"\\u0085\\u00a0\\u00ad"'),
        ("\u2028\U000e0001".encode(), '"\\u2028\\U000e0001"'),
        (b"\xed\xb2\x80", '"\\xed\\xb2\\x80"'),
    ],
)
def test_what_is_quoted_is_quoted_as_by_go(raw: bytes, go: str) -> None:
    assert messages.quoted(raw) == go


@pytest.mark.parametrize("one", "!#$%&'*+-.^_`|~09az")
async def test_each_character_that_a_name_may_have_is_taken(one: str) -> None:
    """RFC 9110's tokens, in small letters."""
    peer = Peer()
    stream = peer.ask(b"hello", more=[(f"x{one}", "v")])
    assert (await peer.answers())[stream].status[0] == 0


def test_statuses_have_the_numbers_of_grpc() -> None:
    assert (errors.UNIMPLEMENTED, errors.INTERNAL, errors.UNAVAILABLE) == (12, 13, 14)
    assert (errors.DATA_LOSS, errors.UNAUTHENTICATED) == (15, 16)


def test_sixteen_members_of_a_gzip_are_a_message() -> None:
    assert messages.gunzip(gzip.compress(b"a") * 16, 100) == b"a" * 16
    with pytest.raises(messages.Refused, match="too many gzip members"):
        messages.gunzip(gzip.compress(b"a") * 17, 100)
