"""Stream ``unit``: what users want to run, and where the master's scheduler decides it to run."""

from streams.events.base import Data, event


@event("unit.submitted.v1", "unit", command=True)
class Submit(Data, frozen=True):
    """A unit file's text, checked by the gateway and again at apply. Subject: unit name.

    ``desired`` sets the desired state in the same breath (inactive, loaded, launched), empty leaves it.
    ``replace`` false: rejected when the unit exists with other content.
    """

    content: str
    desired: str = ""
    replace: bool = False


@event("unit.desired.v1", "unit", command=True)
class Desire(Data, frozen=True):
    state: str


@event("unit.restarted.v1", "unit", command=True)
class Restart(Data, frozen=True):
    """Asks the unit's machine to stop and start it in place: placements stay and run a new generation."""


@event("unit.destroyed.v1", "unit", command=True)
class Destroy(Data, frozen=True):
    pass


@event("unit.placed.v1", "unit")
class Placed(Data, frozen=True):
    """The master's scheduler (term): run ``generation`` of the unit on ``machine`` under ``fence``.

    Checked again at apply: generation, machine (alive, not drained, its ``machine_generation``), free resources,
    conflicts, open fences. ``reason`` is for people; ``from_machine`` is set when it moves.
    """

    machine: str
    generation: int
    machine_generation: int
    reason: str
    decided_at: str = ""
    from_machine: str = ""


@event("unit.unplaced.v1", "unit")
class Unplaced(Data, frozen=True):
    """The master's scheduler (term): ``machine`` shall no longer run it.

    Of a destroyed unit: the machines that still have it are lost, so it is forgotten now.
    """

    machine: str
    generation: int
    reason: str
    decided_at: str = ""


@event("unit.waiting.v1", "unit")
class Waiting(Data, frozen=True):
    """The master's scheduler (term): why the unit is not placed, and on which machine why not."""

    generation: int
    reason: str
    machines: dict[str, str] = {}


@event("fence.expired.v1", "unit")
class FenceExpired(Data, frozen=True):
    """The master (term): the machine that held ``fence`` can no longer run the unit in subject.

    ``machine_generation``: of the machine when the wait began; void if it was back in the meantime.
    """

    fence: int
    machine: str
    machine_generation: int
