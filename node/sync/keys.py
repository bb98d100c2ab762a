"""Ranges of keys, and what is known of them at one revision. Pure.

Keys and values are bytes; templates see them as text, with bytes that are no UTF-8 as lone surrogates, so that what
goes in comes out.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sortedcontainers import SortedDict


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    """Raises UnicodeEncodeError: a surrogate that stands for no byte."""
    return text.encode("utf-8", "surrogateescape")


class Range(NamedTuple):
    """As etcd has it. ``end`` empty: the key ``start`` alone; a zero byte: all from ``start`` on."""

    start: bytes
    end: bytes = b""

    @property
    def upper(self) -> bytes | None:
        """The first key behind it; None: there is none."""
        if self.end == b"\0":
            return None
        return self.end or self.start + b"\0"

    def has(self, key: bytes) -> bool:
        upper = self.upper
        return key >= self.start and (upper is None or key < upper)

    def covers(self, other: "Range") -> bool:
        upper, theirs = self.upper, other.upper
        return self.start <= other.start and (upper is None or (theirs is not None and theirs <= upper))


def prefix(start: bytes) -> Range:
    """All keys that begin with ``start``."""
    if not start:
        return Range(b"\0", b"\0")
    end = bytearray(start)
    while end:
        if end[-1] < 0xFF:
            end[-1] += 1
            return Range(start, bytes(end))
        end.pop()
    return Range(start, b"\0")


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Without those that another one covers, in order: of their ends too."""
    out: list[Range] = []
    # of those that begin alike the widest comes first
    for one in sorted(set(ranges), key=lambda r: (r.start, r.upper is not None, _reversed(r.upper or b""))):
        # of those that are kept the last one reaches farthest
        if not out or not out[-1].covers(one):
            out.append(one)
    return tuple(out)


def _start(one: Range) -> bytes:
    return one.start


def _reversed(raw: bytes) -> tuple[int, ...]:
    """Sorts the other way round; what is longer comes before its beginning."""
    return (*(-byte - 1 for byte in raw), 1)


class Pair(NamedTuple):
    """``value`` None: the key was deleted. ``mod``: the revision of the last change."""

    key: bytes
    value: bytes | None
    mod: int


class Missing(Exception):
    """Nothing is known of these ranges."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        super().__init__("ranges that aren't followed yet")
        self.ranges = frozenset(ranges)


class Known:
    """All keys of ``ranges`` as they are at ``revision``. One owner, who applies changes."""

    def __init__(self) -> None:
        self.ranges: tuple[Range, ...] = ()
        self.revision = 0
        self._values: SortedDict = SortedDict()

    def covers(self, wanted: Range) -> bool:
        at = bisect_right(self.ranges, wanted.start, key=_start)
        # of those that begin before it this one reaches farthest
        return at > 0 and self.ranges[at - 1].covers(wanted)

    def lacks(self, wanted: Iterable[Range]) -> frozenset[Range]:
        return frozenset(one for one in wanted if not self.covers(one))

    def add(self, ranges: Iterable[Range], pairs: Iterable[Pair], revision: int) -> None:
        """These ranges too are known now, as of the revision that all are at."""
        ranges = list(ranges)
        for one in ranges:
            for key in list(self._values.irange(one.start, one.upper, inclusive=(True, False))):
                del self._values[key]
        self.ranges, self.revision = merged([*self.ranges, *ranges]), revision
        self._put(pairs)

    def apply(self, changes: Iterable[Pair], revision: int) -> None:
        """What changed since, in order."""
        self._put(changes)
        self.revision = max(self.revision, revision)

    def _put(self, pairs: Iterable[Pair]) -> None:
        for key, value, _ in pairs:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def value(self, key: bytes) -> bytes | None:
        """None: there is no such key. Raises Missing."""
        if lacking := self.lacks([Range(key)]):
            raise Missing(lacking)
        found: bytes | None = self._values.get(key)
        return found

    def below(self, wanted: Range) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in order. Raises Missing, at once."""
        if lacking := self.lacks([wanted]):
            raise Missing(lacking)
        found = self._values.irange(wanted.start, wanted.upper, inclusive=(True, False))
        return ((key, self._values[key]) for key in found)

    def __len__(self) -> int:
        return len(self._values)
