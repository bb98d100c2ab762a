"""When to take snapshots: the gateway's process starts the snapshotter once enough was said since the last one."""

import asyncio
import sys
import time
from pathlib import Path

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from actors.setting import Setting
from actors.shell import Shell
from actors.snapshotter import PATIENT, Taken
from streams import snapshots
from streams.events import log as says
from streams.events.base import say

from .context import context, plain

#: Records since the newest snapshot that make a new one worth its while, and how often that is looked at.
RECORDS = 20_000
EVERY_S = 30.0
#: One that took long (it reads and writes all that is there) takes no more than a part of the time: 1 in SHARE. But a
#: start from it must stay quick.
SHARE, RECORDS_MAX = 20, 200_000


async def keep(setting: Setting, shell: Shell) -> None:
    """Run until cancelled; a snapshot that fails is logged and tried again later (the log has everything)."""
    logger = structlog.get_logger(actor=shell.host.writer)
    folder = Path(setting.folder) / "snapshots" / "control"
    files = snapshots.files(folder)
    last = int(files[-1].stem) if files else 0
    ended_s, took_s = float("-inf"), 0.0
    while True:
        await asyncio.sleep(EVERY_S)
        began_s = time.monotonic()
        if not is_due(shell.host.replica.offset - last, began_s - ended_s, took_s):
            continue
        try:
            taken = await take(setting, PATIENT)
            ended_s = time.monotonic()
            took_s = ended_s - began_s
            for one in taken:
                await shell.submit([say(says.SnapshotTaken(one.fold, str(one.offset), one.state_hash))])
            last = shell.host.replica.offset
        except Exception as error:
            logger.exception("no snapshot could be written", error=str(error))


def is_due(records: int, rested_s: float, took_s: float) -> bool:
    """``records``: since the newest snapshot, which ``took_s`` and was ready ``rested_s`` ago."""
    return records >= RECORDS_MAX or (records >= RECORDS and rested_s >= (SHARE - 1) * took_s)


async def on_request(request: Request) -> Response:
    """Write snapshots now; answers what was written and says it on the log."""
    here = context(request)
    taken = await take(here.setting)
    for one in taken:
        await here.shell.submit([say(says.SnapshotTaken(one.fold, str(one.offset), one.state_hash))])
    return plain([msgspec.to_builtins(one) for one in taken])


async def take(setting: Setting, *words: str) -> list[Taken]:
    """Run the snapshotter to its end; ``words``: its arguments. Raises RuntimeError with what it said on stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "actors.snapshotter",
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate(msgspec.json.encode(setting))
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(err.decode(errors="replace").strip().splitlines()[-1] if err else "it was killed")
    return [msgspec.json.decode(line, type=Taken) for line in out.splitlines()]
