"""The watchdog: a fenced unit ends at its deadline, whoever is stopped or dead by then."""

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from actors.engine import cgroups, deadline
from actors.engine.process import load_status, program
from tests.actors.engine.rig import WAIT_S, clean, cmdline, eventually, gone, place, rig, sh, unit


class Dog:
    """A watchdog of ``home``, and a client."""

    def __init__(self, home: Path) -> None:
        self.home = home
        done = subprocess.run(program("watchdog", str(home)), capture_output=True, check=False, timeout=WAIT_S)
        self.answer = done.stdout.decode()
        self.pid = int((home / "watchdog.lock").read_text() or 0)
        self.sock = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(home)
        self.sock.connect("watchdog.sock")
        os.chdir(here)

    def ask(self, line: str) -> str:
        self.sock.sendall(line.encode() + b"\n")
        return self.sock.recv(200).decode().strip()

    def right(self, for_ms: int) -> int:
        """The machine's right ends ``for_ms`` from now."""
        at_ms = deadline.now_ms() + for_ms
        deadline.write(str(self.home), cgroups.boot_id(), at_ms)
        return at_ms


def asleep(pids: list[int]) -> bool:
    """Whether these are the unit's two sleeps (and not the shells that start them)."""
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids if Path(f"/proc/{pid}/comm").exists()]
    return names == ["sleep", "sleep"]


@pytest.fixture
def where(tmp_path):
    return place(tmp_path, fences=True)


@pytest.fixture
def dog(where):
    dog = Dog(Path(where.folder))
    yield dog
    dog.sock.close()
    clean(Path(where.folder))


async def test_no_watchdog_no_fenced_start(where):
    async with rig(where) as it:
        deadline.write(where.folder, where.boot_id, deadline.now_ms() + 60_000)
        await it.engine.start(unit("f.service", "exec sleep 1000", fenced=True), 1, 1)
        ended = await it.ended("f.service")
        assert (ended.result, ended.pid) == ("fence", 0)
        assert "no watchdog answers" in ended.detail


@pytest.mark.parametrize("right_ms", [None, -1])
async def test_no_fenced_start_past_the_deadline(where, dog, right_ms):
    async with rig(where) as it:
        if right_ms is not None:
            dog.right(right_ms)
        await it.engine.start(unit("f.service", "exec sleep 1000", fenced=True), 1, 1)
        ended = await it.ended("f.service")
        assert (ended.result, ended.pid) == ("fence", 0)
        assert "right to run fenced units has ended" in ended.detail


@pytest.mark.parametrize("stopped", ["the shim", "nobody"])
@pytest.mark.parametrize("root", ["", "none"])
async def test_at_the_deadline_the_unit_is_killed_also_while_its_shim_is_stopped(tmp_path, stopped, root):
    where = place(tmp_path, fences=True, options={"cgroup_root": root})
    dog = Dog(Path(where.folder))
    async with rig(where) as it:
        at_ms = dog.right(4000)
        await it.engine.start(unit("f.service", "(setsid sleep 1000 &); exec sleep 1000", fenced=True), 5, 1)
        seen = await it.running("f.service")
        shim = load_status(it.engine.units / "f.service")["shim"]
        below = eventually(lambda: asleep(found := cgroups.descendants(shim)) and found)
        if stopped == "the shim":
            os.kill(shim, signal.SIGSTOP)
        assert all(cgroups.start_ticks(pid) for pid in below) or deadline.now_ms() >= at_ms
        for pid in below:
            gone(pid)
        assert deadline.now_ms() >= at_ms
        os.kill(shim, signal.SIGCONT)
        ended = await it.ended("f.service")
        assert (ended.result, ended.pid) == ("fence", seen.pid)
    dog.sock.close()


