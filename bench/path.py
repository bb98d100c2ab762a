"""A put from "request parsed" to "answer given", without a socket: commands, host, log, replay, in one process.

    python -m bench.path [--waiting 1] [--seconds 2] [--folder DIR]

So many callers each put again when they were answered. CPU and context switches tell what the path costs also on a
machine that is busy; in /dev/shm the disk takes no time, and the p10 is the path alone.
"""

import argparse
import asyncio
import gc
import os
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from actors.control import ControlFold
from actors.coordination.actor import Coordination
from actors.host import Host
from actors.kv.actor import STILL_MAX, Kv
from actors.kv.commands import Commands, NotSent, OutcomeUnknown
from actors.kv.state import KvFold
from actors.setting import Setting
from actors.shell import Shell
from streams.events import kv3 as says
from streams.events.base import say
from streams.log.segments import SegmentsLog
from streams.replay import Applied, Replica
from tests.actors.kv.server import LOG, MACHINE, _no_effects, founded

KEYS, VALUE = 100_000, "v" * 256


class Callers:
    """``took_s``: of each put, in order."""

    def __init__(self, commands: Commands) -> None:
        self.took_s: list[float] = []
        self._commands = commands
        self._until_s = 0.0
        self._under_way = 0
        self._idle: asyncio.Future[None]

    async def run(self, waiting: int, seconds: float) -> None:
        self._idle = asyncio.get_running_loop().create_future()
        self._until_s = time.perf_counter() + seconds
        for _ in range(waiting):
            self._put()
        await self._idle

    def _put(self) -> None:
        began_s = time.perf_counter()
        event = say(says.Put(key=f"key-{len(self.took_s) % KEYS:08d}", value=VALUE), principal="addr:127.0.0.1")
        self._under_way += 1

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            assert isinstance(result, Applied), result
            now_s = time.perf_counter()
            self._under_way -= 1
            self.took_s.append(now_s - began_s)
            if now_s < self._until_s:
                asyncio.get_running_loop().call_soon(self._put)
            elif self._under_way == 0:
                self._idle.set_result(None)

        self._commands.submit(event, len(VALUE) + 50, came)


async def live(folder: Path) -> tuple[Shell, list[asyncio.Task[None]], list[SegmentsLog]]:
    """A kv replica whose machine is the master."""
    log = await founded(await SegmentsLog.open(folder / "log"))
    await log.close()
    where = f"segments://{folder}/log"
    setting = Setting(machine=MACHINE, nonce="1", boot_id="b", folder=str(folder), log=where, log_id=LOG)
    fold, actor = KvFold(), Kv(setting)
    tasks, logs, shells = [], [], []
    for one, state, still in ((Coordination(setting), ControlFold(), 0), (actor, fold, STILL_MAX)):
        logs.append(await SegmentsLog.open(folder / "log"))
        host = Host(one, Replica(state), f"{one.name}@{MACHINE}", lambda: secrets.token_hex(8))  # type: ignore[arg-type]
        shells.append(Shell(host, logs[-1], _no_effects, still_max=still))
        tasks.append(asyncio.ensure_future(shells[-1].run()))
    while not (shells[1].host.live and fold.cluster.election.holder):
        await asyncio.sleep(0.01)
    return shells[1], tasks, logs


async def measured(waiting: int, seconds: float, folder: Path) -> str:
    shell, tasks, logs = await live(folder)
    commands = Commands(shell)
    callers = Callers(commands)
    await callers.run(waiting, 0.5)
    gc.collect()
    gc.freeze()
    callers.took_s.clear()
    clocks: tuple[Callable[[], float], ...] = (time.perf_counter, time.process_time, time.thread_time)
    before, used, offset = [clock() for clock in clocks], _switches(), shell.host.replica.offset
    await callers.run(waiting, seconds)
    wall_s, cpu_s, loop_s = (clock() - then for clock, then in zip(clocks, before, strict=True))
    count, records = len(callers.took_s), shell.host.replica.offset - offset
    took_s = sorted(callers.took_s)
    commands.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for log in logs:
        await log.close()
    return (
        f"{waiting} waiting: {count / wall_s:,.0f}/s, p10 {took_s[count // 10] * 1e6:.0f} µs, "
        f"p50 {took_s[count // 2] * 1e6:.0f} µs; a put: {cpu_s / count * 1e6:.1f} µs of CPU (loop "
        f"{loop_s / count * 1e6:.1f}), {(_switches() - used) / count:.2f} context switches; "
        f"{count / records:.1f} a record"
    )


def _switches() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_nvcsw + used.ru_nivcsw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", default=".")
    asked = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as in a node
    with tempfile.TemporaryDirectory(dir=os.path.abspath(asked.folder), prefix=".bench-path-") as text:
        print(uvloop.run(measured(asked.waiting, asked.seconds, Path(text))))


if __name__ == "__main__":
    main()
