"""Copies and moves between segments and a real Kafka: positions, holes, times and chain are kept."""

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy.kafka.brokers import Brokers
from streams.log import tools
from streams.log.founding import found, identity
from streams.log.kafka import KafkaLog
from streams.log.segments import SegmentsLog
from tests.cluster import parts
from tests.folds import Counting
from tests.streams.log.test_tools import LOG_ID, PUBLIC, Teller, everything, replayed

pytestmark = pytest.mark.kafka


async def new_topic(brokers: Brokers) -> KafkaLog:
    return await KafkaLog.open(parts.address(brokers.bootstrap), {})


async def test_a_single_nodes_log_moves_to_kafka_with_its_state(kafka1: Brokers, tmp_path: Path) -> None:
    source = await SegmentsLog.open(tmp_path / "log", {"segment_bytes": "4096"})
    await found(source, PUBLIC, LOG_ID)
    teller = Teller(source)
    await teller.open()
    await teller.put(50)
    target = await new_topic(kafka1)
    writing = asyncio.ensure_future(teller.put(200))
    moved = await tools.move(source, target, {"counting": Counting})
    await writing
    assert (await replayed(target, moved.sealed_at)).state_hash() == moved.state_hashes["counting"]
    old, new = await everything(source), await everything(target)
    assert new[:-1] == old[: moved.sealed_at]
    assert new[-1].offset == moved.sealed_at
    opened = await identity(target)
    assert opened is not None
    assert opened.id == LOG_ID
    assert (await tools.verify(target)).whole
    assert await tools.move(source, target, {"counting": Counting}) == moved, "said again, it is done already"
    # and back again, by a copy
    back = await SegmentsLog.open(tmp_path / "back")
    await tools.copy(target, back)
    assert await everything(back) == new
    for log in (source, target, back):
        await log.close()


async def test_a_topic_with_holes_and_foreign_records_is_copied_as_it_is(kafka1: Brokers, tmp_path: Path) -> None:
    source = await new_topic(kafka1)
    await found(source, PUBLIC, LOG_ID)
    teller = Teller(source)
    await teller.open()
    await asyncio.to_thread(transaction, kafka1.bootstrap, source.address.rpartition("/")[2])
    async with asyncio.timeout(60):
        while await source.end() < 4:  # the coordinator writes its mark after it has answered
            await asyncio.sleep(0.05)
    await teller.put(3)
    entries = await everything(source)
    assert [entry.offset for entry in entries] == [0, 1, 2, 4, 5, 6]
    target = await SegmentsLog.open(tmp_path / "log")
    copied = await tools.copy(source, target)
    assert await everything(target) == entries
    assert (await tools.verify(target.folder)).chain == (await tools.verify(source)).chain
    assert copied.records == 6
    await source.trim(3)
    trimmed = await SegmentsLog.open(tmp_path / "trimmed")
    await tools.copy(source, trimmed)
    assert await everything(trimmed) == [entry for entry in entries if entry.offset >= 3]
    for log in (source, target, trimmed):
        await log.close()


async def test_a_trimmed_log_comes_to_stand_at_its_own_positions_in_a_topic(kafka1: Brokers, tmp_path: Path) -> None:
    source = await SegmentsLog.open(tmp_path / "log", {"segment_bytes": "4096"})
    await found(source, PUBLIC, LOG_ID)
    teller = Teller(source)
    await teller.open()
    await teller.put(60)
    await source.trim(50)
    first = await source.first()
    assert first > 0
    target = await new_topic(kafka1)
    await tools.copy(source, target)
    assert await target.first() == first
    assert await everything(target) == await everything(source)
    await source.close()
    await target.close()


def transaction(bootstrap: str, name: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(name, b"in a transaction", b"kv", 0)
    producer.flush(30)
    producer.commit_transaction(30)
