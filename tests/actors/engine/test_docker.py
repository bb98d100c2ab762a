"""The engine ``docker`` on a real dockerd, with an image made of one static busybox."""

import asyncio
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from actors.engine import cgroups, deadline, journal
from actors.engine.docker_api import DockerApi, DockerAway, DockerError
from tests import needs
from tests.actors.engine.rig import eventually
from tests.actors.engine.world import World, node

pytestmark = pytest.mark.docker
IMAGE = f"corelog-test/busybox:{os.getpid()}"


def docker(*arguments: str, **more: object) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=True, **more)  # type: ignore[call-overload]
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def socket():
    socket = needs.docker()
    busybox = Path(needs.program("busybox"))
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for folder in ("bin", "tmp", "etc", "proc", "dev", "sys"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "sleep", "echo", "cat", "httpd", "test", "touch", "id", "true", "env"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size = len(b"root:x:0:0::/:/bin/sh\n")
        tar.addfile(passwd, io.BytesIO(b"root:x:0:0::/:/bin/sh\n"))
    docker("import", "-c", 'CMD ["/bin/sleep", "1000"]', "-", IMAGE, input=raw.getvalue())
    yield socket
    docker("rmi", "-f", IMAGE)


@pytest.fixture
def machine(request):
    """A machine of its own for each test; no container of it is left."""
    name = os.urandom(16).hex()
    yield name
    left = docker("ps", "-aq", "--filter", f"label=corelog.machine={name}").split()
    if left:
        docker("rm", "-f", "-v", *left)


@pytest.fixture
def world(machine):
    world = World()
    world.join(machine)
    return world


def container(more: str = "", service: str = "", limits: str = "") -> str:
    return f"[Container]\nImage={IMAGE}\n{more}\n[Service]\n{service}\n[X-Corelog]\n{limits}\n"


def labels(container_id: str) -> dict[str, str]:
    import json

    return json.loads(docker("inspect", container_id))[0]["Config"]["Labels"]


async def test_a_container_runs_with_our_labels_and_is_removed(world, machine, socket, tmp_path):
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        world.submit("c.service", container("StopTimeout=1\nExec=sh -c 'echo hello; echo oops >&2; exec sleep 1000'"))
        fence = world.place("c.service", machine)
        run = await it.until("c.service", "ready")
        found = labels(run.container)
        assert {key: found[f"corelog.{key}"] for key in ("machine", "unit", "fence", "generation")} == {
            "machine": machine,
            "unit": "c.service",
            "fence": str(fence),
            "generation": "1",
        }
        async with asyncio.timeout(20):
            while len(lines := _lines(tmp_path, "c.service")) < 2:
                await asyncio.sleep(0.05)
        assert sorted(lines) == ["stderr oops", "stdout hello"]
        world.unplace("c.service", machine)
        await it.until("c.service", "stopped")
        await it.settled()
        assert world.told("c.service") == "started ready stopped"
    assert not docker("ps", "-aq", "--filter", f"label=corelog.machine={machine}")


def _lines(folder: Path, unit: str) -> list[str]:
    try:
        return [f"{line.stream} {line.text}" for line in journal.read(folder, unit)]
    except journal.NoJournal:
        return []


async def test_the_next_node_adopts_the_container_and_its_output_goes_on(world, machine, socket, tmp_path):
    go = tmp_path / "go"
    go.mkdir()
    script = "echo before; while ! test -e /go/now; do sleep 0.1; done; echo after; exec sleep 1000"
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        world.submit("a.service", container(f"Volume={go}:/go\nExec=sh -c '{script}'"))
        world.place("a.service", machine)
        run = await it.until("a.service", "ready")
        async with asyncio.timeout(20):
            while not _lines(tmp_path, "a.service"):
                await asyncio.sleep(0.05)
        await it.settled()
        await it.down()
        (go / "now").touch()
        async with node(world, tmp_path, machine=machine, docker=socket) as again:
            while not again.actor.is_live:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                while _lines(tmp_path, "a.service") != ["stdout before", "stdout after"]:
                    await asyncio.sleep(0.05)
            await again.settled()
            assert again.supervisor.seen("a.service").container == run.container
            assert world.told("a.service") == "started ready"


async def test_health_makes_it_ready_and_a_crash_is_restarted(world, machine, socket, tmp_path):
    health = "HealthCmd=test -e /tmp/well\nHealthInterval=100ms\nHealthRetries=100"
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        spec = container(health, "Restart=always\nRestartSec=50ms")
        world.submit("h.service", spec)
        world.place("h.service", machine)
        run = await it.until("h.service", "started")
        await it.settled()
        assert world.told("h.service") == "started"
        docker("exec", run.container, "touch", "/tmp/well")
        await it.until("h.service", "ready")
        docker("kill", run.container)
        second = await it.until("h.service", "started", restarts=1)
        assert second.container != run.container
        exited = next(event.data for event in world.facts("h.service") if event.type == "engine.exited.v1")
        assert (exited.signal, exited.restart_in_ms) == (9, 50)


async def test_a_missing_image_fails_with_the_reason(world, machine, socket, tmp_path):
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        world.submit("m.service", "[Container]\nImage=corelog-test/no-such:1\nPull=never\n")
        world.place("m.service", machine)
        run = await it.until("m.service", "failed")
        assert run.detail == "image corelog-test/no-such:1 is not on this machine, and Pull=never; Restart=no"


async def test_exit_codes_environment_and_limits_reach_the_container(world, machine, socket, tmp_path):
    extra = tmp_path / "env"
    extra.write_text("FROM_FILE=yes\n")
    more = (
        f"EnvironmentFile={extra}\nEnvironment='A=b c'\nUser=12\nGroup=13\nHostName=box\nMemory=32M\nPidsLimit=50\n"
        "Exec=sh -c 'echo $$FROM_FILE/$$A/$$CORELOG_UNIT/$$(id -u):$$(id -g)/$$HOSTNAME; exit 7'"
    )
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        world.submit("e.service", container(more.replace("$$", "$")))
        world.place("e.service", machine)
        run = await it.until("e.service", "failed")
        assert (run.code, run.detail) == (7, "it exited with code 7; Restart=no")
        async with asyncio.timeout(20):
            while not (lines := _lines(tmp_path, "e.service")):
                await asyncio.sleep(0.05)
        assert lines == ["stdout yes/b c/e.service/12:13/box"]


async def test_what_is_left_behind_is_removed(world, machine, socket, tmp_path):
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        world.submit("l.service", container("StopTimeout=1"))
        world.place("l.service", machine)
        run = await it.until("l.service", "ready")
        await it.down()
        fresh = World()
        fresh.join(machine)
        async with node(fresh, tmp_path, machine=machine, docker=socket) as again:
            await again.told("l.service", "stopped")
            await again.settled()
        assert run.container[:12] not in docker("ps", "-aq")


async def test_a_container_is_killed_at_its_deadline_without_the_node(world, machine, socket, tmp_path):
    async with node(world, tmp_path, machine=machine, docker=socket, alone=False, fence_ms=4000) as it:
        world.seen(machine)
        world.submit("f.service", container(limits="Fence=yes"))
        world.place("f.service", machine)
        run = await it.until("f.service", "ready")
        at_ms = deadline.read(it.process.place.folder, cgroups.boot_id())
        await it.down()
        eventually(lambda: not cgroups.start_ticks(run.pid))
        assert deadline.now_ms() >= at_ms
        async with node(world, tmp_path, machine=machine, docker=socket, alone=False, fence_ms=4000) as again:
            exited = await again.until("f.service", "exited")
            assert "right to run it ended" in exited.detail


async def test_dockerd_away_is_no_fault_of_the_unit(world, machine, tmp_path):
    async with node(world, tmp_path, machine=machine, docker=str(tmp_path / "none.sock")) as it:
        world.submit("w.service", container())
        world.place("w.service", machine)
        run = await it.until("w.service", "exited")
        assert "no dockerd answers at" in run.detail
        assert run.restart_in_ms == 5000


async def test_nothing_is_concluded_while_dockerd_can_not_be_asked(world, machine, socket, tmp_path):
    async with node(world, tmp_path, machine=machine, docker=socket) as it:
        world.submit("b.service", container("StopTimeout=1"))
        world.place("b.service", machine)
        run = await it.until("b.service", "ready")
        await it.settled()
        await it.down()
        later = tmp_path / "docker.sock"
        async with node(world, tmp_path, machine=machine, docker=str(later)) as again:
            while not again.actor.is_live:
                await asyncio.sleep(0.01)
            world.unplace("b.service", machine)
            await asyncio.sleep(0.5)
            assert world.told("b.service") == "started ready"  # it may run: nobody says that it has stopped
            assert cgroups.start_ticks(run.pid)
            later.symlink_to(socket)
            await again.until("b.service", "stopped")
            assert not cgroups.start_ticks(run.pid)


async def test_errors_of_dockerd_are_told_in_its_words(socket, tmp_path):
    with pytest.raises(DockerError, match="No such container") as error:
        await DockerApi(socket).call("GET", "/containers/nosuch/json")
    assert error.value.status == 404
    with pytest.raises(DockerAway, match="no dockerd answers"):
        await DockerApi(str(tmp_path / "x")).call("GET", "/info")
