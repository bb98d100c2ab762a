"""Why is it so? The chain of causes of a thing's last change, down to the principal who asked, in words.

Links between events: ``cause`` (the position that made its actor act), ``decided_at`` and ``last_seen`` of master's
facts, and ``correlation`` (all that one command started).
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from streams.events.base import Base64, Event, unblob
from streams.log.port import Log
from streams.outcomes import Rejected
from streams.records import Position
from streams.replay import Applied, Fold, Replica

from .at import entries


class Step(NamedTuple):
    """One event of a chain. ``words``: what happened, for people; ``refused``: its rejection code or ""."""

    position: Position
    time_ms: int
    type: str
    subject: str
    writer: str
    principal: str
    words: str
    refused: str

    def plain(self) -> dict[str, Any]:
        return {
            "position": str(self.position),
            "time_ms": self.time_ms,
            "type": self.type,
            "subject": self.subject,
            "writer": self.writer,
            "principal": self.principal,
            "words": self.words,
            "refused": self.refused,
        }


def subject_of(event: Event) -> str:
    """Unit, machine, version or key that the event is about (kv events name their key in the data)."""
    if event.subject:
        return event.subject
    key = getattr(event.data, "key", "")
    return unblob(key).decode("utf-8", "backslashreplace") if isinstance(key, str | Base64) else ""


def words(event: Event, writer: str) -> str:
    """One line for people: subject, what happened, the reason it gives, who asked."""
    data = event.data
    fields = msgspec.to_builtins(data)
    said = event.type.removesuffix("?").rsplit(".", 1)[0].replace(".", " ")
    parts = [said]
    if subject := subject_of(event):
        parts.append(subject)
    for name in ("state", "machine", "from_machine", "fence", "version", "previous", "code", "signal", "level", "next"):
        if fields.get(name) not in (None, "", 0):
            value = fields[name]
            parts.append(f"{name.replace('_', ' ')} {value[:8] if 'machine' in name else value}")
    text = " ".join(parts)
    if reason := fields.get("reason") or fields.get("detail"):
        text += f": {reason}"
    name, at, machine = writer.partition("@")
    writer = f"{name}{at}{machine[:8]}"
    if event.principal:
        text += f" (asked by {event.principal} through {writer})"
    elif event.term:
        text += f" (said by {writer}, master of term {event.term})"
    else:
        text += f" (said by {writer})"
    return text


def step(applied: Applied) -> Step:
    event, record = applied.event, applied.record
    return Step(
        applied.position,
        record.time_ms,
        event.type,
        subject_of(event),
        record.writer,
        event.principal,
        words(event, record.writer),
        applied.outcome.code if isinstance(applied.outcome, Rejected) else "",
    )


#: What of each kind of thing is told by which streams.
KINDS = {
    "unit": frozenset({"unit", "engine"}),
    "machine": frozenset({"cluster"}),
    "key": frozenset({"kv"}),
    "version": frozenset({"update"}),
}
#: Renewals say only that somebody lives: no cause of anything, and many.
_QUIET = ("machine.seen.v1", "master.renewed.v1")


async def why(
    log: Log, make: Callable[[], Fold], kind: str, name: str, end: int | None = None, start: Replica | None = None
) -> list[Step]:
    """The chain for ``name``, oldest first: its last accepted change, what caused that, down to the command.

    Refused commands about it after the last change are told too. Raises KeyError for an unknown kind, and returns
    an empty list when nothing was ever said about ``name``.
    """
    streams = KINDS[kind]
    about: list[Applied] = []
    by_position: dict[Position, Applied] = {}
    replica = start or Replica(make())
    stop = await log.end() if end is None else end
    async for applied in _applied(log, replica, stop):
        quiet = applied.event.type in _QUIET
        if not quiet and (kind == "key" or applied.record.stream != "kv"):
            by_position[applied.position] = applied
        if applied.record.stream in streams and subject_of(applied.event) == name and not quiet:
            about.append(applied)
    accepted = [applied for applied in about if not isinstance(applied.outcome, Rejected)]
    refused = [applied for applied in about if isinstance(applied.outcome, Rejected)]
    chain: dict[Position, Applied] = {}
    if accepted:
        # everything since (and with) the last command about it, and what that rests on
        commands = [applied for applied in accepted if applied.event.data.COMMAND]
        since = commands[-1].position if commands else accepted[-1].position
        creation = commands[0].position if commands else since
        for applied in accepted:
            if applied.position >= since or applied.position == creation:
                _follow(applied, by_position, chain)
    for applied in refused[-3:]:
        if not accepted or applied.position > accepted[-1].position:
            _follow(applied, by_position, chain)
    return [step(chain[position]) for position in sorted(chain)]


async def _applied(log: Log, replica: Replica, stop: int) -> AsyncIterator[Applied]:
    async for batch in entries(log, replica.offset + 1, stop):
        for entry in batch:
            for applied in replica.apply(entry):
                yield applied


def _follow(applied: Applied, by_position: dict[Position, Applied], chain: dict[Position, Applied]) -> None:
    """Add an event and, depth first, what it names as its causes."""
    todo = [applied]
    while todo:
        one = todo.pop()
        if one.position in chain:
            continue
        chain[one.position] = one
        for name in (
            one.event.cause,
            getattr(one.event.data, "decided_at", ""),
            getattr(one.event.data, "last_seen", ""),
        ):
            if name:
                found = by_position.get(Position.parse(name))
                if found is not None:
                    todo.append(found)
