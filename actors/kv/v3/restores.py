"""Keys as they were once, put there again in one revision: in parts, nothing of it before all of it is there. Pure.

The values stand in the events, for a fold can't read the log. Leases don't come back.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from actors.kv.v3 import txn
from actors.kv.v3.imports import PARTS_MAX
from actors.kv.v3.revs import ALL_BEHIND, Revs
from streams.events import kv3 as says
from streams.events.base import unblob
from streams.outcomes import DONE, Outcome, Rejected

if TYPE_CHECKING:
    from actors.kv.v3.store import Store

#: About so many bytes of keys and values are in one part.
PART_BYTES = 256 * 1024
OTHER = Rejected(
    "v3-restore.not-begun", "this restore was not begun, or another one or a compaction came since; begin it again"
)


class Staged(msgspec.Struct, omit_defaults=True):
    """A restore that has begun. ``parts`` by number."""

    begun: says.RestoreBegin
    parts: dict[int, says.RestorePart] = {}


def change(store: "Store", data: says.RestoreBegin | says.RestorePart | says.RestoreEnd) -> Outcome | None:
    """Take a step; None: keys were changed. What is refused changes nothing but a restore that can't end any more,
    which is dropped. Raises V3Error where a policy has no room for it."""
    match data:
        case says.RestoreBegin():
            return begin(store, data, lambda: _refused(store, data))
        case says.RestorePart():
            return part(store.restoring, data)
        case _:
            return _end(store, data)


def begin(store: "Store", data: says.RestoreBegin, refused: Callable[[], Rejected | None]) -> Outcome:
    """Stage what is to come, also of v2. ``refused``: why it can't be."""
    if data.parts == 0:
        if store.restoring is not None and store.restoring.begun.id == data.id:
            store.restoring = None
        return DONE
    store.restoring = None
    if not 0 < data.parts <= PARTS_MAX:
        return Rejected("v3-restore.parts", f"{data.parts} parts; from 1 to {PARTS_MAX} can be")
    if (why := refused()) is not None:
        return why
    store.restoring = Staged(data)
    return DONE


def _refused(store: "Store", data: says.RestoreBegin) -> Rejected | None:
    if store.empty or data.base > store.revs.revision:
        return Rejected("v3-restore.base", f"the store never was at revision {data.base}; it is another one")
    return _outdated(store.revs, data)


def part(staged: Staged | None, data: says.RestorePart) -> Outcome:
    if staged is None or staged.begun.id != data.id:
        return OTHER
    if not 0 <= data.number < staged.begun.parts:
        return Rejected("v3-restore.part", f"part {data.number} of {staged.begun.parts}")
    if "" in data.deletes or any(key == "" for key, _ in data.puts):
        return Rejected("v3-restore.part", "a key is empty")
    if data.dirs and not staged.begun.v2:
        return Rejected("v3-restore.part", "v3 has no directories")
    staged.parts[data.number] = data
    return DONE


def whole(store: "Store", data: says.RestoreEnd) -> Staged | Rejected:
    """What was staged, taken out, if all of it is there."""
    staged = store.restoring
    if staged is None or staged.begun.id != data.id:
        return OTHER
    missing = [number for number in range(staged.begun.parts) if number not in staged.parts]
    if missing:
        return Rejected(
            "v3-restore.incomplete", f"{len(missing)} of {staged.begun.parts} parts aren't there: {missing[:10]}"
        )
    store.restoring = None
    return staged


def _end(store: "Store", data: says.RestoreEnd) -> Outcome | None:
    staged = whole(store, data)
    if isinstance(staged, Rejected):
        return staged
    if (refused := _outdated(store.revs, staged.begun)) is not None:
        return refused
    if store.revs.policies is not None:
        store.revs.policies.check_txn(store.revs, _ops(staged))
    writing = txn.Writing(store.revs, store.leases)
    for number in range(staged.begun.parts):
        part = staged.parts[number]
        for key in part.deletes:
            writing.delete(unblob(key), b"")
        for key, value in part.puts:
            writing.put(unblob(key), unblob(value), 0)
    writing.finish()
    return None


def _ops(staged: Staged) -> Iterator[says.Op]:
    """What it does, as a transaction has it."""
    for part in staged.parts.values():
        yield from (says.OpDelete(key) for key in part.deletes)
        yield from (says.OpPut(key, value) for key, value in part.puts)


def _outdated(revs: Revs, begun: says.RestoreBegin) -> Rejected | None:
    """Whether what it was made of is no more so. Goes by the history above the compactions alone: that is alike on all
    replicas, however far each has swept."""
    if not begun.base:
        return None
    ranges = [(unblob(one.key), unblob(one.end)) for one in begun.ranges]
    if begun.base < max((revs.limit(start, end) for start, end in ranges), default=revs.compacted):
        return Rejected("v3-restore.compacted", f"revision {begun.base} was compacted meanwhile; restore again")
    for rev in revs.since(begun.base + 1):
        if any(within(rev.key, start, end) for start, end in ranges):
            key = rev.key.decode("utf-8", "backslashreplace")
            why = f"{key} was changed in revision {rev.mod}, after this restore was made (of revision {begun.base})"
            return Rejected("v3-restore.changed", why, {"key": key, "revision": rev.mod})
    return None


def within(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether a range has the key."""
    if not end:
        return key == start
    return start <= key and (end == ALL_BEHIND or key < end)


def lines(staged: Staged | None) -> Iterator[Staged]:
    """It in pieces of a part each, for snapshots; :func:`joined` is the inverse."""
    if staged is not None:
        yield Staged(staged.begun)
        for number, part in staged.parts.items():
            yield Staged(staged.begun, {number: part})


def joined(before: Staged | None, piece: Staged) -> Staged:
    if before is None:
        return Staged(piece.begun, dict(piece.parts))
    before.parts |= piece.parts
    return before


class Parts:
    """A restore as it goes over the log. ``room`` is the part that has room for so many bytes more."""

    def __init__(self, ident: str, size_max: int) -> None:
        self._ident, self._size_max, self._size = ident, size_max, 0
        self.all: list[says.RestorePart] = []

    def room(self, more: int) -> says.RestorePart:
        if not self.all or (self._size and self._size + more > self._size_max):
            self.all.append(says.RestorePart(self._ident, len(self.all)))
            self._size = 0
        self._size += more
        return self.all[-1]
