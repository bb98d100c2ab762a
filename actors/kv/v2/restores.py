"""v2's keys as they were once, put there again: all of it by one event or nothing. Pure.

It is staged as v3's (:mod:`actors.kv.v3.restores`). Each key takes an index, for a change of v2 is of one key. TTLs
don't come back.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.kv.v2.nodes import Change, blob_of, carried_of, clean, face, shown, text_of
from actors.kv.v2.put import place
from actors.kv.v2.store import HISTORY_EVENTS, Store
from actors.kv.v3 import restores
from actors.kv.v3.restores import PART_BYTES, Parts
from streams.events import kv3 as says
from streams.outcomes import Accepted, Outcome, Rejected

if TYPE_CHECKING:
    from actors.kv.state import KvFold

Step = says.RestoreBegin | says.RestorePart | says.RestoreEnd


class Restored(msgspec.Struct, frozen=True):
    """What an end came to: its changes, in order (none if all was so already), and the index after them."""

    index: int
    changes: tuple[Change, ...]


def is_v2(fold: "KvFold", data: Step) -> bool:
    """Whether a step is of v2's keys."""
    if isinstance(data, says.RestoreBegin):
        return data.v2
    staged = fold.v3.restoring
    return staged is not None and staged.begun.v2 and staged.begun.id == data.id


def change(fold: "KvFold", data: Step, time_ms: int) -> Outcome:
    """Take a step; what is refused changes nothing but a restore that can't end any more, which is dropped."""
    match data:
        case says.RestoreBegin():
            return restores.begin(fold.v3, data, lambda: _refused(fold.store, data))
        case says.RestorePart():
            unclean = next((path for path in _paths(data) if not path or clean(path) != path), None)
            if unclean is not None:
                return Rejected("v2-restore.part", f"{shown(unclean)!r} is no clean key")
            return restores.part(fold.v3.restoring, data)
        case _:
            staged = restores.whole(fold.v3, data)
            if isinstance(staged, Rejected):
                return staged
            if (refused := _refused(fold.store, staged.begun)) is not None:
                return refused
            changes = _done(fold.store, staged, time_ms)
            return Accepted(Restored(fold.store.index, changes))


def _paths(data: says.RestorePart) -> Iterator[str]:
    for blobs in (data.deletes, data.dirs, (key for key, _ in data.puts)):
        yield from map(text_of, blobs)


def _refused(store: Store, begun: says.RestoreBegin) -> Rejected | None:
    """Whether what it was made of is no more so, by the changes that the store still has."""
    base = begun.base
    if not base:
        return None
    if base > store.index:
        return Rejected("v2-restore.base", f"the store never was at index {base}; it is another one")
    if base < store.index and base + 1 < store.history[0][0]:
        why = (
            f"more than {HISTORY_EVENTS} changes came since index {base}, and what they were isn't known; restore again"
        )
        return Rejected("v2-restore.cleared", why)
    roots = [clean(text_of(one.key)) for one in begun.ranges]
    for at in range(len(store.history) - (store.index - base), len(store.history)):
        index, _, key, *_ = store.history[at]
        if any(_touches(key, root) for root in roots):
            why = f"{shown(key)} was changed at index {index}, after this restore was made (of index {base})"
            return Rejected("v2-restore.changed", why, {"key": shown(key), "index": index})
    return None


def _touches(key: str, root: str) -> bool:
    """Whether a change of a key is one of a root, of what is below it, or of a directory that it is in."""
    return within(key, root) or within(root, key)


def within(key: str, root: str) -> bool:
    """Whether a clean key is a root, or below it."""
    return key == root or key.startswith(root + "/")


# -- doing it ---------------------------------------------------------------------------------------------------------


