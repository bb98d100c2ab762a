"""The HTTP/2 layer on a socket, in a thread's loop, with a handful of methods to call."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from actors.kv.http2.call import Call
from actors.kv.http2.connection import Http2, Limits, Methods

UNARY, FAILS, BREAKS, SILENT = b"/test.Echo/Unary", b"/test.Echo/Fails", b"/test.Echo/Breaks", b"/test.Echo/Silent"
BOTH, COLLECT, MANY = b"/test.Echo/Both", b"/test.Echo/Collect", b"/test.Echo/Many"


class Echo:
    """Its methods. ``gone`` has the paths of calls that ended without their handler; ``seen`` the calls."""

    def __init__(self) -> None:
        self.seen: list[Call] = []
        self.gone: list[bytes] = []
        self.methods = Methods(
            {UNARY: self._unary, FAILS: self._fails, BREAKS: self._breaks, SILENT: self._silent},
            {BOTH: self._both, COLLECT: self._collect, MANY: self._many},
        )

    def _met(self, call: Call) -> None:
        self.seen.append(call)
        call.on_gone = lambda: self.gone.append(call.path)

    def _unary(self, call: Call, message: bytes) -> None:
        self._met(call)
        call.reply(message)

    def _fails(self, call: Call, message: bytes) -> None:
        self._met(call)
        call.finish(int(message or b"5"), "no such thing: 100 % gewiß", [(b"why", b"because"), (b"raw-bin", b"AAH/")])

    def _breaks(self, call: Call, message: bytes) -> None:
        raise RuntimeError("a bug")

    def _silent(self, call: Call, message: bytes) -> None:
        """Never answers."""
        self._met(call)

    def _both(self, call: Call) -> None:
        """Each message comes back at once."""
        self._met(call)
        call.on_message = call.send
        call.on_end = call.finish

    def _collect(self, call: Call) -> None:
        """The lengths of all messages, when the client is done."""
        self._met(call)
        lengths: list[bytes] = []
        call.on_message = lambda message: lengths.append(b"%d" % len(message))
        call.on_end = lambda: call.reply(b" ".join(lengths))

    def _many(self, call: Call) -> None:
        """A message "count size" → count messages of size, as fast as the client reads."""
        self._met(call)
        left = size = 0

        def more() -> None:
            nonlocal left
            while left and call.buffered() < 64 * 1024:
                left -= 1
                call.send(b"%08d" % left + bytes(max(0, size - 8)))
            if not left:
                call.finish()

        def asked(message: bytes) -> None:
            nonlocal left, size
            left, size = map(int, message.split())
            call.on_drained = more
            more()

        call.on_message = asked


class Serving:
    """``with Serving() as serving``: on ``serving.address``; ``connections`` are the open ones."""

    def __init__(self, limits: Limits | None = None, methods: Methods | None = None, sweep_s: float = 0.05) -> None:
        self.echo = Echo()
        self.connections: set[Any] = set()
        self._limits = limits or Limits()
        self._methods = methods or self.echo.methods
        self._sweep_s = sweep_s
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Serving":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def do(self, what: Callable[[], Any]) -> Any:
        """Call on the loop's thread; what it returned."""

        async def done() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        made = await self._loop.create_server(
            lambda: Http2(self._methods, self.connections, "addr:127.0.0.1", False, limits=self._limits), "127.0.0.1"
        )
        async with made:
            self.port = made.sockets[0].getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
            self._ready.set()
            while not self._end.is_set():
                for connection in list(self.connections):
                    if connection.overdue(self._loop.time()):
                        connection.too_slow()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._end.wait(), self._sweep_s)
        for _ in range(3):
            await asyncio.sleep(0)  # who was accepted at last gets its connection
        for connection in list(self.connections):
            connection.too_slow()
        while self.connections:
            await asyncio.sleep(0)
            for connection in list(self.connections):
                connection.close()
            await asyncio.sleep(0.05)
            for connection in list(self.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        # also what was accepted at that very moment, or is on its way to be lost
        for _ in range(10):
            for transport in list(getattr(self._loop, "_transports", {}).values()):
                transport.abort()
            await asyncio.sleep(0)
