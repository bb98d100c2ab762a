"""A little node that tests can kill: coordination and engine in one process. ``python -m tests.actors.engine.live``
with a Setting as JSON on its standard input; writes what the engine reports, a JSON line each."""

import asyncio
import json
import sys

import msgspec
import structlog

from actors.coordination import actor as coordination
from actors.engine import actor as engine
from actors.setting import Setting, Signals


async def main() -> None:
    setting = msgspec.json.decode(sys.stdin.buffer.read(), type=Setting)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    signals = Signals(lambda status: print(json.dumps(status), flush=True))
    await asyncio.gather(coordination.serve(setting, Signals()), engine.serve(setting, signals))


if __name__ == "__main__":
    asyncio.run(main())
