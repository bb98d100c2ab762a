"""What a cluster of brokers does to the driver: hung, killed, gone. Nothing acknowledged is lost or doubled."""

import asyncio
import contextlib
import time

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer

from streams.log.kafka import KafkaLog
from streams.log.port import Log, LogTruncated, LogUnavailable, OutcomeUnknown
from streams.records import Entry, Record
from tests.cluster import parts

pytestmark = pytest.mark.kafka

WAIT_S = 90


def record(seq: int, writer: str = "kv@m1", incarnation: int = 1) -> Record:
    return Record("ab" * 16, "kv", writer, incarnation, seq, 1_700_000_000_000, b'["%d"]' % seq)


async def take(log: Log, start: int, end: int) -> list[Entry]:
    """All entries from ``start`` to before ``end``."""
    out: list[Entry] = []
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(log.tail(start)) as tail:
        async for batch in tail:
            out += batch
            if out[-1].offset >= end - 1:
                break
    return out


async def append_until(log: Log, seq: int) -> int:
    """Append one record, again and again with a new incarnation, until it is acknowledged."""
    incarnation = 100
    async with asyncio.timeout(WAIT_S):
        while True:
            incarnation += 1
            try:
                [offset] = await log.append([record(seq, incarnation=incarnation)])
                return offset
            except (LogUnavailable, OutcomeUnknown):
                await asyncio.sleep(0.2)


async def test_writes_in_flight_end_unknown_and_later_ones_are_refused_unsent_until_brokers_are_back(kafka3):
    log = await KafkaLog.open(parts.address(kafka3.bootstrap), {"delivery.timeout.ms": "4000"})
    acknowledged = {seq: offset for seq in range(20) for offset in await log.append([record(seq)])}
    for index in range(3):
        kafka3.stop(index)
    flights = [asyncio.ensure_future(log.append([record(seq)])) for seq in range(20, 30)]
    outcomes = await asyncio.wait_for(asyncio.gather(*flights, return_exceptions=True), WAIT_S)
    assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
    for seq in range(30, 40):
        with pytest.raises(LogUnavailable, match="nothing was sent"):
            await log.append([record(seq)])
    for index in range(3):
        kafka3.cont(index)
    last = await append_until(log, 99)
    entries = await take(log, 0, last + 1)
    found = {entry.offset: entry.raw for entry in entries}
    for seq, offset in acknowledged.items():
        assert found[offset] == record(seq).canonical()
    raws = [entry.raw for entry in entries]
    # unknown ones may be there, once each and in their order; those that were refused are not
    unknown = [raws.index(record(seq).canonical()) for seq in range(20, 30) if record(seq).canonical() in raws]
    assert unknown == sorted(unknown)
    assert not {record(seq).canonical() for seq in range(30, 40)} & set(raws)
    assert len(raws) == len(set(raws))
    # and nothing of them arrives later
    await log.append([record(100)])
    assert [entry.raw for entry in await take(log, last, last + 2)][-1] == record(100).canonical()
    await log.close()


@pytest.mark.slow
async def test_two_of_three_brokers_killed_reads_go_on_and_appends_are_refused(kafka3):
    name = parts.topic()
    log = await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {"delivery.timeout.ms": "4000"})
    offsets = [offset for seq in range(10) for offset in await log.append([record(seq)])]
    survivor = kafka3.leader(name)
    for index in range(3):
        if index != survivor:
            kafka3.kill(index)
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(log.append([record(10)]), WAIT_S)
    with pytest.raises(LogUnavailable, match="nothing was sent"):
        await log.append([record(11)])
    assert [entry.offset for entry in await take(log, 0, 10)] == offsets
    kafka3.heal()
    last = await append_until(log, 12)
    raws = [entry.raw for entry in await take(log, 0, last + 1)]
    assert raws[:10] == [record(seq).canonical() for seq in range(10)]
    assert record(11).canonical() not in raws
    await log.close()


async def test_the_leader_is_killed_under_load_and_nothing_acknowledged_is_lost_or_doubled(kafka3):
    name = parts.topic()
    address = f"kafka://{kafka3.bootstrap}/{name}"
    log = await KafkaLog.open(address, {})
    watching = await KafkaLog.open(address, {})
    seen: list[Entry] = []

    async def watch() -> None:
        async for batch in watching.tail(0):
            seen.extend(batch)

    watcher = asyncio.ensure_future(watch())
    acknowledged: dict[int, int] = {}
    stop = asyncio.Event()
    refused = 0

    async def write(lane: int) -> None:
        nonlocal refused
        seq = lane
        while not stop.is_set():
            seq += 8
            try:
                [acknowledged[seq]] = await log.append([record(seq)])
            except (LogUnavailable, OutcomeUnknown):
                refused += 1
                await asyncio.sleep(0.1)

    writers = [asyncio.ensure_future(write(lane)) for lane in range(8)]
    await asyncio.sleep(1)
    before = len(acknowledged)
    killed = kafka3.leader(name)
    kafka3.kill(killed)
    async with asyncio.timeout(WAIT_S):
        while len(acknowledged) < before + 200:
            await asyncio.sleep(0.1)
    stop.set()
    await asyncio.gather(*writers)
    end = max(acknowledged.values()) + 1
    async with asyncio.timeout(WAIT_S):
        while not seen or seen[-1].offset < end - 1:
            await asyncio.sleep(0.05)
    watcher.cancel()
    found = {entry.offset: entry.raw for entry in seen}
    assert {seq: found.get(offset) for seq, offset in acknowledged.items()} == {
        seq: record(seq).canonical() for seq in acknowledged
    }
    assert len({entry.raw for entry in seen}) == len(seen), "a record is there twice"
    assert [entry.offset for entry in seen] == sorted(found)
    # the tail that lived through it and one that starts now tell the same
    assert (await take(log, 0, end))[: len(seen)] == seen[: len(await take(log, 0, end))]
    kafka3.heal()
    await log.close()
    await watching.close()


