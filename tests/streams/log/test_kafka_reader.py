"""What a reader makes of one call's messages, some of which are errors of the client's."""

from typing import Any

import pytest
from confluent_kafka import KafkaError

from streams.log.kafka.messages import message_of
from streams.log.kafka.options import parse_address
from streams.log.kafka.reader import Reader
from tests.contract.drivers import record


class Message:
    """As the client's: a record at an offset, or an error."""

    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self._offset, self._error = offset, error
        self._key, self._value, self._headers = message_of(record(offset + 1))

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
