"""Outcomes told outside of the log: on Kafka the master's replicas write what each command came to beside it.

The embedded log needs none of this: whoever reads it can fold it (``corelog log --jsonl``).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import structlog

from actors.kinds import Sealed
from actors.setting import Setting
from streams.log.port import Log
from streams.replay import Applied, Fold

#: So long a node that goes on at another log may tell what the old one had last.
REST_S = 3.0
#: What an actor calls in its own ``applied``: the batch, and whether it is live.
Told = Callable[[Sequence[Applied], bool], None]


def nobody(_batch: Sequence[Applied], _live: bool) -> None:
    """Where there is no outcomes topic."""


@contextlib.asynccontextmanager
async def telling(
    setting: Setting,
    log: Log,
    make: Callable[[], Fold],
    acting: Callable[[], bool],
    voided: Callable[[], Mapping[int, str]] = dict,
) -> AsyncIterator[Told]:
    """Write a fold's outcomes while inside, whenever ``acting()``. Troubles of that topic never reach the actor.

    ``voided``: as of :func:`streams.history.at.state_at`.
    """
    if not setting.log.startswith("kafka://"):
        yield nobody
        return
    from streams.audit.kafka import outcome_sink

    folder = Path(setting.folder) / "snapshots" / make().name
    feed, sink = outcome_sink(log, setting.log, setting.log_options, setting.log_id, make, folder, acting, voided)
    task = asyncio.ensure_future(sink.run())
    task.add_done_callback(_ended)
    try:
        yield feed.applied
    except Sealed:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await sink.rest()
        raise
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


def _ended(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        structlog.get_logger().error("outcomes are not written any more", error=repr(error), exc_info=error)
