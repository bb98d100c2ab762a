"""Which events of a machine's life count: the rules that all folds share which keep machines. Pure.

``Life`` is what they ask of a machine. The one who keeps it changes it; here nothing is changed.
"""

from typing import Protocol

from msgspec import UnsetType

from actors.coordination import election
from streams.events import cluster as says
from streams.events.base import Event
from streams.kinds import Context
from streams.outcomes import Rejected


class Life(Protocol):
    """``seen_at``: position of the last event that proved it alive. ``nonce``: of the start that joined.

    Unset ones aren't known."""

    @property
    def nonce(self) -> str | UnsetType: ...

    @property
    def alive(self) -> bool: ...

    @property
    def seen_at(self) -> str | UnsetType: ...


NOT_THE_MASTER = Rejected("not-the-master", "only the master tells of machines that aren't heard")
DUPLICATE = Rejected("duplicate-machine", "a live node of this machine has joined")


def unknown(machine: str) -> Rejected:
    return Rejected("unknown-machine", f"no machine {machine!r} has joined")


def speaks_for(event: Event, context: Context) -> Rejected | None:
    """Only a machine's own coordination actor tells of it."""
    if context.record.machine != event.subject or context.record.actor != election.CANDIDATE:
        return Rejected("not-own-machine", f"{context.record.writer} can't speak for machine {event.subject!r}")
    return None


def is_duplicate(machine: Life | None, data: says.MachineJoined) -> bool:
    """Whether a live machine would be replaced by a start of it that doesn't know of it."""
    return machine is not None and machine.alive and machine.nonce not in (data.previous, data.nonce)


def seen(machine: Life | None, event: Event, data: says.MachineSeen, context: Context) -> Rejected | None:
    if (refused := speaks_for(event, context)) is not None:
        return refused
    if machine is None:
        return unknown(event.subject)
    if machine.nonce != data.nonce:
        return Rejected("other-nonce", "another start of this machine's node has joined since")
    if not machine.alive:
        # a machine that was given up must join anew: its right to fenced units may not grow behind the master's back
        return Rejected("not-alive", f"machine {event.subject} is lost or has left; it must join again")
    return None


def left(machine: Life | None, event: Event, context: Context) -> Rejected | None:
    if (refused := speaks_for(event, context)) is not None:
        return refused
    if machine is None:
        return unknown(event.subject)
    return None if machine.alive else _gone(event)


def lost(machine: Life | None, event: Event, data: says.MachineLost) -> Rejected | None:
    if not event.term:
        return NOT_THE_MASTER
    if machine is None:
        return unknown(event.subject)
    if not machine.alive:
        return _gone(event)
    if machine.seen_at != data.last_seen:
        return Rejected("seen-since", f"machine {event.subject} was seen at {machine.seen_at}")
    return None


def removed(machine: Life | None, event: Event, withheld: bool) -> Rejected | None:
    if machine is None:
        return unknown(event.subject)
    if machine.alive and not withheld:
        return Rejected("machine-alive", f"machine {event.subject} is alive; stop its node, or drain it, first")
    return None


def _gone(event: Event) -> Rejected:
    return Rejected("not-alive", f"machine {event.subject} is lost or has left already")
