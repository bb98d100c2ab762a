"""The data folder: ids made once, one node at a time, clear refusals that change nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import identity
from node.identity import DataFolder, FolderError

HOLDER = """
import os, sys, time
from pathlib import Path
from node.identity import DataFolder
with DataFolder(Path(sys.argv[1])) as folder:
    if len(sys.argv) > 2:
        if os.fork() == 0:
            folder.hold()
            print(os.getpid(), flush=True)
            time.sleep(600)
        os.wait()
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has claimed ``tmp_path/data``."""
    process = run_holder(tmp_path / "data")
    yield process
    process.kill()
    process.communicate()


def run_holder(folder: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *more],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_ids_are_made_once_and_kept(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as first:
        assert len(first.machine) == 32
        assert first.previous_nonce == ""
        token = (tmp_path / "data" / "token").read_text()
        assert set(token) <= set("0123456789abcdef\n"), "an option's value never begins with a dash"
        first.join("a" * 32)
    with DataFolder(tmp_path / "data") as second:
        assert second.machine == first.machine
        assert second.nonce != first.nonce
        assert second.previous_nonce == first.nonce
        assert second.log_id == "a" * 32
        assert (tmp_path / "data" / "token").read_text() == token


def test_nobody_else_can_look_in(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"):
        for path in [tmp_path / "data", *(tmp_path / "data").iterdir()]:
            assert path.stat().st_mode & 0o077 == 0, path


def test_an_open_folder_of_ours_is_closed_a_strange_one_is_refused(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"):
        pass
    (tmp_path / "data").chmod(0o755)
    with DataFolder(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    strange = tmp_path / "strange"
    strange.mkdir(mode=0o755)
    (strange / "thesis.txt").write_text("x")
    with pytest.raises(FolderError, match="no data folder of corelog") as caught, DataFolder(strange):
        pass
    assert caught.value.exit_code == 2
    assert sorted(path.name for path in strange.iterdir()) == ["thesis.txt"]
    assert strange.stat().st_mode & 0o777 == 0o755


def test_a_second_node_is_refused_and_told_the_pid_of_the_first(
    tmp_path: Path, holder: "subprocess.Popen[str]"
) -> None:
    assert holder.stdout
    pid = holder.stdout.readline().strip()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "data").iterdir())
    for attempt in (lambda: DataFolder.refuse_if_used(tmp_path / "data"), DataFolder(tmp_path / "data").__enter__):
        with pytest.raises(FolderError, match=rf"another node runs on .*process {pid}\)") as caught:
            attempt()
        assert caught.value.exit_code == 4
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "data").iterdir()) == before
    assert json.loads((tmp_path / "data" / "lock").read_text())["pid"] == int(pid)


def test_the_folder_is_free_when_its_node_is_killed(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    assert holder.stdout
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    DataFolder.refuse_if_used(tmp_path / "data")
    with DataFolder(tmp_path / "data") as folder:
        assert folder.previous_nonce


def test_an_actor_that_outlived_its_node_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "LEFTOVER_S", 0.05)
    main = run_holder(tmp_path / "data", "with-an-actor")
    assert main.stdout
    actor = int(main.stdout.readline())
    try:
        main.kill()
        main.wait()
        os.kill(actor, 0)
        with DataFolder(tmp_path / "data"):
            until_s = time.monotonic() + 10
            while Path(f"/proc/{actor}/stat").exists() and time.monotonic() < until_s:
                state = Path(f"/proc/{actor}/stat").read_text().rpartition(")")[2].split()[0]
                if state == "Z":
                    break
                time.sleep(0.01)
            else:
                assert not Path(f"/proc/{actor}").exists()
    finally:
        main.stdout.close()
        if Path(f"/proc/{actor}").exists():
            os.kill(actor, signal.SIGKILL)


def test_a_program_that_the_node_starts_does_not_hold_the_folder(tmp_path: Path) -> None:
    """A unit's shim lives on when the node ends, and the next node must be able to start."""
    with DataFolder(tmp_path / "data"):
        unit = subprocess.Popen(["sleep", "600"])
    try:
        with DataFolder(tmp_path / "data"):
            pass
    finally:
        unit.kill()
        unit.wait()


def test_a_folder_of_another_log_is_refused(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        folder.join("a" * 32)
        folder.join("a" * 32)
        with pytest.raises(FolderError, match=f"belongs to log {'a' * 32}, this is log {'b' * 32}") as caught:
            folder.join("b" * 32)
        assert caught.value.exit_code == 4
        assert folder.log_id == "a" * 32


@pytest.mark.parametrize("name", ["machine-id", "log-id"])
def test_a_damaged_id_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    with DataFolder(tmp_path / "data") as folder:
        folder.join("a" * 32)
    (tmp_path / "data" / name).write_text("hello\n")
    words = rf"{name} holds 'hello', not 32 hex digits"
    with pytest.raises(FolderError, match=words), DataFolder(tmp_path / "data") as folder:
        assert folder.log_id
    assert (tmp_path / "data" / name).read_text() == "hello\n"


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(FolderError, match="is not a folder") as caught, DataFolder(tmp_path / "data"):
        pass
    assert caught.value.exit_code == 2


def test_a_full_disk_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "FREE_BYTES_MIN", 2**62)
    with pytest.raises(FolderError, match="is on a full disk") as caught, DataFolder(tmp_path / "data"):
        pass
    assert caught.value.exit_code == 5
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["lock"]
