"""The engine's process on a real log: killed, stopped, without its log. What it ran runs on."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.control import Control, ControlFold
from actors.engine import cgroups, deadline
from actors.engine.process import load_status
from actors.engine.state import Run
from actors.setting import Setting
from streams.events import log as log_says
from streams.events import unit as unit_says
from streams.events.base import encode, say
from streams.log.founding import found
from streams.log.open import open_log
from streams.records import Record
from streams.replay import Replica
from tests import needs
from tests.actors.engine.rig import WAIT_S, clean, eventually, gone

SLEEP = "[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=50ms\n"


class Town:
    """A segments log, and the one who places units on it in the name of the only machine's scheduler."""

    def __init__(self, folder: Path, log: Any, log_id: str) -> None:
        self.folder = folder
        self.log = log
        self.log_id = log_id
        self.machine = secrets.token_hex(16)
        self.replica = Replica(ControlFold())
        self.process: subprocess.Popen[bytes] | None = None
        self._seq = 0

    def setting(self, **changes: Any) -> Setting:
        setting = Setting(
            machine=self.machine,
            nonce=secrets.token_hex(8),
            boot_id=cgroups.boot_id(),
            folder=str(self.folder),
            log=self.log.address,
            log_id=self.log_id,
            engine={"docker": "none"},
        )
        return msgspec.structs.replace(setting, **changes)

    def up(self, **changes: Any) -> None:
        """Start the node, in a process group of its own."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.actors.engine.live"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(self.setting(**changes)))
        self.process.stdin.close()

    def report(self) -> dict[str, Any]:
        """The next thing that the engine reports."""
        assert self.process is not None
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def send(self, number: int) -> None:
        """To the node's whole process group."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def down(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.send(signal.SIGCONT)
            self.send(number)
            self.process.wait(WAIT_S)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    async def control(self) -> Control:
        end = await self.log.end()
        if self.replica.offset + 1 < end:
            async for batch in self.log.tail(self.replica.offset + 1):
                for entry in batch:
                    self.replica.apply(entry)
                if self.replica.offset + 1 >= end:
                    break
        return self.replica.fold.state  # type: ignore[attr-defined]

    async def say(self, data: Any, subject: str = "", term: int = 0) -> None:
        self._seq += 1
        writer = f"scheduler@{self.machine}"
        payload = encode([say(data, subject=subject, term=term)])
        await self.log.append([Record(self.log_id, data.STREAM, writer, 1, self._seq, 1000, payload)])

    async def launch(self, unit: str, content: str) -> None:
        """Submit and place, once there is a master."""
        if f"scheduler@{self.machine}" not in self.replica.log.writers:
            await self.say(log_says.ActorOpened(nonce="n"))
        await self.until(lambda control: control.cluster.election.holder == self.machine)
        await self.say(unit_says.Submit(content, "launched"), unit)
        control = await self.control()
        placed = unit_says.Placed(
            machine=self.machine,
            generation=control.units.units[unit].generation,
            machine_generation=control.cluster.machines[self.machine].generation,
            reason="a test",
        )
        await self.say(placed, unit, control.cluster.election.term)

    async def until(self, wanted: Any) -> Any:
        async with asyncio.timeout(WAIT_S):
            while not (found := wanted(await self.control())):
                await asyncio.sleep(0.02)
        return found

    async def run(self, unit: str, state: str, **fields: Any) -> Run:
        def wanted(control: Control) -> Run | None:
            run = control.engines.runs.get(unit, {}).get(self.machine)
            right = run is not None and run.state == state
            return run if right and all(getattr(run, name) == value for name, value in fields.items()) else None

        return await self.until(wanted)

    async def told(self, unit: str) -> str:
        replica, out = Replica(ControlFold()), []
        end = await self.log.end()
        async for batch in self.log.tail(0):
            for entry in batch:
                out += [
                    each.event.type.split(".")[1]
                    for each in replica.apply(entry)
                    if each.record.stream == "engine" and each.event.subject == unit
                ]
            if replica.offset + 1 >= end:
                return " ".join(out)
        raise AssertionError


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    log = await open_log(f"segments://{folder / 'log'}")
    it = Town(folder, log, (await found(log)).id)
    try:
        yield it
    finally:
        it.down()
        await log.close()
        clean(folder / "engine")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_after_the_end_of_the_node_the_same_process_goes_on(tmp_path, number):
    async with town(tmp_path) as it:
        it.up()
        await it.launch("web.service", SLEEP)
        run = await it.run("web.service", "ready")
        it.down(number)
        assert cgroups.start_ticks(run.pid) == run.started_ticks
        it.up()
        while not it.report()["live"]:
            pass
        assert (await it.run("web.service", "ready")).pid == run.pid
        assert await it.told("web.service") == "started ready"
        os.kill(run.pid, signal.SIGKILL)
        again = await it.run("web.service", "ready", restarts=1)
        assert await it.told("web.service") == "started ready exited started ready"
        assert again.pid != run.pid


