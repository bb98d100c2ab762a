"""What a node's first process found when it opened the log spares the others the look; it makes nothing up."""

import pytest

from deploy.kafka.brokers import Brokers, free_port
from streams.log.kafka import driver
from streams.log.open import check_of, open_log
from streams.log.port import LogUnavailable
from streams.records import Record
from tests.cluster import parts

pytestmark = pytest.mark.kafka


async def test_the_next_opening_asks_for_nothing_and_writes(kafka1: Brokers, monkeypatch: pytest.MonkeyPatch) -> None:
    address = parts.address(kafka1.bootstrap)
    first = await open_log(address)
    monkeypatch.setattr(driver.topics, "ensure", None)
    second = await open_log(address, {}, check_of(first))
    assert check_of(second) == check_of(first) == "1"
    assert await second.append([Record("ab" * 16, "log", "kv@" + "5e" * 16, 1, 1, 1, b"[]")]) == [0]
    assert await first.end() == 1
    for log in (first, second):
        await log.close()


async def test_a_topic_that_is_gone_is_looked_after_again(kafka1: Brokers) -> None:
    log = await open_log(parts.address(kafka1.bootstrap), {}, "1")
    assert await log.end() == 0
    await log.close()


async def test_brokers_that_are_gone_are_told_as_ever() -> None:
    port = free_port()
    with pytest.raises(LogUnavailable, match=f"no Kafka broker answers at 127.0.0.1:{port}"):
        await open_log(f"kafka://127.0.0.1:{port}", {}, "1")
