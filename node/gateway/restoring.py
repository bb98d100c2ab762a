"""Keys as they were once, put there again: v3's as one new revision, v2's as one event, always all or nothing.

What differs is found here, from the log; it goes to the replica in parts, which is refused if a key changes meanwhile.
"""

import asyncio
import secrets
from collections.abc import Sequence

import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from actors.kv.state import KvFold
from actors.kv.v2 import restores
from actors.kv.v2.nodes import blob_of, clean, shown, text_of
from actors.kv.v2.restores import Planned
from actors.kv.v2.store import Store
from actors.kv.v3 import past
from streams.events import kv3 as says
from streams.events.base import Blob, blob, unblob
from streams.history.at import state_at
from streams.records import Position

from .context import Context, body, plain
from .keys3 import Row, allowed, differing, kv_replica, moment, posted, view_at
from .problem import Problem


class RestoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """``at``: position, time or revision. Without prefixes and keys: everything. ``if_revision``: refused if one of
    these keys changed after it; ``force``: whatever changed meanwhile."""

    at: str
    prefixes: list[Blob] = []
    keys: list[Blob] = []
    if_revision: int = 0
    force: bool = False


async def restore(request: Request) -> Response:
    """Make keys what they were ``at`` a moment, as one new revision; ``dry_run=1`` tells what would change."""
    here = allowed(request)
    asked: RestoreBody = await body(request, RestoreBody)
    if asked.force and asked.if_revision:
        raise Problem(400, "bad-body", "force and if_revision contradict each other")
    ranges = [(unblob(key), b"") for key in asked.keys] + [past.prefix(unblob(key)) for key in asked.prefixes]
    ranges = ranges or [past.EVERYTHING]
    when = moment(asked.at)
    if when is None:
        raise Problem(400, "bad-instant", "at: say a position, a time or a revision of the past")
    view = await view_at(here, when)
    then, back = list(view.alive(ranges)), view.revision
    now = await view_at(here, None)
    present = list(now.alive(ranges))
    if not then and not present:
        raise Problem(404, "no-such-key", f"none of these keys is there, nor was at revision {back}")
    differences = past.compared(present, then)
    puts = [one.after for one in differences if one.after is not None]
    told: Row = {
        "at": f"r{back}",
        "restored": back,
        "base": now.revision,
        "puts": len(puts),
        "deletes": len(differences) - len(puts),
        "without_lease": sum(bool(rev.lease) for rev in puts),
    }
    if request.query_params.get("dry_run"):
        return plain({**told, "dry_run": True, "changes": differing(differences)})
    if not differences:
        return plain({**told, "position": "", "revision": now.revision})
    base = 0 if asked.force else asked.if_revision or now.revision
    spans = [says.Range(blob(start), blob(end)) for start, end in ranges]
    begin = says.RestoreBegin(secrets.token_hex(8), 0, asked.at, back, base, spans)
    return await _restored(here, request, told, begin, past.parts(differences, begin.id))


# -- v2 ---------------------------------------------------------------------------------------------------------------


class Restore2Body(msgspec.Struct, forbid_unknown_fields=True):
    """``at``: position or time. ``keys``: each with all below it; without any: everything. ``if_index``: refused if one
    of these keys changed after it; ``force``: whatever changed meanwhile."""

    at: str
    keys: list[Blob] = []
    if_index: int = 0
    force: bool = False


