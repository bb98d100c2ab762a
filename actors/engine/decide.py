"""What a machine's supervisor does and says: pure, from what is wanted, what is seen, and what the log knows.

Two questions, asked apart, because the world must not wait for the log:

* :func:`step`: what to do with one unit now (start, stop, collect). It never waits for a fact to be on the log: while
  the log can't be reached, units that crash are started again as always.
* :func:`facts`: what the log doesn't know yet. It is a difference, so after a crash of the supervisor nothing is said
  twice and nothing is left out.

One unit on one machine, as :func:`step` sees it::

    absent ──start──► live ──ends──► ended ──restart policy──► absent, again at restart_at_s
                       │               └──── over ────────────► done (until fence or generation change)
                       └──stop (not wanted, or another fence or generation)──► ended ──collect──► absent
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from actors.engine.port import Seen
from actors.engine.spec import UnitSpec
from actors.engine.state import Run
from actors.scheduler import state as scheduler
from streams.events import engine as says
from streams.events.base import Event, say

if TYPE_CHECKING:
    from actors.control import Control

#: Restart= of systemd.service(5), by how a run ended.
RESTART_WHEN = {
    "success": ("always", "on-success"),
    "exit-code": ("always", "on-failure"),
    "exec": ("always", "on-failure"),
    "signal": ("always", "on-failure", "on-abnormal", "on-abort"),
    "lost": ("always", "on-failure", "on-abnormal", "on-abort"),
    "timeout": ("always", "on-failure", "on-abnormal"),
}
#: Ends that are no fault of the unit's: started again if it is still wanted, and not counted.
OURS = ("stopped", "fence", "away")
#: ... after this long.
OURS_RETRY_S = {"stopped": 0.0, "fence": 1.0, "away": 5.0}


class Wanted(msgspec.Struct, frozen=True):
    """A unit that is placed on this machine. ``state``: loaded or launched."""

    unit: str
    content: str
    state: str
    fence: int
    generation: int
    fenced: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return (self.fence, self.generation)


class Track(msgspec.Struct):
    """What a supervisor remembers of a unit. Lost with it; what matters is rebuilt from the log and the world.

    key        (fence, generation) that the rest is about
    starts     boot times of starts, for the start limit
    judged     run whose end was judged already
    ended      that run, with ``restart_in_ms`` (-1: it is over) and ``given_up`` (the reason)
    done       it is over: exited or failed; nothing is started again
    busy       an action is under way
    """

    key: tuple[int, int] = (0, 0)
    starts: list[float] = []
    restarts: int = 0
    restart_at_s: float | None = None
    judged: str = ""
    ended: Seen | None = None
    restart_in_ms: int = -1
    given_up: str = ""
    done: str = ""
    stop_asked: str = ""
    checked: tuple[int, int] = (0, 0)
    problem: str = ""
    own: str = ""
    busy: bool = False
    stop_reason: str = ""
    #: (fence, generation) of what ran here unasked, until the log was told that it is gone
    left: tuple[int, int] | None = None


class Start(msgspec.Struct, frozen=True):
    unit: str
    fence: int
    generation: int


class Stop(msgspec.Struct, frozen=True):
    unit: str
    run: str
    reason: str
    kill: bool = False


class Check(msgspec.Struct, frozen=True):
    unit: str


class Collect(msgspec.Struct, frozen=True):
    unit: str
    run: str


Action = Start | Stop | Check | Collect


class Step(msgspec.Struct, frozen=True):
    actions: tuple[Action, ...] = ()
    wake_at_s: float | None = None


WAIT = Step()


# -- what is wanted -------------------------------------------------------------------------------------------


def wanted(control: "Control", machine: str, unit: str) -> Wanted | None:
    """What the log wants of ``unit`` on ``machine``; None: nothing of it may run there.

    The generation is the placement's: while newer content waits to be placed, what runs goes on as it is.
    """
    known = control.units.units.get(unit)
    if known is None or known.destroyed or known.desired not in ("loaded", "launched"):
        return None
    placement = known.placements.get(machine)
    if placement is None:
        return None
    fenced = known.spec.fence
    if fenced and stale_fence(control, unit, placement.fence):
        return None
    return Wanted(unit, known.content, known.desired, placement.fence, placement.generation, fenced)


def open_fences(control: "Control", machine: str, unit: str) -> tuple[int, ...]:
    """The unit's fences that are open on this machine: it owes a stop for each under which it shall not run."""
    return tuple(each.fence for each in control.units.fences.get(unit, ()) if each.machine == machine)


