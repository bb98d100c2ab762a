"""The log for people and programs: lines, one record, a live stream (SSE), why, diff, the whole state."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from actors.control import ControlFold
from actors.folds import FOLDS
from actors.kv.state import KvFold
from streams.audit.lines import audit_line, audited, tells
from streams.events.base import UndecodableEvent, Unknown, decode
from streams.history.at import entries
from streams.history.diff import diff
from streams.history.why import KINDS, why
from streams.records import Entry, Position, parse

from .context import context, plain, read
from .problem import Problem
from .query import whole_number

LINES_MAX = 10_000


async def lines(request: Request) -> Response:
    """Events as JSON lines: ``from`` (a position), ``limit`` (100), ``stream``, ``subject``, ``type``.

    Without ``from`` the newest ones. Outcomes are told by the stream and by ``corelog log --jsonl``.
    """
    here = context(request)
    query = request.query_params
    end = await here.shell.log.end()
    first = await here.shell.log.first()
    limit = min(whole_number(request, "limit", 100), LINES_MAX)
    start = first if query.get("from") is None else max(first, _position(query["from"], "from").offset)
    wanted = [query.get(name) for name in ("stream", "subject", "type")]
    if query.get("from") is None:
        out = await _newest(here.shell.log, first, end, limit, wanted)
    else:
        out = []
        async for batch in entries(here.shell.log, start, end):
            out += [line for entry in batch for line in entry_lines(entry) if _matches(line, wanted)]
            if len(out) >= limit:
                break
        out = out[:limit]
    return read(out, here.shell.host.replica)


async def _newest(log: Any, first: int, end: int, limit: int, wanted: list[str | None]) -> list[dict[str, Any]]:
    """The last ``limit`` matching events: reads windows backwards, each twice as wide."""
    width, stop = 256, end
    out: list[dict[str, Any]] = []
    while stop > first and len(out) < limit:
        start = max(first, stop - width)
        found: list[dict[str, Any]] = []
        async for batch in entries(log, start, stop):
            found += [line for entry in batch for line in entry_lines(entry) if _matches(line, wanted)]
        out, stop, width = found + out, start, width * 2
    return out[-limit:]


def _position(text: str, parameter: str) -> Position:
    """Raises Problem 400 naming the parameter (or header)."""
    try:
        return Position.parse(text)
    except ValueError as error:
        raise Problem(400, "bad-position", f"{parameter}: {error}", parameter=parameter) from error


def entry_lines(entry: Entry) -> list[dict[str, Any]]:
    """An entry's events as JSON data; a foreign or undecodable one is one line that says so."""
    try:
        record = parse(entry)
        events = decode(record.stream, record.payload)
    except UndecodableEvent as error:
        return [{"position": str(Position(entry.offset)), "type": "undecodable", "detail": str(error)}]
    except ValueError as error:
        return [{"position": str(Position(entry.offset)), "type": "foreign", "detail": str(error)}]
    return [
        {
            "position": str(Position(entry.offset, index)),
            "time_ms": record.time_ms,
            "stream": record.stream,
            "writer": record.writer,
            "incarnation": record.incarnation,
            **(msgspec.to_builtins(event) if not isinstance(event, Unknown) else {"type": event.type}),
        }
        for index, event in enumerate(events)
    ]


def _matches(line: dict[str, Any], wanted: Sequence[str | None]) -> bool:
    stream, subject, kind = wanted
    return (
        (stream is None or line.get("stream") == stream)
        and (subject is None or subject in (line.get("subject"), line.get("data", {}).get("key")))
        and (kind is None or line["type"].startswith(kind))
    )


async def one(request: Request) -> Response:
    """The record at a position: head, events, canonical text."""
    here = context(request)
    position = _position(request.path_params["position"], "position")
    end, first = await here.shell.log.end(), await here.shell.log.first()
    if not first <= position.offset < end:
        raise Problem(404, "no-such-position", f"{position} is outside of the log ({first} to {end - 1})")
    async for batch in entries(here.shell.log, position.offset, position.offset + 1):
        events = entry_lines(batch[0])
        chosen = [line for line in events if line["position"] == str(position)] or events
        raw = batch[0].raw.decode("utf-8", "backslashreplace")
        return plain({"position": str(position), "events": chosen, "canonical": raw})
    raise Problem(404, "no-such-position", f"nothing stands at {position}: a hole in the log")


async def stream(request: Request) -> Response:
    """Server-sent events: each event on the log; ``stream``, ``subject`` and ``type`` narrow it.

    ``Last-Event-ID`` (or ``?from=``) resumes after that position; without it, from now on. Beyond the end nothing can
    be resumed: 400, as what isn't a position.
    """
    here = context(request)
    end = max(await here.shell.log.end(), here.shell.host.replica.offset + 1)
    after = Position(end, -1)
    for name, text in (
        ("from", request.query_params.get("from")),
        ("Last-Event-ID", request.headers.get("last-event-id")),
    ):
        if text:
            after = _position(text, name)
            if after.offset > end:
                detail = f"{name}: {after} lies beyond the end of the log, whose last record is {end - 1}"
                raise Problem(400, "bad-position", detail, parameter=name)
    return EventSourceResponse(_events(request, after), ping=15)


