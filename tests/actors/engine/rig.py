"""Real engines in a folder of their own, and what tests need to look at them. Leaves nothing behind."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.engine import cgroups
from actors.engine.port import Place, Seen
from actors.engine.process import ProcessEngine, load_status
from actors.engine.spec import Command, ProcessSpec, RestartPolicy, UnitSpec

WAIT_S = 30


def sh(script: str, **more: Any) -> Command:
    """``/bin/sh -c script``, without expansion by us."""
    return Command("/bin/sh", ("/bin/sh", "-c", script), plain=True, **more)


def unit(name: str, *start: Command | str, **more: Any) -> UnitSpec:
    """A unit of the engine process; keywords of ProcessSpec, and ``restart``, ``fenced``."""
    restart, fenced = more.pop("restart", RestartPolicy()), more.pop("fenced", False)
    commands = tuple(sh(each) if isinstance(each, str) else each for each in start)
    return UnitSpec(
        name=name,
        restart=restart,
        fenced=fenced,
        oneshot=more.get("type") == "oneshot",
        process=ProcessSpec(start=commands, **more),
    )


def place(folder: Path, **more: Any) -> Place:
    home = folder / "engine"
    home.mkdir(parents=True, exist_ok=True)
    machine = more.pop("machine", secrets.token_hex(16))
    return Place(folder=str(home), machine=machine, log_id="0" * 32, boot_id=cgroups.boot_id(), **more)


class Rig:
    """An engine and a wait for what it sees."""

    def __init__(self, engine: ProcessEngine) -> None:
        self.engine = engine
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()

    async def until(self, name: str, wanted: Callable[[Seen | None], bool]) -> Seen:
        """What is seen of the unit once ``wanted`` is true of it."""
        async with asyncio.timeout(WAIT_S):
            while not wanted(seen := self.engine.inventory().get(name)):
                self.changed.clear()
                await self.changed.wait()
        return seen  # type: ignore[return-value]

    async def ended(self, name: str) -> Seen:
        return await self.until(name, lambda seen: seen is not None and seen.phase == "ended")

    async def running(self, name: str) -> Seen:
        return await self.until(name, lambda seen: seen is not None and seen.ready)

    def journal(self, name: str) -> str:
        return (self.engine.units / name / "journal").read_text()


@asynccontextmanager
async def rig(where: Place) -> AsyncIterator[Rig]:
    """An open engine; at the end everything that it ever started is killed."""
    engine = ProcessEngine(where)
    it = Rig(engine)
    await engine.open(it.wake)
    try:
        yield it
    finally:
        await engine.close()
        clean(Path(where.folder))


def clean(home: Path) -> None:
    """Kill every shim of ``home`` (an engine's folder) and its watchdog; wait until they are gone."""
    for folder in (home / "units").glob("*"):
        status = load_status(folder)
        if status is None or status["phase"] == "ended":
            continue
        shim = status["shim"]
        if cgroups.start_ticks(shim) == status["shim_ticks"]:
            cgroups.signal(shim, signal.SIGCONT)
            cgroups.signal(shim, signal.SIGINT)
            gone(shim)
        elif status["cgroup"]:
            cgroups.kill(status["cgroup"])
            cgroups.remove(status["cgroup"])
    lock = home / "watchdog.lock"
    if lock.exists() and (text := lock.read_text().strip()):
        pid = int(text)
        if b"watchdog" in cmdline(pid):
            os.kill(pid, signal.SIGKILL)
            gone(pid)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def gone(pid: int) -> None:
    """Wait until the process is dead."""
    until = time.monotonic() + WAIT_S
    while cgroups.start_ticks(pid):
        assert time.monotonic() < until, f"process {pid} lives on"
        time.sleep(0.01)


def eventually(check: Callable[[], Any]) -> Any:
    """Look until ``check`` is true of the world; for what nobody tells us of."""
    until = time.monotonic() + WAIT_S
    while not (found := check()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
    return found
