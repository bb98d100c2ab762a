"""The engine port: what a supervisor asks of whatever runs units, and what it is told.

Two engines implement it: ``process`` (shims) and ``docker`` (a dockerd's API). Verbs are idempotent: a second start
of what runs and a stop of what doesn't are no errors.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from actors.engine.spec import UnitSpec

#: Phases in which something of the unit may run.
LIVE = ("starting", "started", "running", "stopping")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine sees of a unit on this machine.

    phase    starting (ExecStartPre, image), started (the main process runs), running (it serves), stopping, ended
    run      token of this run: two runs of a unit never share it
    result   of an ended run: success, exit-code, signal, timeout, exec (couldn't be started), fence, stopped, lost,
             away (the engine can't be reached)
    """

    unit: str
    engine: str
    run: str
    phase: str
    fence: int
    generation: int
    fenced: bool = False
    ready: bool = False
    pid: int = 0
    started_ticks: int = 0
    boot_id: str = ""
    container: str = ""
    code: int = 0
    signal: int = 0
    result: str = ""
    detail: str = ""
    text: str = ""

    @property
    def live(self) -> bool:
        return self.phase in LIVE


class Refused(Exception):
    """The engine can't run this, now or with this unit file; the message is the reason for people.

    ``final``: trying again won't help until the unit changes (a bad user, an image that nobody has)."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Away(Refused):
    """The engine itself can't be reached now (dockerd is down): no fault of the unit, tried again later."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where and for whom engines work. ``folder``: the engine's own, absolute; ``fences``: deadlines are kept here
    (False when the machine is alone: the lock of its log proves that it is the only one)."""

    folder: str
    machine: str
    log_id: str
    boot_id: str
    name: str = ""
    fences: bool = False
    options: dict[str, str] = {}

    @property
    def group(self) -> str:
        """Name of the cgroup that holds the units' own: a copy of the data folder would have another."""
        return f"corelog/{self.machine}-{zlib.crc32(self.folder.encode()):08x}"


class Engine(Protocol):
    name: str

    async def open(self, changed: Callable[[], None]) -> None:
        """Look at the world; ``changed`` is called whenever the inventory may differ."""
        ...

    @property
    def blind(self) -> bool:
        """Whether the engine can't tell yet what runs (dockerd was not asked since this supervisor began): nothing
        may be concluded from what is missing in the inventory. Asking makes it look."""
        ...

    def inventory(self) -> dict[str, Seen]:
        """Every unit of ours that runs, or ran and was not collected, by name."""
        ...

    async def check(self, spec: UnitSpec) -> None:
        """Whether the unit could be started here (loaded). Raises Refused."""
        ...

    async def start(self, spec: UnitSpec, fence: int, generation: int) -> None:
        """Start it; returns when it is under way. Raises Refused when nothing was started."""
        ...

    async def stop(self, unit: str, kill: bool = False) -> None:
        """Ask it to stop (within its own timeout), or kill it now; returns at once, ``changed`` tells the end."""
        ...

    async def reload(self, unit: str) -> None:
        """Run its ExecReload, if it runs; returns at once, its journal tells how that went."""
        ...

    async def collect(self, unit: str, run: str) -> None:
        """Forget an ended run; its journal stays."""
        ...

    def kept(self) -> set[str]:
        """Names of units of which anything is kept here, journals too."""
        ...

    async def remove(self, unit: str) -> None:
        """Forget the unit with its journal, if nothing of it runs."""
        ...

    async def close(self) -> None:
        """Let go; what runs goes on running."""
        ...
