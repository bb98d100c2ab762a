"""Any state of the past: the nearest snapshot before it, then the tail. ``--at`` everywhere is this one function."""

import asyncio
import datetime
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path

from streams import snapshots
from streams.log.port import Log, LogTruncated
from streams.log.tools_read import stretch
from streams.records import Entry, Position
from streams.replay import Applied, Fold, Replica

#: What ``--at`` was given: a position, or a time in wall-clock milliseconds.
Instant = Position | int

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)\s+ago")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class BadInstant(ValueError):
    """``--at`` can't be understood, or lies beyond the end of the log."""

    exit_code = 2


def parse_instant(text: str, now_ms: int) -> Instant:
    """``1234.7``, ``1234``, ``2 minutes ago``, ``2026-11-23T12:00:00Z``, ``12:30`` (today, local), ``@1795460339``.

    Raises BadInstant that says what is allowed.
    """
    text = text.strip()
    if re.fullmatch(r"\d{1,19}(\.\d{1,9})?", text):
        return Position.parse(text)
    if re.fullmatch(r"@\d{1,12}(\.\d+)?", text):
        return int(float(text[1:]) * 1000)
    if text == "now":
        return now_ms
    try:
        if match := _SPAN.fullmatch(text):
            unit = "ms" if match[2] == "ms" else match[2][0]
            return now_ms - int(float(match[1]) * _UNIT_MS[unit])
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            today = datetime.datetime.fromtimestamp(now_ms / 1000).astimezone()
            moment = datetime.time.fromisoformat(text.zfill(5) if text.count(":") == 1 else text.zfill(8))
            return int(datetime.datetime.combine(today.date(), moment, today.tzinfo).timestamp() * 1000)
        moment_at = datetime.datetime.fromisoformat(text)
        return int(moment_at.astimezone().timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise BadInstant(
            f"{text!r} is neither a position (1234.7) nor a time "
            "(2026-11-23T12:00:00Z, 12:30, '2 minutes ago', @SECONDS)"
        ) from error


async def entries(log: Log, start: int, end: int) -> AsyncGenerator[list[Entry], None]:
    """Batches of entries from ``start`` up to, not including, ``end``; never waits for what isn't written yet."""
    async with aclosing(stretch(log, start, end)) as batches:
        async for batch in batches:
            yield batch


async def from_the_oldest(log: Log, make: Callable[[], Fold], folder: Path, log_id: str) -> Replica:
    """The state before all that is kept of the log: empty, or if it was trimmed the oldest snapshot it goes on from.

    Raises LogTruncated when there is none.
    """
    first = await log.first()
    if first == 0:
        return Replica(make())
    replica = await asyncio.to_thread(snapshots.oldest, folder, make, log_id, first - 1)
    if replica is None:
        raise LogTruncated(f"the log starts at {first} and no snapshot is kept that it goes on from")
    return replica


async def state_at(
    log: Log,
    make: Callable[[], Fold],
    instant: Instant | None = None,
    *,
    snapshots_folder: Path | None = None,
    log_id: str = "",
    start: Replica | None = None,
    seen: Callable[[list[Applied]], None] | None = None,
    voided: Mapping[int, str] | None = None,
) -> Replica:
    """The state as it was at an instant (None: now): events up to and including the position, or the time.

    TIME means: before the first record that lifts the running maximum of record times above it. A position in
    mid-record applies the whole record's earlier events and the named one: a record is folded event by event.
    ``start``: replayed from here (see :func:`from_the_oldest`), without a look at snapshots. ``seen``: gets each
    record's events. ``voided``: offsets of records that an operator voided, as a replica of now knows them
    (``log.voided``): the word stands behind them, where this may not come.
    Raises BadInstant beyond the end, LogTruncated when neither log nor snapshot reaches that far back.
    """
    end = await log.end()
    first = await log.first()
    offset = instant.offset if isinstance(instant, Position) else None
    if offset is not None and offset >= end:
        raise BadInstant(f"position {instant} lies beyond the end of the log, whose last record is {end - 1}")
    replica = start or Replica(make())
    if snapshots_folder is not None and start is None and seen is None:
        # aside: others are served meanwhile
        replica = await asyncio.to_thread(
            snapshots.restore,
            snapshots_folder,
            make,
            log_id,
            at_most=offset if offset is None else offset - 1,
            until_ms=None if offset is not None or instant is None else int(instant),  # type: ignore[arg-type]
        )
    if replica.offset + 1 < first:
        raise LogTruncated(f"the log starts at {first} and no snapshot at or before the asked instant is kept")
    replica.foreseen |= voided or {}
    until_ms = instant if isinstance(instant, int) else None
    stop = end if offset is None else offset + 1
    async for batch in entries(log, replica.offset + 1, stop):
        for entry in batch:
            if until_ms is not None and replica.time_of(entry) > until_ms:
                return replica
            upto = instant.index if isinstance(instant, Position) and entry.offset == offset else None
            if seen is None and upto is None:
                replica.replay(entry)
                continue
            applied = replica.apply(entry, upto)
            if seen is not None:
                seen(applied)
    return replica
