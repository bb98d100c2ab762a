"""Instants, differences and causes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import log as says
from streams.events import say
from streams.history.at import BadInstant, from_the_oldest, parse_instant, state_at
from streams.history.diff import ABSENT, diff
from streams.history.why import why
from streams.log.memory import MemoryLog
from streams.log.port import LogTruncated
from streams.records import Position
from streams.snapshots import write
from tests.folds import LOG, Counting, Writer, opened, put

NOW = 1_795_460_339_000


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("12.3", Position(12, 3)),
        ("12", Position(12, 0)),
        ("2 minutes ago", NOW - 120_000),
        ("90s ago", NOW - 90_000),
        ("1.5 h ago", NOW - 5_400_000),
        ("@1000", 1_000_000),
        ("now", NOW),
        ("2026-11-23T12:00:00Z", 1_795_435_200_000),
        ("2026-11-23T12:00:00+01:00", 1_795_431_600_000),
    ],
)
def test_an_instant_is_a_position_or_a_time(text: str, instant: object) -> None:
    assert parse_instant(text, NOW) == instant


@given(st.text(max_size=30))
def test_any_other_text_is_a_bad_instant_and_nothing_else(text: str) -> None:
    try:
        parse_instant(text, NOW)
    except BadInstant as error:
        assert repr(text.strip()) in str(error)


def memory_log() -> MemoryLog:
    log, memory = Writer(), MemoryLog()
    memory.put(log.entry(say(says.LogOpened(id=LOG)), writer="node@m").raw)
    memory.put(log.entry(opened()).raw)
    for number in range(8):
        memory.put(log.entry(put(f"/{number}a"), put(f"/{number}b")).raw)
    return memory


async def test_the_state_at_a_position_includes_it_and_nothing_after(tmp_path: object) -> None:
    memory = memory_log()
    replica = await state_at(memory, Counting, Position(3, 0))
    assert replica.fold.keys == ["/0a", "/0b", "/1a"]  # type: ignore[attr-defined]
    whole = await state_at(memory, Counting)
    assert len(whole.fold.keys) == 16  # type: ignore[attr-defined]


async def test_a_snapshot_only_makes_it_faster(tmp_path: object) -> None:
    memory = memory_log()
    halfway = await state_at(memory, Counting, Position(5, 1))
    write(tmp_path, halfway)  # type: ignore[arg-type]
    for position in (Position(4, 1), Position(5, 0), Position(5, 1), Position(6, 0), Position(9, 1)):
        plain = await state_at(memory, Counting, position)
        quick = await state_at(memory, Counting, position, snapshots_folder=tmp_path)  # type: ignore[arg-type]
        assert plain.fold.keys == quick.fold.keys  # type: ignore[attr-defined]


async def test_a_time_is_the_running_maximum_of_record_times() -> None:
    memory = memory_log()  # times are 1000 + offset
    replica = await state_at(memory, Counting, 1003)
    assert replica.offset == 3
    assert (await state_at(memory, Counting, 5000)).offset == 9
    assert (await state_at(memory, Counting, 1)).offset == -1


async def test_beyond_the_end_is_a_bad_instant() -> None:
    with pytest.raises(BadInstant, match="beyond the end"):
        await state_at(memory_log(), Counting, Position(10, 0))


PLAIN = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


def patched(value: object, path: tuple[str, ...], after: object) -> object:
    if not path:
        return after
    assert isinstance(value, dict)
    copy = dict(value)
    if len(path) == 1 and after is ABSENT:
        del copy[path[0]]
    else:
        copy[path[0]] = patched(copy.get(path[0]), path[1:], after)
    return copy


@given(PLAIN, PLAIN)
def test_a_diff_applied_to_the_first_gives_the_second(before: object, after: object) -> None:
    value = before
    for change in diff(before, after):
        value = patched(value, change.path, change.after)
    assert value == after
    assert not list(diff(before, before))


async def test_why_tells_the_chain_down_to_the_principal() -> None:
    log, memory = Writer(), MemoryLog()
    memory.put(log.entry(say(says.LogOpened(id=LOG)), writer="node@m").raw)
    memory.put(log.entry(opened()).raw)
    memory.put(log.entry(put("/x", principal="uid:0")).raw)
    memory.put(log.entry(put("/y", principal="uid:7")).raw)
    memory.put(log.entry(put("/x", principal="token:ops", cause="3.0")).raw)
    steps = await why(memory, Counting, "key", "/x")
    assert [str(step.position) for step in steps] == ["2.0", "3.0", "4.0"]
    assert "token:ops" in steps[-1].words
    assert await why(memory, Counting, "key", "/nothing") == []


async def test_a_trimmed_log_is_told_from_its_oldest_snapshot_on(tmp_path: Path) -> None:
    memory = memory_log()
    seen: list[str] = []
    for offset in (3, 5, 7):
        write(tmp_path, await state_at(memory, Counting, Position(offset, 1)))
    await memory.trim(5)
    start = await from_the_oldest(memory, Counting, tmp_path, LOG)
    assert start.offset == 5
    replica = await state_at(
        memory, Counting, start=start, seen=lambda batch: seen.extend(str(one.position) for one in batch)
    )
    assert seen == [f"{offset}.{index}" for offset in (6, 7, 8, 9) for index in (0, 1)]
    assert len(replica.fold.keys) == 16  # type: ignore[attr-defined]
    with pytest.raises(LogTruncated, match="starts at 5"):
        await from_the_oldest(memory, Counting, tmp_path / "none", LOG)
