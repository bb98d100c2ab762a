"""The writer of bbolt files: what is written is read back, bbolt finds it sound, and memory stays bounded."""

import itertools
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.kv.bolt import page
from actors.kv.bolt.file import Bucket, Writer
from actors.kv.bolt.read import File
from tests.actors.kv.bolt.real import tool

#: what Hypothesis would take long to make: a length and a byte to fill it with
value = st.builds(
    lambda size, fill: bytes([fill]) * size, st.sampled_from([0, 0, 1, 7, 900, 4040, 4096, 70_000]), st.integers(0, 255)
)
key = st.binary(min_size=1, max_size=12) | st.builds(
    lambda size, end: b"k" * size + end, st.sampled_from([3000, 32_767]), st.binary(min_size=1, max_size=1)
)
contents = st.dictionaries(st.binary(min_size=1, max_size=20), st.dictionaries(key, value, max_size=40), max_size=12)
Contents = dict[bytes, dict[bytes, bytes]]


def written(contents: Contents) -> bytes:
    writer = Writer([Bucket(name, lambda pairs=pairs: sorted(pairs.items())) for name, pairs in contents.items()])  # type: ignore[misc]
    for _ in writer.plan():
        pass
    made = b"".join(writer.chunks())
    assert len(made) == writer.size
    return made


def read(data: bytes) -> dict[bytes, list[tuple[bytes, bytes]]]:
    file = File(data)
    return {name: list(file.pairs(name)) for name in file.buckets}


def shown(contents: Contents) -> dict[bytes, list[tuple[bytes, bytes]]]:
    return {name: sorted(pairs.items()) for name, pairs in contents.items()}


def many(count: int, size: int) -> dict[bytes, bytes]:
    return {number.to_bytes(17, "big"): bytes([number % 251]) * size for number in range(count)}


@given(contents)
@example({})
@example({b"one": {}})
@example({b"deep": {b"%05d" % at + b"k" * 1200: b"" for at in range(200)}})
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(contents: Contents) -> None:
    made = written(contents)
    assert read(made) == shown(contents)
    file = File(made)
    for name, pairs in contents.items():
        assert file.last(name) == (max(pairs.items()) if pairs else None)


SIZES = [
    {b"key": many(9000, size), b"other": many(3, size), b"long": {b"%05d" % at * 200: b"v" for at in range(999)}}
    for size in (0, 1, 300)
]
SIZES += [{b"key": many(40, 70_000)}, {}, {b"%04d" % at: {} for at in range(400)}]


@pytest.mark.parametrize(
    "contents", SIZES, ids=["empty values", "a byte", "300 bytes", "overflow", "nothing", "400 buckets"]
)
def test_bbolt_finds_it_sound(contents: Contents, tmp_path: Path) -> None:
    made = written(contents)
    assert read(made) == shown(contents)
    path = tmp_path / "db"
    path.write_bytes(made)
    done = subprocess.run([tool("bbolt"), "check", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "OK"), done


def test_bbolt_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(written({b"key": {b"abc": b"val", b"abd": b"x" * 9000}, b"more": many(500, 20)}))
    large = subprocess.run([tool("bbolt"), "get", path, "key", "abd"], capture_output=True, check=True)
    assert large.stdout.strip() == b"x" * 9000
    key = (499).to_bytes(17, "big").hex()
    last = [tool("bbolt"), "get", "--parse-format=hex", path, "more", key]
    done = subprocess.run(last, capture_output=True, check=True)
    assert done.stdout.strip() == bytes([499 % 251] * 20).hex().encode()


def test_pages_are_filled() -> None:
    # 4080 bytes are free in a page: four pairs of 16 + 17 + 987 bytes, or 123 children of 16 + 17
    assert len(written({b"b": many(4 * 340, 987)})) == 4096 * (3 + 340 + 3 + 1 + 1)


@pytest.mark.parametrize("size", [1, 900, 1400, 4000, 9000])
def test_branches_have_two_children_at_least(size: int) -> None:
    data = written({b"b": {b"%05d" % at + b"k" * size: b"" for at in range(300)}})
    at = 0
    counts = []
    while at < len(data):
        _own, flags, count, overflow = page.head.unpack_from(data, at)
        counts += [count] if flags == page.BRANCH else []
        at += 4096 * (1 + overflow)
    assert counts
    assert min(counts) >= 2


def test_of_a_large_file_a_page_a_level_is_held() -> None:
    def pairs() -> Iterator[tuple[bytes, bytes]]:
        return ((number.to_bytes(17, "big"), b"v" * 300) for number in range(60_000))

    writer = Writer([Bucket(b"key", pairs, lambda: ((17, 300) for _ in range(60_000)))])
    tracemalloc.start()
    try:
        for _ in writer.plan():
            pass
        assert sum(map(len, writer.chunks())) == writer.size > 20_000_000
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600_000


def test_planning_gives_the_loop_its_turn() -> None:
    writer = Writer([Bucket(b"key", lambda: iter(many(60_000, 60).items()))])
    assert sum(1 for _ in writer.plan()) >= 5


def changing(*passes: list[tuple[bytes, bytes]]) -> Callable[[], Any]:
    left = list(passes)
    return lambda: left.pop(0)


A, B, LONG = (b"a", b"1"), (b"b", b"2"), (b"b", b"2" * 9000)
MANY = sorted(many(100, 100).items())


@pytest.mark.parametrize(
    ("bucket", "match"),
    [
        (Bucket(b"x", lambda: [B, A]), "sorted"),
        (Bucket(b"x", lambda: [A, A]), "sorted"),
        (Bucket(b"x", lambda: [(b"", b"")]), "a key of 0 bytes"),
        (Bucket(b"x", lambda: [(b"k" * 32769, b"")]), "a key of 32769 bytes"),
        (Bucket(b"", lambda: [A]), "a key of 0 bytes"),
        (Bucket(b"x", changing([A], [A, B])), "more pairs"),
        (Bucket(b"x", changing([A, B], [A])), "other lengths"),
        (Bucket(b"x", changing([A, B], [A, LONG])), "other lengths"),
        (Bucket(b"x", changing(MANY, MANY[:-1])), "fewer pairs"),
        (Bucket(b"x", changing([*MANY, B], [*MANY, LONG])), "other lengths"),
    ],
)
def test_what_bbolt_does_not_take(bucket: Bucket, match: str) -> None:
    writer = Writer([bucket])
    with pytest.raises(ValueError, match=match):
        list(itertools.chain(writer.plan(), writer.chunks()))


def test_a_bucket_twice() -> None:
    writer = Writer([Bucket(b"x", list), Bucket(b"x", list)])
    with pytest.raises(ValueError, match="twice"):
        list(writer.plan())
