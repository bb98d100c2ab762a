"""Reading the log from Kafka: a consumer in a thread of its own, whole batches handed to the loop."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.events.base import encode, say
from streams.events.log import Barrier
from streams.log.kafka.messages import is_hole, raw_of
from streams.log.kafka.options import Address
from streams.log.port import CALM_S, HASTY_S, QUIET, QUIET_S, LogError, LogTruncated, LogUnavailable
from streams.records import Entry

BATCH_MAX = 1000
#: The thread waits when the loop has so many bytes (or batches) of entries still to take.
AHEAD_BYTES_MAX = 8 * 1024 * 1024
AHEAD_BATCHES_MAX = 64
ASK_TIMEOUT_S = 3.0
#: After a batch that was of no use, the next one is let grow for so long: its reader has those records by reports,
#: and this thread must not take the interpreter from them at that very moment.
LAZY_S = 0.001
#: An offset above the end must be found so twice, this long apart, before the log counts as truncated: a broker that
#: was cut off knows an old end, and the one that follows it learns the newest a moment later.
CONFIRM_S = 1.0

_QUIET = frozenset(stream.encode() for stream in QUIET)
#: What a linearizable read writes: nobody but its writer waits for it either.
_BARRIER = encode([say(Barrier())])
_OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_GONE = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)  # fmt: skip
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)  # fmt: skip


class DamagedLog(LogError):
    """A broker's copy of a record fails its checksum: halt, never skip. Another replica may have it whole."""


