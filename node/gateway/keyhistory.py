"""Who changed keys, and when: a key's changes, and of each key that is there its last one."""

from collections import deque
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from actors.kv.history import concerns, made, row
from actors.kv.state import KvFold
from actors.kv.v2.nodes import Change, clean, shown
from streams.history.at import Instant
from streams.records import Position
from streams.replay import Applied

from .context import context, read
from .history import LINES_MAX
from .problem import Problem
from .query import one_of, whole_number

#: Keys that one blame tells of.
BLAMED_MAX = 100_000

Made = tuple[Applied, Change]


async def changes(request: Request) -> Response:
    """Changes of a key, oldest first: ``recursive``, after ``from``, up to ``to``, the newest ``limit`` (100)."""
    here = context(request)
    key = clean(request.path_params["key"])
    recursive = one_of(request, "recursive", ("false", "true")) == "true"
    after = request.query_params.get("from")
    since = None if after is None else here.instant(after)
    kept: deque[Made] = deque(maxlen=min(whole_number(request, "limit", 100), LINES_MAX))

    def concerned(one: Made) -> None:
        if concerns(one[1], key, recursive) and (since is None or _later(one[0], since)):
            kept.append(one)

    replica = await here.replayed(request.query_params.get("to"), KvFold, "kv", _each(concerned))
    return read([row(*one) for one in kept], replica)


async def blame(request: Request) -> Response:
    """The last change of each key that is there, at and below a key: who, when, where in the log.

    What was set before the log's first record has no position. Raises Problem 404 where nothing is, 400 for too many.
    """
    here = context(request)
    key = clean(request.path_params["key"])
    last: dict[str, Made] = {}

    def concerned(one: Made) -> None:
        changed = one[1][2]
        if concerns(one[1], key, recursive=True) and one[1][3] is not None:
            last[changed] = one

    replica = await here.replayed(request.query_params.get("at"), KvFold, "kv", _each(concerned))
    fold = replica.fold
    assert isinstance(fold, KvFold)
    names = sorted(name for name in fold.store.files if name == key or name.startswith(key + "/"))
    if not names and key not in fold.store.dirs:
        raise Problem(404, "no-such-key", f"{shown(key)} is not there (position {replica.offset})")
    if len(names) > BLAMED_MAX:
        raise Problem(400, "too-many-keys", f"{len(names)} keys are below {shown(key) or '/'}; name a narrower prefix")
    rows = []
    for name in names:
        one = last.get(name)
        known = one is not None and one[1][0] == fold.store.files[name].modified
        rows.append(row(*one) if one is not None and known else _untold(fold, name))
    return read(rows, replica)


def _untold(fold: KvFold, name: str) -> dict[str, object]:
    """A key that was set before what is kept of the log."""
    file = fold.store.files[name]
    return {"position": "", "action": "", "key": shown(name), "value": shown(file.value or ""), "index": file.modified}


def _each(concerned: Callable[[Made], None]) -> Callable[[list[Applied]], None]:
    def seen(batch: list[Applied]) -> None:
        for applied in batch:
            for change in made(applied):
                concerned((applied, change))

    return seen


def _later(applied: Applied, since: Instant) -> bool:
    return applied.position > since if isinstance(since, Position) else applied.record.time_ms > since
