"""The past of v3's keys: a range at any moment, who changed what, what differs.

Who asks comes by the node's socket or has a token: etcd's users don't bind who may read the whole log.
"""

import base64
import time
from collections import deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from actors.kv import travel
from actors.kv.travel import Traveller, View, When
from actors.kv.v3 import past
from actors.kv.v3.past import Difference, Made, Range
from actors.kv.v3.revs import ALL_BEHIND, Rev, Revs
from streams.events.base import blob
from streams.history.at import BadInstant
from streams.records import Position

from .context import TIMEOUT_S, Context, context, plain
from .history import LINES_MAX
from .keyhistory import BLAMED_MAX
from .problem import Problem
from .query import one_of, whole_number

Row = dict[str, Any]


# -- what is asked ----------------------------------------------------------------------------------------------------


def allowed(request: Request, api: str = "v3") -> Context:
    """Who may have the past of keys. Raises Problem 401."""
    here = context(request)
    try:
        here.access.principal(request, command=True)
    except Problem as error:
        raise Problem(error.status, error.kind, error.detail.replace("commands need", f"keys of {api} need")) from None
    return here


def _traveller(here: Context) -> Traveller:
    return Traveller(here.shell.log, here.folder / "snapshots" / "kv", here.setting.log_id, here.voided)


