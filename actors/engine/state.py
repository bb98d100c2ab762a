"""What each machine's supervisor said of its units: the ``engine`` part of the control fold.

Rules (each is a property in the tests):

* Only a machine speaks for itself: the record's writer must be on the machine that the fact names.
* Facts of an older fence, or of an older generation under the same fence, never overwrite newer ones.
* ``engine.stopped`` closes the unit's fence on that machine, also when no run of it was ever said.
"""

from typing import TYPE_CHECKING

import msgspec

from streams.events import engine as says
from streams.events.base import Event
from streams.outcomes import DONE, Outcome, Rejected
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control

STATES = ("loaded", "started", "ready", "failed", "exited", "stopped")
#: States in which something of the unit may run.
RUNNING = ("started", "ready")

NOT_ITS_OWN = Rejected("not-its-own", "a machine's engine speaks for its own machine only")
STALE_FENCE = Rejected("stale-fence", "a newer placement or generation of the unit was already heard of")


class Run(msgspec.Struct):
    """One unit on one machine. ``state`` is one of STATES; the pid is identified by start ticks and boot id.

    ``restart_in_ms`` ≥ 0: it exited and its supervisor will start it again. ``since``: where the state was entered.
    """

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
    restart_in_ms: int = -1

    @property
    def runs(self) -> bool:
        return self.state in RUNNING


class EngineState(msgspec.Struct):
    """``runs[unit][machine]``; a stopped run stays until the unit is destroyed."""

    runs: dict[str, dict[str, Run]] = {}


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    """Apply one fact of the stream ``engine``. Subject: the unit's name."""
    data, unit = event.data, event.subject
    if context.record.machine != data.machine:
        return NOT_ITS_OWN
    runs = control.engines.runs.setdefault(unit, {})
    old = runs.get(data.machine)
    if old is not None and (data.fence, data.generation) < (old.fence, old.generation):
        if isinstance(data, says.Stopped):
            _close(control, unit, data)
        return STALE_FENCE
    run = next_run(old, event, str(context.position))
    runs[data.machine] = run
    if isinstance(data, says.Stopped):
        _close(control, unit, data)
        _forget(control, unit)
    return DONE


def next_run(old: Run | None, event: Event, at: str) -> Run:
    """The run after a fact about it; pure, also used while the log can't be reached (a shadow of the fold)."""
    data = event.data
    same = old is not None and (old.fence, old.generation) == (data.fence, data.generation)
    run = Run("", data.fence, data.generation, at, detail=data.detail)
    if same and old is not None and not isinstance(data, says.Loaded | says.Stopped):
        run.pid, run.started_ticks, run.boot_id = old.pid, old.started_ticks, old.boot_id
        run.container, run.restarts = old.container, old.restarts
    match data:
        case says.Loaded():
            run.state = "loaded"
        case says.Started() | says.Adopted():
            run.state = "started"
            run.pid, run.started_ticks, run.boot_id = data.pid, data.started_ticks, data.boot_id
            run.container = data.container
            run.restarts = data.restarts if isinstance(data, says.Started) else run.restarts
        case says.Ready():
            run.state = "ready"
        case says.Exited():
            run.state = "exited"
            run.code, run.signal, run.restart_in_ms = data.code, data.signal, data.restart_in_ms
        case says.Failed():
            run.state = "failed"
            if same and old is not None:
                run.code, run.signal = old.code, old.signal
        case _:
            run.state = "stopped"
    return run


def _close(control: "Control", unit: str, data: says.Stopped) -> None:
    """Nothing of the unit runs on that machine any more: the scheduler's fence is closed."""
    from actors.scheduler import state as scheduler

    scheduler.closed(control, unit, data.machine, data.fence)


def _forget(control: "Control", unit: str) -> None:
    """Drop the runs of a unit that no longer exists once the last machine said stopped."""
    known = control.units.units.get(unit)
    runs = control.engines.runs.get(unit, {})
    if (known is None or known.destroyed) and all(run.state == "stopped" for run in runs.values()):
        control.engines.runs.pop(unit, None)