async def restore2(request: Request) -> Response:
    """Make keys of v2 what they were ``at`` a moment, all at once; ``dry_run=1`` tells what would change."""
    here = allowed(request, "v2")
    asked: Restore2Body = await body(request, Restore2Body)
    if asked.force and asked.if_index:
        raise Problem(400, "bad-body", "force and if_index contradict each other")
    roots = [clean(f"/{text_of(key)}") for key in asked.keys] or [""]
    if asked.at.strip() in ("", "now"):
        raise Problem(400, "bad-instant", "at: say a position or a time of the past")
    instant = here.instant(asked.at)
    then, now = _store((await here.past(asked.at, KvFold, "kv")).fold), await _present(here)
    if not any(_is_there(store, root) for store in (then, now) for root in roots):
        raise Problem(404, "no-such-key", f"none of these keys is there, nor was at index {then.index}")
    plan = await asyncio.to_thread(restores.planned, now, then, roots)
    if plan.blocked:
        named = ", ".join(map(shown, plan.blocked[:3]))
        words = f"{named}: a file now, and a directory then that these keys are in; name it, too"
        raise Problem(409, "v2-restore.blocked", words)
    told: Row = {
        "at": asked.at if isinstance(instant, Position) else f"@{instant // 1000}.{instant % 1000:03d}5",
        "restored": then.index,
        "base": now.index,
        "puts": len(plan.puts) + len(plan.dirs),
        "deletes": len(plan.deletes),
        "without_ttl": plan.lasting,
    }
    if request.query_params.get("dry_run"):
        return plain({**told, "dry_run": True, "changes": _changes(plan)})
    if not plan:
        return plain({**told, "position": "", "index": now.index})
    base = 0 if asked.force else asked.if_index or now.index
    spans = [says.Range(blob_of(root or "/")) for root in roots]
    begin = says.RestoreBegin(secrets.token_hex(8), 0, asked.at, then.index, base, spans, v2=True)
    return await _restored(here, request, told, begin, restores.parts(plan, begin.id))


def _store(fold: object) -> Store:
    assert isinstance(fold, KvFold)
    return fold.store


async def _present(here: Context) -> Store:
    """What is there now, with all that was acknowledged before."""
    await here.barrier()
    folder = here.folder / "snapshots" / "kv"
    now = await state_at(
        here.shell.log, KvFold, snapshots_folder=folder, log_id=here.setting.log_id, voided=here.voided
    )
    return _store(now.fold)


def _is_there(store: Store, root: str) -> bool:
    """The root itself is always there: it counts when there is anything in it."""
    return bool(store.dirs[""].children) if not root else store.find(root) is not None


def _changes(plan: Planned) -> list[Row]:
    """As the differences of v2's keys are told elsewhere; a directory is its name with a slash, and nothing in it."""
    rows = []
    after: dict[str, str | None] = {**dict.fromkeys(plan.dirs), **dict(plan.puts)}
    for key in sorted({*plan.deletes, *after}):
        found = (("before", plan.before), ("after", after))
        sides = {side: values[key] for side, values in found if key in values}
        op = "change" if len(sides) == 2 else "add" if "after" in sides else "remove"
        path = f"kv/{shown(key)}{'/' if None in sides.values() else ''}"
        told = {side: {} if value is None else shown(value) for side, value in sides.items()}
        rows.append({"api": "v2", "op": op, "path": path, **told})
    return rows


# -- on the log -------------------------------------------------------------------------------------------------------


async def _restored(
    here: Context, request: Request, told: Row, begin: says.RestoreBegin, pieces: Sequence[says.RestorePart]
) -> Response:
    """Say it on the log, in parts. Raises Problem; nothing was restored then, or if it is a 504 nobody knows."""
    begin = msgspec.structs.replace(begin, parts=len(pieces))
    who = {"x-corelog-principal": here.access.principal(request, command=True)}
    async with kv_replica(here) as replica:
        try:
            await _step(replica, {"begin": begin}, who)
            for piece in pieces:
                await _step(replica, {"part": piece}, who)
        except Problem:
            await _dropped(replica, begin.id, who)
            raise
        done = await _step(replica, {"end": says.RestoreEnd(begin.id)}, who)
    return plain({**told, **done}, 202, {"location": f"/v1/log/{done['position']}"})


async def _step(replica: httpx2.AsyncClient, step: Row, who: dict[str, str]) -> Row:
    """Raises Problem."""
    answer = await posted(replica, "/internal/restore", step, **who)
    told: Row = answer.json()
    if answer.status_code == 200:
        return told
    words = told.get("message", answer.text)
    if answer.status_code == 504 and "end" not in step:
        raise Problem(503, "kv-unavailable", f"{words}; nothing was restored")
    if answer.status_code == 504:
        raise Problem(504, "outcome-unknown", f"{words}; see with a dry run whether anything is left to restore")
    raise Problem(answer.status_code, str(told.get("code", "refused")), f"{words}; nothing was restored")


async def _dropped(replica: httpx2.AsyncClient, ident: str, who: dict[str, str]) -> None:
    """So that its parts don't stay in the state; the next restore or compaction drops them as well."""
    try:
        await _step(replica, {"begin": says.RestoreBegin(ident, 0)}, who)
    except Problem:
        return
