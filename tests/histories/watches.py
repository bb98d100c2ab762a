"""Whether a watch was told every change once, in order, with what was there before, through all its reconnections.

A watch that was cut off goes on from behind what it was told last: the last event, or the revision of a progress
notice, which promises that nothing at or below it is still to come.
"""

from collections.abc import Iterator

import msgspec

from tests.histories.ops import FIRST, Changes, Event, in_range


class Message(msgspec.Struct, frozen=True, gc=False):
    """``revision``: of the header. Without events: a notice of progress."""

    received_s: float
    revision: int
    events: list[Event] = []


class Session(msgspec.Struct, frozen=True, gc=False):
    """One stream, from ``start``, a revision."""

    start: int
    messages: list[Message]


class Watch(msgspec.Struct, frozen=True, gc=False):
    """``end``: empty for one key. ``prev_kv``: as asked; else events come without what was there before."""

    name: str
    key: bytes
    end: bytes
    prev_kv: bool
    sessions: list[Session]


def check(watch: Watch, changes: Changes, until: int) -> list[str]:
    """What is wrong, in words (the first thing only: what follows it follows from it). ``until``: the revision up to
    which it has been told everything."""
    if not watch.sessions:
        return [f"{watch.name} was never there"]
    expected = list(_expected(watch, changes))
    at, behind = 0, watch.sessions[0].start
    while at < len(expected) and expected[at].kv.mod < behind:
        at += 1
    for number, session in enumerate(watch.sessions):
        where = f"{watch.name}, stream {number} from {session.start}"
        if session.start != behind:
            return [f"{where}: it went on from elsewhere than {behind}"]
        for message in session.messages:
            if not message.events:
                if at < len(expected) and expected[at].kv.mod <= message.revision:
                    return [f"{where}: progress to {message.revision} was told before {expected[at]}"]
                behind = max(behind, message.revision + 1)
                continue
            for event in message.events:
                wrong = _wrong(event, expected[at] if at < len(expected) else None, session.start, message)
                if wrong:
                    return [f"{where}: {wrong}"]
                at += 1
            behind = max(behind, message.events[-1].kv.mod + 1)
    if at < len(expected) and expected[at].kv.mod <= until:
        return [f"{watch.name}: it was never told {expected[at]}"]
    return []


def _wrong(told: Event, expected: Event | None, start: int, message: Message) -> str:
    """Why the next event can't be this one; empty: it is right."""
    if told.kv.mod > message.revision:
        return f"{told} came under a header of {message.revision}"
    if told.kv.mod < start:
        return f"{told} is from before the start"
    if told == expected:
        return ""
    if expected is not None and told.kv == expected.kv:
        return f"{told} has another value before it: {expected.prev}"
    if expected is None or told.kv.mod < expected.kv.mod:
        return f"{told} came again, or never was; next is {expected}"
    return f"{told} came instead of {expected}"


def _expected(watch: Watch, changes: Changes) -> Iterator[Event]:
    for events in changes[max(0, watch.sessions[0].start - FIRST) :]:
        for event in events:
            if in_range(event.kv.key, watch.key, watch.end):
                yield event if watch.prev_kv else Event(event.kv)
