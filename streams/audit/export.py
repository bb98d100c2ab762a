"""``corelog audit export``: the whole trail as JSON lines, read from the log and the outcomes topic."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.audit import kafka
from streams.audit.lines import BadLine, Line, plain
from streams.audit.trail import Commands, Wanted, joined
from streams.history.at import entries
from streams.log.kafka.clients import built
from streams.log.kafka.options import for_consumer, parse_address, parse_options
from streams.log.open import open_log
from streams.log.port import ForeignLog, Log, LogUnavailable

BATCH = 5000


async def export(
    log_address: str,
    options: Mapping[str, str] | None = None,
    wanted: Wanted | None = None,
    write: Callable[[str], object] = print,
    bad: Callable[[BadLine], object] = lambda _error: None,
) -> int:
    """Write each command up to now, with its principal and outcome, a JSON object a line; returns how many.

    A command whose outcome nobody has written yet is ``pending``. Raises ForeignLog (not a log on Kafka),
    LogUnavailable. ``bad``: told of what stands in the outcomes topic and is no line; it is passed over.
    """
    if not log_address.startswith("kafka://"):
        raise ForeignLog(f"{log_address!r}: the audit reads Kafka only; on the embedded log use `corelog log --jsonl`")
    wanted = wanted or Wanted()
    log = await open_log(log_address, options)
    count = 0
    try:
        # outcomes are read after the log's end is known, so that what the log has is as complete as it can be
        end = await log.end()
        async for line in joined(_commands(log, end), outcomes(log_address, options, bad)):
            if wanted.matches(line):
                write(msgspec.json.encode(plain(line)).decode())
                count += 1
    finally:
        await log.close()
    return count


async def founded(log_address: str, options: Mapping[str, str] | None = None) -> str:
    """The log's id, as it was founded; empty if that record is trimmed away or not there yet. Raises LogError."""
    log = await open_log(log_address, options)
    try:
        commands = Commands()
        start = await log.first()
        async for batch in entries(log, start, min(await log.end(), start + BATCH)):
            for entry in batch:
                for _ in commands.lines(entry):
                    pass
                if commands.log_id:
                    return commands.log_id
    finally:
        await log.close()
    return ""


async def _commands(log: Log, end: int) -> AsyncIterator[Line]:
    commands = Commands()
    async for batch in entries(log, await log.first(), end):
        for entry in batch:
            for line in commands.lines(entry):
                yield line


async def outcomes(
    log_address: str, options: Mapping[str, str] | None, bad: Callable[[BadLine], object] = lambda _error: None
) -> AsyncIterator[tuple[str, Line]]:
    """Fold and line of all that stands in the outcomes topic now; nothing if there is no topic yet."""
    address, parsed = parse_address(log_address), parse_options(options or {})
    consumer = built(Consumer, {**for_consumer(address, parsed), "enable.partition.eof": True})
    where = TopicPartition(kafka.outcomes_topic(address.topic), 0)
    try:
        first, end = await asyncio.to_thread(_watermarks, consumer, where)
        if first >= end:
            return
        consumer.assign([TopicPartition(where.topic, 0, first)])
        at = first
        while at < end:
            messages = await asyncio.to_thread(kafka.some, consumer, BATCH)
            if not messages:
                raise LogUnavailable(f"reading {where.topic}: no answer")
            for message in messages:
                error, offset = message.error(), message.offset()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    return
                if error is not None:
                    raise LogUnavailable(f"reading {where.topic}: {error.str()}")
                at = (offset or 0) + 1
                try:
                    fold, lines = kafka.lines_in(message)
                except BadLine as wrong:
                    bad(wrong)
                    continue
                for line in lines:
                    yield fold, line
    finally:
        await asyncio.to_thread(consumer.close)


def _watermarks(consumer: Consumer, where: TopicPartition) -> tuple[int, int]:
    try:
        if where.topic not in consumer.list_topics(timeout=kafka.ANSWER_TIMEOUT_S).topics:
            return 0, 0
        first, end = consumer.get_watermark_offsets(where, timeout=kafka.ANSWER_TIMEOUT_S)
        return int(first), int(end)
    except KafkaException as error:
        raise LogUnavailable(f"reading {where.topic}: {error.args[0].str()}") from error
