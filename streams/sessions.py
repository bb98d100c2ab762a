"""Outcomes kept per client, so that the retry of a command is answered and not applied twice.

Per client the state keeps outcomes above a floor that the client raises with each command. A highest-sequence
table would be wrong: 5 unknown, 6 written, the retry of 5 would be swallowed.
"""

import hashlib
from collections.abc import Callable

import msgspec

from streams.events.base import Event
from streams.outcomes import BODY_DIFFERS, SESSION_EXPIRED, Accepted, AcceptedBefore, Outcome

#: A client that said nothing for this many events of its fold is forgotten.
IDLE_EVENTS = 100_000
#: Outcomes one client may have open above its floor; the oldest are dropped and answer session-expired.
OPEN_MAX = 4096


class Kept(msgspec.Struct, gc=False):
    body: bytes
    outcome: Outcome


class Session(msgspec.Struct):
    floor: int = 0
    last_event: int = 0
    kept: dict[int, Kept] = {}


class Sessions(msgspec.Struct):
    """``by_client`` is ordered by last use (oldest first), which makes eviction cheap and deterministic."""

    by_client: dict[str, Session] = {}

    def once(self, event: Event, count: int, apply: Callable[[], Outcome]) -> Outcome:
        """The outcome of ``event`` (number ``count`` of this fold): kept from before, or applied now and kept."""
        self._evict(count)
        session = self.by_client.pop(event.client, None)
        if session is None:
            if event.sequence > 1 and event.floor < event.sequence and event.floor > 0:
                # the client believes that it has a session here: its earlier outcomes are gone, say so
                return SESSION_EXPIRED
            session = Session()
        self.by_client[event.client] = session
        session.last_event = count
        if event.floor > session.floor:
            session.floor = event.floor
            session.kept = {seq: kept for seq, kept in session.kept.items() if seq >= event.floor}
        if event.sequence < session.floor:
            return SESSION_EXPIRED
        body = fingerprint(event)
        kept = session.kept.get(event.sequence)
        if kept is not None:
            return _again(kept.outcome) if kept.body == body else BODY_DIFFERS
        outcome = apply()
        session.kept[event.sequence] = Kept(body, outcome)
        while len(session.kept) > OPEN_MAX:
            oldest = min(session.kept)
            del session.kept[oldest]
            session.floor = max(session.floor, oldest + 1)
        return outcome

    def _evict(self, count: int) -> None:
        while self.by_client:
            client = next(iter(self.by_client))
            if self.by_client[client].last_event + IDLE_EVENTS >= count:
                return
            del self.by_client[client]


def _again(outcome: Outcome) -> Outcome:
    return AcceptedBefore(outcome.result) if isinstance(outcome, Accepted) else outcome


def fingerprint(event: Event) -> bytes:
    """What makes two uses of one (client, sequence) the same command: subject and data."""
    body = msgspec.json.encode((event.type, event.subject, event.data))
    return hashlib.blake2b(body, digest_size=16).digest()