class Reader:
    """One tail. ``batches`` yields until it is closed; a thread polls meanwhile.

    ``passed``: what is below needn't be yielded. ``is_patient``: at the end of the log, quiet records may come QUIET_S
    late, and CALM_S if it isn't but ``is_calm()`` (streams.log.port.Handing).
    """

    def __init__(
        self,
        config: dict[str, Any],
        address: Address,
        start: int,
        streams: Collection[str] | None,
        passed: Callable[[], int] | None = None,
        is_patient: bool = False,
        is_calm: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._address = address
        self._at = start
        self._passed = passed
        self._is_lazy = False
        self._is_patient = is_patient
        self._is_calm = is_calm
        #: somebody waits for what is before this offset; and until then somebody may again
        self._wanted, self._hasty_s = 0, 0.0
        self._streams = None if streams is None else frozenset(stream.encode() for stream in streams)
        self._loop = asyncio.get_running_loop()
        self._ready: deque[list[Entry]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: LogError | None = None
        self._stopping = False
        self._ahead_bytes = 0
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="kafka-reader", daemon=True)

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        self._thread.start()
        try:
            while True:
                while not self._ready:
                    if self._error is not None:
                        raise self._error
                    self._waiter = self._loop.create_future()
                    await self._waiter
                batch = self._ready.popleft()
                self._taken(batch)
                yield batch
        finally:
            with self._room:
                self._stopping = True
                self._room.notify()
            # librdkafka ends a poll that is under way within its timeout; nobody must wait for it
            self._loop.run_in_executor(None, self._thread.join)

    def _taken(self, batch: list[Entry]) -> None:
        if self._ahead_bytes:
            with self._room:
                self._ahead_bytes -= sum(len(entry.raw) for entry in batch)
                self._room.notify()

    # --- in the thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._consume()
        except LogError as error:
            self._hand_over([], error)
        except Exception as error:  # a bug or an unforeseen error of the client must not end in silence
            self._hand_over([], LogUnavailable(f"reading {self._address} failed: {type(error).__name__}: {error}"))

    def _consume(self) -> None:
        """Read from the position on with one consumer; returns when another must be made, or at the end."""
        consumer = Consumer(self._config)
        try:
            consumer.assign([TopicPartition(self._address.topic, 0, self._at)])
            while not self._stopping:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                if self._is_lazy:
                    time.sleep(LAZY_S)
                messages = [message, *consumer.consume(BATCH_MAX - 1, 0)]
                if not self._batch(consumer, messages):
                    return
                if self._may_be_late() and self._may_rest(consumer, messages):
                    self._rest(consumer)
        finally:
            consumer.close()

    def _may_rest(self, consumer: Consumer, messages: list[Message]) -> bool:
        """Whether these were quiet ones, nobody waits for others, and no more is known to be there."""
        if any(message.key() not in _QUIET and message.value() != _BARRIER for message in messages):
            return False
        if self._at < self._wanted:
            return False
        # pausing holds up the loop for a moment: not where somebody writes
        if not self._is_patient and (self._is_lazy or time.monotonic() < self._hasty_s):
            return False
        _, end = consumer.get_watermark_offsets(TopicPartition(self._address.topic, 0), cached=True) or (0, 0)
        return self._at >= end

    def _rest(self, consumer: Consumer) -> None:
        if self._is_patient:
            self._wait(QUIET_S)
            return
        # it fetches ahead when it is awake: each record that comes now would be a fetch
        here = TopicPartition(self._address.topic, 0, self._at)
        consumer.pause([here])
        self._wait(CALM_S)
        consumer.resume([here])
        # librdkafka looks at what it is to fetch once a second, but at once after a seek
        consumer.seek(here)

    def _may_be_late(self) -> bool:
        return self._is_patient or self._is_calm()

    def _wait(self, rest_s: float) -> None:
        with self._room:
            self._room.wait_for(lambda: self._stopping or self._at < self._wanted or not self._may_be_late(), rest_s)

    def rouse(self) -> None:
        """It may be calm no longer."""
        with self._room:
            self._room.notify()

    def hurry(self, upto: int) -> None:
        with self._room:
            self._wanted = max(self._wanted, upto)
            self._hasty_s = time.monotonic() + HASTY_S
            self._room.notify()

    def _batch(self, consumer: Consumer, messages: list[Message]) -> bool:
        """Hand over what came; False when the consumer must be made anew at the position."""
        entries: list[Entry] = []
        trouble: KafkaError | None = None
        passed = self._passed() if self._passed is not None else -1
        for message in messages:
            trouble = message.error()
            if trouble is not None:
                break
            offset = message.offset()
            if offset is None or offset < self._at:
                continue
            self._at = offset + 1
            if offset < passed:
                continue
            if (entry := self._entry(offset, message)) is not None:
                entries.append(entry)
        self._is_lazy = bool(messages) and self._at <= passed
        if entries:
            self._hand_over(entries, None)
        # what stood behind the error is taken from this consumer, and must be fetched again
        return trouble is None or (self._trouble(consumer, trouble) and message is messages[-1])

    def _entry(self, offset: int, message: Message) -> Entry | None:
        key, value, headers = message.key(), message.value(), message.headers()
        if key is None and value is None and is_hole(None, None, headers):  # type: ignore[arg-type] # as below
            return None
        raw = raw_of(_bytes(key), _bytes(value), headers)  # type: ignore[arg-type] # bytes, without deserializers
        if self._streams is not None and key not in self._streams and raw.startswith(b"CORELOG "):
            return None
        return Entry(offset, raw)

    def _hand_over(self, entries: list[Entry], error: LogError | None) -> None:
        if entries:
            with self._room:
                while not self._stopping and self._ahead_bytes > AHEAD_BYTES_MAX:
                    self._room.wait(0.5)
                self._ahead_bytes += sum(len(entry.raw) for entry in entries)
        try:
            self._loop.call_soon_threadsafe(self._deliver, entries, error)
        except RuntimeError:  # the loop is closed
            self._stopping = True

    def _trouble(self, consumer: Consumer, error: KafkaError) -> bool:
        """Whether to go on with this consumer after an error. Raises LogTruncated, LogUnavailable, DamagedLog."""
        code = error.code()
        if code in _OUT_OF_RANGE or code == KafkaError._LOG_TRUNCATION:
            self._judge(consumer, error)
            return False
        if code in _REFUSED:
            raise LogUnavailable(f"{self._address} may not be read: {error.str()}")
        if code == KafkaError._BAD_MSG:
            raise DamagedLog(
                f"the record at {self._at} of {self._address} is corrupt on the broker that leads ({error.str()}); "
                "move the leadership to another replica (kafka-leader-election.sh) and start again"
            )
        if code in _GONE:
            time.sleep(0.2)
        return not error.fatal()

    def _judge(self, consumer: Consumer, error: KafkaError) -> None:
        """The position is not in the log, a broker says. Raises LogTruncated once that is sure; else returns."""
        seen = 0
        while not self._stopping:
            bounds = watermarks(consumer, self._address)
            if bounds is not None:
                first, end = bounds
                if self._at < first:
                    raise LogTruncated(f"offset {self._at} of {self._address} was trimmed; the log starts at {first}")
                if self._at <= end and error.code() != KafkaError._LOG_TRUNCATION:
                    return
                seen += 1
                if seen > 1:
                    raise LogTruncated(
                        f"offset {self._at} of {self._address} is outside of the log ({first} to {end}): "
                        f"it is shorter than it was, or another one ({error.str()})"
                    )
            time.sleep(CONFIRM_S)

    # --- on the loop

    def _deliver(self, entries: list[Entry], error: LogError | None) -> None:
        if entries:
            self._ready.append(entries)
        if error is not None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _bytes(part: object) -> bytes | None:
    """Without deserializers keys and values are bytes or None."""
    return part if isinstance(part, bytes) else None


def watermarks(consumer: Consumer, address: Address) -> tuple[int, int] | None:
    """First offset and end, or None when no broker says. Blocks up to ASK_TIMEOUT_S."""
    try:
        found = consumer.get_watermark_offsets(TopicPartition(address.topic, 0), timeout=ASK_TIMEOUT_S)
    except KafkaException:
        return None
    return found
