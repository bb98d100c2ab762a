"""Outcomes kept per client, so that the retry of a command is answered and not applied twice.

Per client the state keeps outcomes above a floor that the client raises with each command. A highest-sequence
table would be wrong: 5 unknown, 6 written, the retry of 5 would be swallowed.

A session begins with sequence 1. From feature level 3 on whoever was forgotten is refused with any other one, so that
nothing that it says again counts again; before, who named its own sequence as the floor was taken for a new client.
From there on, too, all folds forget by the same count and clock: the log's offsets and its time.
"""

import hashlib
from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from streams.events import kv
from streams.events.base import Event
from streams.outcomes import BODY_DIFFERS, SESSION_EXPIRED, Accepted, AcceptedBefore, Outcome

#: A client that said nothing for so long is forgotten. Below level 3 it is so many events of its fold, from there on so
#: many records of the log and so much of its time.
IDLE = 100_000
IDLE_MS = 3_600_000
#: Outcomes one client may have open above its floor; the oldest are dropped and answer session-expired.
OPEN_MAX = 4096
#: Outcomes of all clients (level 3): above it those of whoever was idle longest are dropped, for memory has an end.
KEPT_MAX = 250_000


class Kept(msgspec.Struct, gc=False):
    body: bytes
    outcome: Outcome


class Session(msgspec.Struct):
    """``last_event``, ``last_ms``: when it was used last, as counted; the second one from level 3 on."""

    floor: int = 0
    last_event: int = 0
    kept: dict[int, Kept] = {}
    last_ms: int | UnsetType = UNSET


class Sessions(msgspec.Struct):
    """``by_client`` is ordered by last use (oldest first), which makes eviction cheap and deterministic.

    ``total``: outcomes kept of all (level 3).
    """

    by_client: dict[str, Session] = {}
    total: int | UnsetType = UNSET

    def once(
        self,
        event: Event,
        apply: Callable[[], Outcome],
        keep: Callable[[Outcome], Outcome],
        count: int,
        time_ms: int | None = None,
    ) -> Outcome:
        """The outcome of ``event``: kept from before, or applied now and kept.

        count, time_ms: of its fold the number of the event and None; from level 3 on the log's offset and its time.
        keep: what to keep of an outcome.
        """
        if time_ms is not None and self.total is UNSET:
            self._begin_level_3(count, time_ms)
        self._evict(count, time_ms)
        session = self.by_client.pop(event.client, None)
        if session is None:
            if event.sequence > 1 and (time_ms is not None or 0 < event.floor < event.sequence):
                # the client believes that it has a session here: its earlier outcomes are gone, say so
                return SESSION_EXPIRED
            session = Session()
        self.by_client[event.client] = session
        session.last_event = count
        before = len(session.kept)
        outcome = _once(session, event, apply, keep, whole=time_ms is None)
        if self.total is not UNSET and time_ms is not None:
            session.last_ms = time_ms
            self.total += len(session.kept) - before
        return outcome

    def _begin_level_3(self, count: int, time_ms: int) -> None:
        """Nobody is forgotten early: who is known was here just now."""
        for session in self.by_client.values():
            session.last_event, session.last_ms = count, time_ms
        self.total = sum(len(one.kept) for one in self.by_client.values())

    def _evict(self, count: int, time_ms: int | None) -> None:
        while self.by_client:
            client = next(iter(self.by_client))
            oldest = self.by_client[client]
            idle = oldest.last_event + IDLE < count
            if time_ms is not None and oldest.last_ms is not UNSET:
                idle = idle and oldest.last_ms + IDLE_MS < time_ms
            if not idle and (self.total is UNSET or self.total < KEPT_MAX):
                return
            del self.by_client[client]
            if self.total is not UNSET:
                self.total -= len(oldest.kept)


def _once(
    session: Session, event: Event, apply: Callable[[], Outcome], keep: Callable[[Outcome], Outcome], whole: bool
) -> Outcome:
    if event.floor > session.floor:
        session.floor = event.floor
        session.kept = {seq: kept for seq, kept in session.kept.items() if seq >= event.floor}
    if event.sequence < session.floor:
        return SESSION_EXPIRED
    body = fingerprint(event, whole)
    kept = session.kept.get(event.sequence)
    if kept is not None:
        return _again(kept.outcome) if kept.body == body else BODY_DIFFERS
    outcome = apply()
    session.kept[event.sequence] = Kept(body, keep(outcome))
    while len(session.kept) > OPEN_MAX:
        oldest = min(session.kept)
        del session.kept[oldest]
        session.floor = max(session.floor, oldest + 1)
    return outcome


def _again(outcome: Outcome) -> Outcome:
    return AcceptedBefore(outcome.result) if isinstance(outcome, Accepted) else outcome


def fingerprint(event: Event, whole: bool) -> bytes:
    """What makes two uses of one (client, sequence) the same command: subject and data.

    whole: as below level 3; from there on a v2 PUT is the same with users and without, and whatever of them changed.
    """
    data = event.data
    if not whole:
        if isinstance(data, kv.Put):
            data = kv.Set(data.key or "/", data.value)
        elif getattr(data, "auth", None):
            data = msgspec.structs.replace(data, auth=0)
    body = msgspec.json.encode((data.TYPE, event.subject, data))
    return hashlib.blake2b(body, digest_size=16).digest()
