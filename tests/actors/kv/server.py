"""A whole kv replica with its port, and the coordination that makes its machine the master, in a thread's loop."""

import asyncio
import contextlib
import http.client
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from actors.control import ControlFold
from actors.coordination.actor import Coordination
from actors.host import Host
from actors.kv.actor import Kv, begun, opened
from actors.kv.port import Port
from actors.kv.state import KvFold
from actors.setting import Etcd, Setting
from actors.shell import Shell
from streams.events import log as says
from streams.events.base import encode, say
from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.records import Record
from streams.replay import LEVEL, Replica

MACHINE = "5e" * 16
LOG = "ab" * 16


async def founded(log: Log) -> Log:
    if await log.end() == 0:
        payload = encode([say(says.LogOpened(id=LOG, level=LEVEL))])
        await log.append([Record(LOG, "log", f"node@{MACHINE}", 1, 1, time.time_ns() // 1_000_000, payload)])
    return log


class Running:
    """``with Running(tmp_path) as server``: serves on ``server.port`` until the end of the block."""

    def __init__(
        self, folder: Path, make_log: Callable[[], Awaitable[Log]] | None = None, etcd: Etcd | None = None, at: str = ""
    ) -> None:
        self.folder = folder
        self.setting = Setting(
            machine=MACHINE,
            nonce=secrets.token_hex(8),
            boot_id="boot",
            folder=str(folder),
            log="memory://",
            log_id=LOG,
            etcd_listen=[at or "127.0.0.1:0"],
            etcd=etcd or Etcd(),
            name="test",
            version="0",
        )
        self._make_log = make_log or _memory
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.log: Any = None
        self.kv_port: Port
        self.shell: Shell
        #: its master
        self.coordination: asyncio.Task[None]
        self.fold: KvFold
        self.port = 0

    def __enter__(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(20)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the loop's thread."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    async def _main(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: list[asyncio.Task[None]] = []
        port = None
        try:
            self.log = await founded(await self._make_log())
            self.fold = KvFold()
            actor = Kv(self.setting)
            live = asyncio.Event()
            actor.on_live = live.set
            writers = iter(range(1, 1000))
            others = Coordination(self.setting)
            for one, fold in ((others, ControlFold()), (actor, self.fold)):
                host = Host(
                    one, Replica(fold), f"{one.name}@{MACHINE}", lambda: f"n{next(writers)}-{secrets.token_hex(4)}"
                )
                shell = Shell(host, self.log, _no_effects)
                tasks.append(asyncio.ensure_future(shell.run()))
            self.coordination = tasks[0]
            self.shell = shell
            async with asyncio.timeout(15):
                await live.wait()
                port = self.kv_port = await opened(shell, actor, self.setting)
                tasks.append(asyncio.ensure_future(begun(port, self.fold, self.setting.etcd.initial_cluster)))
                while not self.fold.cluster.election.holder:
                    await asyncio.sleep(0.005)
            self.port = int(port.addresses[0].rpartition(":")[2])
            self._ready.set()
            await self._stop.wait()
        except BaseException as error:
            self._error = error
        finally:
            if port is not None:
                await port.close()
                self._abort()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if self.log is not None:
                await self.log.close()
            # also what was accepted at that very moment, or is on its way to be lost
            for _ in range(10):
                self._abort()
                await asyncio.sleep(0)
            self._ready.set()

    def _abort(self) -> None:
        """TLS waits for its client's word before it closes (a process would end now), and the loop doesn't."""
        for transport in list(getattr(self.loop, "_transports", {}).values()):
            transport.abort()


async def _memory() -> Log:
    return MemoryLog()


async def _no_effects(effect: object, notice: object) -> None:
    raise AssertionError(effect)


class Client:
    """One keep-alive connection; answers as (status, headers in lower case, body)."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def raw(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def ask(self, method: str, path: str, form: str = "", headers: dict[str, str] | None = None) -> Any:
        """JSON of ``method`` on ``/v2/keys`` + path, with a form body."""
        given = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})} if form else headers
        status, got, content = self.raw(method, "/v2/keys" + path, form.encode() if form else None, given)
        return status, got, json.loads(content) if content else None

    def close(self) -> None:
        self._connection.close()
