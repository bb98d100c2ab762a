"""The election's state and transitions: claim, renew, resign. Both folds see it."""

import msgspec

from streams.events import cluster as says
from streams.events.base import Event
from streams.outcomes import DONE, STALE_TERM, Outcome, Rejected
from streams.replay import Context


class Election(msgspec.Struct):
    """``holder`` is a machine id; empty when resigned or before the first claim. ``sent_ms`` is the boot-time clock
    of the holder's machine at the sending of its last accepted claim or renewal."""

    term: int = 0
    holder: str = ""
    holder_writer: str = ""
    holder_incarnation: int = 0
    renew_seq: int = 0
    sent_ms: int = 0
    successor: str = ""


def guard(election: Election, event: Event, context: Context) -> Outcome | None:
    """A fact of a master (it carries a term) has effect only in its term and from the holder's machine."""
    if not event.term or isinstance(event.data, says.Claim):
        return None
    if event.term != election.term or context.record.machine != election.holder:
        return STALE_TERM
    return None


def evolve(election: Election, event: Event, context: Context) -> Outcome | None:
    """Apply claim, renew or resign; None for every other event."""
    raise NotImplementedError((election, event, context, DONE, Rejected))
