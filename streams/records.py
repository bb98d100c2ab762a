"""Records: what is appended atomically, in one canonical form on every driver.

    CORELOG <format> <log id> <stream> <writer> <incarnation> <seq> <time_ms> <mac>\\n<JSON array of events>

The first line is the head. It is ASCII, fields are separated by one space, and ``-`` stands for an empty MAC.
Segment files hold these bytes in a frame; on Kafka the head is the header ``corelog``, the stream is the key and
the array is the value, so that any Kafka client can read the log. The chain hash is taken over the canonical form.
"""

import hashlib

from streams.kinds import CHAIN_START as CHAIN_START
from streams.kinds import FORMAT as FORMAT
from streams.kinds import Entry as Entry
from streams.kinds import Position as Position
from streams.kinds import Record as Record

MAGIC = b"CORELOG"


class NotOurs(ValueError):
    """The bytes carry no magic of ours: a foreign record."""


class NewerFormat(ValueError):
    """Ours, but of a record format that this version can't read: halt and upgrade."""


class DamagedRecord(ValueError):
    """Ours by its magic, but its head can't be parsed: halt."""


def parse(entry: Entry) -> Record:
    """The record in an entry. Raises NotOurs, NewerFormat or DamagedRecord, each naming the offset."""
    offset, raw = entry
    if raw[:8] != b"CORELOG ":
        raise NotOurs(f"record {offset} is not a corelog record")
    end = raw.find(b"\n")
    fields = raw[8:end].split(b" ") if end > 0 else []
    if fields and fields[0] != b"1" and fields[0].isdigit():
        raise NewerFormat(f"record {offset} has format {fields[0].decode()}, this version reads 1; upgrade corelog")
    try:
        _format, log_id, stream, writer, incarnation, seq, time_ms, mac = fields
        return Record(
            log_id.decode("ascii"),
            stream.decode("ascii"),
            writer.decode("ascii"),
            int(incarnation),
            int(seq),
            int(time_ms),
            raw[end + 1 :],
            "" if mac == b"-" else mac.decode("ascii"),
            offset,
        )
    except ValueError as error:
        raise DamagedRecord(f"record {offset} has a damaged head: {raw[:80]!r}") from error


def chained(previous: bytes, raw: bytes) -> bytes:
    """h(n) = blake2b-256(h(n-1) ‖ canonical bytes of record n)."""
    return hashlib.blake2b(raw, digest_size=32, key=previous).digest()
