"""The reader of bbolt files: whatever a file says, it is read or it is a BoltError, soon and in little memory."""

import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.bolt import file as writer
from actors.kv.bolt import page
from actors.kv.bolt.errors import BoltError
from actors.kv.bolt.read import File
from tests.actors.kv.bolt.test_file import many, read, written

CONTENTS = {
    b"key": many(900, 30),
    b"large": {b"a": b"1" * 9000, b"b": b"2"},
    b"little": {b"x": b"y", b"z": b""},
    b"none": {},
}
GOOD = written(CONTENTS)
PAGES = len(GOOD) // 4096
#: pages of the bucket "key": its first leaf, its second, its root; of "large"; of the root bucket
LEAF, NEXT = 3, 4
ROOT = File(GOOD).meta.root


def root_of(name: bytes) -> int:
    """Where the bucket's own page is named in the leaf of the root."""
    at: int = struct.unpack_from("<Q", GOOD, GOOD.index(name, ROOT * 4096) + len(name))[0]
    return at


BRANCH, LARGE = root_of(b"key"), root_of(b"large")
#: pairs in the first leaf; what stands before the flags of the bucket "little" 's inline page
COUNT = struct.unpack_from("<H", GOOD, LEAF * 4096 + 10)[0]
INLINE = b"little" + bytes(24)
#: where the branch has the key of the second leaf
SECOND_KEY = 32 + struct.unpack_from("<I", GOOD, BRANCH * 4096 + 32)[0]


def signed(data: bytes) -> bytes:
    """With right checksums in the meta pages."""
    out = bytearray(data)
    for start in (16, 4096 + 16):
        page.checksum.pack_into(out, start + page.meta.size, page.fnv64a(bytes(out[start : start + page.meta.size])))
    return bytes(out)


def patched(*patches: tuple[int, int, str, int]) -> bytes:
    """page, byte in it, format, number"""
    out = bytearray(GOOD)
    for at, offset, form, number in patches:
        struct.pack_into("<" + form, out, at * 4096 + offset, number)
    return signed(bytes(out))


def both(offset: int, form: str, number: int) -> bytes:
    """In both meta pages."""
    return patched((0, offset, form, number), (1, offset, form, number))


def test_the_file_itself() -> None:
    assert read(GOOD) == {name: sorted(pairs.items()) for name, pairs in CONTENTS.items()}
    assert patched() == GOOD
    with pytest.raises(KeyError):
        File(GOOD).pairs(b"other")


def swapped(data: bytes, one: bytes, other: bytes) -> bytes:
    assert len(one) == len(other)
    assert one in data
    return data.replace(one, other)


