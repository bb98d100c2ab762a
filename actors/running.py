"""An actor runs: its shell, what works beside it, and its reports, until it is told to stop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from actors.setting import Signals
from actors.shell import Shell

#: A change is reported at once, others within this time together.
SPACED_S = 0.05
#: What only time changes (an actor's right to act) is reported as often as this.
REPORT_S = 1.0

Status = Callable[[], dict[str, Any]]


async def until_stop(shell: Shell, signals: Signals, status: Status, *beside: Coroutine[Any, Any, None]) -> None:
    """Run ``shell`` and ``beside`` until ``signals.stop``, and report ``status()`` whenever the shell turned.

    An idle actor wakes once a REPORT_S. ``beside`` is cancelled before the shell stops; one that returns is done.
    Raises what the shell or one of ``beside`` raises.
    """
    stopping = asyncio.ensure_future(signals.stop.wait())
    running = asyncio.ensure_future(shell.run())
    users = [asyncio.ensure_future(work) for work in (_reports(shell, signals, status), *beside)]
    waiting: set[asyncio.Future[Any]] = {stopping, running, *users}
    try:
        while not stopping.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for tasks in (users, [stopping, running]):  # who uses the shell ends first
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _reports(shell: Shell, signals: Signals, status: Status) -> None:
    while True:
        shell.turned.clear()
        signals.report(status())
        await asyncio.sleep(SPACED_S)
        try:
            async with asyncio.timeout(REPORT_S):
                await shell.turned.wait()
        except TimeoutError:
            pass
