"""Shells that apply their own records when these are durable: the same as what the log gives to anybody else."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.host import IDLE, Host, Now, Plan, Unwritten
from actors.kv.state import KvFold
from actors.shell import Shell
from streams.events import kv3 as says
from streams.events import log as log_says
from streams.events.base import Event, encode, say
from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.log.segments import SegmentsLog, files
from streams.log.segments.wakeups import Ringer
from streams.outcomes import Accepted, Outcome
from streams.records import Record
from streams.replay import LEVEL, Applied, Context, Halt, Replica

LOG_ID = "7" * 32
TIMEOUT_S = 60.0


class Passive:
    """Decides nothing; notes what is applied."""

    name = "kv"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_inside = False

    def live(self, replica: Replica, now: Now) -> None:
        """Nothing."""

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        assert not self.is_inside, "calls into the host don't nest"
        self.is_inside = True
        self.seen += [str(one.position) for one in batch]
        self.is_inside = False

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        """Nothing."""

    def noticed(self, observation: Any, now: Now) -> None:
        """Nothing."""

    def decide(self, replica: Replica, now: Now) -> Plan:
        return IDLE


class Node:
    """One shell with a handle of its own on the log in ``folder``."""

    def __init__(self, log: Log, machine: str, still_max: int, fold: KvFold) -> None:
        self.log, self.actor, self.fold = log, Passive(), fold
        self.host = Host(self.actor, Replica(fold), f"kv@{machine * 32}", lambda: secrets.token_hex(8))
        self.shell = Shell(self.host, log, _no_effects, still_max=still_max)
        self.task = asyncio.ensure_future(self.shell.run())

    async def live(self) -> "Node":
        await until(lambda: self.host.live or self.task.done())
        return self

    async def put(self, key: str, value: str = "v") -> Applied:
        (applied,) = await self.shell.submit([put(key, value)])
        return applied


async def _no_effects(effect: object, notice: object) -> None:
    raise AssertionError(effect)


def put(key: str, value: str) -> Event:
    return say(says.Put(key=key, value=value), principal="uid:0")


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():
            await asyncio.sleep(0.002)


Make = Callable[..., Any]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Make]:
    folder, made = tmp_path / "log", []
    log = await SegmentsLog.open(folder)
    payload = encode([say(log_says.LogOpened(id=LOG_ID, level=LEVEL))])
    await log.append([Record(LOG_ID, "log", "node@founder", 1, 1, 0, payload)])
    await log.close()

    async def make(machine: str, still_max: int = 1, fold: KvFold | None = None) -> Node:
        log = await SegmentsLog.open(folder, {"segment_bytes": "65536"})
        made.append(Node(log, machine, still_max, fold or KvFold()))
        return await made[-1].live()

    yield make
    for one in made:
        one.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Halt):
            await one.task
        await one.log.close()


async def replayed(log: Log, end: int) -> Replica:
    """What anybody makes of the log's bytes."""
    replica = Replica(KvFold())
    async with contextlib.aclosing(log.tail(0)) as tail:
        async for batch in tail:
            for entry in batch:
                replica.apply(entry)
            if replica.offset + 1 >= end:
                return replica
    raise AssertionError("the log was closed")


@pytest.mark.parametrize("still_max", [0, 1])
async def test_two_writers_and_a_reader_of_the_log_come_to_the_same(node: Make, still_max: int) -> None:
    one, two = await node("a", still_max), await node("b", 1 - still_max)

    async def client(of: Node, number: int, count: int) -> None:
        for turn in range(count):
            applied = await of.put(f"k{number}", f"{number}.{turn}")
            assert applied.event.data.value == f"{number}.{turn}", "each is told of its own"
            assert isinstance(applied.outcome, Accepted)
            if turn % 10 == number:
                await asyncio.sleep(0.001)

    await asyncio.gather(client(one, 1, 150), client(one, 2, 20), *(client(two, number, 30) for number in (3, 4, 5)))
    end = await one.log.end()
    await until(lambda: one.host.replica.offset == two.host.replica.offset == end - 1)
    told = await replayed(two.log, end)
    hashes = {told.state_hash(), one.host.replica.state_hash(), two.host.replica.state_hash()}
    assert len(hashes) == 1
    assert one.actor.seen == two.actor.seen, "all events once, in the log's order"
    assert not one.shell._own
    assert one.fold.v3.revs.revision == 1 + 150 + 20 + 90