BAD: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 0, "ends before it"),
    "a meta page cut off": (GOOD[:60], 0, "ends before it"),
    "a page missing": (GOOD[:-4096], 0, f"says {PAGES} pages"),
    "no magic": (both(16, "I", 0x12345678), 0, "no bbolt file"),
    "another version": (both(20, "I", 3), 0, "version 3"),
    "wrong checksums": (GOOD[:50] + b"\xff" + GOOD[51 : 4096 + 50] + b"\xff" + GOOD[4096 + 51 :], 0, "checksum"),
    "a page size of 0": (both(24, "I", 0), 0, "pages of 0 bytes"),
    "a page size of 4 GB": (both(24, "I", 0xFFFFFFFF), 0, "pages of 4294967295 bytes"),
    "another page size": (both(24, "I", 8192), 0, "pages of 4096|pages of 8192|no second"),
    "more pages than the file": (both(56, "Q", 1 << 60), 0, "pages of 4096 bytes; the file has"),
    "a root above the file": (both(32, "Q", 1 << 60), 1 << 60, "pages 2 to"),
    "a root in the meta pages": (both(32, "Q", 1), 1, "pages 2 to"),
    "a root in the freelist": (both(32, "Q", 2), 2, "flags 0x10"),
    "a root of plain pairs": (both(32, "Q", LEAF), LEAF, "no bucket"),
    "a page with another's number": (patched((LEAF, 0, "Q", LEAF + 1)), LEAF, f"page {LEAF + 1}"),
    "a page of no kind": (patched((LEAF, 8, "H", 0)), LEAF, "flags 0x0"),
    "more elements than fit": (patched((LEAF, 10, "H", 65535)), LEAF, "65535 elements"),
    "an element too many": (patched((LEAF, 10, "H", COUNT + 1)), LEAF, "element 0"),
    "pages behind the file": (patched((LEAF, 12, "I", 0xFFFFFFFF)), LEAF, "4294967295 pages follow"),
    "another's pages": (patched((LEAF, 12, "I", 1)), NEXT, "two places"),
    "a key behind the page": (patched((LEAF, 16 + 8, "I", 0xFFFFFFFF)), LEAF, "element 0"),
    "a value behind the page": (patched((LEAF, 16 + 12, "I", 0x7FFFFFFF)), LEAF, "element 0"),
    "a value over the next key": (patched((LEAF, 16 + 12, "I", 31)), LEAF, "element 1"),
    "a position in the head": (patched((LEAF, 16 + 4, "I", 0)), LEAF, "element 0"),
    "a position that wraps": (patched((LEAF, 16 + 4, "I", 0xFFFFFFF0)), LEAF, "element 0"),
    "an empty key": (patched((LEAF, 16 + 8, "I", 0)), LEAF, "key"),
    "a bucket in a bucket": (patched((LEAF, 16, "I", 1)), LEAF, "bucket inside"),
    "a plain pair in the root": (patched((ROOT, 16, "I", 0)), ROOT, "no bucket"),
    "a bucket with half a head": (patched((ROOT, 16 + 12, "I", 7)), ROOT, "head of 7|element"),
    "a branch without children": (patched((BRANCH, 10, "H", 0)), BRANCH, "without children"),
    "a branch that is its own child": (patched((BRANCH, 16 + 8, "Q", BRANCH)), BRANCH, "two places"),
    "a child twice": (patched((BRANCH, 32 + 8, "Q", LEAF)), LEAF, "two places"),
    "a child of another bucket": (patched((BRANCH, 16 + 8, "Q", LARGE)), LARGE, "two places|key"),
    "a child above the file": (patched((BRANCH, 16 + 8, "Q", PAGES)), PAGES, "pages 2 to"),
    "children swapped": (patched((BRANCH, 16 + 8, "Q", NEXT), (BRANCH, 32 + 8, "Q", LEAF)), NEXT, "another page"),
    "a leaf's first key below its branch's": (patched((BRANCH, SECOND_KEY + 16, "B", COUNT + 1)), NEXT, "key"),
    "keys not sorted": (swapped(GOOD, (3).to_bytes(17, "big") + b"\3", (1).to_bytes(17, "big") + b"\3"), LEAF, "key"),
    "a leaf's last key above the next's": (
        swapped(GOOD, (50).to_bytes(17, "big") + b"2", (800).to_bytes(17, "big") + b"2"), LEAF, "another page|key"),
    "an inline page of no kind": (swapped(GOOD, INLINE + b"\2", INLINE + b"\1"), ROOT, "inline"),
    "an inline page that lies": (swapped(GOOD, INLINE + b"\2\0\2", INLINE + b"\2\0\xff"), ROOT, "255"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_bbolt_file(name: str) -> None:
    data, at, match = BAD[name]
    assert data != GOOD
    with pytest.raises(BoltError, match=match) as raised:
        read(data)
    assert raised.value.page == at
    assert str(at) in str(raised.value)


def test_the_last_pair_of_a_lying_file_is_an_error_too() -> None:
    count = struct.unpack_from("<H", GOOD, BRANCH * 4096 + 10)[0]
    data = patched((BRANCH, 16 * count + 8, "Q", BRANCH))
    with pytest.raises(BoltError, match="two places"):
        File(data).last(b"key")


def test_one_broken_meta_page_is_what_two_are_for() -> None:
    for start in (0, 4096):
        data = bytearray(GOOD)
        data[start : start + 4096] = b"\xaa" * 4096
        assert read(bytes(data)) == read(GOOD)


def test_the_newer_meta_page_counts() -> None:
    out = bytearray(GOOD)
    struct.pack_into("<Q", out, 16 + 48, 7)  # transaction
    struct.pack_into("<Q", out, 16 + 16, LEAF)  # a root that can't be read
    with pytest.raises(BoltError, match="no bucket"):
        read(signed(bytes(out)))
    struct.pack_into("<Q", out, 4096 + 16 + 48, 8)
    assert read(signed(bytes(out))) == read(GOOD)


@pytest.mark.parametrize("size", [1024, 16384, 65536])
def test_pages_of_another_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PAGE_BYTES", size)
    data = written(CONTENTS)
    assert File(data).meta.page_bytes == size
    assert read(data) == read(GOOD)
    # the size is found without the first meta page, too
    assert read(bytes(size) + data[size:]) == read(GOOD)


def test_two_buckets_with_the_same_pages() -> None:
    at = GOOD.index(b"large", ROOT * 4096) + 5
    data = GOOD[:at] + struct.pack("<Q", BRANCH) + GOOD[at + 8 :]
    with pytest.raises(BoltError, match="two places"):
        read(data)


def test_a_page_that_says_the_rest_of_the_file_is_its() -> None:
    data = patched((LEAF, 12, "I", PAGES - LEAF - 1))
    with pytest.raises(BoltError):
        read(data)


def deep(levels: int) -> bytes:
    """A chain of branches with one child each, below the bucket "key"."""
    name = b"key"
    leaf = page.head.pack(3, page.LEAF, 1, 0) + page.leaf_element.pack(0, 16, 1, 1) + b"kv"
    heads = ((page.head.pack(at, page.BRANCH, 1, 0), at - 1) for at in range(4, 4 + levels))
    pages = [leaf, *(head + page.branch_element.pack(16, 1, below) + b"k" for head, below in heads)]
    root = 4 + levels
    pages.append(
        page.head.pack(root, page.LEAF, 1, 0)
        + page.leaf_element.pack(1, 16, 3, 16)
        + name
        + page.bucket_head.pack(root - 1, 0)
    )
    metas = []
    for at in (0, 1):
        meta = page.meta.pack(page.MAGIC, page.VERSION, 4096, 0, root, 0, 2, root + 1, at)
        metas.append(page.head.pack(at, page.META, 0, 0) + meta + bytes(8))
    return signed(b"".join(one.ljust(4096, b"\0") for one in [*metas, page.head.pack(2, page.FREELIST, 0, 0), *pages]))


def test_a_tree_of_too_many_levels() -> None:
    assert read(deep(60)) == {b"key": [(b"k", b"v")]}
    with pytest.raises(BoltError, match="levels"):
        read(deep(2000))
    with pytest.raises(BoltError, match="levels"):
        File(deep(2000)).last(b"key")


def test_a_lie_costs_neither_time_nor_memory() -> None:
    for name, (data, _at, _match) in BAD.items():
        tracemalloc.start()
        began = time.perf_counter()
        with pytest.raises(BoltError):
            read(data)
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2_000_000, name
        assert time.perf_counter() - began < 2, name


def whole(data: bytes) -> None:
    """Read everything, or get the one error."""
    try:
        file = File(data)
    except BoltError:
        return
    for name in file.buckets:
        for of in (file.last, lambda one: list(file.pairs(one))):  # type: ignore[misc]
            try:
                of(name)  # type: ignore[operator]
            except BoltError:
                assert data != GOOD


#: where the structure is: the heads of pages and their first elements
places = st.one_of(
    st.builds(lambda at, offset: at * 4096 + offset, st.integers(0, PAGES - 1), st.integers(0, 120)),
    st.integers(0, len(GOOD) - 8),
)
numbers = st.one_of(
    st.integers(0, PAGES + 1),
    st.sampled_from([0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)


def change(number: int, form: str) -> bytes:
    size = struct.calcsize(form)
    return (number % (1 << 8 * size)).to_bytes(size, "little")


@given(
    st.lists(st.tuples(places, st.builds(change, numbers, st.sampled_from("BHIQ"))), min_size=1, max_size=4),
    st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_flipped_bytes(changes: list[tuple[int, bytes]], checksums: bool) -> None:
    out = bytearray(GOOD)
    for at, content in changes:
        out[at : at + len(content)] = content
    data = bytes(out[: len(GOOD)])
    whole(signed(data) if checksums else data)


@given(st.integers(0, len(GOOD)), st.integers(0, 4096))
@settings(max_examples=100, deadline=None)
def test_truncated(size: int, filled: int) -> None:
    whole(GOOD[:size] + bytes(filled))


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(BoltError):
        File(data)
