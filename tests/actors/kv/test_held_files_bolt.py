"""Pages of a bbolt file end where they say, branches fit into one, and errors tell what is at fault."""

import itertools
import re

import pytest

from actors.kv.bolt import messages, page
from actors.kv.bolt.errors import BoltError, MessageError
from actors.kv.bolt.file import Bucket, Writer
from actors.kv.bolt.read import DEPTH_MAX, File
from actors.kv.v3.hashes import varint
from tests.actors.kv.bolt.test_file import changing, many, read, written
from tests.actors.kv.bolt.test_read import BRANCH, GOOD, LARGE, LEAF, NEXT, PAGES, both, deep, patched

# -- pages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "pages"), [(LEAF, 1), (NEXT, 1), (LARGE, 3)])
def test_the_last_value_of_a_leaf_may_end_with_its_pages_and_no_byte_later(at: int, pages: int) -> None:
    _own, _flags, count, overflow = page.head.unpack_from(GOOD, at * 4096)
    assert overflow + 1 == pages
    element = page.HEAD + page.ELEMENT * (count - 1)
    _kind, position, key_bytes, _value_bytes = page.leaf_element.unpack_from(GOOD, at * 4096 + element)
    longest = pages * 4096 - (element + position + key_bytes)
    name = b"large" if at == LARGE else b"key"
    found = dict(read(patched((at, element + 12, "I", longest)))[name])
    assert max(map(len, found.values())) == max(longest, 9000 if at == LARGE else 30)
    with pytest.raises(BoltError, match=rf"\b{longest + 1}\b") as raised:
        read(patched((at, element + 12, "I", longest + 1)))
    assert raised.value.page == at


@pytest.mark.parametrize("key_bytes", [17, 18, 100, 1000])
def test_a_branch_is_one_page_as_long_as_three_of_its_keys_fit(key_bytes: int) -> None:
    per_page = (4096 - page.HEAD) // (page.ELEMENT + key_bytes)
    for leaves in range(max(2, per_page - 3), per_page + 4):
        data = written({b"b": {at.to_bytes(key_bytes, "big"): b"v" * 2500 for at in range(leaves)}})
        assert len(File(data).buckets) == 1
        at, branches = 0, 0
        while at < len(data):
            _own, flags, _count, overflow = page.head.unpack_from(data, at)
            if flags == page.BRANCH:
                branches += 1
                assert overflow == 0, leaves
            at += 4096 * (1 + overflow)
        assert branches == (1 if leaves <= per_page else 3)


# -- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "wire"), [(1, 3), (2, 4), (5, 6), (15, 7), (16, 3), (3000, 6)])
def test_a_field_of_a_type_that_nobody_has_is_named_by_its_number(number: int, wire: int) -> None:
    content = messages.lease(5, 60, 0) + varint(number << 3 | wire) + b"\1"
    with pytest.raises(MessageError, match=rf"field {number} has the wire type {wire}$"):
        messages.to_lease(content)


def numbers(error: Exception) -> set[int]:
    return {int(one, 0) for one in re.findall(r"\b(?:0x[0-9a-f]+|\d+)", str(error))}


#: page and numbers by which the fault is found in the file
LIES: dict[str, tuple[bytes, int, set[int]]] = {
    "magic": (both(16, "I", 0x12345678), 0, {0x12345678}),
    "page size": (both(24, "I", 3000), 0, {3000, 4}),
    "pages behind": (patched((LEAF, 12, "I", 4_000_000)), LEAF, {4_000_000, PAGES}),
    "value": (patched((LEAF, 16 + 12, "I", 70_000)), LEAF, {0, 17, 70_000}),
    "children": (patched((BRANCH, 10, "H", 9999)), BRANCH, {9999, 4096}),
}


@pytest.mark.parametrize("name", LIES)
def test_an_error_of_a_file_tells_the_page_and_what_it_says(name: str) -> None:
    data, at, told = LIES[name]
    with pytest.raises(BoltError) as raised:
        read(data)
    assert raised.value.page == at
    assert told | {at} <= numbers(raised.value)


def test_a_tree_that_is_too_deep_is_refused_with_the_limit_and_the_page_by_both_ways_of_reading() -> None:
    data = deep(DEPTH_MAX + 1)
    for reading in (lambda: read(data), lambda: File(data).last(b"key")):
        with pytest.raises(BoltError) as raised:
            reading()
        assert {DEPTH_MAX, raised.value.page} <= numbers(raised.value)


A, B = (b"a", b"1"), (b"b", b"2")


@pytest.mark.parametrize(
    ("bucket", "named"),
    [
        (Bucket(b"pairs", lambda: [B, A]), {"a", "b"}),
        (Bucket(b"pairs", changing([A], [A, B])), {"pairs"}),
        (Bucket(b"pairs", changing(sorted(many(90, 90).items()), [*sorted(many(90, 90).items()), B])), {"pairs"}),
    ],
)
def test_pairs_that_can_not_be_written_are_named(bucket: Bucket, named: set[str]) -> None:
    writer = Writer([bucket])
    with pytest.raises(ValueError, match=r"bucket|key") as raised:
        list(itertools.chain(writer.plan(), writer.chunks()))
    assert named <= set(re.findall(r"b'(\w+)'", str(raised.value)))
