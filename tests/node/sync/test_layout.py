"""Keys as paths: no two meet, none leaves the tree, and changes one by one come to the same as all at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.sync.layout import Layout, Steps, base_of, laid_out

PARTS = st.one_of(
    st.sampled_from([b"", b".", b"..", b"...", b".value", b"%", b"%2E", b"%~", b"a", b"b", b"\0", b"\xff", b"\n"]),
    st.just(b"x" * 250),
    st.binary(max_size=4),
)  # fmt: skip
KEYS = st.lists(PARTS, min_size=1, max_size=4).map(b"/".join)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (b"a/b", b"a/b"),
        (b"../../etc/passwd", b"%2E%2E/%2E%2E/etc/passwd"),
        (b"/a//b/", b"%/a/%/b/%"),
        (b"a/.value", b"a/%2Evalue"),
        (b"50%", b"50%25"),
        (b"a\0b\xff", b"a%00b%FF"),
        ("café".encode(), "café".encode()),
        (b"", b"%"),
    ],
)
def test_paths(key: bytes, path: bytes) -> None:
    assert base_of(key) == path


@given(KEYS)
def test_no_key_leaves_the_tree(key: bytes) -> None:
    path = base_of(key)
    assert len(path) <= 2000
    for name in path.split(b"/"):
        assert name not in (b"", b".", b"..")
        assert b"\0" not in name
        assert len(name) <= 255


@given(KEYS, KEYS)
def test_no_two_keys_meet(one: bytes, other: bytes) -> None:
    assert (base_of(one) == base_of(other)) == (one == other)


def test_a_key_of_many_parts_is_one_file_and_no_deep_folder() -> None:
    deep = [b"/".join([b"a"] * count) for count in (100, 101, 991, 100_000)]
    paths = [base_of(key) for key in deep]
    assert paths[0] == deep[0]
    assert [path.count(b"/") for path in paths[1:]] == [0, 0, 0]
    assert len(set(paths)) == 4


def test_long_names_and_paths_differ_too() -> None:
    long = b"x" * 5000
    names = {
        base_of(long),
        base_of(long + b"y"),
        base_of(b"/".join([b"z" * 150] * 20)),
        base_of(b"/".join([b"z" * 150] * 21)),
    }
    assert len(names) == 4


@given(st.dictionaries(KEYS, st.binary(max_size=1), max_size=12))
def test_a_layout_is_a_tree_with_every_value(values: dict[bytes, bytes]) -> None:
    files = laid_out(values.items()).files
    assert sorted(files.values()) == sorted(values.values())
    for path in files:
        parts = path.split(b"/")
        assert not any(b"/".join(parts[:size]) in files for size in range(1, len(parts))), "a file that is a folder"


@given(st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=1))), max_size=25))
def test_changes_one_by_one_come_to_the_same_as_all_at_once(changes: list[tuple[bytes, bytes | None]]) -> None:
    made, values = Layout(), dict[bytes, bytes]()
    for key, value in changes:
        if value is None:
            made.remove(key)
            values.pop(key, None)
        else:
            made.put(key, value)
            values[key] = value
    assert made.files == laid_out(values.items()).files


def test_a_key_that_becomes_a_folder_and_back() -> None:
    made = laid_out([(b"a", b"1")])
    assert made.files == {b"a": b"1"}
    made.put(b"a/b", b"2")
    assert made.files == {b"a/.value": b"1", b"a/b": b"2"}
    made.remove(b"a/b")
    assert made.files == {b"a": b"1"}


VALUES = st.dictionaries(KEYS, st.binary(max_size=1), max_size=8)


@given(VALUES, VALUES)
def test_steps_make_one_tree_of_another(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> None:
    old, new = laid_out(before.items()).files, laid_out(after.items()).files
    steps, now = Steps(old, new), dict(old)
    for path in steps.remove:
        del now[path]
    assert set(now) <= set(new)
    # every folder that has to give way to a file is among those that are pruned
    folders = {path[:at] for path in old for at in range(len(path)) if path[at : at + 1] == b"/"}
    assert {path for path in steps.put if path in folders} <= set(steps.prune)
    now |= {path: new[path] for path in steps.put}
    assert now == new
    assert all(old.get(path) != new[path] for path in steps.put), "what is the same isn't touched"
