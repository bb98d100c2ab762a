"""gRPC's messages, timeouts and texts (gRPC over HTTP/2), and the book of deadlines, pure."""

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kv.http2 import messages
from actors.kv.http2.deadlines import FAR_S, STEP_S, Deadlines
from actors.kv.http2.messages import Inbox, Refused
from actors.kv.http2.request import Malformed, Methods, read
from tests.actors.kv.http2.peer import ECHO, HEADERS, grpc


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=8), st.data())
def test_messages_come_whole_whatever_the_pieces(sent: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    raw = b"".join(grpc(gzip.compress(one), 1) if packed else grpc(one) for one, packed in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    inbox, whole = Inbox(1000, gzip=True), []
    for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        whole += inbox.feed(raw[a:b])
    assert whole == [one for one, _ in sent]
    assert inbox.size == 0


@given(st.binary(max_size=3000))
def test_zlib_reads_what_is_packed_and_back(message: bytes) -> None:
    packed = messages.gzip(message)
    assert gzip.decompress(packed) == message
    assert messages.gunzip(packed, 3000) == message


def test_unpacking_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    before = time.process_time()
    with pytest.raises(Refused, match=r"after decompression larger than max \(1001 vs. 1000\)"):
        messages.gunzip(bomb, 1000)
    assert time.process_time() - before < 0.1
    assert messages.gunzip(gzip.compress(bytes(1000)), 1000) == bytes(1000)


def test_two_gzip_members_are_one_message_but_a_thousand_are_an_attack() -> None:
    assert messages.gunzip(gzip.compress(b"a") + gzip.compress(b"b"), 10) == b"ab"
    with pytest.raises(Refused, match="too many gzip members"):
        messages.gunzip(gzip.compress(b"") * 1000, 10)


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (b"", "EOF"),
        (gzip.compress(b"text", mtime=0)[:-3], "unexpected EOF"),
        (b"no gzip at all", "gzip: invalid header"),
        (gzip.compress(b"text", mtime=0)[:-8] + bytes(8), "gzip: invalid checksum"),
        (zlib.compress(b"text"), "gzip: invalid header"),
    ],
)
def test_what_isnt_gzip_is_told_in_gos_words(packed: bytes, why: str) -> None:
    with pytest.raises(Refused) as told:
        messages.gunzip(packed, 1000)
    assert told.value.args == (13, f"grpc: failed to decompress the message: {why}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"99999999S", 99999999)],
)
def test_timeouts(text: bytes, seconds: float) -> None:
    assert messages.timeout_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", 'transport: timeout string is too short: ""'),
        (b"123456789S", 'transport: timeout string is too long: "123456789S"'),
        (b"1x", 'transport: timeout unit is not recognized: "1x"'),
        (b"-1S", 'strconv.ParseUint: parsing "-1": invalid syntax'),
    ],
)
def test_timeouts_that_are_none(text: bytes, why: str) -> None:
    with pytest.raises(Refused) as told:
        messages.timeout_s(text)
    assert told.value.args == (13, f"malformed grpc-timeout: {why}")


def test_a_status_is_told_in_percents_and_what_is_no_character_as_a_question_mark() -> None:
    assert messages.escaped("100% ü\n~") == b"100%25 %C3%BC%0A~"
    assert messages.escaped("half of one: \ud83d") == b"half of one: ?"


def headed(*more: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    fields = [(name.encode(), value.encode()) for name, value in HEADERS]
    methods = Methods({ECHO.encode(): lambda call, raw: None})
    return read([*fields, *more], methods).metadata


def test_metadata_is_joined_and_binary_metadata_is_decoded() -> None:
    told = headed((b"x", b"1"), (b"y-bin", b"AAH/"), (b"x", b"2"), (b"y-bin", b"YQ"), (b"z-bin", b"YWI=,YQ=="))
    assert (told[b"x"], told[b"y-bin"], told[b"z-bin"]) == (b"1,2", b"\x00\x01\xff,a", b"ab,a")
    assert not any(name.startswith(b":") for name in told)


def test_two_lengths_are_malformed_when_they_differ() -> None:
    headed((b"content-length", b"5"), (b"content-length", b"5"))
    with pytest.raises(Malformed):
        headed((b"content-length", b"5"), (b"content-length", b"6"))


# -- deadlines ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans(), st.floats(0, 5)), max_size=30))
def test_deadlines_come_due_once_and_hardly_late(moves: list[tuple[float, bool, float]]) -> None:
    """Each move: one more deadline, perhaps taken back, then time goes on."""
    book, now, open_ones = Deadlines[int](), 1000.0, dict[int, float]()
    for number, (after_s, taken_back, step_s) in enumerate(moves):
        bucket = book.add(number, now + after_s, now)
        assert 0 <= bucket - (now + after_s) <= (STEP_S if after_s < FAR_S else 1.0) + 1e-6
        if taken_back:
            book.discard(number, bucket)
            book.discard(number, bucket)
        else:
            open_ones[number] = bucket
        now += step_s
        over = book.due(now)
        assert sorted(over) == [one for one, when in sorted(open_ones.items()) if when <= now]
        for one in over:
            del open_ones[one]
        following = book.next()
        assert not open_ones or (following is not None and following <= min(open_ones.values()))


def test_deadlines_taken_back_need_no_memory() -> None:
    book = Deadlines[object]()
    for number in range(20_000):
        item = object()
        book.discard(item, book.add(item, 1000.0 + number, 0.0))
    assert len(book._buckets) == len(book._order) < 1000


def test_members_of_a_gzip_are_unpacked_up_to_the_limit_in_all() -> None:
    half = gzip.compress(bytes(600))
    assert messages.gunzip(half + gzip.compress(bytes(400)), 1000) == bytes(1000)
    with pytest.raises(messages.Refused) as raised:
        messages.gunzip(half + gzip.compress(bytes(100_000)), 1000)
    assert raised.value.args[1].endswith("larger than max (1001 vs. 1000)")
