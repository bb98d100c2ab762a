"""How an actor's replica begins: the newest usable snapshot, and the voids that stand ahead in the log."""

from collections.abc import Callable
from pathlib import Path

import structlog

from actors.setting import Setting
from streams import snapshots, voids
from streams.log.port import Log, LogTruncated
from streams.replay import Fold, Replica


async def restored(setting: Setting, make: Callable[[], Fold], log: Log) -> Replica:
    """A replica to give to a Host. Raises LogUnavailable, LogTruncated, ForeignLog."""
    logger = structlog.get_logger(fold=make().name)
    replica = snapshots.restore(
        Path(setting.folder) / "snapshots" / make().name,
        make,
        setting.log_id,
        damaged=lambda error: logger.error("a snapshot is damaged, an older one serves", error=str(error)),
    )
    first, end = await log.first(), await log.end()
    if replica.offset >= end:
        raise LogTruncated(f"the snapshot ends with record {replica.offset}, but the log has only {end}: it was cut")
    if replica.offset + 1 < first:
        raise LogTruncated(
            f"the log starts at {first} and this node's newest snapshot ends at {replica.offset}; "
            "copy a snapshot of another node into the data folder's snapshots"
        )
    key = replica.log.operator_key or setting.operator_key
    replica.foreseen = await voids.foreseen(log, max(first, replica.offset + 1), setting.log_id, key)
    return replica
