"""What a reader makes of one call's messages, some of which are errors of the client's."""

from typing import Any

import pytest
from confluent_kafka import KafkaError

from streams.events.base import Event, encode, say
from streams.events.log import ActorOpened, Barrier
from streams.log.kafka.messages import message_of
from streams.log.kafka.options import parse_address
from streams.log.kafka.reader import Reader
from streams.records import Record
from tests.contract.drivers import LOG_ID, record


class Message:
    """As the client's: a record at an offset, or an error."""

    def __init__(self, offset: int, error: KafkaError | None = None, what: Record | None = None) -> None:
        self._offset, self._error = offset, error
        self._key, self._value, self._headers = message_of(what or record(offset + 1))

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return [(name, text.encode() if isinstance(text, str) else text or b"") for name, text in self._headers]


TROUBLE = Message(-1, KafkaError(KafkaError._TRANSPORT))


@pytest.mark.parametrize(
    ("messages", "goes_on", "wanted"),
    [
        ([Message(5), Message(6)], True, 7),
        ([Message(5), TROUBLE], True, 6),
        # 6 is taken from this consumer, which would go on with 7
        ([Message(5), TROUBLE, Message(6)], False, 6),
        ([TROUBLE, Message(5)], False, 5),
        ([Message(3), Message(4), Message(5)], True, 6),
    ],
)
async def test_what_stands_behind_an_error_is_read_again(messages: list[Any], goes_on: bool, wanted: int) -> None:
    reader = Reader({}, parse_address("kafka://localhost:1/none"), 5, None)
    assert reader._batch(None, messages) is goes_on  # type: ignore[arg-type] # asked only for errors of offsets
    assert reader._at == wanted


class Consumer:
    """As the client's, of a partition that ends at 7."""

    def get_watermark_offsets(self, *_where: object, cached: bool) -> tuple[int, int]:
        return 0, 7


def of_log(*events: Event) -> Message:
    return Message(6, what=Record(LOG_ID, "log", "kv@m", 1, 1, 0, encode([*events])))


BARRIER, OTHER = say(Barrier()), say(ActorOpened(""))


@pytest.mark.parametrize("is_patient", [True, False])
@pytest.mark.parametrize(
    ("start", "last", "rests"),
    [
        (7, Message(6), True),
        (6, Message(5), False),  # more is there
        (7, of_log(BARRIER), True),  # nobody but its writer waits for it
        (7, of_log(OTHER), False),
        (7, of_log(BARRIER, OTHER), False),
    ],
)
async def test_a_reader_rests_after_quiet_records_and_barriers_at_the_end(
    start: int, last: Message, rests: bool, is_patient: bool
) -> None:
    reader = Reader({}, parse_address("kafka://localhost:1/none"), start, None, None, is_patient)
    consumer: Any = Consumer()
    messages: list[Any] = [Message(4), last]
    assert reader._may_rest(consumer, messages) is rests
    reader.hurry(start)
    assert reader._may_rest(consumer, messages) is (rests and is_patient), "who isn't patient had to wait a moment ago"
    reader.hurry(start + 1)
    assert not reader._may_rest(consumer, messages)
