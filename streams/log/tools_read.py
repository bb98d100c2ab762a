"""What the log's tools share: reading a stretch of a log, and speaking on it as an operator."""

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from streams.events import encode, say
from streams.events.base import Data, UndecodableEvent, Unknown, decode
from streams.events.log import ActorOpened, LogOpened
from streams.log.port import Log
from streams.records import Entry, Record, parse

#: A log that shows nothing below its end for this long ends with a hole (or its broker doesn't answer now).
HOLE_AFTER_S = 3.0
#: A tool doesn't fold, so it may never hold back a feature level: it announces all of them.
LEVEL_OF_TOOLS = 2**31 - 1


async def stretch(log: Log, start: int, end: int) -> AsyncGenerator[list[Entry], None]:
    """Batches of entries from ``start`` up to, not including, ``end``; ends also if the last offsets are a hole."""
    if start >= end:
        return
    async with aclosing(log.tail(start)) as tail:
        while (batch := await _next(log, tail, end)) is not None:
            kept = [entry for entry in batch if entry.offset < end]
            if kept:
                yield kept
            if len(kept) < len(batch) or kept[-1].offset >= end - 1:
                return


async def _next(log: Log, tail: AsyncGenerator[list[Entry], None], end: int) -> list[Entry] | None:
    """What comes next; None if nothing more is there below ``end``. The tail isn't running when this ends."""
    coming = asyncio.ensure_future(anext(tail, None))
    try:
        while not (await asyncio.wait([coming], timeout=HOLE_AFTER_S))[0]:
            if await log.end() >= end:  # it answers
                return None
        return coming.result()
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def said(entry: Entry, *kinds: type[Data]) -> list[Data]:
    """The payloads of these kinds in a record; none if it can't be decoded. Cheap where no kind's name stands."""
    if not any(kind.TYPE.encode() in entry.raw for kind in kinds):
        return []
    try:
        record = parse(entry)
        events = decode(record.stream, record.payload)
    except (ValueError, UndecodableEvent):
        return []
    return [event.data for event in events if not isinstance(event, Unknown) and isinstance(event.data, kinds)]


def operator() -> str:
    """The writer as which tools on this machine speak."""
    return f"operator@{re.sub(r'[^!-~]|@', '-', socket.gethostname())[:100] or 'here'}"


async def speak(log: Log, log_id: str, data: Data, *, above: int = 0) -> int:
    """Say one thing on the log as the operator at this machine; returns its offset.

    The record opens an incarnation of its writer itself (the time in ms, or ``above`` + 1), so that it is valid
    wherever it lands. Raises what ``append`` raises.
    """
    now_ms = time.time_ns() // 1_000_000
    opened = say(ActorOpened(os.urandom(8).hex(), level=LEVEL_OF_TOOLS))
    payload = encode([opened, say(data, principal=f"uid:{os.getuid()}")])
    record = Record(log_id, "log", operator(), max(now_ms, above + 1), 1, now_ms, payload)
    (offset,) = await log.append([record])
    return offset


async def open_anew(target: Log, opened: LogOpened) -> int:
    """Say ``log.opened`` again, or on another log; returns its offset."""
    incarnation = int.from_bytes(os.urandom(6), "big")
    last_ms = await _last_time_ms(target)
    record = Record(opened.id, "log", "operator@founder", incarnation, 1, last_ms, encode([say(opened)]))
    (offset,) = await target.append([record])
    return offset


async def _last_time_ms(of: Log) -> int:
    """The time of the last record: what an operator's tool adds must not move the times that follow."""
    first, end = await of.first(), await of.end()
    start = max(first, end - 1)
    async for batch in stretch(of, start, end):
        try:
            return parse(batch[-1]).time_ms
        except ValueError:
            break
    return 0
