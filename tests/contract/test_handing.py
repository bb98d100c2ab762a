"""What a driver that hands back durable records holds (streams.log.port.Handing)."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from streams.log.port import Handing, LogError, LogUnavailable
from streams.records import Entry, Record
from tests.contract.drivers import Factory, Subject, parameters, record
from tests.contract.test_port import WAIT_S, take


@pytest.fixture(params=parameters())
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    factory: Factory = request.param
    async with factory(tmp_path) as made:
        yield made


@pytest.fixture
async def log(subject: Subject) -> AsyncIterator[Handing]:
    opened = await subject.open()
    if not isinstance(opened, Handing):
        await opened.close()
        pytest.skip("this driver hands nothing back")
    yield opened
    await opened.close()


def records(*numbers: int) -> list[Record]:
    return [record(number, text="x" * number) for number in numbers]


class Told:
    """What was handed, and the offsets that were told, in the order in which they came."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.errors: list[LogError] = []

    def hand(self, log: Handing, given: list[Record], still: bool = False) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def landed(result: Sequence[Entry] | LogError) -> None:
            assert not done.done(), "told once"
            done.set_result(None)
            if isinstance(result, LogError):
                self.errors.append(result)
            else:
                assert [entry.raw for entry in result] == [one.canonical() for one in given]
                self.entries += result

        log.hand(given, landed, still)
        return done


@pytest.mark.parametrize("still", [False, True], ids=["meanwhile", "still"])
async def test_what_is_told_is_what_a_tail_gives_and_durable(subject: Subject, log: Handing, still: bool) -> None:
    told = Told()
    for number in range(1, 31):
        await told.hand(log, records(number, number + 1), still)
    assert [entry.offset for entry in told.entries] == sorted({entry.offset for entry in told.entries})
    other = await subject.open()
    assert await take(other, 0, 60) == told.entries
    await other.close()


async def test_many_under_way_are_told_in_the_order_in_which_they_were_handed(log: Handing) -> None:
    told = Told()
    await asyncio.gather(*[told.hand(log, records(number), still=number % 3 == 0) for number in range(1, 101)])
    assert [entry.raw for entry in told.entries] == [one.canonical() for one in records(*range(1, 101))]
    assert await take(log, 0, 100) == told.entries


async def test_appends_and_what_is_handed_stand_in_one_order(log: Handing) -> None:
    told = Told()
    for number in range(1, 20):
        appending = asyncio.ensure_future(log.append([record(100 + number)]))
        await asyncio.sleep(0)
        await told.hand(log, records(number), still=True)
        (offset,) = await appending
        assert abs(offset - told.entries[-1].offset) == 1


async def test_a_tail_that_passes_over_what_its_reader_has_brings_all_the_others(
    subject: Subject, log: Handing
) -> None:
    """The reader has its own records by ``hand``; another handle's come between them, by the tail alone."""
    have: dict[int, bytes] = {}
    other, told = await subject.open(), Told()

    def wanted() -> int:
        at = 0
        while at in have:
            at += 1
        return at

    async def read() -> None:
        async for batch in log.tail(0, None, wanted):
            for offset, raw in batch:
                assert have.setdefault(offset, raw) == raw

    reading = asyncio.ensure_future(read())
    theirs: list[Entry] = []
    for number in range(1, 120):
        if number % 7 == 0:
            (offset,) = await other.append([record(1000 + number)])
            theirs.append(Entry(offset, record(1000 + number).canonical()))
        before = len(told.entries)
        await told.hand(log, records(number), still=number % 2 == 0)
        have.update(told.entries[before:])
    async with asyncio.timeout(WAIT_S):
        while wanted() <= told.entries[-1].offset:
            await asyncio.sleep(0.005)
    assert sorted(have.items()) == sorted(told.entries + theirs)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await other.close()


class Following:
    """Another handle's tail that heeds some streams: what it read, in how many batches."""

    def __init__(self, log: Handing, heeded: set[str]) -> None:
        self.log, self.read, self.batches = log, list[Entry](), 0
        self._task = asyncio.ensure_future(self._follow(heeded))

    async def _follow(self, heeded: set[str]) -> None:
        async for batch in self.log.tail(0, None, None, heeded):
            self.read.extend(batch)
            self.batches += 1

    async def come(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.read) < count:
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def following(subject: Subject, heeded: set[str]) -> AsyncIterator[Following]:
    other = await subject.open()
    assert isinstance(other, Handing)
    made = Following(other, heeded)
    yield made
    await made.end()
    await other.close()


