"""The updater as a process on the embedded log, killed with SIGKILL at a step, started again."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.control import Control, ControlFold
from actors.host import Host
from actors.shell import Shell
from actors.updater import objects
from actors.updater.state import Installed
from streams.events import cluster as cluster_says
from streams.events import encode, say
from streams.events import log as log_says
from streams.events import update as says
from streams.log.port import Log
from streams.log.segments import SegmentsLog
from streams.records import Record
from streams.replay import Replica
from tests.actors.updater.cluster import LOG, Quiet, until
from tests.actors.updater.trees import V1, V2, make, read

MACHINE = "a" * 32


async def _found(log: Log) -> None:
    async def append(stream: str, writer: str, event: object) -> None:
        await log.append([Record(LOG, stream, writer, 1, 1, 0, encode([event]))])  # type: ignore[list-item]

    await append("log", "gateway@op", say(log_says.LogOpened(id=LOG)))
    await append("log", f"coordination@{MACHINE}", say(log_says.ActorOpened(nonce="n")))
    joined = say(cluster_says.MachineJoined("n", "b"), subject=MACHINE)
    await append("cluster", f"coordination@{MACHINE}", joined)


@contextlib.asynccontextmanager
async def operating(folder: Path) -> AsyncIterator[Shell]:
    log = await SegmentsLog.open(folder)
    await _found(log)
    shell = Shell(Host(Quiet(), Replica(ControlFold()), "gateway@op", lambda: "nonce"), log, None)  # type: ignore[arg-type]
    running = asyncio.ensure_future(shell.run())
    try:
        yield shell
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await log.close()


async def start(data: Path, log: Path, fatal: str = "-") -> asyncio.subprocess.Process:
    command = ["-m", "tests.actors.updater.serving", str(data), f"segments://{log}", LOG, fatal]
    return await asyncio.create_subprocess_exec(sys.executable, *command)


@pytest.mark.parametrize("fatal", ["stage-name", "link-made", "link-renamed", "leaving-noted", "left"])
async def test_kill_9_leaves_the_old_version_or_the_new_one_and_no_fact_is_said_twice(
    tmp_path: Path, fatal: str
) -> None:
    data = tmp_path / "data"
    current = data / "updater/current"
    bad = fatal in ("leaving-noted", "left")
    async with operating(tmp_path / "log") as shell:
        control: Control = shell.host.replica.fold.state  # type: ignore[attr-defined]

        def mine() -> Installed:
            return control.updates.machines.get(MACHINE) or Installed()

        async def tell(data: says.Publish | says.Switch, version: str) -> None:
            await shell.submit([say(data, subject=version)])

        for version, files in (("1", V1), ("2", V2)):
            health = "exit 7" if bad and version == "2" else ""
            said = objects.publish_folder(data, make(tmp_path / version, files), version, health=health)
            await tell(said, version)
        await tell(says.Switch(), "1")
        first = await start(data, tmp_path / "log")
        await until(lambda: mine().state == "healthy")
        first.send_signal(signal.SIGTERM)
        assert await first.wait() == 0
        await tell(says.Switch(), "2")
        doomed = await start(data, tmp_path / "log", fatal)
        assert await doomed.wait() == -signal.SIGKILL
        assert read(current) == (V2 if fatal in ("link-renamed", "leaving-noted") else V1)
        last = await start(data, tmp_path / "log")
        await until(lambda: not mine().order and not mine().checking)
        last.send_signal(signal.SIGTERM)
        assert await last.wait() == 0
        assert read(current) == (V1 if bad else V2)
        assert mine().state == ("rolledback" if bad else "healthy")
        assert ("ended with 7" in mine().detail) is bad
        entries = [entry async for batch in _all(shell.log) for entry in batch]
        replica = Replica(ControlFold())
        applied = [one for entry in entries for one in replica.apply(entry)]
        kinds = [one.event.type.split(".")[1] for one in applied if one.event.subject == "2"]
        assert kinds == ["published", "switch", "staged", "switched", "rolledback" if bad else "healthy"]


async def _all(log: Log) -> AsyncIterator[list]:  # type: ignore[type-arg]
    end = await log.end()
    async with contextlib.aclosing(log.tail(0)) as tail:
        async for batch in tail:
            yield batch
            if batch[-1].offset + 1 >= end:
                return
