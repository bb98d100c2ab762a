"""Stream ``engine``: what each machine's supervisor tells of its units. Subject: unit name.

Every fact names ``machine``, ``generation`` (of the unit) and ``fence`` (of the placement it belongs to).
"""

from streams.events.base import Data, event


class _Fact(Data, frozen=True):
    machine: str
    generation: int
    fence: int
    detail: str = ""


@event("engine.loaded.v1", "engine")
class Loaded(_Fact, frozen=True):
    """The unit file is accepted by its engine and ready to start."""


@event("engine.started.v1", "engine")
class Started(_Fact, frozen=True):
    """Main process or container runs. ``pid`` and ``started_ticks`` (boot clock ticks) identify it with boot_id."""

    pid: int = 0
    started_ticks: int = 0
    boot_id: str = ""
    container: str = ""
    restarts: int = 0


@event("engine.ready.v1", "engine")
class Ready(_Fact, frozen=True):
    """It serves: READY=1, a passed health check, or just started where the unit asks for neither."""


@event("engine.exited.v1", "engine")
class Exited(_Fact, frozen=True):
    """The main process ended by itself; ``restart_in_ms`` ≥ 0 if the supervisor will start it again."""

    code: int = 0
    signal: int = 0
    restart_in_ms: int = -1


@event("engine.failed.v1", "engine")
class Failed(_Fact, frozen=True):
    """Given up (start limit, bad command, image missing …): the reason is in ``detail``."""


@event("engine.stopped.v1", "engine")
class Stopped(_Fact, frozen=True):
    """Nothing of it runs on this machine any more; closes the fence."""


@event("engine.adopted.v1", "engine")
class Adopted(_Fact, frozen=True):
    """A supervisor that started anew found it running and took it over (said only if the log didn't know)."""

    pid: int = 0
    started_ticks: int = 0
    boot_id: str = ""
    container: str = ""
