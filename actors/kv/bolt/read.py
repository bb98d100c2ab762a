"""Read a bbolt file: buckets and their sorted pairs. Nothing in the file is believed: everything else is BoltError.

What keeps a lying file from taking time or memory: a page is walked once and belongs to one bucket; the data of a
page's elements stands in their order without overlap, so all pairs together are no larger than the file.
Format: :mod:`actors.kv.bolt.page`. The freelist isn't read: nobody needs it to find what is there.
"""

import struct
from array import array
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from actors.kv.bolt import page
from actors.kv.bolt.errors import BoltError

#: Sizes a page may have: bbolt takes the operating system's.
PAGE_BYTES_MIN, PAGE_BYTES_MAX = 1024, 65536
#: Levels of a tree. With two children a branch this is more pages than a disk has.
DEPTH_MAX = 64

Pair = tuple[bytes, bytes]


class Meta(NamedTuple):
    """What a meta page says. ``pages``: of the file; ``root``: the page of the root bucket."""

    page_bytes: int
    root: int
    pages: int
    transaction: int


class _Page(NamedTuple):
    """``elements``: (flags or 0, first byte of the key, of the value, byte behind it, child) in ``content``."""

    id: int
    leaf: bool
    content: bytes
    elements: list[tuple[int, int, int, int, int]]


class File:
    """``data``: the whole file, perhaps with something behind it. ``meta``: the newer of its valid meta pages;
    ``buckets``: the names, sorted. Raises BoltError."""

    def __init__(self, data: bytes | mmap) -> None:
        self._data = data
        self.meta = _meta(data)
        #: which bucket a page belongs to: 0 none, 1 the root, 2… the others
        self._owners = array("I", bytes(4 * self.meta.pages))
        self._roots: dict[bytes, tuple[int, int, bytes]] = {}
        for number, (name, value) in enumerate(self._walk(1, self.meta.root, page.BUCKET), 2):
            self._roots[name] = (number, *self._bucket(name, value))

    @property
    def buckets(self) -> list[bytes]:
        return list(self._roots)

    def pairs(self, bucket: bytes) -> Iterator[Pair]:
        """Keys and values of a bucket (KeyError), sorted. Raises BoltError, perhaps after many pairs."""
        number, root, inline = self._roots[bucket]
        if root:
            return self._walk(number, root, 0)
        return _inline_pairs(inline, self.meta.root)

    def last(self, bucket: bytes) -> Pair | None:
        """The last pair of a bucket (KeyError), without reading the others. Raises BoltError."""
        number, root, inline = self._roots[bucket]
        if not root:
            return next(reversed(list(_inline_pairs(inline, self.meta.root))), None)
        seen = bytearray(self.meta.pages)
        for _ in range(DEPTH_MAX):
            found = self._page(root, number, seen)
            if found.leaf:
                pairs = list(_leaf_pairs(found, 0, b"", None))
                return pairs[-1] if pairs else None
            root = found.elements[-1][4]
        raise BoltError(root, f"over {DEPTH_MAX} levels deep")

    # -- trees ------------------------------------------------------------------------------------------------

    def _walk(self, number: int, root: int, flags: int) -> Iterator[Pair]:
        """All pairs below a page. A level waits as its pages still to come, each with the bounds of its keys: at and
        above the key that the branch has for it, below the next one."""
        seen = bytearray(self.meta.pages)
        first: tuple[int, bytes, bytes | None] = (root, b"", None)
        waiting = [iter([first])]
        while waiting:
            if (step := next(waiting[-1], None)) is None:
                waiting.pop()
                continue
            at, low, high = step
            found = self._page(at, number, seen)
            if found.leaf:
                yield from _leaf_pairs(found, flags, low, high)
            elif len(waiting) == DEPTH_MAX:
                raise BoltError(at, f"over {DEPTH_MAX} levels deep")
            else:
                waiting.append(iter(_children(found, low, high)))

    def _page(self, at: int, number: int, seen: bytearray) -> _Page:
        """A page of a bucket's tree, which is met for the first time on this walk."""
        if not 2 <= at < self.meta.pages:
            raise BoltError(at, f"named, but the file has pages 2 to {self.meta.pages - 1}")
        size = self.meta.page_bytes
        start = at * size
        own, flags, count, overflow = page.head.unpack_from(self._data, start)
        if own != at:
            raise BoltError(at, f"says that it is page {own}")
        if at + overflow >= self.meta.pages:
            raise BoltError(at, f"says that {overflow} pages follow it; the file has {self.meta.pages}")
        for one in range(at, at + overflow + 1):
            if seen[one] or self._owners[one] not in (0, number):
                raise BoltError(one, "belongs to two places")
            seen[one] = 1
            self._owners[one] = number
        return _parsed(at, flags, count, self._data[start : start + (overflow + 1) * size])

    def _bucket(self, name: bytes, value: bytes) -> tuple[int, bytes]:
        """Root page and inline page of a bucket's element."""
        if len(value) < page.bucket_head.size:
            raise BoltError(self.meta.root, f"bucket {name!r} has a head of {len(value)} bytes")
        root, _sequence = page.bucket_head.unpack_from(value)
        return root, value[page.bucket_head.size :] if not root else b""


# -- pages ----------------------------------------------------------------------------------------------------


