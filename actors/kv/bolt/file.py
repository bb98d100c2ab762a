"""Write a bbolt file from sorted pairs, in the order of its bytes, holding one page of each level of one tree.

A tree grows from its leaves: a branch page follows the last leaf it names, the root comes last. The meta pages stand
first and name that root and the number of pages, so the layout is found in a first pass, which needs only the lengths
of keys and values; it keeps how many pairs go in each leaf (4 bytes a leaf). Format: :mod:`actors.kv.bolt.page`.
"""

import struct
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

from actors.kv.bolt import page

PAGE_BYTES = 4096
#: A bucket whose leaf is no larger is written into its parent's element, as bbolt does.
INLINE_BYTES = PAGE_BYTES // 4
#: About so many bytes are in one chunk of the file.
CHUNK_BYTES = 16384
#: Leaves planned between two turns of the loop: about a millisecond.
STEP = 64
#: The meta pages, then the freelist, then trees.
FREELIST_ID, FIRST_ID = 2, 3


class Bucket(NamedTuple):
    """``pairs``: gives (key, value), sorted by key, each key once, 1 to 32768 bytes; ``sizes``: their lengths, if that
    can be told cheaper. Both are called once a pass and have to give the same each time."""

    name: bytes
    pairs: Callable[[], Iterable[tuple[bytes, bytes]]]
    sizes: Callable[[], Iterable[tuple[int, int]]] | None = None


class _Plan:
    """A tree's shape: ``counts``: pairs in each leaf; ``inline``: bytes of its only leaf if that goes inline, else 0;
    ``root``: page of its root."""

    def __init__(self) -> None:
        self.counts = array("I")
        self.inline = 0
        self.root = 0


class Writer:
    """Of one file: exhaust :meth:`plan` (which gives the loop its turn), then :meth:`chunks`.

    ``size``: bytes of the file, known when it is planned.
    """

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self._buckets = sorted(buckets, key=lambda bucket: bucket.name)
        self._plans = [_Plan() for _ in self._buckets]
        self._top = _Plan()
        self._pages = 0

    @property
    def size(self) -> int:
        return self._pages * PAGE_BYTES

    def plan(self) -> Iterator[None]:
        """The first pass. Raises ValueError for buckets, keys or values that bbolt doesn't take."""
        names = [bucket.name for bucket in self._buckets]
        if len(set(names)) < len(names):
            raise ValueError("a bucket is given twice")
        at = FIRST_ID
        for bucket, plan in zip(self._buckets, self._plans, strict=True):
            at = yield from _planned(_sizes(bucket), plan, at, INLINE_BYTES)
        tops = [(len(name), page.bucket_head.size + plan.inline) for name, plan in zip(names, self._plans, strict=True)]
        self._pages = yield from _planned(tops, self._top, at, 0)

    def chunks(self) -> Iterator[bytes]:
        """The second pass: the file. Raises ValueError when pairs are unsorted or not those of the first pass."""
        yield self._head()
        at, buffer = FIRST_ID, _Buffer()
        tops: list[tuple[bytes, bytes]] = []
        for bucket, plan in zip(self._buckets, self._plans, strict=True):
            pairs = iter(bucket.pairs())
            if plan.inline:
                tops.append((bucket.name, _inline(pairs, plan)))
            else:
                at = yield from _written(pairs, plan, at, 0, buffer)
                tops.append((bucket.name, page.bucket_head.pack(plan.root, 0)))
            if next(pairs, None) is not None:
                raise ValueError(f"bucket {bucket.name!r} has more pairs than it was planned with")
        yield from _written(iter(tops), self._top, at, page.BUCKET, buffer)
        yield buffer.taken()

    def _head(self) -> bytes:
        """Both meta pages, of transactions 0 and 1, and an empty freelist."""
        out = []
        for transaction in (0, 1):
            root, fixed = self._top.root, (page.MAGIC, page.VERSION, PAGE_BYTES, 0)
            meta = page.meta.pack(*fixed, root, 0, FREELIST_ID, self._pages, transaction)
            head = page.head.pack(transaction, page.META, 0, 0)
            out.append(head + meta + page.checksum.pack(page.fnv64a(meta)))
        out.append(page.head.pack(FREELIST_ID, page.FREELIST, 0, 0))
        return b"".join(one.ljust(PAGE_BYTES, b"\0") for one in out)