async def test_the_deadline_moves_on_and_unfenced_units_are_left_alone(where, dog):
    async with rig(where) as it:
        first = dog.right(4000)
        await it.engine.start(unit("f.service", "exec sleep 1000", fenced=True), 1, 1)
        await it.engine.start(unit("u.service", "exec sleep 1000"), 2, 1)
        fenced, free = await it.running("f.service"), await it.running("u.service")
        second = dog.right(5500)
        while deadline.now_ms() < (first + second) // 2:
            await asyncio.sleep(0.02)
        assert cgroups.start_ticks(fenced.pid)
        gone(fenced.pid)
        assert deadline.now_ms() >= second
        assert cgroups.start_ticks(free.pid)


async def test_a_new_watchdog_finds_the_fenced_units_by_itself(where, dog):
    async with rig(where) as it:
        dog.right(60_000)
        await it.engine.start(unit("f.service", "exec sleep 1000", fenced=True), 1, 1)
        seen = await it.running("f.service")
        os.kill(dog.pid, signal.SIGKILL)
        gone(dog.pid)
        again = Dog(dog.home)
        assert again.answer == "ok"
        dog.right(-1)
        again.ask("arm")
        gone(seen.pid)
        again.sock.close()


async def test_without_a_watchdog_the_shim_keeps_the_deadline_itself(where, dog):
    async with rig(where) as it:
        at_ms = dog.right(4000)
        await it.engine.start(unit("f.service", "exec sleep 1000", fenced=True), 1, 1)
        seen = await it.running("f.service")
        os.kill(dog.pid, signal.SIGKILL)
        gone(seen.pid)
        assert deadline.now_ms() >= at_ms


async def test_a_shim_stopped_in_mid_start_can_not_start_its_unit_later(where, dog):
    async with rig(where) as it:
        dog.right(60_000)
        pre = "kill -STOP $PPID; sleep 0.1"  # its parent is the shim, between ExecStartPre and the fence's check
        await it.engine.start(unit("f.service", "exec sleep 1000", pre=(sh(pre),), fenced=True), 1, 1)
        shim = load_status(it.engine.units / "f.service")["shim"]
        eventually(lambda: ") T " in Path(f"/proc/{shim}/stat").read_text())
        dog.right(-1)
        dog.ask("arm")
        gone(shim)
        ended = await it.ended("f.service")
        assert (ended.result, ended.pid) == ("fence", 0)


def test_one_watchdog_per_folder_and_bad_requests_are_answered(where, dog):
    assert dog.answer == "ok"
    second = Dog(dog.home)
    second.sock.close()
    assert second.answer == "busy"
    assert dog.ask("bark loudly") == "no such request"
    assert dog.ask("hold process x 1 -").startswith("no ")
    at_ms = dog.right(60_000)
    assert dog.ask("hold process x 4194304 -") == f"ok {at_ms}"
    assert dog.ask("drop x") == "ok"
    assert b"watchdog" in cmdline(dog.pid)


def test_a_deadline_of_another_boot_or_half_written_has_passed(tmp_path):
    folder, boot = str(tmp_path), cgroups.boot_id()
    assert deadline.read(folder, boot) == 0
    deadline.write(folder, boot, 5000)
    assert deadline.read(folder, boot) == 5000
    assert deadline.read(folder, "0" * 36) == 0
    raw = (tmp_path / "deadline").read_bytes()
    for cut in range(len(raw)):
        (tmp_path / "deadline").write_bytes(raw[:cut])
        assert deadline.read(folder, boot) in (0, 5000)
    deadline.write(folder, boot, 9000)
    newer = (tmp_path / "deadline").read_bytes()
    for cut in range(len(raw)):
        (tmp_path / "deadline").write_bytes(newer[:cut] + raw[cut:])
        assert deadline.read(folder, boot) in (5000, 9000)


@pytest.mark.slow
def test_a_watchdog_with_nothing_to_guard_ends(where):
    dog = Dog(Path(where.folder))
    dog.right(500)
    dog.sock.close()
    gone(dog.pid)
    assert deadline.now_ms() >= deadline.read(where.folder, where.boot_id)
