"""The host under troubles that no log needs to be there for: what is refused, repeated, too large or given up."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from actors.host import IDLE, Append, Host, Now, Plan, Superseded
from actors.shell import Shell
from streams.events import encode, say
from streams.events import kv as kv_says
from streams.events import log as says
from streams.events.base import Event
from streams.log.memory import MemoryLog
from streams.log.port import RECORD_BYTES_MAX, LogUnavailable
from streams.records import Entry, Record
from streams.replay import LEVEL, Applied, Replica
from tests.folds import LOG, Counting

NOW = Now(1.0, 0)
WRITER = "kv@m"


class Deciding:
    """Decides by a function; notes what landed."""

    name = "kv"

    def __init__(self, decide: Callable[[Now], Plan] = lambda _now: IDLE) -> None:
        self._decide, self.plans = decide, list[int]()

    def live(self, replica: Replica, now: Now) -> None:
        """Nothing."""

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        """Nothing."""

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        self.plans.append(len(events))

    def noticed(self, observation: Any, now: Now) -> None:
        """Nothing."""

    def decide(self, replica: Replica, now: Now) -> Plan:
        return self._decide(now)


def founded() -> Record:
    return Record(LOG, "log", "node@founder", 1, 1, 0, encode([say(says.LogOpened(id=LOG, level=LEVEL))]))


class World:
    """A host and its log."""

    def __init__(self, actor: Deciding | None = None) -> None:
        nonces = iter(range(10**6))
        self.actor = actor or Deciding()
        self.host = Host(self.actor, Replica(Counting()), WRITER, lambda: f"n{next(nonces)}")
        self.end = 0
        self.put(founded())
        self.host.begin(1, NOW)

    def put(self, record: Record) -> None:
        entry = Entry(self.end, record.canonical())
        self.end += 1
        self.host.delivered([entry], NOW)

    def appends(self) -> list[Append]:
        outbox, self.host.outbox = self.host.outbox, []
        return [output for output in outbox if isinstance(output, Append)]

    def land(self) -> list[Record]:
        records = [record for append in self.appends() for record in append.records]
        for record in records:
            self.put(record)
        return records


def command(key: str) -> Event:
    return say(kv_says.Set(key=key), principal="uid:0")


def test_a_plan_of_more_than_a_record_holds_is_several_and_lands_as_one() -> None:
    plans = [Plan([command(f"/{number:03d}" + "x" * 60_000) for number in range(100)])]
    world = World(Deciding(lambda _now: plans.pop() if plans else IDLE))
    world.land()
    records = world.land()
    assert len(records) > 1
    assert all(len(record.canonical()) < RECORD_BYTES_MAX for record in records)
    assert world.actor.plans == [100]
    assert len(world.host.replica.fold.keys) == 100  # type: ignore[attr-defined]


def test_a_log_that_refuses_openings_leaves_no_nonces_behind() -> None:
    world = World()
    for number in range(100):
        for append in world.appends():
            world.host.refused(append, LogUnavailable("down"), Now(1.0 + number, 0))
        world.host.tick(Now(1.5 + number, 0))
    assert len(world.host._nonces) <= 1
    world.land()
    assert world.host.live


def assert_superseded(world: World) -> None:
    """By the same actor of another process."""
    opening = say(says.ActorOpened(nonce="another process", level=LEVEL))
    with pytest.raises(Superseded):
        world.put(Record(LOG, "log", WRITER, 2, 1, 0, encode([opening])))


def test_an_opening_that_the_log_has_twice_is_superseded_as_any() -> None:
    world = World()
    (opening,) = world.land()
    world.put(opening)
    assert world.host.live
    assert_superseded(world)


def test_an_opening_of_unknown_outcome_that_lands_is_superseded_as_any() -> None:
    world = World()
    (append,) = world.appends()
    world.host.unknown(append, LogUnavailable("no answer"), NOW)
    world.put(append.records[0])
    assert world.host.live
    assert_superseded(world)


def test_what_was_not_handed_over_can_be_withdrawn_and_nothing_else() -> None:
    world = World()
    waits, later, sent = command("/waits"), command("/later"), command("/sent")
    told: list[Any] = []
    world.host.submit([waits], told.append, NOW)
    world.host.submit([later], told.append, NOW)
    assert world.host.withdraw(waits)
    assert not world.host.withdraw(waits)
    world.land()
    world.land()
    assert world.host.replica.fold.keys == ["/later"]  # type: ignore[attr-defined]
    world.host.submit([sent], told.append, NOW)
    assert not world.host.withdraw(sent)
    world.land()
    assert len(told) == 2


@pytest.mark.parametrize("by", ["timer", "notice"])
async def test_a_decision_that_fails_ends_the_actor_whatever_asked_for_it(by: str) -> None:
    fails = False

    def decide(now: Now) -> Plan:
        if fails:
            raise KeyError("a bug")
        return Plan(wake_at_s=now.boot_s + 0.01) if by == "timer" else IDLE

    log = MemoryLog()
    await log.append([founded()])
    host = Host(Deciding(decide), Replica(Counting()), WRITER, lambda: "n")
    shell = Shell(host, log, _no_effects)
    task = asyncio.ensure_future(shell.run())
    async with asyncio.timeout(30):
        while not host.live:
            await asyncio.sleep(0.001)
        fails = True
        if by == "notice":
            shell.notice("something")
        with pytest.raises(KeyError, match="a bug"):
            await task


async def _no_effects(effect: object, notice: object) -> None:
    raise AssertionError(effect)