def _done(store: Store, staged: restores.Staged, time_ms: int) -> tuple[Change, ...]:
    """All parts' deletes, then directories, then keys. Who forces it meets other keys than were planned for: what
    stands in the way is taken away."""
    parts = [staged.parts[number] for number in range(staged.begun.parts)]
    done: list[Change] = []

    def take_away(path: str) -> None:
        if (there := store.find(path)) is not None:
            store.remove(path)
            done.append(store.took((store.index + 1, "delete", path, None, face(there), time_ms, False)))

    def make_way(path: str) -> None:
        above = path.rpartition("/")[0]
        while above and above not in store.dirs:
            if above in store.files:
                take_away(above)
            above = above.rpartition("/")[0]
        # also deeper ones than a request may make at once: they were there
        store.directory(path.rpartition("/")[0])

    for part in parts:
        for path in map(text_of, part.deletes):
            take_away(path)
    for part in parts:
        for path in map(text_of, part.dirs):
            if path not in store.dirs:
                take_away(path)
                make_way(path)
                done.append(place(store, path, ("", True), None, time_ms, "set", False))
    for part in parts:
        for key, value in part.puts:
            path = text_of(key)
            if path in store.dirs:
                take_away(path)
            make_way(path)
            done.append(place(store, path, (text_of(value), False), None, time_ms, "set", False))
    return tuple(done)


# -- planning it ------------------------------------------------------------------------------------------------------


class Planned(NamedTuple):
    """What makes a store what it was: keys taken away (with all below them), empty directories, files with values.

    before  of each of those keys what it is now: a value, or None for a directory
    lasting how many of the files had a TTL
    blocked files elsewhere that stand where these need a directory: as long as they do it can't be
    """

    deletes: list[str]
    dirs: list[str]
    puts: list[tuple[str, str]]
    before: dict[str, str | None]
    lasting: int
    blocked: list[str]

    def __bool__(self) -> bool:
        return bool(self.deletes or self.dirs or self.puts)


def planned(now: Store, then: Store, roots: Collection[str]) -> Planned:
    """Of the keys at and below roots (clean keys). What is right already isn't touched; a file that is to end, and
    wasn't then, isn't right."""
    named = frozenset(roots)

    def concerned(paths: Iterable[str]) -> list[str]:
        return sorted(path for path in paths if path and (path in named or not named.isdisjoint(_above(path))))

    gone = {path for path in concerned(now.files) if path not in then.files}
    gone.update(path for path in concerned(now.dirs) if path not in then.dirs)
    # what is above it takes it along
    deletes = sorted(path for path in gone if gone.isdisjoint(_above(path)))
    dirs = [path for path in concerned(then.dirs) if path not in now.dirs and not then.dirs[path].children]
    puts, lasting = [], 0
    for path in concerned(then.files):
        file, there = then.files[path], now.files.get(path)
        if there is None or there.value != file.value or (there.expires_ms and not file.expires_ms):
            puts.append((path, file.value or ""))
            lasting += bool(file.expires_ms)
    made = [*dirs, *(path for path, _ in puts)]
    found = {path: node for path in (*deletes, *made) if (node := now.find(path)) is not None}
    blocked = {above for path in made for above in _above(path) if above in now.files and above not in gone}
    return Planned(
        deletes, dirs, puts, {path: face(node).value for path, node in found.items()}, lasting, sorted(blocked)
    )


def _above(path: str) -> Iterator[str]:
    """The directories that a key is in, up to the root."""
    while path:
        path = path[: path.rfind("/")]
        yield path


def parts(plan: Planned, ident: str, size_max: int = PART_BYTES) -> list[says.RestorePart]:
    """A plan as it goes over the log, in parts of about so many bytes."""
    made = Parts(ident, size_max)
    for path in plan.deletes:
        made.room(len(path)).deletes.append(blob_of(path))
    for path in plan.dirs:
        made.room(len(path)).dirs.append(blob_of(path))
    for path, value in plan.puts:
        made.room(len(path) + len(value)).puts.append((blob_of(path), carried_of(value)))
    return made.all
