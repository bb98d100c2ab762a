"""An updater as a process of its own, on a real log; it kills itself with SIGKILL at the named step.

python -m tests.actors.updater.serving FOLDER LOG LOG_ID STEP
"""

import asyncio
import os
import signal
import sys
from functools import partial

from actors.setting import Setting, Signals
from actors.updater import actor
from actors.updater.effects import Effects


def main(folder: str, log: str, log_id: str, fatal: str) -> None:
    def step(name: str) -> None:
        if name == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    actor.Effects = partial(Effects, step=step)  # type: ignore[attr-defined,assignment,misc]
    setting = Setting(machine="a" * 32, nonce="n", boot_id="b", folder=folder, log=log, log_id=log_id)

    async def run() -> None:
        signals = Signals()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signals.stop.set)
        await actor.serve(setting, signals)

    asyncio.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
