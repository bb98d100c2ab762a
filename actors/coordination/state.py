"""Machines and the election: the ``cluster`` part of the control fold."""

from typing import TYPE_CHECKING

import msgspec

from actors.coordination.election import Election
from streams.events.base import Event
from streams.outcomes import Outcome
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control


class Machine(msgspec.Struct):
    """``generation`` counts joins, losses, drains and metadata changes: a placement names the one it was decided at.

    ``alive``: joined and neither lost nor left. ``seen_at``: position of its last renewal; ``seen_ms``: its own
    boot-time clock at the sending of it (only for processes of that machine).
    """

    id: str
    nonce: str
    boot_id: str
    name: str = ""
    version: str = ""
    level: int = 1
    gateway: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    metadata: dict[str, str] = {}
    control: bool = True
    generation: int = 1
    alive: bool = True
    drained: bool = False
    left: bool = False
    seen_at: str = ""
    seen_ms: int = 0
    lost_at: str = ""


class ClusterState(msgspec.Struct):
    election: Election = msgspec.field(default_factory=Election)
    machines: dict[str, Machine] = {}


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    raise NotImplementedError((control, event, context))
