"""Whether a lease ended too early: before its TTL had gone by since it was last renewed.

Client clocks bound both moments from the safe side: a renewal was applied after it was asked, and a lease had ended
before anybody was told so. So an end that was told less than a TTL after an answered renewal was asked is an early one,
whatever the network did in between; no allowance is needed, and none is made.
"""

from collections.abc import Iterable
from math import inf

from tests.histories.ops import Alive, Grant, Op, Renew, Revoke
from tests.histories.watches import Watch


def check(ops: Iterable[Op], ended: dict[int, int], watches: Iterable[Watch] = ()) -> list[str]:
    """``ended``: revision → lease, of leases whose keys went by themselves (see :func:`linear.check`)."""
    ops = list(ops)
    found: list[str] = []
    revoked: dict[int, float] = {}
    for op in ops:
        if isinstance(op.request, Revoke):
            revoked[op.request.lease] = min(op.invoked_s, revoked.get(op.request.lease, inf))
    seen = _seen(ops, ended, watches)
    ends: dict[int, tuple[float, int]] = {}
    for revision, lease in ended.items():
        if lease in ends:
            found.append(f"lease {lease:x} ended twice, at {ends[lease][1]} and {revision}")
        ends[lease] = (seen[revision], revision)
    for op in _by_time(ops):
        # "it isn't there" is an end, too, of a lease that had no keys; the first one counts
        if isinstance(op.request, Renew) and op.result == Alive(0):
            ends.setdefault(op.request.lease, (op.returned_s, 0))
    for op in ops:
        if not isinstance(op.request, Grant | Renew) or not isinstance(op.result, Alive) or not op.result.ttl_s:
            continue
        lease = op.request.lease
        told_s, revision = ends.get(lease, (inf, 0))
        if (revision and op.revision >= revision) or op.invoked_s > told_s:
            found.append(f"lease {lease:x} was over at {told_s:.3f} and lived on: {op}")
        elif told_s < min(op.invoked_s + op.result.ttl_s, revoked.get(lease, inf)):
            early_s = op.invoked_s + op.result.ttl_s - told_s
            found.append(f"lease {lease:x} was over at {told_s:.3f}, {early_s:.3f} s early: {op}")
    return found


def _by_time(ops: list[Op]) -> list[Op]:
    return sorted(ops, key=lambda op: op.returned_s)


def _seen(ops: list[Op], ended: dict[int, int], watches: Iterable[Watch]) -> dict[int, float]:
    """When it was first told, by an answer's revision or an event, that a revision was there."""
    told = [(op.revision, op.returned_s) for op in ops if op.revision]
    told += [
        (one.revision, one.received_s) for watch in watches for session in watch.sessions for one in session.messages
    ]
    told.sort(reverse=True)
    out, at, first_s = {}, 0, inf
    for revision in sorted(ended, reverse=True):
        while at < len(told) and told[at][0] >= revision:
            first_s = min(first_s, told[at][1])
            at += 1
        out[revision] = first_s
    return out
