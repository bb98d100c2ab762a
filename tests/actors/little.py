"""Little actors that supervision can run in tests: real serve() functions, found by their dotted names."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from actors.setting import Setting, Signals


def _leave_a_mark(setting: Setting, name: str) -> None:
    with Path(setting.folder, name).open("a") as file:
        file.write(f"{os.getpid()}\n")


async def good(setting: Setting, signals: Signals) -> None:
    """Runs until it is stopped."""
    _leave_a_mark(setting, "good")
    signals.report({"live": True})
    await signals.stop.wait()
    _leave_a_mark(setting, "good-stopped")


async def coordination(setting: Setting, signals: Signals) -> None:
    """Hands over when it is asked to."""
    signals.report({"live": True})
    await signals.drain.wait()
    _leave_a_mark(setting, "drained")
    signals.report({"live": True, "left": True})
    await signals.stop.wait()
    _leave_a_mark(setting, "coordination-stopped")


async def watching(setting: Setting, signals: Signals) -> None:
    """Stands for coordination: notes whose progress it is told of."""

    def told(progress: Any) -> None:
        with Path(setting.folder, "progress").open("a") as file:
            file.write(f"{progress.actor}\n")

    signals.notice = told
    signals.report({"live": True})
    await signals.stop.wait()


async def slow(setting: Setting, signals: Signals) -> None:
    """Never ends by itself."""
    signals.report({"live": True})
    while True:
        await asyncio.sleep(3600)


async def broken(setting: Setting, signals: Signals) -> None:
    _leave_a_mark(setting, "broken")
    raise RuntimeError("this one can't run")


async def once_broken(setting: Setting, signals: Signals) -> None:
    """Fails the first time, runs the second."""
    _leave_a_mark(setting, "once-broken")
    if len(Path(setting.folder, "once-broken").read_text().split()) == 1:
        raise RuntimeError("this one runs next time")
    signals.report({"live": True})
    await signals.stop.wait()


class Refused(Exception):
    exit_code = 4
    stops_node = True


async def refusing(setting: Setting, signals: Signals) -> None:
    raise Refused("another node has this machine id")


async def stuck(setting: Setting, signals: Signals) -> None:
    """Blocks its loop."""
    _leave_a_mark(setting, "stuck")
    signals.report({"live": True})
    time.sleep(3600)  # noqa: ASYNC251 - that is the fault


async def threads(setting: Setting, signals: Signals) -> None:
    """Says how many threads were running in this process when it began (this loop's and the main one)."""
    Path(setting.folder, "threads").write_text(str(threading.active_count()))
    signals.report({"live": True})
    await signals.stop.wait()


async def waiting(setting: Setting, signals: Signals) -> None:
    """Runs and is never live, like one whose log is away."""
    signals.report({"live": False})
    await signals.stop.wait()


async def environment(setting: Setting, signals: Signals) -> None:
    """Says which variables it was given."""
    Path(setting.folder, "environment").write_text("\n".join(os.environ))
    signals.report({"live": True})
    await signals.stop.wait()
