"""The audit on a real broker: outcomes written over a fail-over, the export, the application, killed and restarted."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from weakref import WeakSet

import pytest
from confluent_kafka import Consumer, Producer

from streams.audit import export as exporting
from streams.audit import kafka
from streams.audit.lines import Line
from streams.audit.outcomes import OutcomeSink
from streams.audit.trail import Wanted
from streams.events import encode, kv, say
from streams.events import log as log_says
from streams.log.open import open_log
from streams.log.port import ForeignLog, Log, LogUnavailable
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Position, Record
from streams.replay import Replica
from tests import needs
from tests.cluster import parts
from tests.folds import LOG, Counting

pytestmark = pytest.mark.kafka


class Choosy(Counting):
    """Refuses keys below /forbidden."""

    name = "kv"

    def evolve(self, event: object, context: object) -> Outcome:
        if event.data.key.startswith("/forbidden"):  # type: ignore[attr-defined]
            return Rejected("forbidden", "not for you")
        return super().evolve(event, context) if isinstance(event.data, kv.Set) else Accepted()  # type: ignore[attr-defined,arg-type]


@pytest.fixture
def address() -> str:
    return parts.address(parts.brokers(1).bootstrap)


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[Log]:
    log = await open_log(address)
    try:
        yield log
    finally:
        await log.close()


_founded: WeakSet[Log] = WeakSet()


async def put(log: Log, *keys: str, principal: str = "uid:0") -> None:
    if log not in _founded:
        _founded.add(log)
        for payload in (log_says.LogOpened(id=LOG), log_says.ActorOpened(nonce="n")):
            await log.append([Record(LOG, "log", "kv@w", 1, 1, 0, encode([say(payload)]))])
    events = [say(kv.Set(key, "value"), principal=principal) for key in keys]
    await log.append([Record(LOG, "kv", "kv@w", 1, 1, int(time.time() * 1000), encode(events))])


@contextlib.asynccontextmanager
async def master(log: Log, address: str, folder: Path) -> AsyncIterator[OutcomeSink]:
    """A replica that is master as long as the context lasts."""
    replica = Replica(Choosy())
    feed, sink = kafka.outcome_sink(log, address, {}, LOG, Choosy, folder, lambda: True, lambda: replica.log.voided)

    async def follow() -> None:
        async for batch in log.tail(0):
            for entry in batch:
                feed.applied(replica.apply(entry), live=True)

    tasks = [asyncio.ensure_future(sink.run()), asyncio.ensure_future(follow())]
    try:
        yield sink
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def written(sink: OutcomeSink, offset: int) -> None:
    async with asyncio.timeout(110):
        while sink.written.offset < offset:
            await asyncio.sleep(0.02)


async def exported(address: str, **filters: object) -> list[dict[str, object]]:
    out: list[str] = []
    count = await exporting.export(address, {}, Wanted(**filters), out.append)  # type: ignore[arg-type]
    assert count == len(out)
    return [json.loads(one) for one in out]


async def test_each_command_is_exported_with_its_outcome_after_a_fail_over(address: str, tmp_path: Path) -> None:
    async with opened(address) as log:
        await put(log, "/a", "/forbidden/b")
        async with master(log, address, tmp_path) as sink:
            await written(sink, 2)
        for number in range(20):
            await put(log, f"/while-nobody-was-master/{number}")
        async with master(log, address, tmp_path) as sink:
            await written(sink, 22)
        await put(log, "/late", principal="token:ops")
        trail = await exported(address)
        assert [line["position"] for line in trail] == ["2.0", "2.1", *(f"{at}.0" for at in range(3, 24))]
        assert [line["outcome"] for line in trail] == ["accepted", "rejected", *["accepted"] * 20, "pending"]
        assert trail[1] | {"subject": "/forbidden/b", "code": "forbidden", "principal": "uid:0"} == trail[1]
        assert await exported(address, refused=True) == [trail[1]]
        assert await exported(address, principal="token:ops") == [trail[-1]]


async def test_what_is_no_line_is_passed_over_by_the_export_and_by_the_next_master(
    address: str, tmp_path: Path
) -> None:
    async with opened(address) as log:
        await put(log, "/a")
        async with master(log, address, tmp_path) as sink:
            await written(sink, 2)
        where = kafka.parse_address(address)
        producer = Producer({"bootstrap.servers": where.bootstrap, "log_level": 0})
        for value in (b"junk", b'{"position":"9.9"}', None):
            producer.produce(kafka.outcomes_topic(where.topic), value, b"kv")
        assert producer.flush(30) == 0
        producer.close()
        await put(log, "/b")
        async with master(log, address, tmp_path) as sink:
            await written(sink, 3)
        wrong: list[Exception] = []
        out: list[str] = []
        await exporting.export(address, {}, write=out.append, bad=wrong.append)
        assert [json.loads(one)["position"] for one in out] == ["2.0", "3.0"]
        assert len(wrong) == 3
        assert "offset 1" in str(wrong[0])


async def test_the_end_of_a_fold_is_found_behind_many_lines_of_the_other(address: str) -> None:
    outlet = await kafka.KafkaOutlet.open(address, {})
    try:
        assert await outlet.last("kv") is None
        await outlet.write("control", [Line("1.0", "unit.submitted.v1", "accepted")])
        for first in range(2, 2 + 3 * kafka.WINDOW):
            await outlet.write("kv", [Line(f"{first}.{index}", "kv.set.v1", "accepted") for index in range(20)])
        assert await outlet.last("kv") == Position(1 + 3 * kafka.WINDOW, 19)
        assert await outlet.last("control") == Position(1, 0)
    finally:
        await outlet.close()


async def test_errors_say_what_to_do(address: str, tmp_path: Path) -> None:
    with pytest.raises(ForeignLog, match="corelog log --jsonl"):
        await exporting.export("segments:///data", {})
    with pytest.raises(LogUnavailable):
        await exporting.export("kafka://127.0.0.1:1", {})


class App:
    """``corelog audit`` as a process."""

    def __init__(self, address: str, file: Path, output: Path) -> None:
        command = [sys.executable, "-m", "streams.audit", "run", address, "--file", str(file), "--limit", "3"]
        self.file = file
        self.cwd, self.temporary = output.parent / "here", output.parent / "temporary"
        for folder in (self.cwd, self.temporary):
            folder.mkdir(exist_ok=True)
        root = needs.__file__.rsplit("/", 2)[0]
        env = {**os.environ, "PYTHONPATH": root, "TMPDIR": str(self.temporary)}
        with output.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, cwd=self.cwd, env=env)

    async def has(self, count: int, output: Path) -> list[dict[str, object]]:
        until_s = time.monotonic() + 90
        while True:
            lines = self.file.read_bytes().splitlines() if self.file.exists() else []
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise AssertionError(f"{len(lines)} of {count} lines: {output.read_text()[-3000:]}")
            await asyncio.sleep(0.05)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def apps() -> Iterator[list[App]]:
    made: list[App] = []
    yield made
    for app in made:
        if app.process.poll() is None:
            app.process.kill()
            app.process.wait()


def alerts(address: str) -> list[dict[str, object]]:
    where = kafka.parse_address(address)
    consumer = Consumer({"bootstrap.servers": where.bootstrap, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{where.topic}.alerts"])
    try:
        found = consumer.consume(1, 30)
        return [json.loads(message.value() or b"") for message in found]
    finally:
        consumer.close()


async def test_the_application_keeps_the_trail_over_kill_9_and_alerts(
    address: str, tmp_path: Path, apps: list[App]
) -> None:
    output = tmp_path / "output"
    async with opened(address) as log, master(log, address, tmp_path):
        await put(log, "/a", "/b")
        apps.append(App(address, tmp_path / "trail.jsonl", output))
        await apps[0].has(2, output)
        assert apps[0].end(signal.SIGKILL) == -signal.SIGKILL
        await put(log, "/forbidden/1", "/c", "/forbidden/2", "/forbidden/3", principal="token:x")
        apps.append(App(address, tmp_path / "trail.jsonl", output))
        trail = await apps[1].has(6, output)
        assert [line["position"] for line in trail] == ["2.0", "2.1", "3.0", "3.1", "3.2", "3.3"]
        assert [line["outcome"] for line in trail][2:] == ["rejected", "accepted", "rejected", "rejected"]
        [alert] = await asyncio.to_thread(alerts, address)
        assert (alert["principal"], alert["refused"], alert["codes"]) == ("token:x", 3, ["forbidden"])
        assert trail == [line for line in await exported(address) if line["outcome"] != "pending"]
        assert list(apps[1].cwd.iterdir()) == []
        left = set(apps[1].temporary.iterdir())
        assert apps[1].end(signal.SIGTERM) == 0, output.read_text()[-2000:]
        # the one that was killed couldn't clean up; this one did
        assert len(left - set(apps[1].temporary.iterdir())) == 1
        assert list(apps[1].cwd.iterdir()) == []
