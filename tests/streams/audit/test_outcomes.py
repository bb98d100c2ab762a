"""The outcomes topic has each command's outcome, in order, whoever was master when: no gap, and what is written twice
is dropped by readers."""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streams.audit import outcomes
from streams.audit.lines import Line, line_of
from streams.audit.outcomes import GAP, MARK, Feed, OutcomeSink, Unique, replayed_lines
from streams.events import encode, kv, say
from streams.events import log as log_says
from streams.log.memory import MemoryLog
from streams.log.port import LogUnavailable, OutcomeUnknown
from streams.outcomes import Accepted, Rejected
from streams.records import Position, Record
from streams.replay import Halt, Replica
from tests.folds import LOG, Counting


class Topic:
    """The outcomes topic in memory, with a fault script: a write may fail with any prefix of it done."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self.lines: list[tuple[str, Line]] = []
        self.chance = chance
        self.opened = 0

    async def open(self) -> "Topic":
        self.opened += 1
        if self.chance and self.chance.random() < 0.2:
            raise LogUnavailable("nobody answers")
        return self

    async def last(self, fold: str) -> Position | None:
        return max((line.at for key, line in self.lines if key == fold), default=None)

    async def write(self, fold: str, lines: Sequence[Line]) -> None:
        await asyncio.sleep(0)
        done = len(lines)
        if self.chance and self.chance.random() < 0.3:
            done = self.chance.randrange(len(lines) + 1)
        self.lines += [(fold, line) for line in lines[:done]]
        await asyncio.sleep(0)
        if done < len(lines):
            raise OutcomeUnknown("lost")

    async def close(self) -> None:
        return None

    def read(self) -> list[Line]:
        """As a reader sees it."""
        unique = Unique()
        return [line for fold, line in self.lines if unique.new(fold, line)]


class Node:
    """A replica with its feed and sink, on a log in memory."""

    def __init__(self, log: MemoryLog, topic: Topic, folder: Path, ring: int) -> None:
        self.log = log
        self.replica = Replica(Counting())
        self.feed = Feed("kv", ring)
        self.master = False
        self.live = False
        replayed = partial(replayed_lines, log, Counting, folder, LOG, lambda: self.replica.log.voided)
        self.sink = OutcomeSink(self.feed, topic.open, replayed, lambda: self.master)
        self.tasks = [asyncio.ensure_future(self.sink.run()), asyncio.ensure_future(self._follow())]

    async def _follow(self) -> None:
        async for batch in self.log.tail(0):
            for entry in batch:
                self.feed.applied(self.replica.apply(entry), self.live)
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "RETRY_S", 0.001)
    monkeypatch.setattr(outcomes, "PACE_S", 0.001)


async def founded() -> MemoryLog:
    log = MemoryLog()
    for payload in (log_says.LogOpened(id=LOG), log_says.ActorOpened(nonce="n")):
        await log.append([Record(LOG, "log", "kv@w", 1, 1, 0, encode([say(payload)]))])
    return log


async def command(log: MemoryLog, key: str, count: int = 1) -> None:
    events = [say(kv.Set(f"{key}.{index}"), principal="uid:0") for index in range(count)]
    await log.append([Record(LOG, "kv", "kv@w", 1, 1, 0, encode(events))])


def expected(log: MemoryLog) -> list[Line]:
    replica = Replica(Counting())
    return [
        line_of(one)
        for entry in log.entries
        for one in replica.apply(entry)
        if one.record.stream == "kv" and one.event.data.COMMAND
    ]


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("seed", range(25))
async def test_outcomes_have_no_gap_and_one_order_over_fail_overs(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    log, topic = await founded(), Topic(chance)
    nodes = [Node(log, topic, tmp_path, ring=chance.choice([2, 20, 1000])) for _ in range(3)]
    for turn in range(60):
        await command(log, f"/{turn}", chance.randrange(1, 5))
        node = chance.choice(nodes)
        what = chance.random()
        if what < 0.15:
            # a fail-over; now and then the old master doesn't know yet, and two write
            for other in nodes:
                other.master = other is node or (other.master and chance.random() < 0.3)
        elif what < 0.25:
            node.live = chance.random() < 0.8
        elif what < 0.3:
            await node.stop()
            nodes[nodes.index(node)] = Node(log, topic, tmp_path, ring=20)
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
    topic.chance = None
    for node in nodes:
        node.master = node is nodes[0]
    every = expected(log)
    await until(lambda: topic.lines and max(line.at for _, line in topic.lines) == every[-1].at)
    for node in nodes:
        await node.stop()
    assert topic.read() == every


async def test_nothing_is_written_by_who_is_not_master(tmp_path: Path) -> None:
    log, topic = await founded(), Topic()
    node = Node(log, topic, tmp_path, ring=10)
    await command(log, "/a", 3)
    await until(lambda: node.replica.offset == 2)
    await asyncio.sleep(0.02)
    assert (topic.lines, topic.opened) == ([], 0)
    node.master = True
    await until(lambda: len(topic.lines) == 3)
    await node.stop()


async def test_a_fold_that_moves_without_commands_leaves_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "MARK_S", 0.01)
    log, topic = await founded(), Topic()
    node = Node(log, topic, tmp_path, ring=10)
    node.master = node.live = True
    await command(log, "/a")
    await log.append([Record(LOG, "kv", "kv@w", 1, 1, 0, encode([say(kv.Expired("/a", 1, 1))]))])
    await until(lambda: any(line.type == MARK for _, line in topic.lines))
    assert [line.position for line in topic.read()] == ["2.0"]
    assert await topic.last("kv") == Position(3, 0)
    await node.stop()


async def test_a_log_trimmed_below_what_was_written_is_told_as_a_gap(tmp_path: Path) -> None:
    log, topic = await founded(), Topic()
    for number in range(6):
        await command(log, f"/{number}")
    topic.lines.append(("kv", Line("3.0", "kv.set.v1", "accepted")))
    feed = Feed("kv")
    replica = Replica(Counting())
    for entry in log.entries:
        feed.applied(replica.apply(entry), live=False)
    await log.trim(6)
    sink = OutcomeSink(feed, topic.open, partial(replayed_lines, log, Counting, tmp_path, LOG, dict), lambda: True)
    task = asyncio.ensure_future(sink.run())
    await until(lambda: len(topic.lines) == 2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    gap = topic.lines[1][1]
    assert (gap.type, gap.position, gap.code) == (GAP, "7.0", "gap")
    assert "3.0" in gap.message


async def test_a_replica_that_began_with_a_snapshot_knows_what_it_does_not_have(tmp_path: Path) -> None:
    log, topic = await founded(), Topic()
    for number in range(4):
        await command(log, f"/{number}")
    replica = Replica(Counting())
    for entry in log.entries:
        replica.apply(entry)
    feed = Feed("kv")
    await command(log, "/late")
    feed.applied(replica.apply(log.entries[-1]), live=True)
    calls: list[tuple[Position, Position]] = []

    async def replayed(above: Position, upto: Callable[[], Position]) -> AsyncGenerator[list[Line], None]:
        calls.append((above, upto()))
        async with contextlib.aclosing(replayed_lines(log, Counting, tmp_path, LOG, dict, above, upto)) as found:
            async for lines in found:
                yield lines

    task = asyncio.ensure_future(OutcomeSink(feed, topic.open, replayed, lambda: True).run())
    await until(lambda: len(topic.lines) == 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert topic.read() == expected(log)
    assert len(calls) == 1


async def test_lines_are_told_some_times_a_second_and_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "PACE_S", 1.0)
    monkeypatch.setattr(outcomes, "BATCH_LINES", 50)
    monkeypatch.setattr(outcomes, "SLICE_LINES", 20)
    log, topic = await founded(), Topic()
    writes: list[int] = []
    write = topic.write

    async def counted(fold: str, lines: Sequence[Line]) -> None:
        writes.append(len(lines))
        await write(fold, lines)

    monkeypatch.setattr(topic, "write", counted)
    node = Node(log, topic, tmp_path, ring=1000)
    node.master = node.live = True
    await command(log, "/first")
    await until(lambda: writes == [1])
    for number in range(10):
        await command(log, f"/{number}")
        await asyncio.sleep(0.001)
    await until(lambda: sum(writes) == 11)
    assert len(writes) <= 3, "they wait for each other"
    await command(log, "/many", 120)
    await until(lambda: topic.read() == expected(log))
    assert writes[-2:] == [60, 60]
    await node.stop()


async def test_what_is_kept_for_a_fail_over_is_bounded_by_events_and_bytes() -> None:
    log = await founded()
    for number in range(9):
        await command(log, f"/{number}", 3)
    replica = Replica(Counting())
    batches = [replica.apply(entry) for entry in log.entries]
    size = sum(len(one[0].record.payload) for one in batches[-2:])
    for feed in (Feed("kv", 7), Feed("kv", bytes_max=size)):
        for batch in batches:
            feed.applied(batch, live=True)
        assert (feed.start, feed.end) == (Position(8, 2), Position(10, 2))
        assert [line.position for line in feed.after(Position(9, 1))] == ["9.2", "10.0", "10.1", "10.2"]
        assert [line.position for line in feed.after(Position(9, 2))] == ["10.0", "10.1", "10.2"]
        assert feed.start == Position(8, 2), "what was asked for is written only later"
        feed.written(Position(9, 1))
        assert feed.start == Position(8, 2)
        feed.written(Position(9, 2))
        assert feed.start == Position(9, 2)


async def test_who_catches_up_follows_what_the_replica_drops_meanwhile(tmp_path: Path) -> None:
    log = await founded()
    for number in range(9):
        await command(log, f"/{number}", 2)
    # began with a snapshot: the first record that it knows is not whole below where it starts
    uptos = iter([Position(4, -1), Position(7, 1), Position(7, 1)])
    found = replayed_lines(log, Counting, tmp_path, LOG, dict, Position(2, 0), lambda: next(uptos))
    lines = [line async for part in found for line in part]
    assert [line.position for line in lines] == ["2.1", *(f"{at}.{index}" for at in range(3, 8) for index in range(2))]


async def test_a_record_that_an_operator_voided_does_not_end_the_trail(tmp_path: Path) -> None:
    log = await founded()
    await command(log, "/1")
    lost = log.put(b"CORELOG 2 of a version to come\n[]")
    await command(log, "/2")
    upto = (Position(1, 0), lambda: Position(4, 0))
    found = replayed_lines(log, Counting, tmp_path, LOG, lambda: {lost: "it can't be read"}, *upto)
    assert [line.position async for part in found for line in part] == ["2.0", "4.0"]
    with pytest.raises(Halt, match="format 2"):
        async for _ in replayed_lines(log, Counting, tmp_path, LOG, dict, *upto):
            pass


async def test_a_disk_that_fails_for_a_moment_does_not_end_the_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "RETRY_S", 0.01)
    log, topic = await founded(), Topic()
    for number in range(9):
        await command(log, f"/{number}")
    restore, failed = outcomes.snapshots.restore, list[int]()

    def pruned(*words: Any, **more: Any) -> Replica:
        if len(failed) < 3:
            failed.append(1)
            raise FileNotFoundError("the snapshotter pruned it")
        return restore(*words, **more)

    monkeypatch.setattr(outcomes.snapshots, "restore", pruned)
    node = Node(log, topic, tmp_path, ring=2)
    await until(lambda: node.replica.offset == 10)
    node.master = True
    await until(lambda: len(topic.read()) >= 9)
    assert len(failed) == 3
    await node.stop()


async def test_who_is_behind_catches_up_once_though_more_comes_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "BATCH_LINES", 10)
    monkeypatch.setattr(outcomes, "SLICE_LINES", 5)
    log, topic = await founded(), Topic()
    for number in range(300):
        await command(log, f"/{number}")
    node = Node(log, topic, tmp_path, ring=8)
    node.live = True
    await until(lambda: node.replica.offset == 301)
    caught_up = 0
    replayed, write = node.sink._replayed, topic.write

    def counted(above: Position, upto: Callable[[], Position]) -> AsyncGenerator[list[Line], None]:
        nonlocal caught_up
        caught_up += 1
        return replayed(above, upto)

    async def slow(fold: str, lines: Sequence[Line]) -> None:
        if len(log.entries) < 900:
            for number in range(7):
                await command(log, f"/more/{len(log.entries)}/{number}")
            await until(lambda: node.feed.end.offset == len(log.entries) - 1)
        await write(fold, lines)

    monkeypatch.setattr(node.sink, "_replayed", counted)
    monkeypatch.setattr(topic, "write", slow)
    node.master = True
    await until(lambda: len(log.entries) >= 900 and topic.read() == expected(log))
    assert caught_up == 1
    await node.stop()


async def test_an_old_master_that_catches_up_stops_when_it_is_deposed(tmp_path: Path) -> None:
    log, topic = await founded(), Topic()
    for number in range(50):
        await command(log, f"/{number}")
    node = Node(log, topic, tmp_path, ring=8)
    await until(lambda: node.replica.offset == 51)
    replayed = node.sink._replayed

    async def deposed(above: Position, upto: Callable[[], Position]) -> AsyncGenerator[list[Line], None]:
        async for lines in replayed(above, upto):
            node.master = False
            yield lines

    node.sink._replayed = deposed
    node.master = True
    await until(lambda: topic.opened == 1 and not node.master)
    await asyncio.sleep(0.02)
    assert (topic.lines, node.sink.written) == ([], outcomes.START)
    await node.stop()


async def test_results_are_not_kept_with_what_was_applied() -> None:
    log = await founded()
    await command(log, "/a", 2)
    replica = Replica(Counting())
    batch = [one for entry in log.entries for one in replica.apply(entry) if one.record.stream == "kv"]
    large, refused = Accepted(bytearray(1000)), Rejected("no", "not so")
    feed = Feed("kv")
    feed.applied([batch[0]._replace(outcome=large), batch[1]._replace(outcome=refused)], live=True)
    assert sys.getrefcount(large) == 2, "its own name, and the call's"
    assert [line.code for line in feed.after(feed.start)] == ["", "no"]


@pytest.mark.parametrize("acted", [True, False])
async def test_what_a_sealed_log_had_last_is_told_by_who_was_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acted: bool
) -> None:
    monkeypatch.setattr(outcomes, "PACE_S", 0.2)
    log, topic = await founded(), Topic()
    node = Node(log, topic, tmp_path, ring=100)
    node.live, node.master = True, acted
    await command(log, "/first")
    if acted:
        await until(lambda: topic.lines)
    await command(log, "/last")
    await until(lambda: node.feed.end.offset == 3)
    node.master = False  # by the seal
    await node.sink.rest()
    assert [line.position for line in topic.read()] == (["2.0", "3.0"] if acted else [])
    await node.stop()
