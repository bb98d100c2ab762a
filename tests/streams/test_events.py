"""Events: one JSON form, strict decoding, and a reference that isn't stale."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import UndecodableEvent, blob, decode, encode, payloads, say, unblob
from streams.events import kv as says
from streams.events.base import carried
from streams.events.blobs import SHORT_BYTES
from streams.events.reference import page

ROOT = Path(__file__).parents[2]


def test_docs_events_md_is_what_the_types_say() -> None:
    assert (ROOT / "docs" / "events.md").read_text() == page(), (
        "run: python -m streams.events.reference > docs/events.md"
    )


@given(st.binary(max_size=50))
def test_bytes_survive_their_json_form(raw: bytes) -> None:
    assert unblob(blob(raw)) == raw
    event = say(says.Set(key=blob(raw), value=blob(raw)), principal="uid:0")
    assert decode("kv", encode([event])) == [event]


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b'"', b"\\", b"\n", b"\x01", "é".encode(), b"\xff"]), st.integers(1, 900))
    )
)
def test_no_value_grows_by_much_more_than_a_third_in_an_event(pieces: list[tuple[bytes, int]]) -> None:
    raw = b"".join(one * count for one, count in pieces)
    assert unblob(carried(raw)) == raw
    size = len(msgspec.json.encode(carried(raw)))
    if len(raw) > SHORT_BYTES:
        assert size <= len(raw) * 4 / 3 + 20
    assert size <= max(len(msgspec.json.encode(blob(raw))), len(raw) * 4 / 3 + 20)


def test_text_stays_text_in_events_and_always_in_states() -> None:
    lines = b'a line of words\n\tand "quoted" ones\n' * 1000
    assert carried(lines) == blob(lines) == lines.decode()
    assert blob(b"\x01" * 5000) == "\x01" * 5000
    assert carried(b"\x01" * SHORT_BYTES) == "\x01" * SHORT_BYTES


@given(st.binary(max_size=80))
def test_decoding_raises_nothing_but_undecodable_event(raw: bytes) -> None:
    for stream in ("kv", "unit", "mail"):
        try:
            decode(stream, raw)
        except UndecodableEvent as error:
            assert str(error)


def test_every_type_has_a_doc_a_stream_and_a_version() -> None:
    for cls in payloads():
        assert cls.TYPE.removesuffix("?").split(".")[-1].startswith("v"), cls
    assert len({cls.TYPE for cls in payloads()}) == len(payloads())


def test_an_error_names_index_and_field() -> None:
    with pytest.raises(UndecodableEvent, match=r"event 1: .*`key`"):
        decode("kv", b'[{"type":"kv.set.v1","data":{"key":"a"}},{"type":"kv.set.v1","data":{}}]')