def stale_fence(control: "Control", unit: str, fence: int) -> bool:
    """Whether the right to run ``unit`` under ``fence`` is over: it is not open on the log any more.

    While such a run lives its machine's deadline is not moved on: renewals of a machine that has joined again say
    nothing about a fence that expired before. (One that is still open is this machine's again: a wait for its expiry
    that began before the machine joined is void.)
    """
    return not scheduler.is_open(control, unit, fence)


# -- what to do -----------------------------------------------------------------------------------------------


def step(
    want: Wanted | None,
    spec: UnitSpec | None,
    seen: Seen | None,
    logged: Run | None,
    track: Track,
    now_s: float,
    may_start: bool = True,
    stale: bool = False,
) -> Step:
    """What to do with one unit now; ``track`` is updated. ``spec`` None: the unit file can't be read (track.problem).

    may_start  nothing stands in the way of a start: another unit's port; for a fenced unit the machine's right to it,
               its deadline and the watchdog. Asked again when that changes.
    stale      what runs is fenced and its right can't be extended: it is killed, not asked
    """
    if track.busy:
        return WAIT
    if want is None:
        return _unwanted(seen, track, stale)
    if track.key != want.key:
        _renew(track, want, seen)
    if seen is not None and seen.live:
        return _live(want, seen, track, stale)
    if want.state == "loaded":
        return _load(want, spec, seen, track)
    if seen is not None and (seen.fence, seen.generation) == want.key:
        _judge(want, spec, seen, logged, track, now_s)
    elif seen is None:
        _remember(want, logged, track, now_s)
    if track.done or spec is None:
        track.done = track.done or "failed"
        return WAIT
    return _start(want, spec, track, now_s, may_start)


def _renew(track: Track, want: Wanted, seen: Seen | None) -> None:
    """Another placement or generation: all is counted afresh."""
    own, problem, left = track.own, track.problem, track.left
    for name, value in msgspec.structs.asdict(Track()).items():
        setattr(track, name, value)
    track.key, track.own, track.problem, track.left = want.key, own, problem, left
    track.stop_asked = ""


def _unwanted(seen: Seen | None, track: Track, stale: bool) -> Step:
    track.restart_at_s = None
    if seen is None:
        return WAIT
    if seen.fence:
        track.left = (seen.fence, seen.generation)
    if not seen.live:
        return Step((Collect(seen.unit, seen.run),))
    reason = "its fence is over" if stale else "it is not placed on this machine"
    return _stop(seen, track, reason, stale)


def _stop(seen: Seen, track: Track, reason: str, kill: bool = False) -> Step:
    ask = seen.run + ("!" if kill else "")
    if ask in (track.stop_asked, track.stop_asked.removesuffix("!")):
        return WAIT
    track.stop_asked, track.stop_reason = ask, reason
    return Step((Stop(seen.unit, seen.run, reason, kill),))


def _live(want: Wanted, seen: Seen, track: Track, stale: bool) -> Step:
    if stale:
        return _stop(seen, track, "its fence is over", kill=True)
    if want.state == "loaded":
        return _stop(seen, track, "it shall be loaded only")
    if seen.fence != want.fence:
        return _stop(seen, track, f"it was placed anew (fence {want.fence})")
    if seen.generation != want.generation:
        return _stop(seen, track, "it was changed or shall be restarted")
    return WAIT


def _load(want: Wanted, spec: UnitSpec | None, seen: Seen | None, track: Track) -> Step:
    track.restart_at_s, track.done, track.ended = None, "", None
    if seen is not None:
        return Step((Collect(seen.unit, seen.run),))
    if spec is not None and track.checked != want.key:
        return Step((Check(want.unit),))
    return WAIT


