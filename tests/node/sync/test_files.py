"""Files put in place whole or not at all, on a real file system."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.sync import files
from node.sync.files import FileProblem
from node.sync.plan import State, Wanted, plan
from tests import needs

STATES = st.one_of(
    st.sampled_from([State("missing"), State("link"), State("other")]),
    st.builds(
        State, st.just("file"), st.binary(max_size=1), st.integers(0, 0o777), st.integers(0, 2), st.integers(0, 2)
    ),
)
WANTED = st.builds(
    Wanted,
    st.binary(max_size=1),
    st.none() | st.integers(0, 0o777),
    st.none() | st.integers(0, 2),
    st.none() | st.integers(0, 2),
)


@given(STATES, WANTED)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(now: State, wanted: Wanted) -> None:
    found = plan(now, wanted)
    if found.refused:
        assert now.kind == "other"
        return
    after = State("file", wanted.content, found.mode, found.uid or 0, found.gid or 0)
    if found.reasons:
        assert plan(after, wanted).reasons == ()
    else:
        assert after == now


async def nothing(_: Path) -> None:
    pass


def put(dest: Path, content: bytes, check=nothing, **wanted) -> None:  # type: ignore[no-untyped-def]
    found = plan(files.state(dest), Wanted(content, **wanted))
    asyncio.run(files.put(dest, content, found, check))


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_mode_and_owner_are_as_asked_or_as_they_were(tmp_path: Path) -> None:
    needs.root()
    dest = tmp_path / "deep/er/f"
    put(dest, b"1")
    assert stat.S_IMODE(dest.stat().st_mode) == 0o644
    put(dest, b"1", mode=0o4750, uid=3, gid=4)
    put(dest, b"2")
    found = dest.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, dest.read_bytes()) == (0o4750, 3, 4, b"2")
    assert names(dest.parent) == ["f"]


@pytest.mark.parametrize("name", ["²", "٣", "4294967295", "9" * 30, "9" * 5000, "no such", "a\0b"])
def test_who_is_nobody_here_is_named(name: str) -> None:
    for find, what in ((files.user_id, "user"), (files.group_id, "group")):
        with pytest.raises(FileProblem, match=what):
            find(name)


def test_numbers_and_names_of_users() -> None:
    assert [files.user_id(name) for name in ("", "0", "root", "007", "4294967294")] == [None, 0, 0, 7, 4294967294]
    assert files.group_id("0") == 0


@pytest.mark.timeout(20)
def test_pipes_that_somebody_put_in_our_way_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write in the folder may have made them."""
    monkeypatch.setattr(files, "_LOCKED_S", -1.0)
    dest = tmp_path / "f"
    os.mkfifo(tmp_path / f"{files._marked(dest)}0123456789ab")
    put(dest, b"new")
    assert names(tmp_path) == ["f"]
    os.mkfifo(files._reload_mark(dest))
    with pytest.raises(FileProblem, match="can't be written"):
        asyncio.run(files.put(dest, b"x", plan(files.state(dest), Wanted(b"x")), nothing, True))
    assert dest.read_bytes() == b"new"
    real = os.lstat

    def swapped(path: Path) -> os.stat_result:
        found = real(path)
        dest.unlink()
        os.mkfifo(dest)
        return found

    monkeypatch.setattr(os, "lstat", swapped)
    assert files.state(dest).kind == "other"


def test_of_a_file_that_is_larger_than_ours_the_beginning_is_read(tmp_path: Path) -> None:
    dest = tmp_path / "f"
    with dest.open("wb") as file:
        file.truncate(1 << 40)
    found = files.state(dest)
    assert len(found.content) == (64 << 20) + 1
    assert plan(found, Wanted(b"x")).reasons == ("the content differs",)


def test_a_link_is_replaced_and_never_followed(tmp_path: Path) -> None:
    other, dest = tmp_path / "other", tmp_path / "f"
    other.write_text("kept")
    dest.symlink_to(other)
    put(dest, b"new")
    assert (other.read_text(), dest.read_bytes(), dest.is_symlink()) == ("kept", b"new", False)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    assert plan(files.state(tmp_path / "f"), Wanted(b"")).refused == "it is there, and no file"


def test_a_check_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    dest = tmp_path / "f"
    put(dest, b"old")

    async def refuse(new: Path) -> None:
        assert new.read_bytes() == b"new"
        assert dest.read_bytes() == b"old"
        raise FileProblem("no")

    with pytest.raises(FileProblem):
        put(dest, b"new", refuse)
    assert (dest.read_bytes(), names(tmp_path)) == (b"old", ["f"])


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    needs.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        put(tmp_path / "f", b"old")
        with pytest.raises(FileProblem, match="No space left"):
            put(tmp_path / "f", bytes(1 << 20))
        assert ((tmp_path / "f").read_bytes(), names(tmp_path)) == (b"old", ["f"])
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_read_only_place_is_told(tmp_path: Path) -> None:
    needs.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=True)
    try:
        with pytest.raises(FileProblem, match="Read-only file system"):
            put(tmp_path / "f", b"x")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


#: Kills itself at the n-th system call of the ones that change anything.
KILLED = """
import asyncio, os, sys
from pathlib import Path
from node.sync import files
from node.sync.plan import Wanted, plan
at, dest, count = int(sys.argv[1]), Path(sys.argv[2]), 0

def counted(real):
    def call(*args, **more):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), 9)
        return real(*args, **more)
    return call

for name in ("open", "write", "fchmod", "fsync", "rename", "unlink", "close"):
    setattr(os, name, counted(getattr(os, name)))
async def checked(new):
    pass
asyncio.run(files.put(dest, b"new" * 1000, plan(files.state(dest), Wanted(b"new" * 1000)), checked, True))
print("done", count)
"""


def test_killed_at_any_step_the_file_is_old_or_new_and_the_next_one_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCKED_S", -1.0)
    seen = set()
    for at in range(1, 100):
        dest = tmp_path / str(at) / "f"
        put(dest, b"old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(at), str(dest)], capture_output=True, check=False)
        content = dest.read_bytes()
        assert content in (b"old", b"new" * 1000)
        # whoever has to be told of a new file is: the mark is there before the file is
        assert content == b"old" or files.reload_due(dest)
        seen.add((content == b"old", len(names(dest.parent)) > 1))
        files.reloaded(dest)
        files.sweep(dest)
        assert names(dest.parent) == ["f"]
        if done.stdout:
            break
    assert seen == {(True, False), (True, True), (False, True)}


def test_what_another_live_process_writes_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LOCKED_S", -1.0)
    dest = tmp_path / "f"

    async def look(new: Path) -> None:
        code = f"from node.sync import files; files._LOCKED_S = -1; files.sweep(files.Path({str(dest)!r}))"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
        assert new.exists()

    put(dest, b"x", look)
    assert dest.read_bytes() == b"x"