@pytest.mark.parametrize("still_max", [0, 1])
async def test_an_own_record_waits_for_others_that_stand_before_it(
    node: Make, still_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody rings: all that tells of the other's record is the gap before the own one."""
    one, two = await node("a", still_max), await node("b")
    await one.put("k", "1")
    monkeypatch.setattr(Ringer, "ring", lambda self, own="": None)
    for turn in range(20):
        theirs = await two.put("k", f"theirs {turn}")
        ours = await asyncio.wait_for(one.put("k", f"ours {turn}"), TIMEOUT_S)
        assert ours.position > theirs.position
        assert one.fold.v3.revs.newest[b"k"].version == 2 * turn + 3


async def test_alone_no_other_thread_takes_part(node: Make) -> None:
    one = await node("a")
    commits = one.log._commits
    for turn in range(20):
        handed = commits._under_way, commits._committer
        await one.put("k", str(turn))
        if commits._is_quick:
            assert (commits._under_way, commits._committer) == handed


async def test_a_read_between_puts_is_served_while_the_next_put_syncs(
    node: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads isn't to wait for a sync: then the loop goes on."""
    one = await node("a")
    loop_thread, real, where = asyncio.get_running_loop(), files.sync_data, []

    def noted(fd: int) -> None:
        with contextlib.suppress(RuntimeError):
            where.append(asyncio.get_running_loop() is loop_thread)
            real(fd)
            return
        where.append(False)
        real(fd)

    monkeypatch.setattr(files, "sync_data", noted)
    one.log._commits._is_quick = True
    await one.shell.barrier()
    await one.put("k", "1")
    assert where == [False]
    one.log._commits._is_quick = True
    await one.put("k", "2")
    assert where == [False, True]


class Poisoned(KvFold):
    """Has a bug at one key."""

    def evolve_many(self, events: Any, record: Any, log: Any, one: Any, results: bool) -> list[Outcome]:
        return [one(event, index) for index, event in enumerate(events)]

    def evolve(self, event: Event, context: Context) -> Outcome:
        if isinstance(event.data, says.Put) and event.data.key == "poison":
            raise ValueError("a bug")
        return super().evolve(event, context)


@pytest.mark.parametrize("still_max", [0, 1])
async def test_an_own_record_that_halts_the_replica_ends_its_actor(node: Make, still_max: int) -> None:
    one = await node("a", still_max, Poisoned())
    await one.put("k", "1")
    with contextlib.suppress(Exception):
        await asyncio.wait_for(one.put("poison"), TIMEOUT_S)
    with pytest.raises(Halt, match="ValueError: a bug"):
        await asyncio.wait_for(one.task, TIMEOUT_S)


class Rewriting(MemoryLog):
    """As Kafka's producer when a leader is lost: it writes again what was under way, and one record behind later ones.

    A put of "late" waits until another one was appended; each record stands there twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.other = asyncio.Event()

    async def append(self, records: Sequence[Record]) -> list[int]:
        if b'"late"' in records[0].payload:
            await self.other.wait()
        offsets = await super().append(records)
        if records[0].stream == "kv":
            await super().append(records)
            self.other.set()
        return offsets


async def test_what_the_log_has_twice_or_out_of_order_counts_once_or_is_told_as_unwritten() -> None:
    log = Rewriting()
    payload = encode([say(log_says.LogOpened(id=LOG_ID, level=LEVEL))])
    await log.append([Record(LOG_ID, "log", "node@founder", 1, 1, 0, payload)])
    node = await Node(log, "a", 0, KvFold()).live()
    late = asyncio.ensure_future(node.put("late"))
    await asyncio.sleep(0)
    for number in range(5):
        applied = await node.put("k", str(number))
        assert isinstance(applied.outcome, Accepted)
    with pytest.raises(Unwritten, match="void for ever"):
        await late
    assert node.host.live, "it goes on"
    assert (await node.put("k", "last")).outcome
    end = await log.end()
    await until(lambda: node.host.replica.offset == end - 1)
    told = await replayed(log, end)
    assert told.fold.v3.revs.revision == node.fold.v3.revs.revision == 7  # type: ignore[attr-defined]
    assert told.state_hash() == node.host.replica.state_hash()
    assert told.log.writers[node.host.writer].repeats == 8
    node.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await node.task
