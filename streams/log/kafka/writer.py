"""Appending to Kafka: an idempotent producer, its poll thread, and what is known of the log being live.

The rules, in the order in which they act:

1. Messages go to one producer (acks=all, idempotent), which keeps the order of calls over retries. When a leader is
   lost it may still write one again: a record counts once by its number (streams/replay.py, docs/decisions/0016).
2. If one of them fails or runs out of time, the whole producer is *abandoned*: queue and flight are purged, its
   sockets closed, and only then do its appends end with OutcomeUnknown. So nothing of them can be sent again later;
   what was in a socket already may still land, and a new incarnation's barrier decides about that.
3. From then on appends are refused unsent with LogUnavailable until a probe shows the log live: the controller
   answers, the partition has a leader and enough replicas in sync.
4. The same refusal holds when probes have failed, or the oldest append has waited, for longer than any fail-over
   takes (REFUSE_AFTER_S). Idle, nothing is probed: a lost connection or a slow append makes the driver look.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.log.kafka.messages import Parts, message_of
from streams.log.kafka.options import Address, Options, for_admin, for_producer
from streams.log.port import RECORD_BYTES_MAX, Landed, LogError, LogUnavailable, OutcomeUnknown, RecordTooLarge
from streams.records import Entry, Record

#: An append slower than this makes the driver look whether the log is live.
SUSPECT_AFTER_S = 1.0
#: Longer than a broker's fail-over; not live for so long, appends are refused unsent.
REFUSE_AFTER_S = 4.0
PROBE_EVERY_S = 0.25
#: Looking costs the machine, which brokers on it may need to come back: the longer it lasts, the rarer.
PROBE_EVERY_MAX_S = 2.0
PROBE_TIMEOUT_S = 2.0
#: Purging and closing an abandoned producer takes milliseconds; its appends end after this in any case.
ABANDON_TIMEOUT_S = 3.0
#: Records handed to the client and not yet acknowledged.
IN_FLIGHT_MAX = 20_000
IN_FLIGHT_BYTES_MAX = 128 * 1024 * 1024

_logger = structlog.get_logger("kafka")


class Flight:
    """One append under way. ``landed`` is told once: its offsets, or why they aren't known."""

    __slots__ = ("error", "landed", "left", "offsets", "sent_s", "size")

    def __init__(self, landed: "Told", count: int, size: int, now_s: float) -> None:
        self.landed: Told | None = landed
        self.left = count
        self.offsets = [-1] * count
        self.size = size
        self.sent_s = now_s
        self.error: KafkaError | None = None

    def tell(self, result: list[int] | LogError) -> None:
        landed, self.landed = self.landed, None
        if landed is not None:
            landed(result)


Told = Callable[[list[int] | LogError], None]
#: What the poll thread hands to the loop: append, index in it, offset, error.
Report = tuple[Flight, int, int, KafkaError | None]


class Line:
    """One producer and its poll thread, until it is abandoned."""

    def __init__(self, config: dict[str, Any], landed: Callable[["Line", list[Report]], None],
                 troubled: Callable[["Line", KafkaError], None], loop: asyncio.AbstractEventLoop) -> None:  # fmt: skip
        self.flights: dict[Flight, None] = {}
        self.size = 0
        self.count = 0
        self.abandoned = False
        self._landed = landed
        self._troubled = troubled
        self._loop = loop
        self._reports: list[Report] = []
        self._ended = loop.create_future()
        self.producer = Producer({**config, "error_cb": self._error})
        self._thread = threading.Thread(target=self._poll, name="kafka-writer", daemon=True)
        self._thread.start()

    def delivered(self, flight: Flight, index: int, error: KafkaError | None, message: Message) -> None:
        """librdkafka's delivery report; in the poll thread, which hands over all of one poll at once."""
        offset = message.offset()
        self._reports.append((flight, index, -1 if offset is None else offset, error))

    def _error(self, error: KafkaError) -> None:
        self._call(self._troubled, self, error)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.abandoned = True

    def _poll(self) -> None:
        while not self.abandoned:
            # a report is what callers wait for: a replica applies its own records when they are reported
            self.producer.poll(0.25)
            if self._reports and not self.abandoned:
                reports, self._reports = self._reports, []
                self._call(self._landed, self, reports)
        # purge() again: what was produced between the loop's mark and here; then close() has nothing to flush
        self.producer.purge()
        self.producer.close()
        self._call(self._set_ended)

    def _set_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def abandon(self) -> None:
        """Nothing of this producer is sent again once this returns. Its reports are dropped."""
        self.abandoned = True
        # it may be closed already, by its thread
        with contextlib.suppress(RuntimeError):
            self.producer.purge(blocking=False)
        await asyncio.wait([self._ended], timeout=ABANDON_TIMEOUT_S)


