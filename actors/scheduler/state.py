"""Units, placements and fences: the ``unit`` part of the control fold."""

from typing import TYPE_CHECKING

import msgspec

from streams.events.base import Event
from streams.outcomes import Outcome
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control


class Placement(msgspec.Struct, frozen=True):
    """``fence`` is unique and growing over the whole cluster (also for units that don't ask for fencing)."""

    machine: str
    fence: int
    generation: int
    reason: str
    at: str


class Fence(msgspec.Struct, frozen=True):
    """Open from ``unit.placed`` until that machine's ``engine.stopped`` or the master's ``fence.expired``."""

    fence: int
    machine: str
    at: str


class Unit(msgspec.Struct):
    """``generation`` counts changes of its content and restarts. ``desired``: inactive, loaded, launched.

    ``placements`` by machine: one for an ordinary unit, one per machine for a global one.
    """

    name: str
    content: str
    desired: str = "inactive"
    generation: int = 1
    restarts: int = 0
    submitted_at: str = ""
    placements: dict[str, Placement] = {}
    waiting: str = ""
    waiting_machines: dict[str, str] = {}
    #: set by destroy: kept until every machine said stopped
    destroyed: bool = False


class UnitState(msgspec.Struct):
    """``fences``: open fences by unit (only units that ask for fencing)."""

    units: dict[str, Unit] = {}
    fences: dict[str, list[Fence]] = {}
    next_fence: int = 1


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    raise NotImplementedError((control, event, context))