async def test_who_heeds_other_streams_reads_quiet_ones_late_but_reads_them_all_and_at_once_if_hurried(
    subject: Subject, log: Handing
) -> None:
    told = Told()
    async with following(subject, {"cluster", "log"}) as other:
        for number in range(1, 201):
            await told.hand(log, [record(number)], still=True)  # of the stream kv
        await told.hand(log, [record(201, stream="cluster")])
        await other.come(201)
        assert other.read == told.entries
        assert other.batches < 150, "many at once"
        for number in range(202, 212):
            await told.hand(log, [record(number)], still=True)
            other.log.hurry(told.entries[-1].offset + 1)
        await other.come(211)
        assert other.read == told.entries


@pytest.mark.parametrize("heeded", ["kv", "log"])
async def test_who_is_hurried_rests_no_longer(
    subject: Subject, log: Handing, heeded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kafka.reader.QUIET_S", "kafka.reader.CALM_S", "segments.commits.QUIET_S"):
        monkeypatch.setattr(f"streams.log.{name}", 10 * WAIT_S)
    told = Told()
    async with following(subject, {heeded}) as other:
        other.log.calm(True)
        for number in range(1, 4):
            await told.hand(log, [record(number)])
            await asyncio.sleep(0.1)
            other.log.hurry(told.entries[-1].offset + 1)
            await other.come(number)
        assert other.read == told.entries


async def test_who_is_calm_no_longer_rests_no_longer(
    subject: Subject, log: Handing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.log.kafka.reader.CALM_S", 10 * WAIT_S)
    told = Told()
    async with following(subject, {"kv"}) as other:
        await told.hand(log, [record(1)])
        await other.come(1)
        for number in range(2, 5):
            other.log.calm(True)
            await told.hand(log, [record(number)])
            await asyncio.sleep(0.1)
            other.log.calm(False)
            await other.come(number)
        assert other.read == told.entries


async def test_who_is_calm_reads_others_records_late_and_all_of_them(
    subject: Subject, log: Handing, monkeypatch: pytest.MonkeyPatch
) -> None:
    # new brokers may take longer for a record than a rest lasts
    monkeypatch.setattr("streams.log.kafka.reader.CALM_S", 0.06)
    told, rng, loop = Told(), random.Random(5), asyncio.get_running_loop()
    async with following(subject, {"kv"}) as other:
        await told.hand(log, [record(1)])
        await other.come(1)
        other.log.calm(True)
        written, until, before = 1, loop.time() + 3, other.batches
        while loop.time() < until:
            await told.hand(log, [record(written := written + 1)])
            await asyncio.sleep(0.002)
        await other.come(written)
        assert other.batches - before >= 15, "it rests for a moment each time, not for a second"
        if log.address.startswith("kafka"):
            assert other.batches - before < written / 2, "many at once"
        # it rests and goes on at any moment of theirs, and misses none
        while written < 2500:
            some = [record(written + at) for at in range(1, rng.randint(1, 9) + 1)]
            await told.hand(log, some)
            written += len(some)
            if rng.random() < 0.05:
                await asyncio.sleep(rng.random() / 20)
            if rng.random() < 0.02:
                other.log.hurry(told.entries[-1].offset + 1)
            if rng.random() < 0.02:
                other.log.calm(rng.random() < 0.7)
        await other.come(written)
        assert other.read == told.entries
        other.log.calm(False)
        for number in range(written + 1, written + 21):
            await told.hand(log, [record(number)])
            await other.come(number)
        assert other.read == told.entries


async def test_what_a_closed_log_is_handed_is_refused(subject: Subject) -> None:
    log = await subject.open()
    if not isinstance(log, Handing):
        await log.close()
        pytest.skip("this driver hands nothing back")
    await log.close()
    told = Told()
    with pytest.raises(LogUnavailable):
        await told.hand(log, records(1))
    assert not told.entries
