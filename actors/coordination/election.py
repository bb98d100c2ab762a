"""The election: state, transitions and the holder's deadline. Both folds see it, so it knows nothing of machines.

    Claim(expect_term, expect_renew_seq)   both must match at its offset: term += 1, the writer's machine holds it
    Renew(seq, offset, chain)              only from the holder in its term; seq = renew_seq + 1; (offset, chain) are
                                           those of the last accepted claim or renewal, compared with this replica's
    Resign(to)                             nobody holds the term any more, its facts are stale from here on

The first matching claim in the log wins, the others are void on every replica. A renewal that is ordered before a
claim changes renew_seq and so voids the claim. Since the chain hash covers the whole log before it, one remembered
pair (offset, chain) is enough to compare all that holder and replica have applied: no ring is kept.

Clocks: ``sent_ms`` is the boot-time clock of the holder's machine when it sent the last accepted claim or renewal.
The holder acts until sent + L - margin on its clock; a challenger claims L(1+EPSILON) after it *applied* that record,
which was later. With rates off by EPSILON at most, L on the fastest challenger's clock is L(1-EPSILON) on the slowest
holder's, so margin - EPSILON·L is left to spare (L = 1 s: 80 ms); the margin grows with a longer L.
"""

import msgspec

from streams.events import cluster as says
from streams.events.base import Event
from streams.outcomes import DONE, STALE_TERM, Accepted, Outcome, Rejected
from streams.replay import Context, Diverged

#: How much the rates of two machines' boot-time clocks may differ from true time.
EPSILON = 0.02
#: The holder stops acting this long before its lease ends (at least).
MARGIN_S = 0.1
#: The actor that may stand for election.
CANDIDATE = "coordination"


class Election(msgspec.Struct):
    """``holder`` is a machine id; empty when resigned or before the first claim. ``sent_ms`` is the boot-time clock
    of the holder's machine at the sending of its last accepted claim or renewal; ``holder_nonce`` tells for which
    start of its node that holds. ``proof_at``/``proof``: offset and chain hash of that record, which the next
    renewal must quote. ``claimed_at``: position of the claim that began the term. ``last_holder`` outlives a
    resignation."""

    term: int = 0
    holder: str = ""
    holder_writer: str = ""
    holder_incarnation: int = 0
    holder_nonce: str = ""
    renew_seq: int = 0
    sent_ms: int = 0
    successor: str = ""
    last_holder: str = ""
    claimed_at: str = ""
    proof_at: int = -1
    proof: str = ""


def guard(election: Election, event: Event, context: Context) -> Outcome | None:
    """A fact of a master (it carries a term) has effect only in its term and from the holder's machine."""
    if not event.term or isinstance(event.data, says.Claim):
        return None
    if event.term != election.term or context.record.machine != election.holder:
        return STALE_TERM
    return None


def evolve(election: Election, event: Event, context: Context) -> Outcome | None:
    """Apply claim, renew or resign; None for every other event. Raises Diverged when the holder's chain isn't ours."""
    match event.data:
        case says.Claim():
            return _claim(election, event.data, context)
        case says.Renew():
            return _renew(election, event, event.data, context)
        case says.Resign():
            return _resign(election, event, event.data, context)
    return None


def _claim(election: Election, data: says.Claim, context: Context) -> Outcome:
    record = context.record
    if record.actor != CANDIDATE:
        return Rejected("not-a-candidate", f"only {CANDIDATE} actors claim, not {record.writer}")
    if data.expect_term != election.term or data.expect_renew_seq != election.renew_seq:
        return Rejected("claim-lost", f"term {election.term} was claimed or renewed before this claim")
    election.term += 1
    election.holder = election.last_holder = record.machine
    election.holder_writer = record.writer
    election.holder_nonce = data.nonce
    election.renew_seq = 0
    election.successor = ""
    election.claimed_at = str(context.position)
    _prove(election, data.sent_ms, context)
    return Accepted({"term": election.term})


def _renew(election: Election, event: Event, data: says.Renew, context: Context) -> Outcome:
    if (refused := _not_holder(election, event, context)) is not None:
        return refused
    if data.seq != election.renew_seq + 1:
        return Rejected("out-of-order", f"renewal {data.seq} after {election.renew_seq}")
    if data.offset != election.proof_at:
        return Rejected("out-of-order", f"quotes offset {data.offset}, the last renewal is at {election.proof_at}")
    if data.chain != election.proof:
        raise Diverged(
            context.position, f"the master of term {election.term} has another chain hash at offset {data.offset}"
        )
    election.renew_seq = data.seq
    _prove(election, data.sent_ms, context)
    return DONE


def _resign(election: Election, event: Event, data: says.Resign, context: Context) -> Outcome:
    if (refused := _not_holder(election, event, context)) is not None:
        return refused
    election.holder = election.holder_writer = election.holder_nonce = ""
    election.holder_incarnation = 0
    election.successor = data.to
    return DONE


def _not_holder(election: Election, event: Event, context: Context) -> Outcome | None:
    if event.term != election.term or context.record.writer != election.holder_writer:
        return STALE_TERM
    return None


def _prove(election: Election, sent_ms: int, context: Context) -> None:
    election.sent_ms = sent_ms
    election.holder_incarnation = context.record.incarnation
    election.proof_at = context.record.offset
    election.proof = context.log.chain.hex()


def deadline_s(election: Election, lease_s: float) -> float:
    """Boot time of the holder's machine at which its right to act ends."""
    return election.sent_ms / 1000 + lease_s - max(MARGIN_S, 2 * EPSILON * lease_s)


def acting(election: Election, machine: str, nonce: str, boot_s: float, lease_s: float, alone: bool) -> bool:
    """Whether the processes of this start (``nonce``) of ``machine`` may act as master at boot time ``boot_s``.

    For every actor that says master-only facts: ask before each decision, and put ``election.term`` on the facts.
    Alone, the lock of the log's file is the term and there is no deadline.
    """
    if election.holder != machine or election.holder_nonce != nonce:
        return False
    return alone or boot_s < deadline_s(election, lease_s)