async def test_a_stopped_node_does_not_keep_a_fenced_unit_alive(tmp_path):
    async with town(tmp_path) as it:
        it.up(alone=False, fence_ms=2500)
        await it.launch("f.service", SLEEP + "[X-Corelog]\nFence=yes\n")
        run = await it.run("f.service", "ready")
        shim = load_status(tmp_path / "engine" / "units" / "f.service")["shim"]
        before = cgroups.start_ticks(run.pid)
        it.send(signal.SIGSTOP)
        os.kill(shim, signal.SIGSTOP)
        sent_ms = (await it.control()).cluster.machines[it.machine].seen_ms
        assert before == run.started_ticks
        gone(run.pid)
        late_ms = deadline.now_ms() - (sent_ms + 2500)
        assert late_ms >= -1100, "killed too early: a renewal may have been under way when it was stopped"
        os.kill(shim, signal.SIGCONT)
        it.send(signal.SIGCONT)
        again = await it.run("f.service", "ready", restarts=0)  # heard again: the fence was never given away
        assert again.fence == run.fence


async def test_without_the_log_the_last_known_state_goes_on_and_static_units_run(tmp_path):
    static = tmp_path / "static"
    static.mkdir()
    async with town(tmp_path) as it:
        it.up()
        await it.launch("known.service", SLEEP)
        await it.launch("fenced.service", SLEEP + "[X-Corelog]\nFence=yes\n")
        run, fenced = await it.run("known.service", "ready"), await it.run("fenced.service", "ready")
        saved = tmp_path / "engine" / "desired"
        await it.until(lambda _: saved.exists() and b"known.service" in saved.read_bytes())
        it.down()
        for pid in (run.pid, fenced.pid):
            os.kill(pid, signal.SIGKILL)
            gone(pid)
        (static / "broker.service").write_text(SLEEP)
        options = {"docker": "none", "static_units": str(static)}
        # nobody listens there: the log can't be reached
        it.up(log="kafka://127.0.0.1:1/corelog", engine=options)
        async with asyncio.timeout(WAIT_S):
            while (await asyncio.to_thread(it.report))["units"] < 2:
                pass
        units = tmp_path / "engine" / "units"
        for unit in ("broker.service", "known.service"):
            await asyncio.to_thread(eventually, lambda unit=unit: load_status(units / unit)["phase"] == "running")
        assert load_status(units / "fenced.service")["phase"] == "ended"


@pytest.mark.parametrize("program", ["nginx"])
async def test_a_real_web_server_answers_and_is_stopped_whole(tmp_path, program):
    path = needs.program(program)
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 2; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;\n"
        f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n"
        f"server {{ listen unix:{tmp_path}/web.sock; location / {{ return 200 hello; }} }} }}\n"
    )
    content = f"[Service]\nExecStart={path} -c {conf} -p {tmp_path}\nKillSignal=SIGQUIT\nTimeoutStopSec=5\n"
    async with town(tmp_path) as it:
        it.up()
        await it.launch("web.service", content)
        await it.run("web.service", "ready")
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/web.sock")
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        status = load_status(tmp_path / "engine" / "units" / "web.service")
        workers = cgroups.descendants(status["shim"])
        assert len(workers) == 3
        await it.say(unit_says.Destroy(), "web.service")
        for pid in workers:
            await asyncio.to_thread(gone, pid)
        folder = tmp_path / "engine" / "units" / "web.service"
        await asyncio.to_thread(eventually, lambda: not folder.exists())  # nothing is kept of what is gone for good
