"""Telling outcomes beside the log: only on Kafka, and without ever troubling the actor."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.outcomes import nobody, telling
from actors.setting import Setting
from streams.audit import kafka
from streams.audit.outcomes import Feed, OutcomeSink, replayed_lines
from streams.events import log as log_says
from streams.events.base import say
from streams.log.memory import MemoryLog
from streams.replay import Replica
from tests.folds import LOG, Counting, Writer, opened, put
from tests.streams.audit.test_outcomes import Topic


class Keys(Counting):
    """The fold whose stream is kv."""

    name = "kv"


def setting(folder: Path, log: str, **options: str) -> Setting:
    return Setting(
        machine="ab" * 16, nonce="n", boot_id="b", folder=str(folder), log=log, log_id=LOG, log_options=options
    )


def applied(count: int, log: MemoryLog | None = None) -> list[Any]:
    """What a replica of a log with so many commands has applied; the log is filled."""
    replica, writer = Replica(Keys()), Writer()
    entries = [
        writer.entry(say(log_says.LogOpened(id=LOG))),
        writer.entry(opened()),
        *(writer.entry(put(f"/{number}", principal="uid:0")) for number in range(count)),
    ]
    if log is not None:
        for entry in entries:
            log.put(entry.raw)
    return [one for entry in entries for one in replica.apply(entry)]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    """The outcomes topic in memory, in the place of the one on brokers."""
    made = Topic()

    def sink(
        log: Any,
        address: str,
        options: Any,
        log_id: str,
        make: Any,
        folder: Path,
        acting: Callable[[], bool],
        voided: Any,
    ) -> tuple[Feed, OutcomeSink]:
        assert (address, log_id, folder.parts[-2:]) == ("kafka://a:1", LOG, ("snapshots", "kv"))
        feed = Feed(make().name)
        return feed, OutcomeSink(feed, made.open, partial(replayed_lines, log, make, folder, log_id, voided), acting)

    monkeypatch.setattr(kafka, "outcome_sink", sink)
    return made


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.001)


def others() -> set["asyncio.Task[Any]"]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["segments:///data/log", "memory://"])
async def test_an_embedded_log_needs_nobody(tmp_path: Path, address: str) -> None:
    async with telling(setting(tmp_path, address), MemoryLog(), Keys, lambda: True) as tell:
        assert tell is nobody
        assert not others()
        tell(applied(1), True)


async def test_what_is_applied_while_acting_is_written_and_nothing_goes_on_afterwards(
    tmp_path: Path, topic: Topic
) -> None:
    log = MemoryLog()
    batch, acting = applied(3, log), False
    async with telling(setting(tmp_path, "kafka://a:1"), log, Keys, lambda: acting) as tell:
        tell([], True)
        await asyncio.sleep(0.01)
        assert not topic.opened, "who isn't acting writes nothing"
        acting = True
        tell(batch, True)
        await until(lambda: len(topic.lines) == 3)
    assert len(batch) == 5
    assert [line.position for _, line in topic.lines] == [str(one.position) for one in batch[-3:]]
    assert {line.principal for _, line in topic.lines} == {"uid:0"}
    assert not others()


async def test_the_actors_own_error_is_not_hidden(tmp_path: Path, topic: Topic) -> None:
    with pytest.raises(ZeroDivisionError):
        async with telling(setting(tmp_path, "kafka://a:1"), MemoryLog(), Keys, lambda: True):
            raise ZeroDivisionError
    assert not others()


async def test_a_sink_that_breaks_is_told_and_the_actor_goes_on(
    tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> Topic:
        raise RuntimeError("a bug")

    monkeypatch.setattr(topic, "open", broken)
    with capture_logs() as said:
        async with telling(setting(tmp_path, "kafka://a:1"), MemoryLog(), Keys, lambda: True) as tell:
            await until(lambda: said)
            tell(applied(2), True)
    # it tries again
    assert {(told["log_level"], told["event"]) for told in said} == {("error", "outcomes wait")}
    assert said[0]["exc_info"]


async def test_a_wrong_option_of_the_topic_never_reaches_the_actor(tmp_path: Path) -> None:
    wrong = setting(tmp_path, "kafka://127.0.0.1:1", **{"sasl.usernam": "x"})
    with capture_logs() as said:
        async with telling(wrong, MemoryLog(), Keys, lambda: True) as tell:
            await until(lambda: said)
            tell(applied(1), True)
    assert {told["log_level"] for told in said} == {"warning"}
    assert "sasl.username?" in said[0]["error"]
