"""The outcomes topic on Kafka: made, found and written. The only module of the audit that knows the client."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.audit.lines import BadLine, Line, packed, unpacked
from streams.audit.outcomes import Feed, OutcomeSink, replayed_lines
from streams.log.kafka.clients import built
from streams.log.kafka.options import Address, Options, for_consumer, for_producer, parse_address, parse_options
from streams.log.port import ForeignLog, Log, LogUnavailable, OutcomeUnknown
from streams.records import Position
from streams.replay import Fold

ANSWER_TIMEOUT_S = 10.0
#: Messages that are read at once.
READ_MAX = 500
#: Messages that are looked through at once when the end of a fold is searched backwards; each time four times as many.
WINDOW = 20
#: Outcomes are kept for ever unless an operator says otherwise: the log has them all, this is a derived view.
SETTINGS = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


def outcomes_topic(log_topic: str) -> str:
    return f"{log_topic}.outcomes"


class KafkaOutlet:
    """See streams.audit.outcomes.Outlet. Made by :meth:`open`."""

    def __init__(self, address: Address, options: Options) -> None:
        self.topic = outcomes_topic(address.topic)
        self._address = address
        self._options = options
        # a gap would be taken for the end by who goes on: with this the client stops for good instead
        self._producer = built(
            Producer, {**for_producer(address, options), "enable.gapless.guarantee": True, "linger.ms": 5}
        )

    @classmethod
    async def open(cls, log_address: str, options: Mapping[str, str]) -> "KafkaOutlet":
        """``log_address``: of the log (``kafka://…``); the topic is made beside it unless it is there.

        Raises LogUnavailable when nobody answers, ForeignLog when an option is wrong or the topic has several
        partitions.
        """
        address, parsed = parse_address(log_address), parse_options(options)
        await asyncio.to_thread(ensure, address, parsed)
        return cls(address, parsed)

    async def last(self, fold: str) -> Position | None:
        return await asyncio.to_thread(last_position, self._address, self._options, fold)

    async def write(self, fold: str, lines: Sequence[Line]) -> None:
        await asyncio.to_thread(self._write, fold, lines)

    def _write(self, fold: str, lines: Sequence[Line]) -> None:
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        try:
            for value in packed(lines):
                self._producer.produce(self.topic, value, fold.encode(), on_delivery=delivered)
                self._producer.poll(0)
            left = self._producer.flush(self._options.timeout_ms / 1000 + 5)
        except (KafkaException, BufferError) as error:
            raise OutcomeUnknown(f"writing {self.topic}: {error}") from error
        if failed or left:
            why = failed[0].str() if failed else f"{left} not acknowledged in time"
            raise OutcomeUnknown(f"writing {self.topic}: {why}")

    async def close(self) -> None:
        def end() -> None:
            self._producer.purge()
            self._producer.close()

        await asyncio.to_thread(end)


def ensure(address: Address, options: Options, name: str = "") -> None:
    """Make the topic (``name``: another one beside it) with one partition, as often replicated as the log.

    Raises LogUnavailable, ForeignLog.
    """
    topic = name or outcomes_topic(address.topic)
    admin = built(AdminClient, _admin(address, options))
    try:
        found = admin.list_topics(timeout=ANSWER_TIMEOUT_S)
        if topic not in found.topics:
            log = found.topics.get(address.topic)
            replicas = len(log.partitions[0].replicas) if log and log.partitions else min(3, len(found.brokers))
            new = NewTopic(topic, 1, replicas, config=SETTINGS)
            admin.create_topics([new], request_timeout=ANSWER_TIMEOUT_S)[topic].result(ANSWER_TIMEOUT_S)
        elif len(found.topics[topic].partitions) != 1:
            raise ForeignLog(f"topic {topic!r} has {len(found.topics[topic].partitions)} partitions, one is needed")
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise LogUnavailable(f"topic {topic!r} at {address.bootstrap}: {error.args[0].str()}") from error
    except TimeoutError as error:
        raise LogUnavailable(f"topic {topic!r} at {address.bootstrap} can't be made: no answer") from error


def _admin(address: Address, options: Options) -> dict[str, Any]:
    return {"bootstrap.servers": address.bootstrap, "log_level": 0, **options.client}


def last_position(address: Address, options: Options, fold: str) -> Position | None:
    """Search backwards from the end of the outcomes topic for the fold's last line. Blocks. Raises LogUnavailable."""
    consumer = built(Consumer, {**for_consumer(address, options), "enable.partition.eof": True})
    where = TopicPartition(outcomes_topic(address.topic), 0)
    try:
        first, end = consumer.get_watermark_offsets(where, timeout=ANSWER_TIMEOUT_S)
        window = WINDOW
        while end > first:
            start = max(first, end - window)
            found = [line.at for key, line in _lines(_read(consumer, where.topic, start, end)) if key == fold]
            if found:
                return max(found)
            end, window = start, window * 4
        return None
    except KafkaException as error:
        raise _unread(where.topic, error) from error
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, start: int, end: int) -> list[Message]:
    """The messages from ``start`` up to, not including, ``end``. Raises LogUnavailable, KafkaException."""
    consumer.assign([TopicPartition(topic, 0, start)])
    read: list[Message] = []
    while True:
        messages = some(consumer, READ_MAX)
        if not messages:
            raise LogUnavailable(f"reading {topic}: no answer")
        for message in messages:
            error, offset = message.error(), message.offset()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return read
            if error is not None:
                raise KafkaException(error)
            if offset is None or offset >= end:
                return read
            read.append(message)
            if offset + 1 >= end:
                return read


