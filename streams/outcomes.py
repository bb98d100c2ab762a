"""What a command came to: computed at apply, alike on every replica."""

from typing import Any

import msgspec


class Accepted(msgspec.Struct, frozen=True, gc=False, tag="accepted", omit_defaults=True):
    """It took effect. ``result`` is plain JSON data (a v2 event, a fence number, …) for who asked."""

    result: Any = None


class AcceptedBefore(Accepted, frozen=True, gc=False, tag="accepted", omit_defaults=True):
    """It took effect when it came the first time: a client's retry is answered as that was. Written as that was."""


class Rejected(msgspec.Struct, frozen=True, gc=False, tag="rejected", omit_defaults=True):
    """It changed nothing. ``code`` is stable and typed (``not-found``, ``stale-term``, ``v2.101``); hashed.

    ``message`` is for people and never hashed; ``detail`` is plain data.
    """

    code: str
    message: str = ""
    detail: Any = None


Outcome = Accepted | Rejected

#: Facts that need no result share one object.
DONE = Accepted()
STALE_TERM = Rejected("stale-term", "said by a master whose term is over; recorded, changes nothing")
SESSION_EXPIRED = Rejected("session-expired", "this (client, sequence) is below the floor or evicted; ask anew")
BODY_DIFFERS = Rejected("sequence-reused", "this (client, sequence) was used before with another body")