class Writer:
    """``append`` for the driver. Use it from one event loop."""

    def __init__(self, address: Address, options: Options, min_insync: int) -> None:
        self._address = address
        self._config = for_producer(address, options)
        self._admin_config = for_admin(address, options)
        self._min_insync = min_insync
        self._loop = asyncio.get_running_loop()
        self._line = self._new_line()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._probing = False
        self._closed = False
        #: why appends are refused until a probe shows the log live
        self._down = ""
        self._not_live_since_s: float | None = None
        self._not_live_why = ""

    def _new_line(self) -> Line:
        return Line(self._config, self._landed, self._troubled, self._loop)

    async def warm(self) -> None:
        """Connect and learn who leads, so that the first append doesn't pay for it. Raises LogUnavailable."""
        live, why = await asyncio.to_thread(self.look)
        if not live:
            self._suspect()
            _logger.warning("the log is not live yet", reason=why)

    def hand(self, records: Sequence[Record], landed: Landed) -> None:
        """Hand records to the producer, now, in order. Raises LogUnavailable and RecordTooLarge: nothing was sent."""
        messages, size = _messages(records)

        def told(result: list[int] | LogError) -> None:
            if isinstance(result, LogError):
                landed(result)
            else:
                landed([Entry(at, record.canonical()) for at, record in zip(result, records, strict=True)])

        self._send(messages, size, told)

    def append(self, records: Sequence[Record]) -> "asyncio.Future[list[int]]":
        """The same, by a future. See the port for what it raises."""
        return self._handed(partial(_messages, records))

    def put(self, messages: Sequence[tuple[Parts, int]]) -> "asyncio.Future[list[int]]":
        """As ``append``, messages as they are, each with its time in ms: what copies write."""
        return self._handed(lambda: ([*messages], sum(map(_size, messages))))

    def _handed(self, make: Callable[[], "tuple[list[tuple[Parts, int]], int]"]) -> "asyncio.Future[list[int]]":
        future: asyncio.Future[list[int]] = self._loop.create_future()

        def told(result: list[int] | LogError) -> None:
            if future.done():
                return
            if isinstance(result, LogError):
                future.set_exception(result)
            else:
                future.set_result(result)

        try:
            messages, size = make()
            if messages:
                self._send(messages, size, told)
            else:
                future.set_result([])
        except LogError as error:
            future.set_exception(error)
        return future

    def _send(self, messages: "list[tuple[Parts, int]]", size: int, landed: Told) -> None:
        if refusal := self._refusal(len(messages), size):
            raise LogUnavailable(refusal)
        line = self._line
        flight = Flight(landed, len(messages), size, time.monotonic())
        for index, ((key, value, headers), time_ms) in enumerate(messages):
            try:
                line.producer.produce(
                    self._address.topic,
                    value,
                    key,
                    0,
                    on_delivery=partial(line.delivered, flight, index),
                    timestamp=time_ms,
                    headers=headers,
                )
            except (BufferError, KafkaException) as error:
                if index == 0:
                    self._fatal_at_send(line, error)
                    raise LogUnavailable(f"the Kafka client takes no record: {error}") from error
                self._fly(line, flight)
                self._abandon(line, f"the Kafka client takes no record: {error}")
                return
        self._fly(line, flight)

    def _fly(self, line: Line, flight: Flight) -> None:
        line.flights[flight] = None
        line.count += flight.left
        line.size += flight.size
        if self._watch is None:
            self._watch = self._loop.call_later(SUSPECT_AFTER_S, self._look_at_flights)

    def _fatal_at_send(self, line: Line, error: Exception) -> None:
        cause = error.args[0] if error.args else None
        if isinstance(cause, KafkaError) and (cause.fatal() or cause.code() == KafkaError._FATAL):
            self._abandon(line, f"the producer failed: {cause.str()}")

    def _refusal(self, count: int, size: int) -> str:
        """Why an append is not sent now, or empty."""
        where = f"Kafka at {self._address.bootstrap}"
        line = self._line
        if self._closed:
            return "the log is closed"
        if self._down:
            return f"{where} is not live ({self._down}); nothing was sent"
        now_s = time.monotonic()
        if self._not_live_since_s is not None and now_s - self._not_live_since_s > REFUSE_AFTER_S:
            return f"{where} is not live ({self._not_live_why}); nothing was sent"
        oldest = next(iter(line.flights), None)
        if oldest is not None and now_s - oldest.sent_s > REFUSE_AFTER_S:
            return f"{where} has not answered for {now_s - oldest.sent_s:.1f} s; nothing was sent"
        if line.count + count > IN_FLIGHT_MAX or line.size + size > IN_FLIGHT_BYTES_MAX:
            return f"{line.count} records wait for {where} already; nothing was sent"
        return ""

    def _landed(self, line: Line, reports: list[Report]) -> None:
        """Delivery reports, in order, on the loop."""
        if line.abandoned:
            return
        failed: KafkaError | None = None
        for flight, index, offset, error in reports:
            flight.left -= 1
            flight.offsets[index] = offset
            if error is not None or offset < 0:
                flight.error = flight.error or error
                failed = failed or error
            if flight.left == 0 and flight.error is None:
                self._landed_whole(line, flight)
        if failed is None:
            self._not_live_since_s = None
            return
        self._failed(line, failed)

    def _landed_whole(self, line: Line, flight: Flight) -> None:
        line.flights.pop(flight, None)
        line.count -= len(flight.offsets)
        line.size -= flight.size
        flight.tell(flight.offsets)

    def _failed(self, line: Line, error: KafkaError) -> None:
        """A record was not delivered. One that the broker found too large was surely not written; the rest is unknown.

        Every other code that a report carries can follow an attempt whose answer was lost.
        """
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            for flight in [flight for flight in line.flights if flight.error is error and len(flight.offsets) == 1]:
                line.flights.pop(flight)
                line.count -= 1
                line.size -= flight.size
                flight.tell(RecordTooLarge(f"the broker refused the record: {error.str()}"))
            # an idempotent producer goes on after such a refusal only with a new epoch: make it a new producer
        self._abandon(line, error.str())

    def _abandon(self, line: Line, reason: str) -> None:
        """End this producer for good and make another; its appends end with OutcomeUnknown. See rule 2."""
        if line is not self._line:
            return
        # refused until a probe has shown the log live, whatever the reason was
        self._down = reason
        line.abandoned = True
        _logger.warning("the producer is abandoned, its appends are unknown", reason=reason, appends=len(line.flights))
        self._spawn(self._end_line(line, reason))
        self._renew()
        self._suspect()

    def _renew(self) -> bool:
        """Another producer in the place of one that is abandoned. Whether there is one: no thread may be left."""
        if self._line.abandoned:
            try:
                self._line = self._new_line()
            except (KafkaException, RuntimeError, OSError) as error:
                _logger.warning("no other producer can be made yet", reason=str(error))
                return False
        return True

    async def _end_line(self, line: Line, reason: str) -> None:
        await line.abandon()
        flights, line.flights = line.flights, {}
        for flight in flights:
            flight.tell(OutcomeUnknown(f"Kafka at {self._address.bootstrap} did not acknowledge the record: {reason}"))

    def _troubled(self, line: Line, error: KafkaError) -> None:
        """librdkafka's error callback: a lost connection, all brokers down, a fatal error."""
        if line is not self._line or line.abandoned or self._closed:
            return
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._abandon(line, error.str())
        else:
            self._suspect()

    def _look_at_flights(self) -> None:
        self._watch = None
        oldest = next(iter(self._line.flights), None)
        if oldest is None or self._closed:
            return
        if time.monotonic() - oldest.sent_s >= SUSPECT_AFTER_S:
            self._suspect()
        self._watch = self._loop.call_later(SUSPECT_AFTER_S, self._look_at_flights)

    def _suspect(self) -> None:
        if not self._probing and not self._closed:
            self._probing = True
            self._spawn(self._probe())

    async def _probe(self) -> None:
        """Look again and again until the log is live."""
        try:
            while not self._closed:
                live, why = False, "no other producer can be made"
                if self._renew():
                    try:
                        live, why = await asyncio.to_thread(self.look)
                    except RuntimeError as error:  # no thread to be had
                        why = str(error)
                if live:
                    if self._down or self._not_live_since_s is not None:
                        _logger.info("the log is live")
                    self._down, self._not_live_since_s = "", None
                    return
                if self._not_live_since_s is None:
                    self._not_live_since_s = time.monotonic()
                    _logger.warning("the log is not live", reason=why)
                self._not_live_why = why
                lasted_s = time.monotonic() - self._not_live_since_s
                await asyncio.sleep(min(max(PROBE_EVERY_S, lasted_s / 10), PROBE_EVERY_MAX_S))
        finally:
            self._probing = False

    def look(self) -> tuple[bool, str]:
        """Whether an append would be acknowledged now, and if not why. Blocks for PROBE_TIMEOUT_S at most twice.

        The controller is asked (a creation that is only validated), because brokers that lost it go on to tell
        old metadata; then the partition's leader and replicas in sync.
        """
        topic = self._address.topic
        producer = self._line.producer
        try:
            found = producer.list_topics(topic, timeout=PROBE_TIMEOUT_S).topics[topic]
            partition = found.partitions.get(0)
            if found.error is not None or partition is None:
                return False, f"topic {topic!r} is not there: {found.error}"
            if partition.leader < 0:
                return False, "the partition has no leader"
            if len(partition.isrs) < self._min_insync:
                return False, f"{len(partition.isrs)} replica in sync, {self._min_insync} are needed"
            return controller(self._admin_config, topic)
        except KafkaException as error:
            return False, str(error.args[0].str() if error.args else error)
        except RuntimeError:  # it was abandoned meanwhile; the next look asks its successor
            return False, "the producer was abandoned"

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Appends under way end with OutcomeUnknown."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        await self._end_line(self._line, "the log was closed")
        if self._tasks:
            await asyncio.wait(self._tasks)


