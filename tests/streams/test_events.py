"""Events: one JSON form, strict decoding, and a reference that isn't stale."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import UndecodableEvent, blob, decode, encode, payloads, say, unblob
from streams.events import kv as says
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
