"""The engine on the log: what it does for placements, what it says, and what it doesn't say twice."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.engine import cgroups, deadline
from streams.events import unit as unit_says
from streams.log.port import LogUnavailable
from tests.actors.engine.rig import gone
from tests.actors.engine.world import World, node

A = "a" * 32
SLEEP = "[Service]\nExecStart=/bin/sleep 1000\n"
FENCED = SLEEP + "[X-Corelog]\nFence=yes\n"


@pytest.fixture
def world():
    world = World()
    world.join(A)
    return world


def service(script: str, more: str = "", unit: str = "") -> str:
    return f"[Unit]\n{unit}\n[Service]\nExecStart=/bin/sh -c '{script}'\n{more}\n"


async def test_a_placed_unit_runs_and_an_unplaced_one_is_stopped(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("w.service", SLEEP)
        fence = world.place("w.service", A)
        run = await it.until("w.service", "ready")
        assert (run.fence, run.generation, run.boot_id) == (fence, 1, cgroups.boot_id())
        assert cgroups.start_ticks(run.pid) == run.started_ticks
        world.unplace("w.service", A)
        await it.until("w.service", "stopped")
        await asyncio.to_thread(gone, run.pid)
        assert world.told("w.service") == "started ready stopped"


async def test_loaded_is_checked_but_does_not_run(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("l.service", SLEEP, "loaded")
        world.place("l.service", A)
        await it.until("l.service", "loaded")
        world.submit("b.service", "[Service]\nExecStart=/bin/true\nUser=nosuchuser\n", "loaded")
        world.place("b.service", A)
        run = await it.until("b.service", "failed")
        assert "nosuchuser" in run.detail
        world.desire("l.service", "launched")
        await it.until("l.service", "ready")
        world.desire("l.service", "loaded")
        await it.until("l.service", "loaded")
        await it.settled()
        assert world.told("l.service") == "loaded started ready loaded"


async def test_a_restart_and_new_content_are_in_place_under_the_same_fence(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("r.service", SLEEP)
        fence = world.place("r.service", A)
        first = await it.until("r.service", "ready")
        world.restart("r.service")
        second = await it.until("r.service", "ready", generation=2)
        assert second.fence == fence
        assert second.pid != first.pid
        await asyncio.to_thread(gone, first.pid)
        world.submit("r.service", SLEEP.replace("1000", "2000"))
        await it.settled()
        assert world.run("r.service", A).pid == second.pid  # newer content waits until it is placed
        world.place("r.service", A)
        third = await it.until("r.service", "ready", generation=3)
        assert third.fence == fence
        assert world.told("r.service") == "started ready " * 2 + "started ready"


async def test_what_crashes_is_started_again_and_given_up_with_the_reason(world, tmp_path):
    content = service("exit 3", "Restart=on-failure\nRestartSec=50ms", "StartLimitBurst=3\nStartLimitIntervalSec=60")
    async with node(world, tmp_path) as it:
        world.submit("c.service", content)
        world.place("c.service", A)
        run = await it.until("c.service", "failed")
        assert run.detail == "given up: started 3 times within 60 s; at last: it exited with code 3"
        assert (run.code, run.restarts) == (3, 2)
        exits = [event.data for event in world.facts("c.service") if event.type == "engine.exited.v1"]
        assert [data.restart_in_ms for data in exits] == [50, 50, -1]
        world.restart("c.service")  # a new generation is a new chance
        await it.until("c.service", "failed", generation=2)
        # it may end before it was seen to be ready
        told = [word for word in world.told("c.service").split() if word != "ready"]
        assert told == [*["started", "exited"] * 3, "failed"] * 2


@pytest.mark.parametrize(
    ("script", "policy", "state"),
    [
        ("exit 0", "no", "exited"),
        ("exit 0", "on-failure", "exited"),
        ("exit 1", "no", "failed"),
        ("exit 1", "on-success", "failed"),
        ("kill -TERM $$$$", "on-failure", "exited"),
        ("kill -KILL $$$$", "no", "failed"),
    ],
)
async def test_what_is_over_is_over(world, tmp_path, script, policy, state):
    async with node(world, tmp_path) as it:
        world.submit("o.service", service(script, f"Restart={policy}"))
        world.place("o.service", A)
        await it.until("o.service", state)
        await it.settled()
        assert it.supervisor.seen("o.service").phase == "ended"
        assert world.told("o.service").count("exited") == 1


async def test_a_oneshot_runs_once_also_over_a_restart_of_the_node(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("j.service", f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo x >> {tmp_path}/ran'\n")
        world.place("j.service", A)
        run = await it.until("j.service", "exited")
        assert run.code == 0
        await it.settled()
        told = world.told("j.service")
    for _ in range(2):
        async with node(world, tmp_path) as it:
            while not it.actor.is_live:
                await asyncio.sleep(0.01)
            await it.settled()
        (tmp_path / "engine" / "units" / "j.service" / "status").unlink(missing_ok=True)  # and with nothing left
    assert (tmp_path / "ran").read_text() == "x\n"
    assert world.told("j.service") == told


async def test_the_next_node_adopts_the_same_process_and_says_nothing_twice(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("a.service", service("sleep 1000", "Restart=always\nRestartSec=20ms"))
        world.place("a.service", A)
        run = await it.until("a.service", "ready")
        await it.settled()
        await it.down()
        async with node(world, tmp_path) as again:
            while not again.actor.is_live:
                await asyncio.sleep(0.01)
            await again.settled()
            assert world.told("a.service") == "started ready"
            os.kill(run.pid, signal.SIGKILL)
            second = await again.until("a.service", "ready", restarts=1)
            assert second.pid != run.pid
            assert world.told("a.service") == "started ready exited started ready"


async def test_what_ended_while_no_node_watched_is_said_once_and_restarted(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("a.service", service("sleep 1000", "Restart=always\nRestartSec=20ms"))
        world.place("a.service", A)
        run = await it.until("a.service", "ready")
        await it.down()
        os.kill(run.pid, signal.SIGKILL)
        await asyncio.to_thread(gone, run.pid)
        async with node(world, tmp_path) as again:
            await again.until("a.service", "ready", restarts=1)
            await again.settled()
            assert world.told("a.service") == "started ready exited started ready"


async def test_a_run_that_the_log_never_heard_of_is_adopted_by_name(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("a.service", SLEEP)
        world.place("a.service", A)
        run = await it.until("a.service", "ready")
        await it.down()
        # a log on which only the placement got through
        fresh = World()
        fresh.join(A)
        fresh.submit("a.service", SLEEP)
        fresh.place("a.service", A)
        async with node(fresh, tmp_path) as again:
            adopted = await again.until("a.service", "ready")
            assert adopted.pid == run.pid
            assert fresh.told("a.service") == "adopted ready"


async def test_what_is_left_behind_is_stopped_removed_and_said(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("l.service", SLEEP)
        world.place("l.service", A)
        run = await it.until("l.service", "ready")
        await it.down()
        fresh = World()  # a log that knows nothing of the unit
        fresh.join(A)
        async with node(fresh, tmp_path) as again:
            await again.told("l.service", "stopped")
            await asyncio.to_thread(gone, run.pid)
            await again.settled()
            assert again.supervisor.seen("l.service") is None
            assert fresh.facts("l.service")[0].data.fence == run.fence
            assert fresh.told("l.service") == "stopped"


async def test_crashes_are_mended_while_the_log_is_away(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("c.service", service("sleep 1000", "Restart=always\nRestartSec=20ms"))
        world.place("c.service", A)
        first = await it.until("c.service", "ready")

        def away(_records):
            raise LogUnavailable("away")

        world.log.fault = away
        for _ in range(2):
            pid = it.supervisor.seen("c.service").pid
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(20):
                while (seen := it.supervisor.seen("c.service")).pid == pid or not seen.ready:
                    await asyncio.sleep(0.01)
        assert world.told("c.service") == "started ready"
        world.log.fault = None
        run = await it.until("c.service", "ready", restarts=2)
        assert run.pid not in (first.pid, 0)


async def test_a_unit_waits_for_the_port_of_one_that_is_stopped(world, tmp_path):
    ports = "[X-Corelog]\nPorts=7001\n"
    slow = service('trap "sleep 0.3; exit 0" TERM; while :; do sleep 0.05; done', "KillMode=process") + ports
    async with node(world, tmp_path) as it:
        world.submit("old.service", slow)
        world.place("old.service", A)
        await it.until("old.service", "ready")
        world.unplace("old.service", A)
        world.submit("new.service", SLEEP + ports)
        world.place("new.service", A)
        await it.until("new.service", "ready")
        assert world.run("old.service", A).state == "stopped"


async def test_a_fenced_unit_runs_only_while_its_machine_is_seen(world, tmp_path):
    async with node(world, tmp_path, alone=False, fence_ms=1500) as it:
        world.submit("f.service", FENCED)
        fence = world.place("f.service", A)
        await asyncio.sleep(0.3)
        assert world.run("f.service", A) is None  # no renewal was seen: no right
        async with renewing(world):
            run = await it.until("f.service", "ready")
            environ = Path(f"/proc/{run.pid}/environ").read_text().split("\0")
            assert f"CORELOG_FENCE={fence}" in environ
            assert f"CORELOG_MACHINE={A}" in environ
        exited = await it.until("f.service", "exited")
        assert deadline.now_ms() >= world.control.cluster.machines[A].seen_ms + 1500
        assert "right to run" in exited.detail
        async with renewing(world):  # heard again, and the fence was not given away: it may run again
            again = await it.until("f.service", "ready")
            assert (again.fence, again.restarts) == (fence, 0)


@asynccontextmanager
async def renewing(world):
    """The machine is seen all the while."""

    async def renew():
        while True:
            world.seen(A)
            await asyncio.sleep(0.1)

    task = asyncio.ensure_future(renew())
    try:
        yield
    finally:
        task.cancel()


async def test_a_fence_that_expired_is_never_extended(world, tmp_path):
    async with node(world, tmp_path, alone=False, fence_ms=60_000) as it:
        world.submit(
            "f.service",
            "[Service]\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\n[X-Corelog]\nFence=yes\n",
        )
        world.seen(A)
        fence = world.place("f.service", A)
        run = await it.until("f.service", "ready")
        before = deadline.read(it.process.place.folder, cgroups.boot_id())
        world.lose(A)
        generation = world.control.cluster.machines[A].generation
        expired = unit_says.FenceExpired(fence=fence, machine=A, machine_generation=generation)
        world.master("unit", expired, "f.service")
        world.join(A, deadline.now_ms() + 1)
        await asyncio.to_thread(gone, run.pid)  # killed at once, though it would have ignored a kind request for 90 s
        await it.until("f.service", "stopped")
        await it.settled()
        world.seen(A, before + 1000 - 60_000)
        async with asyncio.timeout(20):
            while deadline.read(it.process.place.folder, cgroups.boot_id()) <= before:
                await asyncio.sleep(0.01)


async def test_an_unplaced_fence_is_given_back_also_if_nothing_ever_ran(world, tmp_path):
    async with node(world, tmp_path, alone=False) as it:
        world.submit("f.service", FENCED)
        fence = world.place("f.service", A)
        world.unplace("f.service", A)
        await it.until("f.service", "stopped", fence=fence)
        assert "f.service" not in world.control.units.fences


async def test_a_dead_watchdog_is_replaced(world, tmp_path):
    async with node(world, tmp_path, alone=False) as it:
        world.seen(A)
        world.submit("f.service", FENCED)
        world.place("f.service", A)
        run = await it.until("f.service", "ready")
        lock = tmp_path / "engine" / "watchdog.lock"
        first = int(lock.read_text())
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(20):
            while lock.read_text().strip() in ("", str(first)) or not it.fences.ok:
                await asyncio.sleep(0.01)
        assert cgroups.start_ticks(run.pid) == run.started_ticks


async def test_alone_a_fenced_unit_needs_no_deadline(world, tmp_path):
    async with node(world, tmp_path, alone=True) as it:
        world.submit("f.service", FENCED)
        fence = world.place("f.service", A)
        run = await it.until("f.service", "ready")
        assert f"CORELOG_FENCE={fence}" in Path(f"/proc/{run.pid}/environ").read_text()
        assert not (tmp_path / "engine" / "watchdog.lock").exists()


async def test_a_bad_unit_file_on_this_machine_fails_with_its_line(world, tmp_path):
    async with node(world, tmp_path) as it:
        world.submit("d.service", "[Container]\nImage=x\n")  # there is no engine docker on this node
        world.place("d.service", A)
        run = await it.until("d.service", "failed")
        assert "docker" in run.detail