@pytest.mark.slow
async def test_a_tail_waits_while_all_brokers_are_gone_and_goes_on(kafka3):
    log = await KafkaLog.open(parts.address(kafka3.bootstrap), {})
    await log.append([record(1)])
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(log.tail(0)) as tail:
        assert len(await anext(tail)) == 1
        waiting = asyncio.ensure_future(anext(tail))
        for index in range(3):
            kafka3.kill(index)
        with pytest.raises(LogUnavailable):
            await log.end()
        assert not waiting.done()
        kafka3.heal()
        offset = await append_until(log, 2)
        assert (await waiting)[-1].offset <= offset
    await log.close()


async def test_a_topic_made_anew_is_a_truncation_not_a_shorter_log(kafka3):
    from kafka import KafkaAdminClient

    name = parts.topic()
    log = await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
    await log.append([record(seq) for seq in range(10)])
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(log.tail(0)) as tail:
        count = 0
        while count < 10:
            count += len(await anext(tail))
        admin = KafkaAdminClient(bootstrap_servers=kafka3.bootstrap.split(","))
        admin.delete_topics([name])
        admin.close()
        again = None
        while again is None:
            try:
                again = await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
            except LogUnavailable:
                await asyncio.sleep(0.2)
        with pytest.raises(LogTruncated):
            await anext(tail)
        await again.close()
    await log.close()


async def test_closing_ends_appends_under_way_unknown(kafka3):
    log = await KafkaLog.open(parts.address(kafka3.bootstrap), {})
    await log.append([record(1)])
    for index in range(3):
        kafka3.stop(index)
    flight = asyncio.ensure_future(log.append([record(2)]))
    await asyncio.sleep(0.1)
    before = time.monotonic()
    await log.close()
    with pytest.raises(OutcomeUnknown):
        await flight
    with pytest.raises(LogUnavailable):
        await log.append([record(3)])
    assert time.monotonic() - before < 60
    for index in range(3):
        kafka3.cont(index)


async def test_foreign_messages_and_brokers_marks_are_read_alike_by_all(kafka3):
    name = parts.topic()
    log = await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
    ours = record(1)
    await log.append([ours])
    producer = KafkaProducer(bootstrap_servers=kafka3.bootstrap.split(","))
    for key, value, headers in [
        (b"kv", b'["x"]', []),
        (None, b"hello", [("corelog", ours.head())]),
        (b"unit", b"[]", [("corelog", ours.head())]),
        (b"kv", None, [("corelog", ours.head())]),
        (b"kv", ours.canonical(), []),
        (b"kv", b"[]", [("corelog", ours.head()), ("corelog", ours.head())]),
    ]:
        producer.send(name, value=value, key=key, headers=headers).get(timeout=30)
    producer.close()
    await asyncio.to_thread(_transactions, kafka3.bootstrap, name)
    async with asyncio.timeout(WAIT_S):
        while await log.end() < 11:  # the coordinator writes its marks after it has answered
            await asyncio.sleep(0.05)
    [last] = await log.append([record(2)])
    # 1 + 6 foreign + 2 messages in transactions (one aborted: read all the same) and a mark of each
    entries = await take(log, 0, last + 1)
    assert [entry.offset for entry in entries] == [0, 1, 2, 3, 4, 5, 6, 7, 9, 11]
    assert [entry.offset for entry in entries if entry.raw.startswith(b"CORELOG ")] == [0, 11]
    other = await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
    assert await take(other, 0, last + 1) == entries
    assert [entry.offset for entry in await take(other, 8, last + 1)] == [9, 11]
    await log.close()
    await other.close()


def _transactions(bootstrap: str, name: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "log_level": 0})
    producer.init_transactions(30)
    for commit in (True, False):
        producer.begin_transaction()
        producer.produce(name, b"in a transaction", b"kv", 0)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


async def test_kcat_reads_the_records(kafka3):
    name = parts.topic()
    log = await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
    await log.append([record(1), record(2)])
    await log.close()
    messages = await asyncio.to_thread(parts.kcat, kafka3.bootstrap, name)
    assert [(each["key"], each["payload"], each["offset"]) for each in messages] == [
        ("kv", '["1"]', 0),
        ("kv", '["2"]', 1),
    ]
    assert messages[0]["headers"] == ["corelog", record(1).head().decode()]
    assert messages[0]["ts"] == 1_700_000_000_000
