"""One line of the audit trail: made alike from a fold (embedded log) and from the outcomes topic (Kafka)."""

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from streams.events.base import Base64, Event
from streams.outcomes import Rejected
from streams.records import Position
from streams.replay import Applied

#: Positions in lines sort as text in no order; they are compared as these.
_POSITION = re.compile(r"(\d{1,19})\.(\d{1,9})")
#: Of a value of the outcomes topic with several lines.
PACK_BYTES_MAX = 128 * 1024


class BadLine(ValueError):
    """A record of the outcomes topic can't be read; the message names the topic's offset and the field."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of the event at ``position``.

    outcome        ``accepted`` or ``rejected``; ``pending`` where the log has it and nobody has said its outcome yet
    code, message  why it was rejected; ``code`` is stable, the message is for people
    subject        key, unit, machine or version
    principal      who asked: ``uid:0``, ``token:ops``, ``addr:127.0.0.1``
    time_ms        the writer's wall clock at the record, informative
    source         the writer: ``actor@machine``
    """

    position: str
    type: str
    outcome: str
    time_ms: int = 0
    subject: str = ""
    principal: str = ""
    correlation: str = ""
    source: str = ""
    code: str = ""
    message: str = ""
    term: int = 0

    @property
    def at(self) -> Position:
        return Position.parse(self.position)


_decoder = msgspec.json.Decoder(Line)
OUTCOMES = ("accepted", "rejected", "pending")


def line_of(applied: Applied) -> Line:
    """The line of an event that was applied, or refused."""
    event, outcome, record = applied.event, applied.outcome, applied.record
    refused = outcome if isinstance(outcome, Rejected) else None
    return Line(
        position=str(applied.position),
        type=event.type,
        outcome="rejected" if refused else "accepted",
        time_ms=record.time_ms,
        subject=subject_of(event),
        principal=event.principal,
        correlation=event.correlation,
        source=record.writer,
        code=refused.code if refused else "",
        message=refused.message if refused else "",
        term=event.term,
    )


def audit_line(applied: Applied) -> dict[str, Any]:
    """The line as plain data: what ``corelog audit export`` and ``corelog log --jsonl`` print."""
    return plain(line_of(applied))


def plain(line: Line) -> dict[str, Any]:
    """A line as plain data: every field, in one order, and its time in words."""
    fields = {name: getattr(line, name) for name in line.__struct_fields__}
    return {"position": fields.pop("position"), "time": iso(line.time_ms), **fields}


def iso(time_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds; empty for a time that no calendar has."""
    try:
        moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def subject_of(event: Event) -> str:
    """What an event is about: its subject, or the key where the data says it (bytes that aren't text: base64)."""
    if event.subject:
        return event.subject
    key = getattr(event.data, "key", "")
    if isinstance(key, Base64):
        return "base64:" + str(msgspec.to_builtins(key.base64))
    return key if isinstance(key, str) else ""


def audited(applied: Applied) -> bool:
    """Whether an event belongs on the trail: each command, and facts that were refused (an old master's, a liar's)."""
    return bool(applied.event.data.COMMAND) or isinstance(applied.outcome, Rejected)


def tells(fold: str, stream: str) -> bool:
    """Whether a fold says the outcomes of a stream's events: others may see that stream too, each is told once."""
    return fold != ("control" if stream == "kv" else "kv")


def packed(lines: Iterable[Line]) -> Iterator[bytes]:
    """Values of the outcomes topic: lines of JSON with an end between two, in order."""
    rows: list[bytes] = []
    size = 0
    for line in lines:
        row = msgspec.json.encode(line)
        if rows and size + len(row) > PACK_BYTES_MAX:
            yield b"\n".join(rows)
            rows, size = [], 0
        rows.append(row)
        size += len(row) + 1
    if rows:
        yield b"\n".join(rows)


def unpacked(raw: bytes, where: str = "lines") -> list[Line]:
    """Read a value of the outcomes topic. Raises BadLine that begins with ``where``: none of it counts."""
    rows = raw.split(b"\n")
    return [parse(row, where if len(rows) == 1 else f"{where}, line {at}") for at, row in enumerate(rows, 1)]


def parse(raw: bytes, where: str = "line") -> Line:
    """Read one line. Raises BadLine that begins with ``where``."""
    try:
        line = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadLine(f"{where}: {error}") from error
    if _POSITION.fullmatch(line.position) is None:
        raise BadLine(f"{where}: {line.position[:60]!r} is not a position (1234.7)")
    if line.outcome not in OUTCOMES:
        raise BadLine(f"{where}: {line.outcome[:60]!r} is not an outcome ({', '.join(OUTCOMES)})")
    return line
