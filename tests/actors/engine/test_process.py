"""The engine ``process`` with real processes: start, stop, kill, notify, oneshot, identity, fallbacks."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.engine import cgroups
from actors.engine.port import Refused
from actors.engine.process import load_status
from actors.engine.spec import Command
from tests import needs
from tests.actors.engine.rig import cmdline, eventually, gone, place, rig, sh, unit

NOTIFY = "import os,socket,time; s=socket.socket(1,2); s.connect('\\0'+os.environ['NOTIFY_SOCKET'][1:]); "


@pytest.fixture(params=["cgroup", "no cgroup"])
def where(request, tmp_path):
    """Everything holds with a cgroup and, where none can be written, without."""
    options = {} if request.param == "cgroup" else {"cgroup_root": "none"}
    if request.param == "cgroup" and not (path := cgroups.make("corelog-test/" + tmp_path.name)):
        pytest.skip("no cgroup hierarchy is writable here")
    elif request.param == "cgroup":
        cgroups.remove(path, 1)
    return place(tmp_path, options=options)


async def test_a_unit_starts_is_ready_and_stops(where):
    async with rig(where) as it:
        await it.engine.start(unit("a.service", "echo out; echo err >&2; exec sleep 1000"), 7, 2)
        seen = await it.running("a.service")
        assert (seen.fence, seen.generation, seen.phase) == (7, 2, "running")
        assert cgroups.start_ticks(seen.pid) == seen.started_ticks
        eventually(lambda: " E err\n" in it.journal("a.service") and " O out\n" in it.journal("a.service"))
        await it.engine.stop("a.service")
        ended = await it.ended("a.service")
        assert ended.result == "stopped"
        assert not cgroups.start_ticks(seen.pid)


async def test_a_unit_is_killed_whole_with_what_forked_twice_and_left_its_session(where):
    script = "(setsid sh -c 'trap \"\" TERM; echo $$ > $HERE/daemon; while :; do sleep 1; done' &) ; exec sleep 1000"
    async with rig(where) as it:
        where_to = Path(where.folder)
        spec = unit("d.service", script, environment={"HERE": str(where_to)}, stop_timeout_s=0.3)
        await it.engine.start(spec, 1, 1)
        await it.running("d.service")
        daemon = int(eventually(lambda: (where_to / "daemon").exists() and (where_to / "daemon").read_text().strip()))
        status = load_status(it.engine.units / "d.service")
        await it.engine.stop("d.service")
        await it.ended("d.service")
        assert not cgroups.start_ticks(daemon)
        eventually(lambda: not cgroups.start_ticks(status["shim"]))
        assert not status["cgroup"] or not os.path.exists(status["cgroup"])


async def test_what_ignores_the_kill_signal_is_killed_after_the_stop_timeout(where):
    async with rig(where) as it:
        await it.engine.start(unit("i.service", "trap '' TERM; while :; do sleep 1; done", stop_timeout_s=0.2), 1, 1)
        await it.running("i.service")
        await it.engine.stop("i.service")
        await it.ended("i.service")
        assert "did not end within TimeoutStopSec=0.2: SIGKILL" in it.journal("i.service")


async def test_an_exit_tells_code_and_signal(where):
    async with rig(where) as it:
        await it.engine.start(unit("x.service", "exit 3"), 1, 1)
        ended = await it.ended("x.service")
        assert (ended.result, ended.code, ended.signal) == ("exit-code", 3, 0)
        assert ended.detail == "it exited with code 3"
        await it.engine.start(unit("y.service", "kill -SEGV $$"), 1, 1)
        ended = await it.ended("y.service")
        assert (ended.result, ended.code, ended.signal) == ("signal", 0, signal.SIGSEGV)


async def test_a_program_that_is_not_there_ends_with_its_name(where):
    async with rig(where) as it:
        await it.engine.start(unit("n.service", Command("/no/such", ("/no/such",))), 1, 1)
        ended = await it.ended("n.service")
        assert (ended.result, ended.detail) == ("exec", "ExecStart: can't execute /no/such: No such file or directory")


async def test_pre_post_stop_commands_run_in_order_and_a_failing_pre_starts_nothing(where):
    say = lambda word: sh(f"echo {word} >> $HERE/order")  # noqa: E731
    async with rig(where) as it:
        home = Path(where.folder)
        spec = unit(
            "o.service",
            "echo start >> $HERE/order; exec sleep 1000",
            pre=(say("pre"), sh("exit 1", ignore=True)),
            post=(say("post"),),
            stop=(Command("/bin/sh", ("/bin/sh", "-c", "test -d /proc/$0 && echo stop >> $HERE/order", "$MAINPID")),),
            stop_post=(say("stop-post"),),
            environment={"HERE": str(home)},
        )
        # $HERE is the shell's business here: what we expand is tested below
        await it.engine.start(spec, 1, 1)
        await it.running("o.service")
        await it.engine.stop("o.service")
        await it.ended("o.service")
        assert (home / "order").read_text().split() == ["pre", "start", "post", "stop", "stop-post"]
        await it.engine.start(unit("p.service", "sleep 1000", pre=(sh("exit 4"),)), 1, 1)
        ended = await it.ended("p.service")
        assert (ended.result, ended.detail, ended.pid) == ("exit-code", "ExecStartPre /bin/sh exited with code 4", 0)


async def test_notify_is_ready_when_it_says_so(where):
    code = NOTIFY + "s.send(b'STATUS=warming\\nREADY=0'); time.sleep(.2); s.send(b'READY=1'); time.sleep(1000)"
    async with rig(where) as it:
        spec = unit("n.service", Command(sys.executable, (sys.executable, "-c", code), plain=True), type="notify")
        await it.engine.start(spec, 1, 1)
        first = await it.until("n.service", lambda seen: seen is not None and seen.text == "warming")
        assert first.phase == "started"
        assert not first.ready
        assert (await it.running("n.service")).text == "warming"


async def test_notify_that_says_nothing_in_time_is_ended(where):
    async with rig(where) as it:
        await it.engine.start(unit("n.service", "sleep 1000", type="notify", start_timeout_s=0.2), 1, 1)
        ended = await it.ended("n.service")
        assert (ended.result, ended.detail) == ("timeout", "no READY=1 within 0.2 s")
        assert not cgroups.start_ticks(ended.pid)


async def test_oneshot_runs_each_command_and_ends_or_remains(where):
    async with rig(where) as it:
        await it.engine.start(unit("o.service", "echo one", "echo two", type="oneshot"), 1, 1)
        assert (await it.ended("o.service")).result == "success"
        lines = [line.split(" ", 2)[2] for line in it.journal("o.service").splitlines()]
        assert lines[:2] == ["one", "two"]
        spec = unit("r.service", "true", type="oneshot", remain=True, stop=(sh("echo undone"),))
        await it.engine.start(spec, 1, 1)
        assert (await it.running("r.service")).live
        await it.engine.stop("r.service")
        await it.ended("r.service")
        assert " O undone\n" in it.journal("r.service")


async def test_environment_identity_and_folder_are_the_units_own(where, tmp_path):
    extra = tmp_path / "env"
    extra.write_text("FROM_FILE='a b'\n")
    tmp_path.chmod(0o755)
    async with rig(where) as it:
        argv = (
            "/bin/sh",
            "-c",
            'id -u; id -g; pwd; echo "$CORELOG_UNIT $CORELOG_FENCE $1 $2 $3"',
            "x",
            "${ONE}",
            "$TWO",
        )
        spec = unit(
            "e.service",
            Command("sh", argv),
            type="oneshot",
            environment={"ONE": "1 1", "TWO": "2 3"},
            environment_files=((str(extra), False), ("/no/such", True)),
            user="nobody",
            cwd="/usr",
        )
        # the quotes keep $CORELOG_UNIT from us: only whole words and ${…} are ours
        await it.engine.start(spec, 42, 1)
        assert (await it.ended("e.service")).result == "success"
        lines = [line.split(" ", 2)[2] for line in it.journal("e.service").splitlines()]
        assert lines[:4] == ["65534", "65534", "/usr", "e.service 42 1 1 2 3"]


async def test_what_this_machine_can_not_do_is_refused_by_name(where):
    async with rig(where) as it:
        with pytest.raises(Refused, match=r"no user or group like that.*nosuchuser"):
            await it.engine.check(unit("u.service", "true", user="nosuchuser"))
        with pytest.raises(Refused, match="EnvironmentFile=/no/such is not there"):
            await it.engine.start(unit("u.service", "true", environment_files=(("/no/such", False),)), 1, 1)
        assert "u.service" not in it.engine.inventory()


async def test_the_same_process_is_adopted_by_the_next_supervisor(where):
    async with rig(where) as first:
        await first.engine.start(unit("a.service", "exec sleep 1000"), 3, 1)
        before = await first.running("a.service")
        await first.engine.close()
        async with rig(where) as second:
            assert second.engine.inventory()["a.service"] == before
            os.kill(before.pid, signal.SIGKILL)
            ended = await second.ended("a.service")
            assert (ended.result, ended.signal) == ("signal", signal.SIGKILL)


async def test_a_killed_shim_takes_its_unit_with_it(where):
    async with rig(where) as it:
        await it.engine.start(unit("k.service", "exec sleep 1000"), 1, 1)
        seen = await it.running("k.service")
        os.kill(load_status(it.engine.units / "k.service")["shim"], signal.SIGKILL)
        assert (await it.ended("k.service")).result == "lost"
        gone(seen.pid)


async def test_a_second_start_while_it_runs_changes_nothing(where):
    async with rig(where) as it:
        await it.engine.start(unit("s.service", "exec sleep 1000"), 1, 1)
        before = await it.running("s.service")
        it.engine._seen.clear()  # a supervisor that lost its memory
        await it.engine.start(unit("s.service", "exec sleep 1000"), 1, 1)
        assert (await it.running("s.service")).pid == before.pid


async def test_collect_forgets_an_ended_run_and_remove_its_journal(where):
    async with rig(where) as it:
        await it.engine.start(unit("c.service", "echo hello"), 1, 1)
        ended = await it.ended("c.service")
        await it.engine.collect("c.service", "another run")
        assert "c.service" in it.engine.inventory()
        await it.engine.collect("c.service", ended.run)
        assert "c.service" not in it.engine.inventory()
        assert "hello" in it.journal("c.service")
        await it.engine.remove("c.service")
        assert not (it.engine.units / "c.service").exists()


async def test_the_shim_has_left_the_node_and_is_small(where):
    async with rig(where) as it:
        await it.engine.start(unit("m.service", "exec sleep 1000"), 1, 1)
        await it.running("m.service")
        shim = load_status(it.engine.units / "m.service")["shim"]
        assert os.getsid(shim) != os.getsid(0)
        assert b"actors.engine.shim" in cmdline(shim)
        loaded = Path(f"/proc/{shim}/maps").read_text()
        assert "msgspec" not in loaded
        assert "_asyncio" not in loaded


async def test_processes_without_a_record_are_ended_at_the_start(tmp_path):
    where = place(tmp_path)
    async with rig(where) as it:
        await it.engine.start(unit("s.service", "exec sleep 1000"), 1, 1)
        seen = await it.running("s.service")
        status = load_status(it.engine.units / "s.service")
        if not status["cgroup"]:
            pytest.skip("no cgroup hierarchy is writable here")
        os.kill(status["shim"], signal.SIGKILL)
        shutil.rmtree(it.engine.units / "s.service")
        async with rig(where):
            gone(seen.pid)
        assert not os.path.exists(status["cgroup"])


@pytest.fixture
def disk(tmp_path):
    """A disk of 200 kB."""
    needs.root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "corelog-test", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_loses_lines_but_never_the_unit(disk, tmp_path):
    script = (
        "while ! test -e $HERE/go; do sleep 0.05; done; i=0; "
        "while test $i -lt 3000; do echo $i................................; i=$((i+1)); done; exit 5"
    )
    async with rig(place(disk)) as it:
        await it.engine.start(unit("d.service", script, environment={"HERE": str(tmp_path)}), 1, 1)
        seen = await it.running("d.service")
        with contextlib.suppress(OSError), (disk / "ballast").open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        (tmp_path / "go").touch()
        await asyncio.to_thread(gone, seen.pid)  # its output was read to the end, whatever became of it
        (disk / "ballast").unlink()
        assert (await it.ended("d.service")).code == 5