def controller(config: dict[str, Any], topic: str) -> tuple[bool, str]:
    """Whether the controller answers, and if not why: a creation of what is there is validated. Blocks for some 3 s.

    The client is closed here: one that is left to the garbage collector takes seconds to end in whatever thread that
    runs in, the loop's too.
    """
    with AdminClient(config) as admin:
        asked = admin.create_topics([NewTopic(topic, 1, 1)], validate_only=True, request_timeout=PROBE_TIMEOUT_S)
        try:
            error = asked[topic].exception(PROBE_TIMEOUT_S + 1)
        except TimeoutError:
            return False, "no controller: no answer"
    if isinstance(error, KafkaException) and error.args[0].code() not in _CONTROLLER_ANSWERED:
        return False, f"no controller: {error.args[0].str()}"
    return True, ""


def _messages(records: Sequence[Record]) -> tuple[list[tuple[Parts, int]], int]:
    """Messages with their times, and the bytes of all. Raises RecordTooLarge."""
    messages: list[tuple[Parts, int]] = []
    size = 0
    for record in records:
        key, value, headers = message_of(record)
        bytes_here = len(record.head()) + 1 + len(value)
        if bytes_here > RECORD_BYTES_MAX:
            raise RecordTooLarge(f"record {record.writer}#{record.seq} has {bytes_here} bytes, max {RECORD_BYTES_MAX}")
        messages.append(((key, value, headers), max(0, record.time_ms)))
        size += bytes_here
    return messages, size


def _size(message: tuple[Parts, int]) -> int:
    """The bytes of a message, about."""
    (key, value, headers), _ = message
    return len(key or b"") + len(value or b"") + sum(len(name) + len(content or b"") for name, content in headers)


#: The controller is alive when it says that the topic is there, and nobody else knows when it may not be asked.
_CONTROLLER_ANSWERED = frozenset(
    {
        KafkaError.TOPIC_ALREADY_EXISTS,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_REPLICATION_FACTOR,
    }
)
