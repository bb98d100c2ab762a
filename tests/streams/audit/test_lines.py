import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.audit import lines as audit_lines
from streams.audit.lines import BadLine, Line, audit_line, audited, iso, line_of, packed, parse, tells, unpacked
from streams.audit.trail import FOLDS
from streams.events import STREAMS, kv, say, unit
from streams.events.base import Base64
from streams.outcomes import DONE, Outcome, Rejected
from streams.records import Position, Record
from streams.replay import Applied

RECORD = Record("ab" * 16, "kv", "kv@m1", 1, 1, 1_700_000_000_123, b"[]", offset=7)


def applied(data: object, outcome: Outcome = DONE, **attributes: object) -> Applied:
    return Applied(say(data, **attributes), Position(7, 2), outcome, RECORD)  # type: ignore[arg-type]


def test_a_line_says_who_did_what_when_and_what_came_of_it() -> None:
    refused = Rejected("v2.101", "Compare failed")
    said = applied(kv.Set("/a", "secret value", prev_value="x"), refused, principal="uid:0", correlation="c1")
    assert audit_line(said) == {
        "position": "7.2",
        "time": "2023-11-14T22:13:20.123Z",
        "type": said.event.type,
        "outcome": "rejected",
        "time_ms": 1_700_000_000_123,
        "subject": "/a",
        "principal": "uid:0",
        "correlation": "c1",
        "source": "kv@m1",
        "code": "v2.101",
        "message": "Compare failed",
        "term": 0,
    }


def test_no_value_is_on_the_trail() -> None:
    assert b"secret value" not in b"".join(packed([line_of(applied(kv.Set("/a", "secret value")))]))


def test_keys_that_are_not_text_are_shown_as_base64() -> None:
    assert line_of(applied(kv.Delete(Base64(b"\xff")))).subject == "base64:/w=="


def test_commands_and_refused_facts_are_audited_and_other_facts_are_not() -> None:
    assert audited(applied(kv.Set("/a")))
    assert not audited(applied(kv.Expired("/a", 1, 1)))
    assert audited(applied(kv.Expired("/a", 1, 1), Rejected("stale-term")))
    commands = [payload for payload in (unit.__dict__.values()) if getattr(payload, "COMMAND", False)]
    assert commands


lines = st.builds(
    Line,
    position=st.tuples(st.integers(0, 10**18), st.integers(0, 10**8)).map(lambda at: f"{at[0]}.{at[1]}"),
    type=st.text(max_size=20),
    outcome=st.sampled_from(["accepted", "rejected", "pending"]),
    time_ms=st.integers(-(10**15), 10**15),
    subject=st.text(max_size=20),
    principal=st.text(max_size=20),
    code=st.text(max_size=10),
    term=st.integers(0, 10**9),
)


@given(st.lists(lines, max_size=8), st.sampled_from([1, 300, 10**6]))
def test_lines_come_back_as_they_were_written(written: list[Line], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_lines, "PACK_BYTES_MAX", most)
        values = list(packed(written))
    assert [line for value in values for line in unpacked(value)] == written
    assert all(len(value) <= most or b"\n" not in value for value in values)
    assert len(values) == (len(written) if most == 1 else 1 if most == 10**6 and written else len(values))
    assert all(isinstance(iso(line.time_ms), str) for line in written)


@pytest.mark.parametrize("rows", [b"", b"\n", b"{}\n", b'{"position":"7.0","type":"a","outcome":"accepted"}\n'])
def test_lines_of_which_one_is_none_are_none(rows: bytes) -> None:
    with pytest.raises(BadLine, match=r"^topic offset 12(, line \d)?: "):
        unpacked(rows, "topic offset 12")


@given(
    st.binary(max_size=120) | st.dictionaries(st.text(max_size=9), st.integers() | st.text()).map(msgspec.json.encode)
)
def test_any_bytes_give_a_line_or_a_bad_line_that_names_the_place(raw: bytes) -> None:
    with pytest.raises(BadLine, match=r"^topic offset 12: "):
        parse(raw, "topic offset 12")
    with pytest.raises(BadLine, match=r"^topic offset 12(, line \d+)?: "):
        unpacked(raw, "topic offset 12")


@pytest.mark.parametrize("field", [{"position": "7"}, {"position": "x.1"}, {"outcome": "maybe"}, {"more": 1}])
def test_a_line_with_a_wrong_field_is_refused(field: dict[str, object]) -> None:
    good = {"position": "7.0", "type": "kv.set.v1", "outcome": "accepted"}
    assert parse(msgspec.json.encode(good)).at == Position(7, 0)
    with pytest.raises(BadLine, match=str(next(iter(field.values())))[:1] if "more" not in field else "more"):
        parse(msgspec.json.encode(good | field))


def test_each_stream_is_told_by_one_fold() -> None:
    for stream in (*STREAMS, "log"):
        assert [tells(fold, stream) for fold in FOLDS].count(True) == 1, stream