def _lines(messages: Sequence[Message]) -> list[tuple[str, Line]]:
    """Fold and line of all; what isn't a line is passed over."""
    found: list[tuple[str, Line]] = []
    for message in messages:
        with contextlib.suppress(BadLine):
            fold, lines = lines_in(message)
            found += [(fold, line) for line in lines]
    return found


def between(address: Address, options: Options, topic: str, start: int, end: int) -> list[Message]:
    """The topic's messages of [start, end) that retention has left. Blocks. Raises LogUnavailable."""
    consumer = built(Consumer, {**for_consumer(address, options), "enable.partition.eof": True})
    try:
        first, last = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_TIMEOUT_S)
        start, end = max(start, first), min(end, last)
        return _read(consumer, topic, start, end) if start < end else []
    except KafkaException as error:
        raise _unread(topic, error) from error
    finally:
        consumer.close()


def end_of(address: Address, options: Options, topic: str) -> int:
    """The offset behind the topic's last message. Blocks. Raises LogUnavailable."""
    consumer = built(Consumer, for_consumer(address, options))
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_TIMEOUT_S)[1])
    except KafkaException as error:
        raise _unread(topic, error) from error
    finally:
        consumer.close()


def committed(address: Address, options: Options, topic: str, group: str) -> int:
    """Where the consumer group goes on reading; 0 if it never read. Blocks. Raises LogUnavailable."""
    consumer = built(Consumer, {**for_consumer(address, options), "group.id": group})
    try:
        [found] = consumer.committed([TopicPartition(topic, 0)], timeout=ANSWER_TIMEOUT_S)
        return max(found.offset, 0)
    except KafkaException as error:
        raise _unread(topic, error) from error
    finally:
        consumer.close()


def _unread(topic: str, error: KafkaException) -> LogUnavailable:
    return LogUnavailable(f"reading {topic}: {error.args[0].str() if error.args else error}")


def some(consumer: Consumer, count: int) -> list[Message]:
    """What is there now, at most ``count``; waits ANSWER_TIMEOUT_S for the first (``consume`` would wait for all)."""
    first = consumer.poll(ANSWER_TIMEOUT_S)
    return [] if first is None else [first, *consumer.consume(count - 1, 0)]


def lines_in(message: Message) -> tuple[str, list[Line]]:
    """Fold and lines of a message of the outcomes topic. Raises BadLine that names the offset."""
    where = f"{message.topic()} offset {message.offset()}"
    key, value = message.key(), message.value()
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        raise BadLine(f"{where}: no key or no value")
    return key.decode("utf-8", "replace"), unpacked(value, where)


def replicas(address: Address, options: Options, topic: str) -> int:
    """How many replicas the topic's partition has; 0 if there is no such topic. Raises LogUnavailable, ForeignLog."""
    admin = built(AdminClient, _admin(address, options))
    try:
        found = admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics.get(topic)
    except KafkaException as error:
        raise LogUnavailable(f"no Kafka broker answers at {address.bootstrap}: {error.args[0].str()}") from error
    return len(found.partitions[0].replicas) if found is not None and found.partitions else 0


def outcome_sink(
    log: Log,
    address: str,
    options: Mapping[str, str],
    log_id: str,
    make: Callable[[], Fold],
    snapshots_folder: Path,
    acting: Callable[[], bool],
    voided: Callable[[], Mapping[int, str]],
) -> tuple[Feed, OutcomeSink]:
    """What an actor on a Kafka log needs to write its fold's outcomes.

    The actor calls ``feed.applied(batch, live)`` in its own ``applied`` and runs ``sink.run()`` as a task beside its
    shell. ``acting``: whether this machine holds the mastership, as its replica sees it now; ``voided``: what an
    operator voided, as it knows.
    """
    feed = Feed(make().name)
    replayed = partial(replayed_lines, log, make, snapshots_folder, log_id, voided)
    return feed, OutcomeSink(feed, partial(KafkaOutlet.open, address, dict(options)), replayed, acting)