def _meta(data: bytes | mmap) -> Meta:
    """The newer of two meta pages, as far as they are valid: a write may have been cut off in one."""
    try:
        first = _meta_at(data, 0, 0)
    except BoltError as error:
        # the second one is at an unknown place: the size of a page stood in the first
        for size in _page_sizes():
            try:
                return _meta_at(data, 1, size)
            except BoltError:
                continue
        raise BoltError(0, f"{error.reason}, and no second meta page either") from None
    try:
        second = _meta_at(data, 1, first.page_bytes)
    except BoltError:
        return first
    return max(first, second, key=lambda one: one.transaction)


def _meta_at(data: bytes | mmap, number: int, start: int) -> Meta:
    if len(data) < start + page.HEAD + page.meta.size + page.checksum.size:
        raise BoltError(number, f"the file ends before it, at {len(data)} bytes")
    _own, flags, _count, _overflow = page.head.unpack_from(data, start)
    start += page.HEAD
    magic, version, size, _flags, root, _sequence, _freelist, pages, transaction = page.meta.unpack_from(data, start)
    (checksum,) = page.checksum.unpack_from(data, start + page.meta.size)
    if magic != page.MAGIC:
        raise BoltError(number, f"no bbolt file: magic number {magic:#x}")
    if version != page.VERSION:
        raise BoltError(number, f"version {version} of the format, not {page.VERSION}")
    if checksum != page.fnv64a(data[start : start + page.meta.size]):
        raise BoltError(number, "a wrong checksum")
    if size not in _page_sizes() or flags != page.META or (number and start != size + page.HEAD):
        raise BoltError(number, f"flags {flags:#x}, pages of {size} bytes")
    if pages * size > len(data):
        raise BoltError(number, f"says {pages} pages of {size} bytes; the file has {len(data)} bytes")
    return Meta(size, root, pages, transaction)


def _page_sizes() -> list[int]:
    return [1 << bits for bits in range(PAGE_BYTES_MIN.bit_length() - 1, PAGE_BYTES_MAX.bit_length())]


def _parsed(at: int, flags: int, count: int, content: bytes) -> _Page:
    """Elements with checked places: each in the page, behind the elements, behind the one before."""
    if flags not in (page.BRANCH, page.LEAF):
        raise BoltError(at, f"flags {flags:#x} where a branch or a leaf is named")
    leaf = flags == page.LEAF
    behind = page.HEAD + count * page.ELEMENT
    if behind > len(content):
        raise BoltError(at, f"{count} elements do not fit in {len(content)} bytes")
    if not count and not leaf:
        raise BoltError(at, "a branch without children")
    elements: list[tuple[int, int, int, int, int]] = []
    element = page.HEAD
    for raw in struct.iter_unpack("<IIII" if leaf else "<IIQ", content[page.HEAD : behind]):
        if leaf:
            kind, position, key_bytes, value_bytes = raw
            child = 0
        else:
            position, key_bytes, child = raw
            kind = value_bytes = 0
        start = element + position
        element += page.ELEMENT
        if start < behind or start + key_bytes + value_bytes > len(content):
            raise BoltError(at, f"element {len(elements)} is at {start}+{key_bytes}+{value_bytes}, not between others")
        behind = start + key_bytes + value_bytes
        elements.append((kind, start, start + key_bytes, behind, child))
    return _Page(at, leaf, content, elements)


def _children(found: _Page, low: bytes, high: bytes | None) -> list[tuple[int, bytes, bytes | None]]:
    """Page, lowest key and the key below which its keys are, of each child."""
    keys = [found.content[start:end] for _kind, start, end, _behind, _child in found.elements]
    # keys go up from what the branch above says; what is too high for it is found on the leaf
    for before, key in zip([low, *keys], keys, strict=False):
        if key < before or (key == before and key is not keys[0]):
            raise BoltError(found.id, f"key {key[:64]!r} after {before[:64]!r}")
    return [
        (element[4], key, above) for element, key, above in zip(found.elements, keys, [*keys[1:], high], strict=True)
    ]


def _leaf_pairs(found: _Page, flags: int, low: bytes, high: bytes | None) -> Iterator[Pair]:
    """``flags``: what each element has to have: 0, or a bucket in the root. ``low``, ``high``: bounds of keys."""
    content = found.content
    last: bytes | None = None
    for kind, start, end, behind, _child in found.elements:
        key = content[start:end]
        if kind != flags:
            what = "a bucket inside a bucket" if kind == page.BUCKET else "an element that is no bucket"
            raise BoltError(found.id, f"{what}: {key[:64]!r} has flags {kind:#x}")
        if not key or key < low or (last is not None and key <= last):
            raise BoltError(found.id, f"key {key[:64]!r} after {(last or low)[:64]!r}")
        last = key
        yield key, content[end:behind]
    if high is not None and last is not None and last >= high:
        raise BoltError(found.id, f"key {last[:64]!r} belongs on another page")


def _inline_pairs(content: bytes, parent: int) -> Iterator[Pair]:
    """Of a bucket written in its element; errors name the root, by whose pages it is held."""
    if len(content) < page.HEAD:
        raise BoltError(parent, f"an inline bucket of {len(content)} bytes")
    _own, flags, count, _overflow = page.head.unpack_from(content)
    if flags != page.LEAF:
        raise BoltError(parent, f"an inline bucket with flags {flags:#x}")
    return _leaf_pairs(_parsed(parent, flags, count, content), 0, b"", None)
