"""Compactions of prefixes: below which revision the history of which keys is gone. Pure."""

from collections.abc import Iterator

#: What a revision costs beside the bytes of its key and value, as quotas count it.
OVERHEAD_BYTES = 64


class Floors:
    """Revisions by prefix, each above the compaction of all keys. Never changed: a compaction makes another one.

    ``top``: the highest.
    """

    __slots__ = ("_groups", "by_prefix", "top")

    def __init__(self, by_prefix: dict[bytes, int]) -> None:
        self.by_prefix = by_prefix
        self.top = max(by_prefix.values(), default=-1)
        groups: dict[int, dict[bytes, int]] = {}
        for prefix, revision in by_prefix.items():
            groups.setdefault(len(prefix), {})[prefix] = revision
        self._groups = list(groups.items())

    def of(self, key: bytes) -> int:
        """The floor of one key, -1: none."""
        found = -1
        for length, group in self._groups:
            floor = group.get(key[:length], -1)
            if floor > found:
                found = floor
        return found

    def over(self, key: bytes, end: bytes) -> int:
        """The highest floor that a range meets. ``end``: empty for one key, a zero byte for all behind."""
        if not end:
            return self.of(key)
        met = (floor for prefix, floor in self.by_prefix.items() if _meets(prefix, key, end))
        return max(met, default=-1)

    def below(self, prefix: bytes) -> int:
        """The floor that all keys of a prefix have."""
        return max((floor for one, floor in self.by_prefix.items() if prefix.startswith(one)), default=-1)

    def raised(self, prefix: bytes, revision: int) -> "Floors":
        """With one more; those within it that are lower say nothing any more."""
        kept = {one: floor for one, floor in self.by_prefix.items() if floor > revision or not one.startswith(prefix)}
        kept[prefix] = revision
        return Floors(dict(sorted(kept.items())))

    def above(self, revision: int) -> "Floors | None":
        """What a compaction of all keys left of them."""
        kept = {prefix: floor for prefix, floor in self.by_prefix.items() if floor > revision}
        return Floors(kept) if kept else None

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return iter(self.by_prefix.items())


def behind(prefix: bytes) -> bytes:
    """The ``range_end`` of all keys that begin with ``prefix``: a zero byte if there is no key behind them."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else b"\0"


def _meets(prefix: bytes, key: bytes, end: bytes) -> bool:
    """Whether a key of the range [key, end) can begin with the prefix."""
    after = behind(prefix)
    return (end == b"\0" or prefix < end) and (after == b"\0" or key < after)