def moment(text: str | None) -> When | None:
    """Raises Problem 400."""
    if not text or text == "now":
        return None
    try:
        return travel.parse(text, time.time_ns() // 1_000_000)
    except BadInstant as error:
        raise Problem(400, "bad-instant", str(error)) from error


async def view_at(here: Context, when: When | None) -> View:
    if when is None:
        await here.barrier()
    try:
        return await _traveller(here).view(when)
    except BadInstant as error:
        raise Problem(400, "bad-instant", str(error)) from error


def _ranges(request: Request) -> list[Range]:
    """``prefix`` and ``key`` (each as often as wanted, any bytes), ``key`` with ``end``, ``from_key``; all: none."""
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    found: dict[str, list[bytes]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value.encode("latin-1"))
    keys, ends = found.get("key", []), found.get("end", [])
    if b"" in keys:
        raise Problem(400, "bad-parameter", "key is empty; prefix= without a value means all keys", parameter="key")
    if ends and (len(keys) != 1 or len(ends) != 1):
        raise Problem(400, "bad-parameter", "end goes with one key", parameter="end")
    ranges = [(keys[0], ends[0])] if ends else [(key, b"") for key in keys]
    ranges += [past.prefix(key) for key in found.get("prefix", [])]
    return ranges + [(key, ALL_BEHIND) for key in found.get("from_key", [])]


def _flag(request: Request, name: str) -> bool:
    return one_of(request, name, ("false", "true")) == "true"


def _answer(data: Any, view: View) -> Response:
    headers = {"etag": f'"r{view.revision}"', "x-corelog-revision": str(view.revision)}
    if view.offset >= 0:
        headers["x-corelog-position"] = str(view.offset)
    return plain(data, headers=headers)


# -- a range ----------------------------------------------------------------------------------------------------------


async def keys(request: Request) -> Response:
    """Keys as they are, or as of ``at``: a position, a time or a revision (r123); ``limit``, ``keys_only``."""
    here = allowed(request)
    ranges, when = _ranges(request), moment(request.query_params.get("at"))
    limit, keys_only = whole_number(request, "limit", 0), _flag(request, "keys_only")
    if not ranges:
        raise Problem(400, "key-missing", "say key=, prefix= or from_key=", parameter="key")
    if when is None and len(ranges) == 1:
        return await _now(here, ranges[0], limit, keys_only, _flag(request, "count_only"))
    view = await view_at(here, when)
    found = sorted(view.alive(ranges), key=lambda rev: rev.key)
    shown = found[:limit] if limit else found
    told: Row = {"revision": view.revision, "count": len(found), "more": len(shown) < len(found)}
    if not _flag(request, "count_only"):
        told["kvs"] = [_kv(rev, keys_only) for rev in shown]
    return _answer(told, view)


def _kv(rev: Rev, keys_only: bool) -> Row:
    row: Row = {"key": blob(rev.key)}
    if not keys_only:
        row["value"] = blob(rev.value)
    return {
        **row,
        "create_revision": rev.create,
        "mod_revision": rev.mod,
        "version": rev.version,
        "lease": _lease(rev.lease),
    }


async def _now(here: Context, asked: Range, limit: int, keys_only: bool, count_only: bool) -> Response:
    """From this node's replica, which has it all in memory."""
    ask = {
        "key": base64.b64encode(asked[0] or b"\0").decode(),
        "range_end": base64.b64encode(asked[1]).decode(),
        "limit": limit,
        "keys_only": keys_only,
        "count_only": count_only,
    }
    async with kv_replica(here) as replica:
        answer = await posted(replica, "/v3/kv/range", ask)
    told = answer.json()
    if answer.status_code != 200:
        raise Problem(answer.status_code, "range-refused", told.get("message", answer.text))
    revision = int(told["header"]["revision"])
    shown: Row = {"revision": revision, "count": int(told.get("count", 0)), "more": bool(told.get("more", False))}
    if not count_only:
        shown["kvs"] = [_kv(_rev(row), keys_only) for row in told.get("kvs", [])]
    return _answer(shown, View(Revs(), revision, -1))


def _rev(row: Row) -> Rev:
    """Of etcd's JSON."""
    value = base64.b64decode(row.get("value", ""))
    create, mod, version, lease = (
        int(row.get(name, 0)) for name in ("create_revision", "mod_revision", "version", "lease")
    )
    return Rev(base64.b64decode(row["key"]), value, create, mod, version, lease, 0, None)


def kv_replica(here: Context) -> httpx2.AsyncClient:
    """This node's kv replica, by its socket."""
    transport = httpx2.AsyncHTTPTransport(uds=str(here.folder / "run" / "kv.sock"), verify=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://kv", timeout=TIMEOUT_S + 5)


async def posted(replica: httpx2.AsyncClient, path: str, data: Any, **headers: str) -> httpx2.Response:
    """Raises Problem 503 or 504."""
    try:
        return await replica.post(path, content=msgspec.json.encode(data), headers=headers)
    except httpx2.HTTPError as error:
        raise Problem(503, "kv-unavailable", f"this node's kv replica doesn't answer: {error!r}") from error


# -- who changed what -------------------------------------------------------------------------------------------------


async def changes(request: Request) -> Response:
    """Revisions of keys, oldest first, with who made them; also what was compacted, as long as the log has it."""
    here = allowed(request)
    ranges = _ranges(request) or [past.EVERYTHING]
    since, upto = moment(request.query_params.get("from")), moment(request.query_params.get("to"))
    rows: deque[Row] = deque(maxlen=min(whole_number(request, "limit", 100), LINES_MAX))

    def seen(made: Made) -> None:
        if past.concerned(made.rev.key, ranges) and (since is None or _later(made, since)):
            rows.append(_row(made))

    def known(revs: Revs) -> None:
        upto_revision = upto.revision if isinstance(upto, travel.AtRevision) else revs.revision
        if since is None:
            rows.extend(_untold(rev) for rev in past.kept(revs, ranges) if rev.mod <= upto_revision)

    try:
        view = await _traveller(here).told(upto, 0, seen, known)
    except BadInstant as error:
        raise Problem(400, "bad-instant", str(error)) from error
    return _answer(list(rows), view)


async def blame(request: Request) -> Response:
    """The last change of each key: who, when, where in the log; ``deleted``: also of keys that are gone."""
    here = allowed(request)
    ranges, when = _ranges(request) or [past.EVERYTHING], moment(request.query_params.get("at"))
    deleted, since = _flag(request, "deleted"), 0
    living: dict[bytes, Rev] = {}
    if not deleted:
        living = {rev.key: rev for rev in (await view_at(here, when)).alive(ranges)}
        if len(living) > BLAMED_MAX:
            raise Problem(400, "too-many-keys", f"{len(living)} keys are there; name a narrower prefix")
        since = min((rev.mod for rev in living.values()), default=1) - 1
    last: dict[bytes, Made] = {}

    def seen(made: Made) -> None:
        key = made.rev.key
        if (deleted and past.concerned(key, ranges)) or (key in living and living[key].mod == made.rev.mod):
            last[key] = made

    try:
        view = await _traveller(here).told(when, since, seen)
    except BadInstant as error:
        raise Problem(400, "bad-instant", str(error)) from error
    if deleted:
        living = {rev.key: rev for rev in view.alive(ranges)}
    rows = [_row(last[key]) if key in last else _untold(living[key]) for key in sorted(living.keys() | last.keys())]
    return _answer(rows, view)


def _later(made: Made, since: When) -> bool:
    if isinstance(since, travel.AtRevision):
        return made.rev.mod > since.revision
    applied = made.applied
    return applied.position > since if isinstance(since, Position) else applied.record.time_ms > since


def _row(made: Made) -> Row:
    """A change with its place in the log, who made it, and whose lease it was."""
    event, record = made.applied.event, made.applied.record
    grant = made.grant
    return {
        "api": "v3",
        "position": str(made.applied.position),
        "time_ms": record.time_ms,
        "action": made.action,
        **_value(made.rev),
        "previous": None if made.before is None else blob(made.before.value),
        "lease": _lease(made.lease),
        "lease_by": grant.principal if grant else "",
        "lease_at": str(grant.position) if grant else "",
        "principal": event.principal,
        "source": event.source,
        "client": event.client,
        "writer": record.writer,
        "term": event.term,
        "correlation": event.correlation,
    }


def _untold(rev: Rev) -> Row:
    """What was made before what is kept of the log."""
    return {"api": "v3", "position": "", "action": "" if rev.version else "delete", **_value(rev), "previous": None,
            "lease": _lease(rev.lease), "lease_by": "", "lease_at": "", "principal": "", "source": "", "client": "",
            "writer": "", "term": 0, "correlation": ""}  # fmt: skip


def _value(rev: Rev) -> Row:
    value = blob(rev.value) if rev.version else None
    return {"key": blob(rev.key), "value": value, "revision": rev.mod, "version": rev.version, "created": rev.create}


def _lease(lease: int) -> str:
    """As etcdctl prints it."""
    return f"{lease & (1 << 64) - 1:016x}" if lease else ""


# -- what differs ------------------------------------------------------------------------------------------------


async def diff(request: Request) -> Response:
    """Keys whose values differ between ``from`` and ``to`` (positions, times, revisions; ``to`` defaults to now)."""
    here = allowed(request)
    ranges = _ranges(request) or [past.EVERYTHING]
    start = request.query_params.get("from")
    if not start:
        raise Problem(400, "from-missing", "diff needs from=POSITION|TIME|REVISION")
    before = list((await view_at(here, moment(start))).alive(ranges))
    view = await view_at(here, moment(request.query_params.get("to")))
    return _answer(differing(past.compared(before, view.alive(ranges))), view)


def differing(differences: Iterable[Difference]) -> list[Row]:
    rows = []
    for one in differences:
        row: Row = {"api": "v3", "op": one.op, "key": blob(one.key)}
        if one.before is not None:
            row |= {"before": blob(one.before.value), "before_revision": one.before.mod}
        if one.after is not None:
            row |= {"after": blob(one.after.value), "after_revision": one.after.mod}
        rows.append(row)
    return rows
