"""The composed fold ``control``: coordination, units, engines and updates, side by side in one struct.

An actor that needs another's state folds this itself; no actor asks another anything.
"""

from collections.abc import Iterable, Iterator

import msgspec

from actors.coordination import election
from actors.coordination import state as coordination
from actors.engine import state as engine
from actors.scheduler import state as scheduler
from actors.updater import state as updater
from streams.events.base import Event
from streams.outcomes import Outcome
from streams.replay import Context


class Control(msgspec.Struct):
    """All of the cluster's state but the keys."""

    cluster: coordination.ClusterState = msgspec.field(default_factory=coordination.ClusterState)
    units: scheduler.UnitState = msgspec.field(default_factory=scheduler.UnitState)
    engines: engine.EngineState = msgspec.field(default_factory=engine.EngineState)
    updates: updater.UpdateState = msgspec.field(default_factory=updater.UpdateState)


class ControlFold:
    """The fold over :class:`Control`: dispatches by stream."""

    name = "control"
    streams = frozenset({"cluster", "unit", "engine", "update"})

    def __init__(self) -> None:
        self.state = Control()

    def guard(self, event: Event, context: Context) -> Outcome | None:
        return election.guard(self.state.cluster.election, event, context)

    def evolve(self, event: Event, context: Context) -> Outcome:
        return _EVOLVE[event.data.STREAM](self.state, event, context)

    def encode(self) -> Iterator[bytes]:
        # insertion order is kept: evolve may go through dicts in that order, so it is part of the state
        yield msgspec.json.encode(self.state)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.state = msgspec.json.decode(b"".join(chunks), type=Control)


_EVOLVE = {
    "cluster": coordination.evolve,
    "unit": scheduler.evolve,
    "engine": engine.evolve,
    "update": updater.evolve,
}
