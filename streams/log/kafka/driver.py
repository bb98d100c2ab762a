"""The Kafka driver of the log port."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.log.kafka import topic as topics
from streams.log.kafka.messages import HOLE, parts_of
from streams.log.kafka.options import Address, Options, for_admin, for_consumer, parse_address, parse_options
from streams.log.kafka.reader import ASK_TIMEOUT_S, Reader, watermarks
from streams.log.kafka.writer import Writer
from streams.log.port import QUIET, ForeignLog, Landed, LogUnavailable
from streams.records import Entry, Record, parse

#: Holes that are written at once.
HOLES_AT_ONCE = 5000
#: A loop that is busy must not starve the clients' threads of the interpreter (the default of 5 ms does).
SWITCH_INTERVAL_S = 0.0005


class KafkaLog:
    """One topic with one partition. A record is acknowledged when min.insync.replicas brokers have it.

    Kafka doesn't fsync each write: what it promises is that enough brokers have it. With ``flush.messages=1`` on the
    topic it does both. Offsets have holes where brokers put marks of their own.
    """

    def __init__(self, address: Address, options: Options, min_insync: int) -> None:
        """Use ``open``."""
        #: for another opening by the same node: see ``open``
        self.checked = str(min_insync)
        self._address = address
        self._asking = for_admin(address, options)
        self._consuming = for_consumer(address, options)
        self._writer = Writer(address, options, min_insync)
        self._asker = Consumer(self._consuming)
        self._readers: set[Reader] = set()
        self._is_calm = False

    @classmethod
    async def open(cls, address: str, options: Mapping[str, str], checked: str = "") -> "KafkaLog":
        """Makes the topic unless it is there, and checks it: unless it is ``checked`` and its brokers answer.

        ``options``: ``delivery.timeout.ms`` (10000), and librdkafka's ``security.protocol``, ``sasl.*``, ``ssl.*``,
        ``socket.*``, ``client.id``. Raises LogUnavailable, ForeignLog.
        """
        parsed = parse_address(address)
        read = parse_options(options)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        if checked:
            log = cls(parsed, read, int(checked))
            if (await asyncio.to_thread(log._writer.look))[0]:
                return log
            await log.close()
        found = await asyncio.to_thread(topics.ensure, parsed, read)
        log = cls(parsed, read, found.min_insync)
        await log._writer.warm()
        return log

    @property
    def address(self) -> str:
        return str(self._address)

    @property
    def end_is_linearizable(self) -> bool:
        return False

    async def append(self, records: Sequence[Record]) -> list[int]:
        return await self._writer.append(records)

    @property
    def one_at_a_time(self) -> bool:
        return False

    def hand(self, records: Sequence[Record], landed: Landed, still: bool = False) -> None:
        """See :class:`streams.log.port.Handing`: a record is told of when its delivery is reported."""
        self._writer.hand(records, landed)

    async def tail(
        self,
        start: int,
        streams: Collection[str] | None = None,
        passed: Callable[[], int] | None = None,
        heeded: Collection[str] | None = None,
    ) -> AsyncGenerator[list[Entry], None]:
        is_patient = heeded is not None and not QUIET & set(heeded)
        # a patient reader must not fetch ahead: each record would still be a fetch of its own
        config = {**self._consuming, "queued.min.messages": 1} if is_patient else self._consuming
        # a tail as the port's is never late
        may_be_calm = heeded is not None and not is_patient
        reader = Reader(
            config, self._address, start, streams, passed, is_patient, lambda: may_be_calm and self._is_calm
        )
        self._readers.add(reader)
        batches = reader.batches()
        try:
            async for batch in batches:
                yield batch
        finally:
            self._readers.discard(reader)
            await batches.aclose()

    def hurry(self, upto: int) -> None:
        for reader in self._readers:
            reader.hurry(upto)

    def calm(self, is_calm: bool) -> None:
        was_calm, self._is_calm = self._is_calm, is_calm
        if was_calm and not is_calm:
            for reader in self._readers:
                reader.rouse()

    async def first(self) -> int:
        return (await self._bounds())[0]

    async def end(self) -> int:
        """The high watermark as the leader tells it; an old leader that is cut off tells an old one."""
        return (await self._bounds())[1]

    async def _bounds(self) -> tuple[int, int]:
        found = await asyncio.to_thread(watermarks, self._asker, self._address)
        if found is None:
            raise LogUnavailable(f"no broker of {self._address} says where the log ends; try again later")
        return found

    async def append_raw(self, raws: list[bytes]) -> list[int]:
        """See the port. Messages of foreign bytes bear the time 0: theirs isn't part of the bytes."""
        return await self._writer.put([(parts_of(raw), _time_ms(raw)) for raw in raws])

    async def leave_hole(self, count: int) -> None:
        """See the port: that many messages which every reader passes over (they cost some 80 bytes each)."""
        for at in range(0, count, HOLES_AT_ONCE):
            await self._writer.put([(HOLE, 0)] * min(HOLES_AT_ONCE, count - at))

    async def begin_at(self, first: int) -> None:
        """See the port: holes up to there, then they are deleted. Raises ForeignLog if somebody else writes."""
        await self.leave_hole(first - await self.end())
        if (end := await self.end()) != first:
            raise ForeignLog(f"{self.address} was to begin at {first} and ends at {end}: somebody else writes to it")
        await self.trim(first)

    def check_raw(self, raw: bytes) -> None:
        parts_of(raw)

    async def trim(self, before: int) -> None:
        """DeleteRecords: exact, and brokers drop whole segments later."""
        first, end = await self._bounds()
        if before <= first:
            return
        await asyncio.to_thread(self._delete, min(before, end))

    def _delete(self, before: int) -> None:
        where = TopicPartition(self._address.topic, 0, before)
        try:
            with AdminClient(self._asking) as admin:
                for future in admin.delete_records([where], request_timeout=ASK_TIMEOUT_S * 3).values():
                    future.result()
        except KafkaException as error:
            raise LogUnavailable(f"{self._address} could not be trimmed: {error.args[0].str()}") from error

    async def close(self) -> None:
        """Ends the writer (appends under way: OutcomeUnknown). Tails end when their generators are closed."""
        await self._writer.close()
        await asyncio.to_thread(self._asker.close)


def _time_ms(raw: bytes) -> int:
    """A record's time for Kafka's own index; 0 if the bytes don't tell one."""
    try:
        return max(0, parse(Entry(0, raw)).time_ms)
    except ValueError:
        return 0
