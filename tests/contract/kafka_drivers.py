"""Kafka in the contract suite: one broker by testcontainers, three as plain processes, three by compose."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kafka import KafkaProducer

from streams.log.kafka import KafkaLog
from streams.log.port import Log
from tests.cluster import parts
from tests.contract.drivers import Factory, Subject, register


@asynccontextmanager
async def subject(bootstrap: str) -> AsyncIterator[Subject]:
    name = parts.topic()

    async def open_() -> Log:
        return await KafkaLog.open(f"kafka://{bootstrap}/{name}", {})

    async def put_foreign() -> None:
        producer = KafkaProducer(bootstrap_servers=bootstrap.split(","))
        producer.send(name, b"hello from elsewhere").get(timeout=30)
        producer.close()

    async def leave_hole(count: int) -> None:
        log = await KafkaLog.open(f"kafka://{bootstrap}/{name}", {})
        await log.leave_hole(count)
        await log.close()

    yield Subject(open_, put_foreign, leave_hole, trims_exactly=True, persistent=True)


def _on(bootstrap: Callable[[], str]) -> Factory:
    @asynccontextmanager
    async def factory(tmp_path: Path) -> AsyncIterator[Subject]:
        async with subject(bootstrap()) as made:
            yield made

    return factory


register("kafka-1", _on(parts.contained), pytest.mark.kafka, pytest.mark.docker)
register("kafka-3", _on(lambda: parts.brokers(3).bootstrap), pytest.mark.kafka)
register(
    "kafka-3-compose",
    _on(lambda: parts.composed().bootstrap),
    pytest.mark.kafka,
    pytest.mark.docker,
    pytest.mark.slow,
)
