"""What differs between two instants: a structural diff of plain data, path by path."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class _Absent:
    def __repr__(self) -> str:
        return "absent"


#: Stands for "there was nothing here" (None is a value).
ABSENT = _Absent()


class Change(NamedTuple):
    """``path``: keys from the root down. ``before``/``after``: plain data, ABSENT when added or removed."""

    path: tuple[str, ...]
    before: Any
    after: Any

    def plain(self) -> dict[str, Any]:
        """As JSON data: ``op`` add, remove or change; before/after only where there was or is something."""
        op = "add" if self.before is ABSENT else "remove" if self.after is ABSENT else "change"
        out: dict[str, Any] = {"op": op, "path": "/".join(self.path)}
        if self.before is not ABSENT:
            out["before"] = self.before
        if self.after is not ABSENT:
            out["after"] = self.after
        return out


def diff(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Changes that turn ``before`` into ``after`` (dicts are entered, lists and scalars compared whole), by path."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}, key=str):
            yield from diff(before.get(key, ABSENT), after.get(key, ABSENT), (*path, str(key)))
    elif before is ABSENT or after is ABSENT or before != after:
        yield Change(path, before, after)
