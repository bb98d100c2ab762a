"""What every driver of the log port must hold (streams/log/port.py)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from streams.log.port import RECORD_BYTES_MAX, Log, LogTruncated, RecordTooLarge
from streams.records import Entry
from tests.contract.drivers import Factory, Subject, parameters, record

WAIT_S = 60


@pytest.fixture(params=parameters())
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    factory: Factory = request.param
    async with factory(tmp_path) as made:
        yield made


@pytest.fixture
async def log(subject: Subject) -> AsyncIterator[Log]:
    opened = await subject.open()
    yield opened
    await opened.close()


async def take(log: Log, start: int, count: int, streams: Collection[str] | None = None) -> list[Entry]:
    """The first ``count`` entries of a tail."""
    out: list[Entry] = []
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(log.tail(start, streams)) as tail:
        async for batch in tail:
            assert batch
            out += batch
            if len(out) >= count:
                break
    return out[:count]


async def test_an_empty_log_starts_and_ends_at_the_same_offset(log: Log) -> None:
    assert await log.first() == await log.end() == 0


async def test_append_returns_offsets_in_order_and_tail_gives_the_same_bytes(log: Log) -> None:
    records = [record(seq, text="x" * seq) for seq in range(1, 30)]
    offsets = await log.append(records[:20]) + await log.append(records[20:])
    assert offsets == sorted(set(offsets))
    assert await take(log, 0, 29) == [Entry(at, each.canonical()) for at, each in zip(offsets, records, strict=True)]
    assert await log.end() > offsets[-1]


async def test_appending_nothing_does_nothing(log: Log) -> None:
    assert await log.append([]) == []
    assert await log.end() == 0


async def test_appends_are_pipelined_in_the_order_of_the_calls(log: Log) -> None:
    tasks = [asyncio.ensure_future(log.append([record(seq), record(seq + 1000)])) for seq in range(1, 101)]
    offsets = [offset for pair in await asyncio.gather(*tasks) for offset in pair]
    assert offsets == sorted(set(offsets))
    entries = await take(log, 0, 200)
    assert [entry.offset for entry in entries] == offsets
    wanted = [each.canonical() for seq in range(1, 101) for each in (record(seq), record(seq + 1000))]
    assert [entry.raw for entry in entries] == wanted


async def test_tail_from_the_middle_and_from_the_end(log: Log) -> None:
    offsets = await log.append([record(seq) for seq in range(1, 11)])
    assert [entry.offset for entry in await take(log, offsets[6], 4)] == offsets[6:]
    at_end = asyncio.ensure_future(take(log, await log.end(), 1))
    await asyncio.sleep(0.05)
    assert not at_end.done()
    (new,) = await log.append([record(11)])
    assert await at_end == [Entry(new, record(11).canonical())]


async def test_a_tail_that_waits_sees_what_another_handle_appends(subject: Subject, log: Log) -> None:
    waiting = asyncio.ensure_future(take(log, 0, 3))
    other = await subject.open()
    for seq in (1, 2, 3):
        await other.append([record(seq)])
    assert [entry.raw for entry in await waiting] == [record(seq).canonical() for seq in (1, 2, 3)]
    await other.close()


async def test_what_a_tail_yields_is_durable(log: Log) -> None:
    async def append() -> None:
        for seq in range(1, 101):
            await log.append([record(seq)])

    appending = asyncio.ensure_future(append())
    seen = 0
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(log.tail(0)) as tail:
        async for batch in tail:
            seen += len(batch)
            assert await log.end() > batch[-1].offset
            if seen == 100:
                break
    await appending


async def test_what_was_acknowledged_is_there_for_a_new_handle(subject: Subject, log: Log) -> None:
    for seq in range(1, 21):
        (offset,) = await log.append([record(seq)])
        if seq % 5 == 0:
            other = await subject.open()
            assert await other.end() > offset
            assert await take(other, offset, 1) == [Entry(offset, record(seq).canonical())]
            await other.close()


async def test_holes_are_legal(subject: Subject, log: Log) -> None:
    if subject.leave_hole is None:
        pytest.skip("this driver leaves no holes")
    before = await log.append([record(1), record(2)])
    await subject.leave_hole(5)
    after = await log.append([record(3), record(4)])
    assert after[0] >= before[-1] + 6
    assert [entry.offset for entry in await take(log, 0, 4)] == before + after
    assert [entry.offset for entry in await take(log, before[-1] + 3, 2)] == after
    assert await log.end() == after[-1] + 1


async def test_a_filtered_tail_keeps_its_streams_and_all_that_is_foreign(subject: Subject, log: Log) -> None:
    await log.append([record(1, "kv"), record(2, "unit"), record(3, "cluster")])
    await subject.put_foreign()
    await log.append([record(4, "unit"), record(5, "kv")])
    entries = await take(log, 0, 4, {"unit", "cluster"})
    ours = [entry.raw for entry in entries if entry.raw.startswith(b"CORELOG ")]
    assert ours == [each.canonical() for each in (record(2, "unit"), record(3, "cluster"), record(4, "unit"))]
    assert len(entries) - len(ours) == 1
    assert [entry.offset for entry in entries] == sorted(entry.offset for entry in entries)


async def test_a_filtered_tail_waits_through_records_of_other_streams(log: Log) -> None:
    waiting = asyncio.ensure_future(take(log, 0, 1, {"unit"}))
    for seq in range(1, 20):
        await log.append([record(seq, "kv")])
    assert not waiting.done()
    (offset,) = await log.append([record(20, "unit")])
    assert await waiting == [Entry(offset, record(20, "unit").canonical())]


async def test_foreign_entries_are_yielded_and_are_the_same_for_all(subject: Subject, log: Log) -> None:
    await log.append([record(1)])
    await subject.put_foreign()
    other = await subject.open()
    entries = await take(log, 0, 2)
    assert entries == await take(other, 0, 2)
    assert not entries[1].raw.startswith(b"CORELOG ")
    await other.close()


async def test_a_tail_above_the_end_is_refused(log: Log) -> None:
    await log.append([record(1)])
    end = await log.end()
    with pytest.raises(LogTruncated):
        await take(log, end + 1, 1)


async def test_trim_forgets_and_a_tail_below_the_first_is_refused(subject: Subject, log: Log) -> None:
    offsets = [offset for seq in range(1, 101) for offset in await log.append([record(seq, text="x" * 200)])]
    middle = offsets[60]
    await log.trim(middle)
    first = await log.first()
    assert 0 < first <= middle
    if subject.trims_exactly:
        assert first == middle
    with pytest.raises(LogTruncated):
        await take(log, 0, 1)
    kept = [offset for offset in offsets if offset >= first]
    assert [entry.offset for entry in await take(log, first, len(kept))] == kept
    other = await subject.open()
    assert (await other.first(), await other.end()) == (first, offsets[-1] + 1)
    await other.close()


async def test_trim_beyond_the_end_loses_nothing_that_comes_later(log: Log) -> None:
    await log.append([record(1), record(2)])
    end = await log.end()
    await log.trim(end + 100)
    assert await log.end() == end
    (offset,) = await log.append([record(3)])
    assert offset >= end
    assert await take(log, offset, 1) == [Entry(offset, record(3).canonical())]


async def test_a_tail_goes_on_over_a_trim_behind_it(log: Log) -> None:
    await log.append([record(seq, text="x" * 500) for seq in range(1, 41)])
    end = await log.end()
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(log.tail(end)) as tail:
        reading = asyncio.ensure_future(anext(tail))
        await log.trim(end)
        (offset,) = await log.append([record(41)])
        assert await reading == [Entry(offset, record(41).canonical())]


async def test_a_record_too_large_is_refused_and_nothing_is_written(log: Log) -> None:
    await log.append([record(1)])
    end = await log.end()
    with pytest.raises(RecordTooLarge, match="max"):
        await log.append([record(2), record(3, text="x" * RECORD_BYTES_MAX)])
    assert await log.end() == end
    (offset,) = await log.append([record(2)])
    assert await take(log, offset, 1) == [Entry(offset, record(2).canonical())]


async def test_the_largest_record_is_taken(log: Log) -> None:
    large = record(1, text="x" * (RECORD_BYTES_MAX - len(record(1).canonical())))
    assert len(large.canonical()) == RECORD_BYTES_MAX
    (offset,) = await log.append([large])
    await log.append([record(2)])
    assert (await take(log, 0, 2))[0] == Entry(offset, large.canonical())


async def test_concurrent_writers_come_to_one_order(subject: Subject, log: Log) -> None:
    handles = [await subject.open() for _ in range(4)]

    async def write(number: int, handle: Log) -> list[int]:
        out = []
        for seq in range(1, 26):
            out += await handle.append([record(seq, writer=f"kv@m{number}")])
        return out

    offsets = await asyncio.gather(*(write(number, handle) for number, handle in enumerate(handles)))
    flat = [offset for each in offsets for offset in each]
    assert len(set(flat)) == 100
    readings = await asyncio.gather(*(take(handle, 0, 100) for handle in handles))
    assert all(reading == readings[0] for reading in readings)
    by_offset = dict(readings[0])
    for number, each in enumerate(offsets):
        assert each == sorted(each)
        assert [by_offset[at] for at in each] == [
            record(seq, writer=f"kv@m{number}").canonical() for seq in range(1, 26)
        ]
    for handle in handles:
        await handle.close()


async def test_a_cancelled_append_leaves_the_log_in_order(log: Log) -> None:
    task = asyncio.ensure_future(log.append([record(1)]))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    (offset,) = await log.append([record(2)])
    entries = await take(log, 0, 1 if offset == 0 else 2)
    assert entries[-1] == Entry(offset, record(2).canonical())


async def test_close_twice_and_the_log_is_there_when_opened_again(subject: Subject) -> None:
    log = await subject.open()
    offsets = await log.append([record(1), record(2)])
    await log.close()
    await log.close()
    if not subject.persistent:
        return
    again = await subject.open()
    assert [entry.offset for entry in await take(again, 0, 2)] == offsets
    (after,) = await again.append([record(3)])
    assert after > offsets[-1]
    await again.close()
