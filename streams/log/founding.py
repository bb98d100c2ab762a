"""Founding a log: the first ``log.opened`` on it is its identity, also when three nodes race."""

import os
import time

from streams.events import UndecodableEvent, Unknown, decode, encode, say
from streams.events.log import LogOpened
from streams.history.at import entries
from streams.log.port import ForeignLog, Log, OutcomeUnknown
from streams.records import DamagedRecord, NewerFormat, NotOurs, Record, parse
from streams.replay import LEVEL

TRIES = 3


async def identity(log: Log) -> LogOpened | None:
    """The ``log.opened`` that founded the log; None if it holds nothing of ours.

    Of a log whose founding record was trimmed away only the id (and what an operator's trim said again) is known.
    Raises ForeignLog when what stands before the founding can't be read: a newer format, a damaged head.
    """
    first, end = await log.first(), await log.end()
    trimmed: LogOpened | None = None
    async for batch in entries(log, first, end):
        for entry in batch:
            if trimmed is not None and b'"log.opened.' not in entry.raw:
                continue
            try:
                record = parse(entry)
            except NotOurs:
                continue
            except (NewerFormat, DamagedRecord) as error:
                raise ForeignLog(f"{log.address} doesn't tell its id: {error}") from error
            try:
                events = decode(record.stream, record.payload)
            except UndecodableEvent:
                events = []
            for event in events:
                if isinstance(event, Unknown) or not isinstance(event.data, LogOpened):
                    continue
                if trimmed is None or event.data.id == trimmed.id:  # else of one that lost the race to found
                    return event.data
            if first > 0 and trimmed is None:
                # the founding was trimmed away: the id still stands in every head
                trimmed = LogOpened(id=record.log_id)
    return trimmed


async def expected(log: Log, log_id: str) -> LogOpened:
    """The log's identity, which must be ``log_id``. Raises ForeignLog if the log is empty or another one."""
    opened = await identity(log)
    if opened is None:
        raise ForeignLog(
            f"the log at {log.address} is empty, but log {log_id} is expected there: bring that log back, or join the "
            f"empty one as a new machine with an empty data folder"
        )
    if opened.id != log_id:
        raise ForeignLog(f"the log at {log.address} has id {opened.id}, but log {log_id} is expected there")
    return opened


async def found(log: Log, operator_key: str = "", log_id: str = "", writer: str = "node@founder") -> LogOpened:
    """The log's identity; an empty log is founded. Several may do so at once: the first on the log wins for all.

    Raises LogUnavailable, OutcomeUnknown (after tries enough: start again, the next look tells).
    """
    opened = await identity(log)
    if opened is not None:
        return opened
    mine = LogOpened(id=log_id or os.urandom(16).hex(), level=LEVEL, operator_key=operator_key)
    # a nonce as incarnation: founders have no incarnation yet, and nothing is decided by this one
    incarnation = int.from_bytes(os.urandom(6), "big")
    head = Record(mine.id, "log", writer, incarnation, 1, time.time_ns() // 1_000_000, encode([say(mine)]))
    for left in range(TRIES - 1, -1, -1):
        try:
            await log.append([head])
            break
        except OutcomeUnknown:
            # said twice it is the same log: unlike any other record this one may be sent again
            if not left:
                raise
    winner = await identity(log)
    if winner is None:
        raise ForeignLog(f"{log.address} took the founding record and doesn't show it")
    return winner
