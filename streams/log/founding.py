"""Founding a log: the first ``log.opened`` on it is its identity, also when three nodes race."""

import os
import time

from streams.events import UndecodableEvent, Unknown, decode, encode, say
from streams.events.log import LogOpened
from streams.history.at import entries
from streams.log.port import ForeignLog, Log
from streams.records import NotOurs, Record, parse
from streams.replay import LEVEL


async def identity(log: Log) -> LogOpened | None:
    """The ``log.opened`` that founded the log; None if it holds nothing of ours.

    Raises ForeignLog when records of ours stand there before any founding (the log was trimmed without a snapshot,
    or damaged).
    """
    first, end = await log.first(), await log.end()
    async for batch in entries(log, first, end):
        for entry in batch:
            try:
                record = parse(entry)
            except NotOurs:
                continue
            try:
                events = decode(record.stream, record.payload)
            except UndecodableEvent:
                events = []
            for event in events:
                if not isinstance(event, Unknown) and isinstance(event.data, LogOpened):
                    return event.data
            if first > 0:
                # the founding was trimmed away: the id still stands in every head
                return LogOpened(id=record.log_id)
    return None


async def found(log: Log, operator_key: str = "", log_id: str = "", writer: str = "node@founder") -> LogOpened:
    """The log's identity; an empty log is founded. Several may do so at once: the first on the log wins for all.

    Raises LogUnavailable, OutcomeUnknown (start again: the next look tells).
    """
    opened = await identity(log)
    if opened is not None:
        return opened
    mine = LogOpened(id=log_id or os.urandom(16).hex(), level=LEVEL, operator_key=operator_key)
    # a nonce as incarnation: founders have no incarnation yet, and nothing is decided by this one
    incarnation = int.from_bytes(os.urandom(6), "big")
    head = Record(mine.id, "log", writer, incarnation, 1, time.time_ns() // 1_000_000, encode([say(mine)]))
    await log.append([head])
    winner = await identity(log)
    if winner is None:
        raise ForeignLog(f"{log.address} took the founding record and doesn't show it")
    return winner
