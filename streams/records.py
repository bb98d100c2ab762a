"""Records: what is appended atomically, in one canonical form on every driver.

    CORELOG <format> <log id> <stream> <writer> <incarnation> <seq> <time_ms> <mac>\\n<JSON array of events>

The first line is the head. It is ASCII, fields are separated by one space, and ``-`` stands for an empty MAC.
Segment files hold these bytes in a frame; on Kafka the head is the header ``corelog``, the stream is the key and
the array is the value, so that any Kafka client can read the log. The chain hash is taken over the canonical form.
"""

import hashlib
import re
from typing import NamedTuple

import msgspec

MAGIC = b"CORELOG"
FORMAT = 1
CHAIN_START = bytes(32)
_WRITER = re.compile(r"[!-~]{1,200}")


class Position(NamedTuple):
    """Offset of a record and index of an event in it, written ``1234.7``."""

    offset: int
    index: int = 0  # type: ignore[assignment] # shadows tuple.index, which nobody calls on a position

    def __str__(self) -> str:
        return f"{self.offset}.{self.index}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Reads ``1234.7`` or ``1234``. Raises ValueError that names the text."""
        match = re.fullmatch(r"(\d{1,19})(?:\.(\d{1,9}))?", text)
        if match is None:
            raise ValueError(f"{text!r} is not a position (1234.7 or 1234)")
        return cls(int(match[1]), int(match[2] or 0))


class Entry(NamedTuple):
    """What a driver's tail yields: the offset and the canonical bytes (or, if foreign, whatever stood there)."""

    offset: int
    raw: bytes


class Record(msgspec.Struct, frozen=True, gc=False):
    """A head and a payload. ``offset`` is -1 until it is read back.

    log_id        32 hex digits
    stream        the record's key; one of STREAMS
    writer        ``actor@machine``
    incarnation   of the writer; counts up with each start of it
    seq           counts the writer's records of this incarnation from 1
    time_ms       wall clock of the writer, informative: cluster state may show it, nothing decides by it
    """

    log_id: str
    stream: str
    writer: str
    incarnation: int
    seq: int
    time_ms: int
    payload: bytes
    mac: str = ""
    offset: int = -1

    @property
    def machine(self) -> str:
        return self.writer.rpartition("@")[2]

    @property
    def actor(self) -> str:
        return self.writer.partition("@")[0]

    def head(self) -> bytes:
        """The canonical head line, without its newline. Raises ValueError if a field can't stand in it."""
        if not _WRITER.fullmatch(self.writer) or " " in self.stream:
            raise ValueError(f"writer {self.writer!r} or stream {self.stream!r} can't be written in a record's head")
        return (
            f"CORELOG {FORMAT} {self.log_id} {self.stream} {self.writer} {self.incarnation} {self.seq} "
            f"{self.time_ms} {self.mac or '-'}"
        ).encode()

    def canonical(self) -> bytes:
        return self.head() + b"\n" + self.payload


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
