"""The rules that every replica follows, whatever its fold."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import log as says
from streams.events import say
from streams.outcomes import AcceptedBefore
from streams.records import CHAIN_START, Entry, Position, chained, parse
from streams.replay import CHECKPOINT_EVENTS, Diverged, Halt, LogState, Replica
from tests.folds import LOG, Counting, Writer, code, opened, put


@pytest.fixture
def log() -> Writer:
    return Writer()


@pytest.fixture
def replica(log: Writer) -> Replica:
    replica = Replica(Counting())
    replica.apply(log.entry(say(says.LogOpened(id=LOG)), writer="node@m"))
    replica.apply(log.entry(opened()))
    return replica


def test_the_first_log_opened_founds_the_log_and_later_ones_are_void(replica: Replica, log: Writer) -> None:
    applied = replica.apply(log.entry(say(says.LogOpened(id="cd" * 16)), writer="node@x"))
    assert code(applied) == ["already-founded"]
    assert replica.log.log_id == LOG


def test_records_before_the_founding_are_foreign(log: Writer) -> None:
    replica = Replica(Counting())
    assert replica.apply(log.entry(put("/x"))) == []
    assert replica.log.foreign == 1


def test_a_foreign_record_is_chained_counted_and_without_effect(replica: Replica, log: Writer) -> None:
    before = replica.log.chain
    entry = log.raw(b"hello from kcat")
    assert replica.apply(entry) == []
    assert replica.log.foreign == 1
    assert replica.log.chain == chained(before, entry.raw)
    assert replica.apply(log.entry(put("/x"), log_id="cd" * 16)) == []
    assert replica.log.foreign == 2
    assert replica.fold.keys == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"CORELOG 2 x\n[]", "format 2"),
        (b"CORELOG 1 a b\n[]", "damaged head"),
        (b"CORELOG 1 " + LOG.encode() + b" kv kv@m 1 1 1 -\n{", "not a JSON array"),
        (b"CORELOG 1 " + LOG.encode() + b' kv kv@m 1 1 1 -\n[{"type":"kv.new.v9","data":{}}]', "kv.new.v9"),
        (
            b"CORELOG 1 " + LOG.encode() + b' kv kv@m 1 1 1 -\n[{"type":"kv.set.v1","data":{"key":"a","x":1}}]',
            "unknown field",
        ),
        (b"CORELOG 1 " + LOG.encode() + b" mail kv@m 1 1 1 -\n[]", "mail"),
        (b"CORELOG 1 " + LOG.encode() + b' kv kv@m 1 1 1 -\n[{"type":"kv.set.v1","data":{"key":"boom"}}]', "boom"),
    ],
)
def test_ours_but_not_understood_halts_and_an_operators_void_lets_pass(
    replica: Replica, log: Writer, raw: bytes, words: str
) -> None:
    poison = log.raw(raw)
    with pytest.raises(Halt, match=words) as caught:
        replica.apply(poison)
    assert caught.value.position == Position(poison.offset)
    assert "log void" in str(caught.value)
    replica.log.offset = poison.offset - 1
    replica.log.voided[poison.offset] = "an operator said so"
    assert code(replica.apply(poison)) in ([], ["voided"])
    assert code(replica.apply(log.entry(put("/after")))) == ["ok"]


def test_an_ignorable_stranger_is_skipped(replica: Replica, log: Writer) -> None:
    head = b"CORELOG 1 " + LOG.encode() + b" kv kv@m 1 9 1 -\n"
    raw = head + b'[{"type":"kv.hint.v1?","data":{"a":1}},{"type":"kv.set.v1","data":{"key":"/y"}}]'
    assert [one.position.index for one in replica.apply(log.raw(raw))] == [1]


def test_records_of_an_older_incarnation_are_void_for_ever(replica: Replica, log: Writer) -> None:
    assert code(replica.apply(log.entry(put("/a")))) == ["ok"]
    replica.apply(log.entry(opened(2), incarnation=2))
    assert code(replica.apply(log.entry(put("/late"), incarnation=1))) == ["void-incarnation"]
    assert code(replica.apply(log.entry(put("/b"), incarnation=2))) == ["ok"]
    assert code(replica.apply(log.entry(opened(1), incarnation=1))) == ["void-incarnation"]
    assert code(replica.apply(log.entry(put("/never-opened"), writer="kv@other"))) == ["void-incarnation"]
    assert replica.fold.keys == ["/a", "/b"]  # type: ignore[attr-defined]


def test_what_follows_a_seal_is_void(replica: Replica, log: Writer) -> None:
    replica.apply(log.entry(say(says.LogSealed(next="kafka://a"))))
    assert code(replica.apply(log.entry(put("/x")))) == ["sealed"]


def test_a_retry_is_answered_and_not_applied_twice(replica: Replica, log: Writer) -> None:
    five = put("/5", client="c", sequence=5, floor=5)
    replica.apply(log.entry(five))
    replica.apply(log.entry(put("/6", client="c", sequence=6, floor=5)))
    again = replica.apply(log.entry(five))
    assert again[0].outcome == AcceptedBefore(1)
    assert replica.fold.keys == ["/5", "/6"]  # type: ignore[attr-defined]
    assert code(replica.apply(log.entry(put("/other", client="c", sequence=5, floor=5)))) == ["sequence-reused"]
    replica.apply(log.entry(put("/7", client="c", sequence=7, floor=7)))
    assert code(replica.apply(log.entry(five))) == ["session-expired"]


def test_a_late_lower_sequence_above_the_floor_is_applied(replica: Replica, log: Writer) -> None:
    replica.apply(log.entry(put("/6", client="c", sequence=6, floor=5)))
    assert code(replica.apply(log.entry(put("/5", client="c", sequence=5, floor=5)))) == ["ok"]


def test_a_differing_checkpoint_halts(replica: Replica, log: Writer) -> None:
    for first in range(0, CHECKPOINT_EVENTS, 100):
        replica.apply(log.entry(*[put(f"/{first + i}") for i in range(100)]))
    boundary = replica.log.boundaries[-1]
    same = says.Checkpoint("counting", boundary.position, boundary.chain, boundary.outcomes)
    assert code(replica.apply(log.entry(say(same)))) == ["ok"]
    with pytest.raises(Diverged):
        replica.apply(log.entry(say(says.Checkpoint("counting", boundary.position, "00", boundary.outcomes))))


@pytest.mark.parametrize("level", [1, 2])
def test_from_level_2_on_a_record_that_comes_again_or_too_late_counts_once(log: Writer, level: int) -> None:
    """Kafka's producers may write a record twice when a broker is lost."""
    replica = Replica(Counting())
    replica.apply(log.entry(say(says.LogOpened(id=LOG, level=level)), writer="node@m"))
    for writer in "kv@m", "kv@n":
        replica.apply(log.entry(opened(), writer=writer))
    first, second = log.entry(put("/a")), log.entry(put("/b"))
    other = log.entry(put("/c"), writer="kv@n")
    for entry in first, second, other:
        assert code(replica.apply(entry)) == ["ok"]
    twice = ["void-repeated"] if level == 2 else ["ok"]
    for entry in first, second, other, second:
        assert code(replica.apply(log.raw(entry.raw))) == twice
    assert code(replica.apply(log.entry(put("/d")))) == ["ok"]  # seqs between were refused unsent
    fold = Replica(Counting(), msgspec.json.decode(msgspec.json.encode(replica.log), type=LogState))
    assert code(fold.apply(log.raw(second.raw))) == twice  # a snapshot knows it as well
    assert replica.fold.keys == (  # type: ignore[attr-defined]
        ["/a", "/b", "/c", "/d"] if level == 2 else ["/a", "/b", "/c", "/a", "/b", "/c", "/b", "/d"]
    )
    assert [one.repeats for one in replica.log.writers.values()] == ([3, 1] if level == 2 else [0, 0])
    # a new incarnation begins anew, and what comes again of the old one is void as ever
    replica.apply(log.entry(opened(2), incarnation=2))
    assert code(replica.apply(log.raw(second.raw))) == ["void-incarnation"]
    assert code(replica.apply(log.entry(put("/e"), incarnation=2))) == ["ok"]