def told(logged: Run | None, seen: Seen) -> bool:
    """Whether the log knows how this run ended. One that never had a process is known by its reason."""
    if logged is None or logged.state not in ("exited", "failed"):
        return False
    if (logged.fence, logged.generation) != (seen.fence, seen.generation):
        return False
    if (logged.code, logged.signal) != (seen.code, seen.signal):
        return False
    if seen.container:
        return logged.container == seen.container
    if seen.pid:
        return (logged.pid, logged.started_ticks) == (seen.pid, seen.started_ticks)
    return seen.detail == logged.detail or (logged.state == "failed" and seen.detail in logged.detail)


def _remember(want: Wanted, logged: Run | None, track: Track, now_s: float) -> None:
    """Nothing is seen: a supervisor that starts anew asks the log whether it is over, or to be restarted."""
    if logged is None or (logged.fence, logged.generation) != want.key or track.own or track.done:
        return
    track.restarts = max(track.restarts, logged.restarts)
    if logged.state == "failed" or (logged.state == "exited" and logged.restart_in_ms < 0):
        track.done = logged.state


def _judge(want: Wanted, spec: UnitSpec | None, seen: Seen, logged: Run | None, track: Track, now_s: float) -> None:
    """A run ended: is it over, or started again, and when. Once per run."""
    if track.judged == seen.run:
        return
    track.judged, track.ended, track.given_up, track.restart_in_ms = seen.run, seen, "", -1
    if logged is not None and told(logged, seen) and not track.own:
        # judged by the supervisor before this one
        track.restarts = logged.restarts
        if logged.restart_in_ms < 0:
            track.done = logged.state
            return
    if spec is None:
        track.done = "failed"
        return
    if seen.result in OURS:
        delay_s = OURS_RETRY_S[seen.result]
        track.restart_at_s, track.restart_in_ms = now_s + delay_s, int(1000 * delay_s)
        return
    policy = spec.restart
    if policy.when not in RESTART_WHEN[seen.result] or track.problem:
        well = seen.result == "success"
        track.done = "exited" if well else "failed"
        track.given_up = "" if well else (track.problem or f"{seen.detail or seen.result}; Restart={policy.when}")
        return
    if limit := _limit(spec, track, now_s):
        track.done, track.given_up = "failed", f"{limit}; at last: {seen.detail or seen.result}"
        return
    track.restart_at_s = now_s + policy.delay_s
    track.restart_in_ms = int(1000 * policy.delay_s)


def _limit(spec: UnitSpec, track: Track, now_s: float) -> str:
    """Why it may not be started once more, as StartLimitIntervalSec and StartLimitBurst say; or empty."""
    policy = spec.restart
    if not policy.limit_burst or not policy.limit_interval_s:
        return ""
    # the next start will be RestartSec from now: what has left the interval by then doesn't count
    since_s = now_s + policy.delay_s - policy.limit_interval_s
    track.starts = [at_s for at_s in track.starts if at_s > since_s]
    if len(track.starts) < policy.limit_burst:
        return ""
    return f"given up: started {len(track.starts)} times within {policy.limit_interval_s:g} s"


def _start(want: Wanted, spec: UnitSpec, track: Track, now_s: float, may_start: bool) -> Step:
    if track.restart_at_s is not None and now_s < track.restart_at_s:
        return Step(wake_at_s=track.restart_at_s)
    if not may_start:
        return WAIT
    if track.ended is not None and track.ended.result not in OURS:
        track.restarts += 1
    track.starts.append(now_s)
    track.restart_at_s = None
    return Step((Start(want.unit, want.fence, want.generation),))


# -- what to say ----------------------------------------------------------------------------------------------


