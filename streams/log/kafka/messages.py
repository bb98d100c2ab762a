"""A record as a Kafka message, and back to the same canonical bytes.

The head is the header ``corelog``, the stream is the key, the JSON array is the value. What doesn't fit that is
*foreign*: it becomes bytes that begin with ``FOREIGN``, hold all that stood in the message, and are the same on
every replica.
"""

from collections.abc import Sequence

from streams.records import Record

HEADER = "corelog"
_MAGIC = b"CORELOG "
_FOREIGN = b"FOREIGN kafka"

Headers = Sequence[tuple[str, bytes | None]]


def message_of(record: Record) -> tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]:
    """Key, value and headers. Raises ValueError if a field can't stand in the record's head."""
    return record.stream.encode(), record.payload, [(HEADER, record.head())]


def raw_of(key: bytes | None, value: bytes | None, headers: Headers | None) -> bytes:
    """The canonical bytes of a message; foreign bytes if it is not a record of ours.

    Ours has one header only, whose text is a head with the key as its stream: a reader that goes by the key must
    see the same records as one that goes by the head.
    """
    if headers and len(headers) == 1 and key is not None and value is not None:
        name, head = headers[0]
        if name == HEADER and head is not None and head.startswith(_MAGIC) and b"\n" not in head:
            fields = head.split(b" ", 4)
            if len(fields) == 5 and fields[3] == key:
                return head + b"\n" + value
    return foreign(key, value, headers)


def foreign(key: bytes | None, value: bytes | None, headers: Headers | None) -> bytes:
    """Deterministic and one-to-one: each part with its length, ``-`` for a null."""
    parts: list[bytes | None] = [key, value]
    for name, content in headers or ():
        parts += [name.encode("utf-8", "surrogateescape"), content]
    lengths = " ".join("-" if part is None else str(len(part)) for part in parts)
    return b"%s %s\n" % (_FOREIGN, lengths.encode()) + b"".join(part or b"" for part in parts)
