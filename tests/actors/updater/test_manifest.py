import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.updater.manifest import (
    HEAD,
    BadManifest,
    Directory,
    File,
    Item,
    Link,
    build,
    parse,
    path_fault,
    version_fault,
)

EMPTY = hashlib.sha256(b"").hexdigest()
names = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("Cc", "Cf", "Zl", "Zp")),
    min_size=1,
    max_size=8,
).filter(lambda name: name not in (".", ".."))
modes = st.integers(0, 0o7777)


@st.composite
def trees(draw: st.DrawFn) -> list[Item]:
    """Items in any order that make a tree."""
    folders = [""]
    items: dict[str, Item] = {}
    for name in draw(st.lists(names, max_size=12)):
        parent = draw(st.sampled_from(folders))
        path = f"{parent}/{name}" if parent else name
        kind = draw(st.sampled_from("dfl"))
        if path in items:
            continue
        if kind == "d":
            items[path] = Directory(draw(modes), path)
            folders.append(path)
        elif kind == "f":
            content = draw(st.binary(max_size=4))
            items[path] = File(draw(modes), path, len(content), hashlib.sha256(content).hexdigest())
        else:
            items[path] = Link(path, draw(names))
    return draw(st.permutations(list(items.values())))


@given(trees())
def test_what_is_built_is_parsed_back_and_its_bytes_do_not_depend_on_the_order(items: list[Item]) -> None:
    manifest = build(items)
    assert parse(manifest.encode()) == manifest
    assert build(reversed(items)).encode() == manifest.encode()
    assert sorted(item.path for item in manifest.items) == sorted(item.path for item in items)


@given(trees(), st.data())
def test_bytes_that_differ_anywhere_are_refused_or_name_another_tree(items: list[Item], data: st.DataObject) -> None:
    raw = bytearray(build(items).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        manifest = parse(bytes(raw))
    except BadManifest:
        return
    assert manifest.encode() == bytes(raw)


@given(st.binary(max_size=300))
@example(HEAD + b"\n")
@example(HEAD + b"null\n")
@example(HEAD + b'["f",1,"a",0,0]\n')
def test_any_bytes_give_a_tree_or_a_bad_manifest(raw: bytes) -> None:
    for given_bytes in (raw, HEAD + raw, HEAD + raw + b"\n"):
        try:
            assert parse(given_bytes).encode() == given_bytes
        except BadManifest as error:
            assert re.search(r"line \d+", str(error))


@given(trees())
def test_no_path_leaves_the_tree_or_goes_through_a_link(items: list[Item]) -> None:
    manifest = parse(build(items).encode())
    directories = {""} | {item.path for item in manifest.items if isinstance(item, Directory)}
    for item in manifest.items:
        assert not item.path.startswith("/")
        assert not {"", ".", ".."} & set(item.path.split("/"))
        assert item.path.rpartition("/")[0] in directories


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('["f",420,"../a",0,"HASH"]', r"line 2: path '../a': '..' is not a name"),
        ('["f",420,"/etc/passwd",0,"HASH"]', "line 2: path '/etc/passwd': it is absolute"),
        ('["d",493,"a"]\n["f",420,"a/./b",0,"HASH"]', "line 3: path 'a/./b'"),
        ('["d",493,"a"]\n["d",493,"a//b"]', "line 3"),
        ('["l","a","/etc"]\n["f",420,"a/passwd",0,"HASH"]', "line 3: path 'a/passwd': 'a' is not a directory"),
        ('["f",420,"a",0,"HASH"]\n["f",420,"a/b",0,"HASH"]', "line 3: path 'a/b': 'a' is not a directory"),
        ('["f",420,"a",0,"HASH"]\n["f",493,"a",0,"HASH"]', "line 3: path 'a': twice"),
        ('["f",420,"b",0,"HASH"]\n["f",420,"a",0,"HASH"]', "line 3: path 'a': out of order"),
        ('["f",420,"a\\nb",0,"HASH"]', "line 2: path 'a\\\\nb': it has a control character"),
        ('["f",420,"a\\u0000",0,"HASH"]', "control character"),
        ('["f",420,"a\u202eb",0,"HASH"]', "control character"),
        ('["f",420,"' + "n" * 256 + '",0,"HASH"]', "longer than 255"),
        ('["f",4096,"a",0,"HASH"]', "line 2: path 'a': mode 4096"),
        ('["f",420,"a",-1,"HASH"]', "line 2: path 'a': size -1"),
        ('["f",420,"a",0,"ABC"]', "line 2: path 'a': 'ABC' is not a SHA-256"),
        ('["f",420,"a",0]', "line 2"),
        ('["f",420,"a",0,"HASH",1]', "line 2"),
        ('["f", 420,"a",0,"HASH"]', "line 2: not in canonical form"),
        ('["f",420,"\\u0061",0,"HASH"]', "line 2: not in canonical form"),
        ('["p",420,"a"]', "line 2"),
        ('["l","a",""]', "line 2: path 'a': the link's target"),
        ('["f",420,"\\ud800",0,"HASH"]', "line 2"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_line(lines: str, says: str) -> None:
    with pytest.raises(BadManifest, match=says):
        parse(HEAD + lines.replace("HASH", EMPTY).encode() + b"\n")


def test_a_cut_manifest_and_another_format_are_refused() -> None:
    raw = build([File(0o644, "a", 0, EMPTY)]).encode()
    with pytest.raises(BadManifest, match="cut off"):
        parse(raw[:-1])
    with pytest.raises(BadManifest, match="not the head"):
        parse(raw.replace(b"corelog-tree 1", b"corelog-tree 2"))


def test_names_that_are_not_utf8_are_refused() -> None:
    assert "UTF-8" in path_fault("a\udcff")


@given(st.text(max_size=120))
def test_a_version_that_is_accepted_is_a_plain_file_name(version: str) -> None:
    if not version_fault(version):
        assert "/" not in version
        assert not version.startswith(".")
        assert version.isascii()
        assert 1 <= len(version) <= 100