def facts(
    machine: str,
    unit: str,
    want: Wanted | None,
    seen: Seen | None,
    logged: Run | None,
    track: Track,
    open_fences: tuple[int, ...] = (),
) -> list[Event]:
    """What the log doesn't know yet of ``unit`` on this machine, in order.

    ``open_fences``: of the unit on this machine by the log; those that nothing here runs under, and that aren't
    wanted, are closed by ``engine.stopped``.
    """
    out = [say(data, subject=unit) for data in _stopped(machine, want, seen, logged, track, open_fences)]
    if want is None or track.busy:
        return out  # while a start is under way it isn't known yet whose run is seen
    if out:
        logged = None  # the run that the log knows is over
    out += [say(data, subject=unit) for data in _of_run(machine, want, seen, logged, track)]
    return out


def _stopped(
    machine: str,
    want: Wanted | None,
    seen: Seen | None,
    logged: Run | None,
    track: Track,
    open_fences: tuple[int, ...],
) -> Iterator[says.Stopped]:
    if track.busy:
        return  # a start or a stop is under way: what is seen may be old
    running = seen.fence if seen is not None and seen.live else None
    over: dict[int, int] = {}
    if logged is not None and logged.state != "stopped":
        over[logged.fence] = logged.generation
    for fence in open_fences:
        over.setdefault(fence, seen.generation if seen is not None and seen.fence == fence else 0)
    if logged is None and track.left is not None:
        over.setdefault(*track.left)  # the log knows nothing of it
    for fence, generation in sorted(over.items()):
        if fence != running and (want is None or fence < want.fence):
            yield says.Stopped(machine=machine, generation=generation, fence=fence, detail=track.stop_reason)


def _of_run(machine: str, want: Wanted, seen: Seen | None, logged: Run | None, track: Track) -> Iterator[says._Fact]:
    known = logged if logged is not None and (logged.fence, logged.generation) == want.key else None
    common: dict[str, Any] = {"machine": machine, "fence": want.fence, "generation": want.generation}
    ended = track.ended
    if seen is not None and seen.live:
        if (seen.fence, seen.generation) == want.key and seen.phase in ("started", "running"):
            yield from _running(common, seen, known, track)
    elif want.state == "loaded":
        if track.problem and track.key == want.key:
            if known is None or known.state != "failed":
                yield says.Failed(**common, detail=track.problem)
        elif track.checked == want.key and (known is None or known.state != "loaded"):
            yield says.Loaded(**common)
    elif ended is not None and track.judged == ended.run:
        if known is None or not told(known, ended):
            yield from _ended(common, ended, known, track)
        elif track.given_up and known.state == "exited":
            yield says.Failed(**common, detail=track.given_up)
    elif track.done == "failed" and track.problem and (known is None or known.state != "failed"):
        yield says.Failed(**common, detail=track.problem)


def _identity(seen: Seen) -> dict[str, Any]:
    return {
        "pid": seen.pid,
        "started_ticks": seen.started_ticks,
        "boot_id": seen.boot_id,
        "container": seen.container,
    }


def _same(known: Run | None, seen: Seen) -> bool:
    """Whether the log knows this very run as running."""
    if known is None or not known.runs:
        return False
    if seen.container or known.container:
        return known.container == seen.container
    if not seen.pid:
        return known.boot_id == seen.boot_id  # it remains active without a process
    return (known.pid, known.started_ticks, known.boot_id) == (seen.pid, seen.started_ticks, seen.boot_id)


def _running(common: dict[str, Any], seen: Seen, known: Run | None, track: Track) -> Iterator[says._Fact]:
    same = _same(known, seen)
    if not same and track.own == seen.run:
        yield says.Started(**common, **_identity(seen), restarts=track.restarts)
    elif not same:
        yield says.Adopted(**common, **_identity(seen))
    if seen.ready and not (same and known is not None and known.state == "ready"):
        yield says.Ready(**common, detail=seen.text)


def _ended(common: dict[str, Any], ended: Seen, known: Run | None, track: Track) -> Iterator[says._Fact]:
    if (ended.pid or ended.container) and not _same(known, ended):
        yield says.Started(**common, **_identity(ended), restarts=track.restarts)
    yield says.Exited(
        **common,
        code=ended.code,
        signal=ended.signal,
        restart_in_ms=track.restart_in_ms,
        detail=ended.detail,
    )
    if track.given_up:
        yield says.Failed(**common, detail=track.given_up)
