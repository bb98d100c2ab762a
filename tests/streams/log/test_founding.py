"""The first log.opened founds the log."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.log.founding import expected, found, identity
from streams.log.memory import MemoryLog
from streams.log.port import ForeignLog, OutcomeUnknown
from streams.log.segments import SegmentsLog
from streams.records import Record
from streams.replay import Replica
from tests.folds import Counting


async def test_three_nodes_that_race_agree_on_one_id(tmp_path: Path) -> None:
    handles = [await SegmentsLog.open(tmp_path / "log") for _ in range(3)]
    winners = await asyncio.gather(*(found(log, "aa" * 32, writer=f"node@m{n}") for n, log in enumerate(handles)))
    assert len({winner.id for winner in winners}) == 1
    assert [await identity(log) for log in handles] == winners
    replica = Replica(Counting())
    async for batch in handles[0].tail(0):
        for entry in batch:
            replica.apply(entry)
        if replica.offset + 1 == await handles[0].end():
            break
    assert replica.log.log_id == winners[0].id, "replicas take the same one"
    for log in handles:
        await log.close()


async def test_a_founded_log_is_not_written_again() -> None:
    log = MemoryLog()
    first = await found(log, "aa" * 32, "cd" * 16)
    assert first.id == "cd" * 16
    assert await found(log, "bb" * 32, "ef" * 16) == first
    assert await log.end() == 1


async def test_foreign_records_before_the_founding_are_passed() -> None:
    log = MemoryLog()
    log.put(b"hello")
    opened = await found(log)
    assert await identity(log) == opened


async def test_a_lost_answer_founds_one_log() -> None:
    lost = [True, True]

    def fault(records: Sequence[Record]) -> OutcomeUnknown | None:
        return OutcomeUnknown("no answer") if lost and lost.pop() else None

    log = MemoryLog(fault)
    opened = await found(log, log_id="cd" * 16)
    assert opened.id == "cd" * 16
    assert await log.end() == 3


async def test_an_expected_log_that_is_empty_or_another_is_refused() -> None:
    log = MemoryLog()
    with pytest.raises(ForeignLog, match=f"empty, but log {'ab' * 16}"):
        await expected(log, "ab" * 16)
    assert await log.end() == 0
    await found(log, log_id="cd" * 16)
    with pytest.raises(ForeignLog, match=f"{'cd' * 16}.*{'ab' * 16}"):
        await expected(log, "ab" * 16)
    assert (await expected(log, "cd" * 16)).id == "cd" * 16


@pytest.mark.parametrize("raw", [b"CORELOG 2 x\n[]", b"CORELOG 1 x\n[]"])
async def test_what_cannot_be_read_before_the_founding_is_told(raw: bytes) -> None:
    log = MemoryLog()
    log.put(raw)
    with pytest.raises(ForeignLog, match="record 0"):
        await found(log)
    assert await log.end() == 1


async def test_a_trimmed_log_tells_its_id_and_takes_no_losers_word() -> None:
    log = MemoryLog()
    opened = await found(log, "aa" * 32, "cd" * 16)
    record = Record(opened.id, "kv", "kv@m", 1, 1, 1, b"[]")
    await log.append([record, record])
    loser = Record("ef" * 16, "log", "node@x", 1, 1, 1, b'[{"type":"log.opened.v1","data":{"id":"%s"}}]' % (b"ef" * 16))
    await log.append([loser, record])
    await log.trim(1)
    trimmed = await identity(log)
    assert trimmed is not None
    assert (trimmed.id, trimmed.operator_key) == (opened.id, "")
