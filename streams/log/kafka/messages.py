"""A record as a Kafka message, and back to the same canonical bytes.

The head is the header ``corelog``, the stream is the key, the JSON array is the value. What doesn't fit that is
*foreign*: it becomes bytes that begin with ``FOREIGN``, hold all that stood in the message, and are the same on
every replica.

A *hole* is a message that says that its offset holds nothing, as a broker's own marks do: readers pass over it. Only
copies write them (a topic can't be made to begin at, or to leave out, an offset in another way).
"""

from collections.abc import Sequence

from streams.records import Record

HEADER = "corelog"
HOLE_HEADER = "corelog-hole"
_MAGIC = b"CORELOG "
_FOREIGN = b"FOREIGN kafka"

Headers = Sequence[tuple[str, bytes | None]]
#: Key, value and headers, as the client takes them.
Parts = tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]

HOLE: Parts = (None, None, [(HOLE_HEADER, b"1")])


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


def is_hole(key: bytes | None, value: bytes | None, headers: Headers | None) -> bool:
    """Whether the message says that its offset holds nothing. Nothing but those very parts does."""
    return key is None and value is None and bool(headers) and (key, value, list(headers or ())) == HOLE


def parts_of(raw: bytes) -> Parts:
    """The message that is read as ``raw``: the inverse of ``raw_of``, for copies. Raises ValueError if there is none.

    Every record of ours has one (also one with a damaged head, or of a newer format), and each foreign record that
    came from Kafka. Foreign bytes that were made elsewhere have none.
    """
    made: Parts
    if raw.startswith(_MAGIC):
        head, _, value = raw.partition(b"\n")
        fields = head.split(b" ", 4)
        made = (fields[3] if len(fields) == 5 else None, value, [(HEADER, head)])
    elif raw.startswith(_FOREIGN + b" "):
        made = _foreign_parts(raw)
    else:
        raise ValueError(f"these foreign bytes never stood on Kafka: {raw[:60]!r}")
    key, value_, headers = made
    if raw_of(key, value_, headers) != raw or is_hole(key, value_, headers):  # type: ignore[arg-type] # no str in it
        raise ValueError(f"no message reads as these bytes: {raw[:60]!r}")
    return made


def _foreign_parts(raw: bytes) -> Parts:
    line, _, rest = raw.partition(b"\n")
    parts: list[bytes | None] = []
    for length in line[len(_FOREIGN) + 1 :].split(b" "):
        if length == b"-":
            parts.append(None)
            continue
        if not length.isdigit() or int(length) > len(rest):
            raise ValueError(f"a foreign record with damaged lengths: {line[:60]!r}")
        parts.append(rest[: int(length)])
        rest = rest[int(length) :]
    if len(parts) < 2 or len(parts) % 2:
        raise ValueError(f"a foreign record with damaged lengths: {line[:60]!r}")
    headers: list[tuple[str, str | bytes | None]] = []
    for name, content in zip(parts[2::2], parts[3::2], strict=True):
        if name is None:
            raise ValueError(f"a foreign record with a header that has no name: {line[:60]!r}")
        headers.append((name.decode("utf-8"), content))
    return parts[0], parts[1], headers
