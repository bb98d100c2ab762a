"""Says on the log that an actor was replaced: ``actor.restarted``, by the writer ``node@MACHINE``.

The node has no replica of its own. One record says all: ``actor.opened`` with an incarnation that is higher than any
before (a counter in the data folder, at least the clock), then the facts. Such a record needs no earlier barrier.
"""

import asyncio
import os
import time
from pathlib import Path

import msgspec
import structlog

from actors.setting import Setting, Signals
from actors.supervision.messages import Fallen
from streams.events import log as says
from streams.events.base import encode, say
from streams.log.open import open_log
from streams.log.port import LogUnavailable, OutcomeUnknown
from streams.records import Record
from streams.replay import LEVEL

#: A fact that can't be written for so long is only in the node's own output.
TRY_S = 60.0
_RETRY_S = 0.5
_FILE = "node-writer.json"


class Writer(msgspec.Struct):
    """What this machine's ``node@`` writer said last."""

    incarnation: int = 0
    level: int = 0


def last_writer(folder: str) -> Writer:
    try:
        return msgspec.json.decode(Path(folder, _FILE).read_bytes(), type=Writer)
    except (FileNotFoundError, msgspec.DecodeError):
        return Writer()


def next_incarnation(folder: str, wall_ms: int) -> int:
    """Higher than all before, also if the file is lost; kept on disk before it is used."""
    incarnation = max(last_writer(folder).incarnation + 1, wall_ms)
    path = Path(folder, _FILE)
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        file.write(msgspec.json.encode(Writer(incarnation, LEVEL)))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    return incarnation


def record(setting: Setting, facts: tuple[Fallen, ...], incarnation: int, wall_ms: int) -> Record:
    events = [say(says.ActorOpened(nonce=setting.nonce, level=LEVEL))]
    events += [
        say(
            says.ActorRestarted(reason=fact.reason, restarts=fact.restarts, backoff_ms=fact.backoff_ms),
            subject=f"{fact.actor}@{setting.machine}",
        )
        for fact in facts
    ]
    return Record(setting.log_id, "log", f"node@{setting.machine}", incarnation, 1, wall_ms, encode(events))


async def serve(setting: Setting, signals: Signals, facts: tuple[Fallen, ...]) -> None:
    """Append ``facts`` and end. While the log can't be reached it tries again, for TRY_S."""
    logger = structlog.get_logger(actor="node")
    until = time.monotonic() + TRY_S
    while not signals.stop.is_set():
        wall_ms = time.time_ns() // 1_000_000
        said = record(setting, facts, next_incarnation(setting.folder, wall_ms), wall_ms)
        try:
            log = await open_log(setting.log, setting.log_options, setting.log_checked)
            try:
                await log.append([said])
            finally:
                await log.close()
            return
        except OutcomeUnknown as error:
            # it may land yet; said twice would count one death twice
            logger.warning("whether the log has this restart is unknown", error=str(error))
            return
        except LogUnavailable as error:
            if time.monotonic() > until:
                logger.warning("the log doesn't have these restarts", error=str(error), facts=len(facts))
                return
            await asyncio.sleep(_RETRY_S)
