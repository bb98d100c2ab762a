"""A Kafka writer whose process has no thread left for a moment. Nobody answers at the address of these tests."""

import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.log.kafka import writer as writing
from streams.log.kafka.options import parse_address, parse_options
from streams.log.kafka.writer import Writer
from streams.log.port import LogUnavailable, OutcomeUnknown
from tests.contract.drivers import record

TIMEOUT_S = 30.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PROBE_EVERY_S", 0.01)
    # what no broker that answers would say
    monkeypatch.setattr(Writer, "_troubled", lambda *_: None)


def made() -> Writer:
    return Writer(parse_address("kafka://127.0.0.1:1/t"), parse_options({}), 1)


async def live_again(writer: Writer) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while writer._down or writer._probing:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quick")
async def test_appends_end_and_go_on_though_no_other_producer_can_be_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = made()
    monkeypatch.setattr(writer, "look", lambda: (True, ""))
    append = writer.append([record(1)])
    real, refused = writing.Producer, list[int]()

    def producer(config: dict[str, Any]) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise KafkaException(KafkaError(KafkaError._CRIT_SYS_RESOURCE, "Failed to create thread"))
        return real(config)

    monkeypatch.setattr(writing, "Producer", producer)
    writer._abandon(writer._line, "a broker was lost")
    refusal = writer.append([record(2)])
    assert isinstance(refusal.exception(), LogUnavailable)
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(append, TIMEOUT_S)
    await live_again(writer)
    assert len(refused) == 3
    assert not writer._line.abandoned
    taken = writer.append([record(3)])
    await writer.close()
    assert isinstance(taken.exception(), OutcomeUnknown), "it was handed to the new producer"


@pytest.mark.usefixtures("quick")
async def test_a_look_that_finds_no_thread_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = made()
    monkeypatch.setattr(writer, "look", lambda: (True, ""))
    real, refused = asyncio.to_thread, list[int]()

    async def to_thread(*words: Any) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise RuntimeError("can't start new thread")
        return await real(*words)

    monkeypatch.setattr(writing.asyncio, "to_thread", to_thread)
    writer._abandon(writer._line, "a broker was lost")
    await live_again(writer)
    assert len(refused) == 3
    await writer.close()
