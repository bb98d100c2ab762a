"""Trees of files on a real file system: swapped whole, read-only, and only what differs is written."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.sync import trees
from node.sync.layout import laid_out
from node.sync.trees import TreeProblem, Trees


def read(path: Path) -> dict[bytes, bytes]:
    """All files below, by path."""
    root = os.fsencode(path) + b"/"
    return {
        os.path.join(folder, name)[len(root) :]: Path(os.fsdecode(os.path.join(folder, name))).read_bytes()
        for folder, _, names in os.walk(root)
        for name in names
    }


def left(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path.parent / f".{path.name}.trees").iterdir())


def test_files_are_read_only_and_what_is_the_same_is_the_same_inode(tmp_path: Path) -> None:
    made = Trees(tmp_path / "m")
    made.open()
    assert made.show({b"a/x": b"1", b"y": b"2"}) == 2
    assert [oct((tmp_path / "m" / name).stat().st_mode & 0o777) for name in ("a", "a/x")] == ["0o555", "0o444"]
    before = (tmp_path / "m/y").stat()
    made.show({b"a/x": b"3", b"y": b"2"})
    assert (tmp_path / "m/y").stat().st_ino == before.st_ino
    assert read(tmp_path / "m") == {b"a/x": b"3", b"y": b"2"}
    made.close()
    assert read(tmp_path / "m") == {b"a/x": b"3", b"y": b"2"}
    assert len(left(tmp_path / "m")) == 2, "the lock and the tree that is shown"


def test_after_the_grace_a_change_costs_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "GRACE_S", -1.0)
    made = Trees(tmp_path / "m")
    made.open()
    files = {b"%d" % number: b"v" for number in range(50)}
    assert made.show(files) == 50
    made.prepare()
    assert made.show(files | {b"7": b"new"}) == 1
    assert made.show(files | {b"7": b"new", b"8": b"new"}) == 2, "the spare tree is two changes behind"
    assert read(tmp_path / "m") == files | {b"7": b"new", b"8": b"new"}
    made.close()


def test_within_the_grace_who_is_in_the_old_tree_finds_it_as_it_was(tmp_path: Path) -> None:
    made = Trees(tmp_path / "m")
    made.open()
    made.show({b"a": b"1"})
    old = os.open(tmp_path / "m", os.O_RDONLY | os.O_DIRECTORY)
    for number in range(5):
        made.show({b"a": b"%d" % number, b"b": b""})
        made.prepare()
    assert os.listdir(old) == ["a"]
    os.close(old)
    made.close()


VALUES = st.dictionaries(
    st.lists(st.sampled_from([b"a", b"b", b"..", b""]), min_size=1, max_size=3).map(b"/".join),
    st.binary(max_size=2),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(states=st.lists(VALUES, min_size=1, max_size=6))
def test_whatever_came_before_what_is_shown_is_what_was_asked_for(tmp_path_factory, states) -> None:  # type: ignore[no-untyped-def]
    path, grace = tmp_path_factory.mktemp("t") / "m", trees.GRACE_S
    trees.GRACE_S = -1.0
    try:
        made = Trees(path)
        made.open()
        for values in states:
            files = laid_out(values.items()).files
            made.show(files)
            assert read(path) == files
        made.close()
    finally:
        trees.GRACE_S = grace


def test_a_reader_never_sees_half_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "GRACE_S", 0.5)
    made, seen, stop = Trees(tmp_path / "m"), set[tuple[bytes, bytes]](), threading.Event()
    made.open()
    made.show({b"a/x": b"0", b"b/y": b"0"})

    def look() -> None:
        while not stop.is_set():
            root = os.open(tmp_path / "m", os.O_RDONLY | os.O_DIRECTORY)
            both = []
            for name in ("a/x", "b/y"):
                fd = os.open(name, os.O_RDONLY, dir_fd=root)
                both.append(os.read(fd, 10))
                os.close(fd)
            os.close(root)
            seen.add((both[0], both[1]))

    reader = threading.Thread(target=look)
    reader.start()
    number, until_s = 0, time.monotonic() + 20
    # on a busy machine the reader may hardly come to its turn
    while number < 150 or (len(seen) <= 5 and time.monotonic() < until_s):
        value = b"%d" % number
        made.show({b"a/x": value, b"b/y": value})
        made.prepare()
        number += 1
    stop.set()
    reader.join()
    made.close()
    assert len(seen) > 5
    assert all(one == other for one, other in seen)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("x"), "is no folder"),
        (lambda path: (path.mkdir(), (path / "x").touch()), "isn't empty"),
        (lambda path: path.symlink_to("/etc"), "isn't ours"),
    ],
)
def test_what_is_somebody_elses_is_left_alone(tmp_path: Path, make, words) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "m")
    with pytest.raises(TreeProblem, match=words):
        Trees(tmp_path / "m").open()


def test_a_link_in_the_place_of_the_trees_is_not_followed(tmp_path: Path) -> None:
    """Whoever owns the folder around PATH may have made it."""
    elsewhere = tmp_path / "etc"
    (elsewhere / "sub").mkdir(parents=True)
    for name in ("passwd", "sub/y", "0123456789ab"):
        (elsewhere / name).write_text("kept")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/.m.trees").symlink_to("../etc")
    with pytest.raises(TreeProblem, match="is a link or a file, not the folder"):
        Trees(tmp_path / "app/m").open()
    assert sorted(read(elsewhere)) == [b"0123456789ab", b"passwd", b"sub/y"]
    (tmp_path / "app/.m.trees").unlink()
    (tmp_path / "app/.m.trees").write_text("kept")
    with pytest.raises(TreeProblem, match="is a link or a file, not the folder"):
        Trees(tmp_path / "app/m").open()


def test_the_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / ".m.trees").mkdir()
    (tmp_path / ".m.trees/lock").symlink_to(tmp_path / "made")
    with pytest.raises(TreeProblem, match="can't be made"):
        Trees(tmp_path / "m").open()
    assert not (tmp_path / "made").exists()


def test_what_we_did_not_make_stays_in_the_folder_of_the_trees(tmp_path: Path) -> None:
    home = tmp_path / ".m.trees"
    for name in ("notes/x", "0123456789abc", "link-x", "0123456789ab/ours", "0123456789AB/y"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    (home / "link-0123456789ab").symlink_to("0123456789ab")
    home.chmod(0o777)
    made = Trees(tmp_path / "m")
    made.open()
    made.close()
    assert left(tmp_path / "m") == ["0123456789AB", "0123456789abc", "link-x", "lock", "notes"]
    assert home.stat().st_mode & 0o777 == 0o755, "nobody else writes there"


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    from tests import needs

    needs.root()
    home = tmp_path / ".m.trees"
    (home / "0123456789ab").mkdir(parents=True)
    os.chown(home, 3, 3)
    with pytest.raises(TreeProblem, match="belongs to user 3, and we are user 0"):
        Trees(tmp_path / "m").open()
    assert left(tmp_path / "m") == ["0123456789ab"]


def test_what_is_removed_is_entered_by_no_link_and_no_other_user_s_folder(tmp_path: Path) -> None:
    from tests import needs

    needs.root()
    (tmp_path / "etc").mkdir(mode=0o755)
    (tmp_path / "etc/passwd").write_text("kept")
    home = tmp_path / ".m.trees"
    (home / "0123456789ab/theirs").mkdir(parents=True)
    (home / "0123456789ab/theirs/x").write_text("kept")
    (home / "0123456789ab/link").symlink_to(tmp_path / "etc")
    (home / "aaaaaaaaaaaa").symlink_to(tmp_path / "etc")
    os.chown(home / "0123456789ab/theirs", 3, 3)
    made = Trees(tmp_path / "m")
    made.open()
    made.close()
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755
    assert sorted(read(tmp_path / "etc")) == [b"passwd"]
    assert read(home) == {b"0123456789ab/theirs/x": b"kept", b"lock": b""}


def test_a_link_that_is_put_there_later_is_not_followed_either(tmp_path: Path) -> None:
    elsewhere = tmp_path / "etc"
    made = Trees(tmp_path / "m")
    made.open()
    made.show({b"a": b"1"})
    name = os.path.basename(os.readlink(tmp_path / "m"))
    (elsewhere / name).mkdir(parents=True)
    (elsewhere / name / "a").write_text("kept")
    (tmp_path / ".m.trees").rename(tmp_path / "moved")
    (tmp_path / ".m.trees").symlink_to("etc")
    made.show({b"a": b"2", b"b": b"2"})
    made.prepare()
    made.close()
    assert read(elsewhere) == {name.encode() + b"/a": b"kept"}
    assert sorted(os.listdir(elsewhere)) == [name]


def test_folders_are_no_one_elses_to_write_in_whatever_the_mode(tmp_path: Path) -> None:
    made = Trees(tmp_path / "m", 0o666)
    made.open()
    made.show({b"a/x": b"1"})
    made.close()
    assert [oct((tmp_path / "m" / name).stat().st_mode & 0o777) for name in ("a", "a/x")] == ["0o755", "0o666"]


def test_a_path_that_has_no_name_is_refused() -> None:
    with pytest.raises(TreeProblem, match="give it a name"):
        Trees(Path("/")).open()


def test_deep_folders_are_made_and_removed(tmp_path: Path) -> None:
    made = Trees(tmp_path / "m")
    made.open()
    path = b"a/" * 1000 + b"a"
    made.show({path: b"1"})
    made.show({b"b": b"1"})
    made.close()
    assert read(tmp_path / "m") == {b"b": b"1"}
    assert len(left(tmp_path / "m")) == 2


def test_a_change_that_cannot_be_shown_leaves_nothing_beside(tmp_path: Path) -> None:
    made = Trees(tmp_path / "m")
    made.open()
    made.show({b"a": b"1"})
    (tmp_path / "m").unlink()
    (tmp_path / "m/x").mkdir(parents=True)
    before = left(tmp_path / "m")
    with pytest.raises(TreeProblem, match="stays as it is"):
        made.show({b"a": b"2"})
    assert left(tmp_path / "m") == before
    made.close()


def test_two_do_not_keep_one_path(tmp_path: Path) -> None:
    one = Trees(tmp_path / "m")
    one.open()
    with pytest.raises(TreeProblem, match="another process"):
        Trees(tmp_path / "m").open()
    one.close()
    Trees(tmp_path / "m").open()


def test_an_empty_folder_is_taken_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.mkdir()
    code = (
        "import os, sys; from pathlib import Path; from node.sync.trees import Trees\n"
        "made = Trees(Path(sys.argv[1])); made.open(); made.show({b'a': b'1'}); made.show({b'a': b'2'})\n"
        "made._become(made._spare(), {b'a': b'3'}); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert len(left(path)) == 4
    made = Trees(path)
    made.open()
    assert read(path) == {b"a": b"2"}, "the last tree is shown until there is a new one"
    assert len(left(path)) == 2
    made.show({b"b": b"1"})
    assert read(path) == {b"b": b"1"}
    made.close()


def test_a_full_disk_leaves_the_tree_before(tmp_path: Path) -> None:
    from tests import needs

    needs.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    try:
        made = Trees(tmp_path / "m")
        made.open()
        made.show({b"a": b"1"})
        with pytest.raises(TreeProblem, match="No space left"):
            made.show({b"a": b"2", b"b": bytes(2 << 20)})
        assert read(tmp_path / "m") == {b"a": b"1"}
        made.show({b"a": b"3"})
        assert read(tmp_path / "m") == {b"a": b"3"}
        made.close()
        assert len(left(tmp_path / "m")) == 2
    finally:
        subprocess.run(["umount", tmp_path], check=True)
