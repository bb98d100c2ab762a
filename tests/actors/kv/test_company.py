"""Records that wait for company: the rule by itself, and on a log that takes several records at once, each for long."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kv import commands as module
from actors.kv.commands import Commands, NotSent, Reads, Turn
from actors.kv.company import ALONE_MAX, ALONE_MIN, Company
from actors.kv.state import KvFold
from streams.events import log as log_says
from streams.events.base import encode, say
from streams.log.memory import MemoryLog
from streams.records import Record
from streams.replay import LEVEL
from tests.actors.kv.test_commands import CLIENTS, ROUNDS, a_record_for_each_round
from tests.actors.test_shell import LOG_ID, Node, put, until

#: A power of two: sums of it are exact.
PATIENCE_S = 1 / 256


def test_waits_for_those_who_were_answered_and_no_longer_than_they_take() -> None:
    company = Company()
    assert company.lacks_s(0.0, PATIENCE_S) == 0, "nobody was answered"
    company.answered([0, 1, 2, 1], 10.0)
    assert company.lacks_s(10.001, PATIENCE_S) == pytest.approx(PATIENCE_S - 0.001)
    company.came(1)
    assert company.lacks_s(10.002, PATIENCE_S) == pytest.approx(PATIENCE_S - 0.002)
    company.came(2)
    assert company.lacks_s(10.002, PATIENCE_S) == 0
    assert company.haste == ALONE_MIN, "the wait was worth it"
    company.answered([0, 0], 20.0)
    assert company.lacks_s(20.0, PATIENCE_S) == 0, "nobody of these can come again"


def test_after_a_wait_in_vain_so_many_records_go_at_once_and_ever_more() -> None:
    company, now_s, expected = Company(), 0.0, ALONE_MIN
    for _ in range(9):
        company.answered([1], now_s)
        assert company.lacks_s(now_s, PATIENCE_S) == PATIENCE_S
        now_s += PATIENCE_S
        assert company.lacks_s(now_s, PATIENCE_S) == 0
        for _ in range(expected):
            assert company.is_hasty
            company.answered([1], now_s)
            assert company.lacks_s(now_s, PATIENCE_S) == 0
        assert not company.is_hasty
        expected = min(2 * expected, ALONE_MAX)
        assert company.haste == expected
    company.answered([1], now_s)
    assert company.lacks_s(now_s, PATIENCE_S) > 0
    company.came(1)
    assert company.lacks_s(now_s, PATIENCE_S) == 0
    assert company.haste == ALONE_MIN, "whoever comes again makes it patient again"


@given(st.lists(st.tuples(st.sampled_from("acl"), st.integers(0, 3), st.integers(0, 40)), max_size=60))
def test_never_asks_for_more_than_its_patience(steps: list[tuple[str, int, int]]) -> None:
    """And for nothing once that is over, whoever comes and goes."""
    company, now_s, answered_s = Company(), 0.0, 0.0
    for what, who, passed in steps:
        now_s += passed / 4096
        if what == "a":
            company.answered([who], now_s)
            answered_s = now_s
        elif what == "c":
            company.came(who)
        else:
            lacks_s = company.lacks_s(now_s, PATIENCE_S)
            assert 0 <= lacks_s <= PATIENCE_S
            assert lacks_s == 0 or now_s < answered_s + PATIENCE_S


class FarLog(MemoryLog):
    """Each append takes LASTS_S, several at once; to know the end isn't enough to read."""

    LASTS_S = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.appends = 0
        self.under_way = self.most_under_way = 0

    @property
    def end_is_linearizable(self) -> bool:
        return False

    async def append(self, records: Sequence[Record]) -> list[int]:
        self.appends += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.LASTS_S)
        self.under_way -= 1
        return await super().append(records)


@pytest.fixture
async def far(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """A node on a far log; who comes again may take long, for tests run on busy machines."""
    monkeypatch.setattr(module, "COMPANY_S", 0.25)
    monkeypatch.setattr(module, "COMPANY_MAX_S", 0.25)
    log = FarLog()
    payload = encode([say(log_says.LogOpened(id=LOG_ID, level=LEVEL))])
    await log.append([Record(LOG_ID, "log", "node@founder", 1, 1, 0, payload)])
    made = await Node(log, "a", 0, KvFold()).live()
    log.appends = log.most_under_way = 0
    yield made
    made.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await made.task


async def test_commands_of_those_who_come_again_share_a_record(far: Node) -> None:
    await a_record_for_each_round(far)


async def test_a_second_record_is_under_way_when_many_wait(far: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(far.log, FarLog)
    commands, done = Commands(far.shell), list[object]()
    for number in range(3):
        commands.submit(put(f"a{number}", "v"), 100, done.append, 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await until(lambda: len(done) == 3)
    assert (far.log.appends, far.log.most_under_way) == (2, 1), "two of three waited for the first"
    commands.submit(put("b", "v"), 100, done.append, 0)
    await until(lambda: far.log.under_way == 1)
    for number in range(module.SECOND_MIN):
        commands.submit(put(f"c{number}", "v"), 100, done.append, 0)
    await until(lambda: len(done) == 4 + module.SECOND_MIN)
    assert far.log.most_under_way == 2
    commands.submit(put("d", "v"), 100, done.append, 0)
    await until(lambda: far.log.under_way == 1)
    far.log.most_under_way = 1
    for number in range(2):
        commands.submit(put(f"e{number}", "v"), module.BATCH_BYTES_MAX, done.append, 0)
    await until(lambda: len(done) == 7 + module.SECOND_MIN)
    assert far.log.most_under_way == 2, "a few large ones are many, too"
    commands.close()


async def test_reads_of_those_who_come_again_share_a_barrier(far: Node) -> None:
    assert isinstance(far.log, FarLog)
    reads, left = Reads(far.shell, Turn()), dict.fromkeys(range(1, CLIENTS + 1), ROUNDS)
    loop = asyncio.get_running_loop()

    def ask(who: int) -> None:
        def answered(error: NotSent | None) -> None:
            assert error is None
            left[who] -= 1
            if left[who]:
                loop.call_later(0.001 * (who % 4), ask, who)

        reads.linearizable(answered, who)

    for who in left:
        ask(who)
    await until(lambda: not any(left.values()))
    assert far.log.appends <= ROUNDS + CLIENTS, "a barrier for each round, the end apart"
    reads.close()


async def test_a_read_alone_waits_for_nobody(far: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPANY_S", 60.0)
    monkeypatch.setattr(module, "COMPANY_MAX_S", 60.0)
    reads, told = Reads(far.shell, Turn()), list[NotSent | None]()
    for number in range(5):
        reads.linearizable(told.append, 1)
        await until(lambda number=number: len(told) == number + 1)  # type: ignore[misc]
    assert told == [None] * 5
    reads.close()
