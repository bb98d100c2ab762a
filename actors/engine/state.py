"""What each machine's supervisor said of its units: the ``engine`` part of the control fold."""

from typing import TYPE_CHECKING

import msgspec

from streams.events.base import Event
from streams.outcomes import Outcome
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control

STATES = ("loaded", "started", "ready", "failed", "exited", "stopped")


class Run(msgspec.Struct):
    """One unit on one machine. ``state`` is one of STATES; the pid is identified by start ticks and boot id."""

    state: str
    fence: int
    generation: int
    at: str
    pid: int = 0
    started_ticks: int = 0
    boot_id: str = ""
    container: str = ""
    restarts: int = 0
    code: int = 0
    signal: int = 0
    detail: str = ""


class EngineState(msgspec.Struct):
    """``runs[unit][machine]``; a stopped run stays until the unit is destroyed."""

    runs: dict[str, dict[str, Run]] = {}


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    raise NotImplementedError((control, event, context))
