"""v2's whole store as lines, out of the fold and into an empty one. Pure."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec import UnsetType

from actors.kv.v2.auth import Auth, Kept
from actors.kv.v2.nodes import Node, blob_of, shown
from actors.kv.v2.store import BESIDE, Store
from actors.kv.v3 import imports
from streams.events import kv3 as says
from streams.events.base import Blob
from streams.kinds import ALIKE_FROM_LEVEL
from streams.outcomes import DONE, Outcome, Rejected

if TYPE_CHECKING:
    from actors.kv.state import KvFold


class _Users(msgspec.Struct):
    """The first line."""

    users2: Auth | UnsetType = msgspec.UNSET


def lines(store: Store, users: Kept, form: Callable[[str], Blob] = blob_of) -> Iterator[bytes]:
    """form: see :meth:`Store.encode`."""
    yield msgspec.json.encode(_Users(users)) + b"\n"
    yield from store.encode(form)


def restored(given: Iterable[bytes]) -> tuple[Store, Kept]:
    """The inverse of :func:`lines`. Raises ValueError and the like on anything else."""
    rest = iter(given)
    users = msgspec.json.decode(next(rest, b""), type=_Users).users2
    store = Store()
    store.restore(rest)
    if store.index and not store.history:
        # whoever waits for an index of before is told that it is gone
        store.history.append((store.index, "update", BESIDE, None, None, 0, True))
    return store, users


def is_v2(fold: "KvFold", data: says.ImportBegin | says.ImportPart | says.ImportEnd) -> bool:
    """Whether a step is of an import into v2."""
    if isinstance(data, says.ImportBegin):
        return data.v2
    staged = fold.v3.staged
    return staged is not None and staged.v2 is True and staged.id == data.id


def change(fold: "KvFold", data: says.ImportBegin | says.ImportPart | says.ImportEnd, level: int) -> Outcome:
    """Take a step; what is staged is kept beside v3's. level: the log's."""
    v3 = fold.v3
    if fold.store.index or isinstance(fold.cluster.users2, Auth):
        v3.staged = None
        return imports.NOT_EMPTY
    match data:
        case says.ImportBegin():
            return imports.begin(v3, data)
        case says.ImportPart():
            return imports.part(v3.staged, data)
        case _:
            outcome, given = imports.end(v3, data)
            return outcome if outcome is not None else _take(fold, given, level)


def _take(fold: "KvFold", given: list[bytes], level: int) -> Outcome:
    try:
        store, users = restored(given)
        if level >= ALIKE_FROM_LEVEL:
            _check(store)
    except imports.DAMAGE as error:
        return Rejected("v2-import.damaged", f"the parts make no store: {error}")
    target = fold.store
    # the same objects: what applies a record holds on to them
    target.index = store.index
    target.files.update(store.files)
    target.dirs.update(store.dirs)
    target.ttls.update(store.ttls)
    target.history.extend(store.history)
    fold.cluster.users2 = users
    return DONE


def _check(store: Store) -> None:
    """Whether each path is there once, as a file or a directory, and entered in the directory that it is in: what isn't
    would halt who deletes it. Raises ValueError."""
    entered = 0
    for path, there in store.dirs.items():
        for child in there.children:
            if child.rpartition("/")[0] != path or (child in store.files) == (child in store.dirs):
                raise ValueError(f"{shown(child)!r} is there twice, or not where its path says")
        entered += len(there.children)
    if entered != len(store.files) + len(store.dirs) - 1:
        raise ValueError("a directory is there twice")
    for node in chain[Node](store.files.values(), store.dirs.values()):
        imports.check_numbers((node.created, node.modified, node.expires_ms))
    imports.check_numbers((store.index, *store.ttls.values()))