async def _events(request: Request, after: Position) -> AsyncIterator[dict[str, str]]:
    here = context(request)
    wanted = [request.query_params.get(name) for name in ("stream", "subject", "type")]
    tail = here.shell.log.tail(max(after.offset, await here.shell.log.first()))
    try:
        async for batch in tail:
            for entry in batch:
                for line in entry_lines(entry):
                    if Position.parse(line["position"]) > after and _matches(line, wanted):
                        data = msgspec.json.encode(line).decode()
                        yield {"id": line["position"], "event": line["type"], "data": data}
            await asyncio.sleep(0)
    finally:
        await tail.aclose()


async def audit(request: Request) -> Response:
    """Commands (and refused facts) with their outcomes, as JSON lines: what ``corelog audit export`` gives on Kafka."""
    here = context(request)
    log = here.shell.log
    out: list[bytes] = []
    for name in ("control", "kv"):
        replica = await here.oldest(FOLDS[name], name)
        async for batch in entries(log, replica.offset + 1, await log.end()):
            for entry in batch:
                out += [
                    msgspec.json.encode(audit_line(applied))
                    for applied in replica.apply(entry)
                    if audited(applied) and tells(name, applied.record.stream)
                ]
            await asyncio.sleep(0)
    out.sort(key=_by_position)
    return Response(b"".join(line + b"\n" for line in out), media_type="application/jsonl")


def _by_position(line: bytes) -> Position:
    return Position.parse(msgspec.json.decode(line)["position"])


async def get_why(request: Request) -> Response:
    """The chain of causes of a unit, machine, key or version, oldest first, down to the principal."""
    kind, name = request.path_params["kind"], request.path_params["name"]
    if kind not in KINDS:
        raise Problem(404, "unknown-kind", f"{kind!r}: why takes {', '.join(KINDS)}")
    here = context(request)
    fold = "kv" if kind == "key" else "control"
    if kind == "machine":
        from .machines import _resolve

        name = _resolve(here.shell.host.replica.fold.state, name)  # type: ignore[attr-defined]
    if kind == "key" and not name.startswith("/"):
        name = "/" + name
    end = None
    if text := request.query_params.get("at"):
        replica = await here.past(text, ControlFold, "control")
        end = replica.offset + 1
    start = await here.oldest(FOLDS[fold], fold)
    steps = await why(here.shell.log, FOLDS[fold], kind, name, end, start)
    if not steps:
        raise Problem(404, "never-heard-of", f"the log says nothing of {kind} {name!r}")
    return plain([step.plain() for step in steps])


async def get_diff(request: Request) -> Response:
    """What differs between ``from`` and ``to`` (positions or times; ``to`` defaults to now), of the whole state.

    ``below``: only keys, those at and below it.
    """
    here = context(request)
    query = request.query_params
    if not query.get("from"):
        raise Problem(400, "from-missing", "diff needs from=POSITION|TIME")
    below = query.get("below")
    changes: list[dict[str, Any]] = []
    for name, make in FOLDS.items():
        if below is not None and name != "kv":
            continue
        before = await here.past(query["from"], make, name)
        after = await here.past(query.get("to") or "now", make, name)
        left, right = plain_state(before.fold), plain_state(after.fold)
        if below is not None:
            left, right = _at_and_below(left, below), _at_and_below(right, below)
        changes += [change.plain() for change in diff(left, right, (name,)) if not _is_noise(change.path)]
    return plain(changes)


#: What changes without anything having happened: renewals, and what they quote.
_NOISE = {"seen_at", "seen_ms", "sent_ms", "renew_seq", "chains", "proof", "proof_at"}
#: What says again what stands elsewhere in the state: an index of the placements, the counter behind their fences.
_DERIVED = {("control", "units", "placed"), ("control", "units", "next_fence")}


def _is_noise(path: tuple[str, ...]) -> bool:
    return path[:3] in _DERIVED or not _NOISE.isdisjoint(path)


def plain_state(fold: Any) -> Any:
    """A fold's state as plain data; of the kv fold its keys and values, not its index."""
    if isinstance(fold, KvFold):
        tree = fold.look("/", recursive=True)
        return dict(_flat(tree["node"])) if tree else {}
    return msgspec.to_builtins(fold.state)


def _at_and_below(keys: dict[str, Any], key: str) -> dict[str, Any]:
    key = "/" + key.strip("/")
    below = key.rstrip("/") + "/"
    return {name: value for name, value in keys.items() if name == key or name.startswith(below)}


def _flat(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys with their values below a node of the v2 store; an empty directory stands for itself."""
    children = node.get("nodes", [])
    if not node.get("dir"):
        yield node["key"], node.get("value", "")
    elif not children and "key" in node:
        yield node["key"] + "/", {}
    for child in children:
        yield from _flat(child)


async def get_state(request: Request) -> Response:
    """The whole control state, now or at an instant."""
    control, replica = await context(request).control(request)
    return read(msgspec.to_builtins(control), replica)
