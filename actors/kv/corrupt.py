"""A replica that the master's checkpoint contradicts: etcd's alarm CORRUPT is raised for its member, before it ends.

It says so by the writer ``node@MACHINE`` with an incarnation of its own, as restarts are told: what the replica itself
would say is of a state that can't be trusted, and nobody knows how far behind it stands. From there on all members
refuse to read and write keys, as etcd's do, until the alarm is disarmed.
"""

import asyncio
import time
from pathlib import Path

import msgspec
import structlog

from actors.coordination.membership import id_of
from actors.kv.state import KvFold
from actors.kv.v3.store import CORRUPT
from actors.setting import Setting
from actors.supervision.facts import next_incarnation
from streams.events import kv3
from streams.events import log as says
from streams.events.base import encode, say
from streams.log.port import Log, LogUnavailable, OutcomeUnknown
from streams.records import Record
from streams.replay import LEVEL, Diverged

#: How long it is tried: the replica ends in any case.
TRY_S, RETRY_S = 10.0, 0.5
FILE = "corrupt.json"


class Told(msgspec.Struct):
    """What was said last: a replica that is started again meets the same checkpoint again."""

    nonce: str
    position: str


async def tell(setting: Setting, log: Log, fold: KvFold, error: Diverged) -> None:
    """Raise the alarm, once at each start of the node. Never raises: the caller has a reason to end already."""
    logger = structlog.get_logger(actor="kv")
    now = Told(setting.nonce, str(error.position))
    path = Path(setting.folder) / "kv" / FILE
    if _last(path) == now:
        return
    until_s = time.monotonic() + TRY_S
    while True:
        try:
            await log.append(_records(setting, id_of(fold.cluster.membership, setting.machine)))
            break
        except Exception as failed:
            if not isinstance(failed, LogUnavailable | OutcomeUnknown) or time.monotonic() > until_s:
                logger.exception("the alarm CORRUPT could not be raised", error=str(failed))
                return
            await asyncio.sleep(RETRY_S)
    logger.error("this replica differs from the master's: the alarm CORRUPT is raised", position=now.position)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(now))


def _last(path: Path) -> Told | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Told)
    except (OSError, msgspec.DecodeError):
        return None


def _records(setting: Setting, member: int) -> list[Record]:
    wall_ms = time.time_ns() // 1_000_000
    writer, incarnation = f"node@{setting.machine}", next_incarnation(setting.folder, wall_ms)
    opened = say(says.ActorOpened(nonce=setting.nonce, level=LEVEL))
    alarm = say(kv3.Alarm(CORRUPT, member), principal=f"machine:{setting.machine}")
    return [
        Record(setting.log_id, stream, writer, incarnation, seq, wall_ms, encode([event]))
        for seq, (stream, event) in enumerate((("log", opened), ("kv", alarm)), 1)
    ]
