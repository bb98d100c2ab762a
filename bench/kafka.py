"""The log on three Kafka brokers, beside a bare confluent-kafka client on the same ones.

    python -m bench.kafka [ROUNDS]

The brokers are plain processes on this machine, tuned as the documentation says, warmed by 20,000 records.
"""

import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.row import Row
from deploy.kafka.brokers import Brokers
from streams.log.kafka import KafkaLog
from streams.log.port import LogUnavailable, OutcomeUnknown
from streams.records import Record

WARM = 20_000
EACH = 300
KILLS = 10
PAYLOAD = b'["%s"]' % (b"x" * 180)


def record(seq: int, incarnation: int = 1) -> Record:
    return Record("ab" * 16, "kv", "kv@" + "c" * 32, incarnation, seq, time.time_ns() // 1_000_000, PAYLOAD)


class Ours:
    """One tail, and appends of which each waits until its own record came back."""

    def __init__(self, log: KafkaLog) -> None:
        self.log = log
        self.waits: dict[int, asyncio.Future[None]] = {}
        self.reached = -1
        self.changed = asyncio.Event()
        self.task = asyncio.ensure_future(self._tail())

    async def _tail(self) -> None:
        async for batch in self.log.tail(await self.log.end()):
            self.reached = batch[-1].offset
            self.changed.set()

    async def one(self, seq: int) -> float:
        """Seconds from the call of append until its record is read back."""
        before, reached = time.perf_counter(), self.reached
        appending = asyncio.ensure_future(self.log.append([record(seq)]))
        while self.reached == reached:
            self.changed.clear()
            await self.changed.wait()
        seconds = time.perf_counter() - before
        await appending
        return seconds

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Bare:
    """The client alone, in one thread: produce, poll the consumer until the record is there."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        common = {"bootstrap.servers": bootstrap, "socket.nagle.disable": True}
        self.topic = topic
        self.producer = Producer({**common, "acks": "all", "enable.idempotence": True, "linger.ms": 0})
        self.consumer = Consumer(
            {**common, "group.id": "bare", "enable.auto.commit": False, "fetch.min.bytes": 1, "check.crcs": True}
        )
        _, end = self.consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        self.consumer.assign([TopicPartition(topic, 0, end)])

    def one(self, seq: int) -> float:
        made = record(seq)
        before = time.perf_counter()
        self.producer.produce(self.topic, made.payload, b"kv", 0, headers=[("corelog", made.head())])
        while (message := self.consumer.poll(1.0)) is None or message.error():
            pass
        seconds = time.perf_counter() - before
        self.producer.poll(0)
        return seconds


async def latency(brokers: Brokers, rounds: int) -> Row:
    """Append → read back, one at a time, in interleaved rounds; the median of the rounds' medians."""
    log = await KafkaLog.open(f"kafka://{brokers.bootstrap}/latency", {})
    ours = Ours(log)
    for start in range(0, WARM, 200):
        await asyncio.gather(*(log.append([record(seq)]) for seq in range(start, start + 200)))
    bare = Bare(brokers.bootstrap, "latency")
    loop = asyncio.get_running_loop()
    for seq in range(EACH):
        await ours.one(seq)
    medians: list[tuple[float, float]] = []
    for _ in range(rounds):
        mine = [await ours.one(seq) for seq in range(EACH)]
        # drain what the bare consumer saw of ours, then let it work in a thread of its own
        await loop.run_in_executor(None, _drain, bare)
        theirs = await loop.run_in_executor(None, lambda: [bare.one(seq) for seq in range(EACH)])
        await _quiet(ours)
        medians.append((statistics.median(mine) * 1000, statistics.median(theirs) * 1000))
    await ours.close()
    await log.close()
    bare.consumer.close()
    mine_ms = statistics.median(mine for mine, _ in medians)
    theirs_ms = statistics.median(theirs for _, theirs in medians)
    ratio = statistics.median(mine / theirs for mine, theirs in medians)
    return Row(
        what="Kafka: append → read back, one at a time, p50",
        ours=f"{mine_ms:.2f} ms",
        peer=f"bare confluent-kafka {theirs_ms:.2f} ms",
        ratio=f"{ratio:.2f}x",
        reach="≤ 1.3x",
        ok=ratio <= 1.3,
        note=f"three brokers here, RF 3, min ISR 2, {rounds} interleaved rounds of {EACH}",
    )


def _drain(bare: Bare) -> None:
    while bare.consumer.poll(0.3) is not None:
        pass


async def _quiet(ours: Ours) -> None:
    """Until our tail has seen what the other client wrote."""
    end = await ours.log.end()
    while ours.reached < end - 1:
        ours.changed.clear()
        await ours.changed.wait()


async def fail_over(brokers: Brokers) -> Row:
    """The partition's leader is killed KILLS times while a writer appends: the longest gap between two
    acknowledgements after each kill."""
    log = await KafkaLog.open(f"kafka://{brokers.bootstrap}/failover", {})
    acknowledged: dict[tuple[int, int], int] = {}
    moments: list[float] = []
    unknown = 0
    stop = False

    async def write() -> None:
        nonlocal unknown
        seq, incarnation = 0, 1
        while not stop:
            seq += 1
            try:
                [acknowledged[incarnation, seq]] = await log.append([record(seq, incarnation)])
                moments.append(time.monotonic())
            except OutcomeUnknown:
                unknown += 1
                incarnation += 1
            except LogUnavailable:
                await asyncio.sleep(0.05)

    writer = asyncio.ensure_future(write())
    pauses: list[float] = []
    await asyncio.sleep(2)
    for _ in range(KILLS):
        leader = await asyncio.to_thread(brokers.leader, "failover")
        killed_s = time.monotonic()
        brokers.kill(leader)
        while len(moments) < 2 or moments[-1] < killed_s + 6:
            await asyncio.sleep(0.2)
        after = [killed_s, *(moment for moment in moments if moment >= killed_s)]
        pauses.append(max(later - earlier for earlier, later in itertools.pairwise(after)))
        brokers.start(leader)
        await asyncio.to_thread(brokers.wait)
        await asyncio.sleep(3)
    stop = True
    await writer
    found: dict[int, bytes] = {}
    end = await log.end()
    async for batch in log.tail(0):
        found.update((entry.offset, entry.raw.split(b" ", 7)[5:7]) for entry in batch)  # type: ignore[misc]
        if batch[-1].offset >= end - 1:
            break
    lost = [key for key, offset in acknowledged.items() if found.get(offset) != [str(part).encode() for part in key]]
    doubled = len(found) - len({tuple(each) for each in found.values()})
    await log.close()
    p50, worst = statistics.median(pauses), max(pauses)
    return Row(
        what=f"Kafka: the partition's leader killed {KILLS} times, pause of appends",
        ours=f"p50 {p50:.1f} s, max {worst:.1f} s",
        peer="tuned brokers 2.1-3.1 s",
        ratio="-",
        reach="≤ 4 s, nothing acknowledged lost",
        ok=worst <= 4 and not lost and not doubled,
        note=f"{len(acknowledged)} acknowledged, {len(lost)} lost, {doubled} doubled, {unknown} unknown",
    )


def run(rounds: int = 7) -> list[Row]:
    """Both figures. Raises deploy.kafka.brokers.Missing where Java or the jars can't be had."""
    with tempfile.TemporaryDirectory(prefix="corelog-bench-") as folder, Brokers(3, Path(folder) / "k").up() as brokers:
        return [uvloop.run(latency(brokers, rounds)), uvloop.run(fail_over(brokers))]


if __name__ == "__main__":
    for row in run(int(sys.argv[1]) if len(sys.argv) > 1 else 7):
        print(row)
