"""How an actor begins: the log, opened with patience; its replica from the newest usable snapshot, and the voids that
stand ahead in the log."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from actors.setting import Setting
from streams import snapshots, voids
from streams.log.open import open_log
from streams.log.port import Log, LogTruncated, LogUnavailable
from streams.replay import Fold, Replica

#: How long an actor waits before it asks again for a log that can't be reached.
OPEN_RETRY_S = 0.5


async def opened(setting: Setting, actor: str) -> Log:
    """The setting's log, as soon as it can be reached. ``actor``: who asks, for the node's own messages.

    Raises ForeignLog, LogTruncated: another attempt would not help.
    """
    logger = structlog.get_logger(actor=actor)
    while True:
        try:
            return await open_log(setting.log, setting.log_options, setting.log_checked)
        except LogUnavailable as error:
            logger.warning("the log can't be reached", error=str(error))
            await asyncio.sleep(OPEN_RETRY_S)


async def resumed(setting: Setting, make: Callable[[], Fold], log: Log) -> Replica:
    """As :func:`restored`, as soon as the log can be reached: an actor that ended for it would cost the machine a start
    each time, which brokers on it may need to come back."""
    replica = _newest(setting, make)
    while True:
        try:
            await _place([replica], setting, log)
            return replica
        except LogUnavailable as error:
            structlog.get_logger(fold=replica.fold.name).warning("the log can't be reached", error=str(error))
            await asyncio.sleep(OPEN_RETRY_S)


async def restored(setting: Setting, makes: Sequence[Callable[[], Fold]], log: Log) -> list[Replica]:
    """Replicas to bring on. Raises LogUnavailable, LogTruncated, ForeignLog."""
    replicas = [_newest(setting, make) for make in makes]
    await _place(replicas, setting, log)
    return replicas


def _newest(setting: Setting, make: Callable[[], Fold]) -> Replica:
    logger = structlog.get_logger(fold=make().name)
    return snapshots.restore(
        Path(setting.folder) / "snapshots" / make().name,
        make,
        setting.log_id,
        damaged=lambda error: logger.error("a snapshot is damaged, an older one serves", error=str(error)),
    )


async def _place(replicas: Sequence[Replica], setting: Setting, log: Log) -> None:
    """See that the log goes on where they end, and give them the voids that stand ahead: by one look at it for all."""
    first, end = await log.first(), await log.end()
    for replica in replicas:
        if replica.offset >= end:
            raise LogTruncated(
                f"the snapshot ends with record {replica.offset}, but the log has only {end}: it was cut"
            )
        if replica.offset + 1 < first:
            raise LogTruncated(
                f"the log starts at {first} and this node's newest snapshot ends at {replica.offset}; "
                "copy a snapshot of another node into the data folder's snapshots"
            )
    start = max(first, min(replica.offset for replica in replicas) + 1)
    key = next((replica.log.operator_key for replica in replicas if replica.log.operator_key), setting.operator_key)
    foreseen = await voids.foreseen(log, start, setting.log_id, key)
    for replica in replicas:
        replica.foreseen = dict(foreseen)