def test_level_1_states_are_as_they_were(replica: Replica, log: Writer) -> None:
    replica.apply(log.entry(put("/a")))
    assert b'"seq"' not in msgspec.json.encode(replica.log)


def test_a_level_that_a_writer_did_not_announce_is_void(replica: Replica, log: Writer) -> None:
    assert code(replica.apply(log.entry(say(says.LevelRaised(2))))) == ["level-not-announced"]
    assert code(replica.apply(log.entry(say(says.LevelRaised(1))))) == ["level-not-higher"]


def test_order_broken_halts(replica: Replica, log: Writer) -> None:
    entry = log.entry(put("/x"))
    replica.apply(entry)
    with pytest.raises(Halt, match="order"):
        replica.apply(entry)


@given(st.lists(st.tuples(st.sampled_from(["put", "foreign", "open"]), st.integers(1, 4)), max_size=30))
def test_the_same_log_gives_the_same_state_byte_for_byte(steps: list[tuple[str, int]]) -> None:
    log = Writer()
    entries = [log.entry(say(says.LogOpened(id=LOG)), writer="node@m"), log.entry(opened())]
    for kind, number in steps:
        if kind == "put":
            entries.append(log.entry(put(f"/{number}", client="c", sequence=number), incarnation=1 + number % 2))
        elif kind == "open":
            entries.append(log.entry(opened(number), incarnation=number))
        else:
            entries.append(log.raw(b"x" * number))
    left, right = Replica(Counting()), Replica(Counting())
    for entry in entries:
        left.apply(entry)
    for entry in entries:
        right.apply(entry)
    assert left.state_hash() == right.state_hash()


@given(st.binary(max_size=200))
def test_parse_raises_nothing_but_its_own_errors(raw: bytes) -> None:
    for candidate in (raw, b"CORELOG " + raw, b"CORELOG 1 " + raw):
        try:
            record = parse(Entry(7, candidate))
        except ValueError as error:
            assert "7" in str(error)
        else:
            assert record.canonical() == candidate or b" 0" in candidate or b" +" in candidate or b"_" in candidate


def test_a_chain_starts_at_zero(log: Writer) -> None:
    assert LogState().chain == CHAIN_START == bytes(32)