class _Buffer:
    """Pages that wait until there is enough of them."""

    def __init__(self) -> None:
        self._pages: list[bytes] = []
        self._size = 0

    def put(self, content: bytes) -> int:
        """Takes a page, filled up; how many pages that makes."""
        count = -(-len(content) // PAGE_BYTES)
        self._pages.append(content.ljust(count * PAGE_BYTES, b"\0"))
        self._size += count * PAGE_BYTES
        return count

    @property
    def full(self) -> bool:
        return self._size >= CHUNK_BYTES

    def taken(self) -> bytes:
        out = b"".join(self._pages)
        self._pages, self._size = [], 0
        return out


class _Branches:
    """The levels above the leaves of one tree, one unfinished page of each. ``at``: id of the next page."""

    def __init__(self, at: int, buffer: _Buffer | None) -> None:
        self.at = at
        self._buffer = buffer
        self._levels: list[list[tuple[bytes, int]]] = []
        self._sizes: list[int] = []

    def add(self, key: bytes, child: int, level: int = 0) -> None:
        """A page of the level below and its first key (in the first pass: any bytes of that length)."""
        if level == len(self._levels):
            self._levels.append([])
            self._sizes.append(page.HEAD)
        waiting = self._levels[level]
        # one is held back, so that the last page of a level has two children at least, as bbolt's do
        if len(waiting) > 2 and self._sizes[level] + page.ELEMENT + len(key) > PAGE_BYTES:
            self._flush(level, waiting[:-1])
            del waiting[:-1]
            self._sizes[level] = page.HEAD + page.ELEMENT + len(waiting[0][0])
        waiting.append((key, child))
        self._sizes[level] += page.ELEMENT + len(key)

    def root(self) -> int:
        """Ends all levels; the page of the root."""
        level = 0
        while len(self._levels[level]) > 1 or level + 1 < len(self._levels):
            self._flush(level, self._levels[level])
            level += 1
        return self._levels[level][0][1]

    def _flush(self, level: int, children: list[tuple[bytes, int]]) -> None:
        made = self.at
        if self._buffer is None:
            size = page.HEAD + sum(page.ELEMENT + len(key) for key, _child in children)
            self.at += -(-size // PAGE_BYTES)
        else:
            self.at += self._buffer.put(_branch(made, children))
        self.add(children[0][0], made, level + 1)


# -- the first pass -------------------------------------------------------------------------------------------


def _sizes(bucket: Bucket) -> Iterable[tuple[int, int]]:
    if bucket.sizes is not None:
        return bucket.sizes()
    return ((len(key), len(value)) for key, value in bucket.pairs())


def _planned(sizes: Iterable[tuple[int, int]], plan: _Plan, at: int, inline: int) -> Generator[None, None, int]:
    """Fills in the plan of a tree whose first page is ``at``; returns the page behind its last."""
    branches = _Branches(at, None)
    for count, size, first in _leaves(sizes):
        plan.counts.append(count)
        made, branches.at = branches.at, branches.at + -(-size // PAGE_BYTES)
        branches.add(bytes(first), made)
        if len(plan.counts) % STEP == 0:
            yield
    if len(plan.counts) == 1 and size <= inline:
        plan.inline = size
        return at
    plan.root = branches.root()
    return branches.at


def _leaves(sizes: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """How pairs are cut into leaves: number of pairs, bytes, length of the first key. Of no pairs: one empty leaf.

    A pair joins a leaf as long as that needs no further page; a large pair starts its own, with pages behind it.
    """
    count, size, room, first = 0, page.HEAD, 0, 0
    for key_bytes, value_bytes in sizes:
        if not 0 < key_bytes <= page.KEY_BYTES_MAX:
            raise ValueError(f"a key of {key_bytes} bytes; bbolt takes 1 to {page.KEY_BYTES_MAX}")
        more = page.ELEMENT + key_bytes + value_bytes
        if count and size + more > room:
            yield count, size, first
            count, size = 0, page.HEAD
        if not count:
            room, first = -(-(size + more) // PAGE_BYTES) * PAGE_BYTES, key_bytes
        count += 1
        size += more
    yield count, size, first


# -- the second pass ------------------------------------------------------------------------------------------


def _written(
    pairs: Iterator[tuple[bytes, bytes]], plan: _Plan, at: int, flags: int, buffer: _Buffer
) -> Generator[bytes, None, int]:
    """The pages of a planned tree; returns the page behind its last."""
    branches = _Branches(at, buffer)
    last = b""
    for count in plan.counts:
        taken = list(islice(pairs, count))
        made = branches.at
        content, last = _leaf(made, taken, flags, last)
        if len(taken) != count:
            raise ValueError("fewer pairs than were planned")
        branches.at += buffer.put(content)
        branches.add(taken[0][0] if taken else b"", made)
        if buffer.full:
            yield buffer.taken()
    if branches.root() != plan.root:
        raise ValueError("pairs of other lengths than were planned")
    return branches.at


def _inline(pairs: Iterator[tuple[bytes, bytes]], plan: _Plan) -> bytes:
    content, _last = _leaf(0, list(islice(pairs, plan.counts[0])), 0, b"")
    if len(content) != plan.inline:
        raise ValueError("pairs of other lengths than were planned")
    return page.bucket_head.pack(0, 0) + content


def _leaf(made: int, pairs: list[tuple[bytes, bytes]], flags: int, last: bytes) -> tuple[bytes, bytes]:
    """A leaf, not filled up, and its last key. ``last``: the key before it."""
    elements: list[int] = []
    position = page.ELEMENT * len(pairs)
    for key, value in pairs:
        if key <= last:
            raise ValueError(f"key {key!r} after {last!r}: keys have to be sorted, each once, none empty")
        last = key
        elements += (flags, position, len(key), len(value))
        position += len(key) + len(value) - page.ELEMENT
    size = page.HEAD + position + page.ELEMENT * len(pairs)
    head = page.head.pack(made, page.LEAF, len(pairs), max(0, -(-size // PAGE_BYTES) - 1))
    return b"".join([head, struct.pack(f"<{len(elements)}I", *elements), *chain.from_iterable(pairs)]), last


def _branch(made: int, children: list[tuple[bytes, int]]) -> bytes:
    parts = [b""]
    position = page.ELEMENT * len(children)
    for key, child in children:
        parts.append(page.branch_element.pack(position, len(key), child))
        position += len(key) - page.ELEMENT
    parts += [key for key, _child in children]
    size = page.HEAD + sum(map(len, parts))
    parts[0] = page.head.pack(made, page.BRANCH, len(children), -(-size // PAGE_BYTES) - 1)
    return b"".join(parts)
