"""A store that comes from elsewhere, in parts: nothing of it is there before all of it is. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from msgspec import UnsetType

from actors.kv.v3 import policies
from streams.events import kv3 as says
from streams.kinds import ALIKE_FROM_LEVEL
from streams.outcomes import DONE, Outcome, Rejected

if TYPE_CHECKING:
    from actors.kv.v3.store import Store

#: Parts are a few hundred KiB: a store of 16 GiB has fewer.
PARTS_MAX = 65536
#: A revision, a version or a lease's milliseconds: what counts on from there stays within 64 bits.
NUMBER_MAX = 2**62
#: What parts that make no store may raise.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, msgspec.MsgspecError)
NOT_EMPTY = Rejected("v3-import.not-empty", "the store isn't empty: import into a new cluster, or another log")
_AGAIN = "this import was not begun, or a compaction or another one came since; begin it again"
OTHER = Rejected("v3-import.not-begun", _AGAIN)
#: The same where the store isn't empty; that it is v2's can't be seen any more.
GONE = Rejected(NOT_EMPTY.code, f"{_AGAIN}, in v3 only where the store is empty")


class Staged(msgspec.Struct):
    """An import that has begun. ``lines`` by number of the part. ``v2``: they are v2's (else UNSET)."""

    id: str
    parts: int
    lines: dict[int, str] = {}
    v2: bool | UnsetType = msgspec.UNSET


def change(store: "Store", data: says.ImportBegin | says.ImportPart | says.ImportEnd, level: int) -> Outcome | None:
    """Take a step; None: the store is there. What is refused changes nothing but an import that can't end any more,
    which is dropped. level: the log's."""
    if not store.empty:
        begun, store.staged = store.staged, None
        return NOT_EMPTY if begun is not None or isinstance(data, says.ImportBegin) else GONE
    match data:
        case says.ImportBegin():
            return begin(store, data)
        case says.ImportPart():
            return part(store.staged, data)
        case _:
            outcome, lines = end(store, data)
            return outcome if outcome is not None else _take(store, lines, level)


def begin(store: "Store", data: says.ImportBegin) -> Outcome:
    if not 0 < data.parts <= PARTS_MAX:
        return Rejected("v3-import.parts", f"{data.parts} parts; from 1 to {PARTS_MAX} can be")
    store.staged = Staged(data.id, data.parts, v2=data.v2 or msgspec.UNSET)
    return DONE


def part(staged: Staged | None, data: says.ImportPart) -> Outcome:
    if staged is None or staged.id != data.id:
        return OTHER
    if not 0 <= data.number < staged.parts:
        return Rejected("v3-import.part", f"part {data.number} of {staged.parts}")
    staged.lines[data.number] = data.lines
    return DONE


def end(store: "Store", data: says.ImportEnd) -> tuple[Outcome | None, list[bytes]]:
    """What was staged, in order, which is dropped then; or why not."""
    staged = store.staged
    if staged is None or staged.id != data.id:
        return OTHER, []
    missing = [number for number in range(staged.parts) if number not in staged.lines]
    if missing:
        words = f"{len(missing)} of {staged.parts} parts aren't there: {missing[:10]}"
        return Rejected("v3-import.incomplete", words), []
    store.staged = None
    return None, [line for number in range(staged.parts) for line in staged.lines[number].encode().split(b"\n") if line]


def _take(store: "Store", lines: list[bytes], level: int) -> Outcome | None:
    trial = type(store)()  # whether it can be: a store that is half there would be worse than none
    trial.revs.policies = policies.restored(policies.encoded(store.revs.policies), trial.revs)
    try:
        trial.restore(lines)
        if level >= ALIKE_FROM_LEVEL:
            _check(trial)
    except DAMAGE as error:
        return Rejected("v3-import.damaged", f"the parts make no store: {error}")
    store.restore(lines)
    return None


def _check(store: "Store") -> None:
    """Whether later changes can go on from it. Raises ValueError. Ids of leases may be any that have 64 bits."""
    revs = store.revs
    check_numbers([revs.revision, revs.compacted + 1, store.auth.revision])
    for one in store.leases.by_id.values():
        check_numbers([abs(one.id) // 2, one.ttl_s, one.left_ms])
    before = (0, 0)
    for rev in revs.retained():
        check_numbers([rev.create, rev.version, abs(rev.lease) // 2])
        if not before < (rev.mod, rev.sub) or rev.create > rev.mod:
            raise ValueError(f"the revision {rev.mod}.{rev.sub} doesn't come after {before[0]}.{before[1]}")
        before = rev.mod, rev.sub
    if (last := max(before[0], revs.compacted)) > revs.revision:
        raise ValueError(f"there is a revision {last} in a store of revision {revs.revision}")


def check_numbers(numbers: Iterable[int]) -> None:
    """Raises ValueError."""
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number <= NUMBER_MAX:
            raise ValueError(f"the number {number}; from 0 to {NUMBER_MAX} can be")
