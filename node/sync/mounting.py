"""``corelog kv mount``: a tree of files that follows the keys below a prefix."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.sync import keys
from node.sync.etcd import Source
from node.sync.following import Follower
from node.sync.layout import Layout, laid_out
from node.sync.trees import TreeProblem, Trees

#: After this long without a change what the next one needs is got ready.
IDLE_S = 0.5
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0


class Mount:
    """``say``: a line for people."""

    def __init__(self, path: Path, prefix: str, source: Source, say: Callable[[str], None], mode: int = 0o444) -> None:
        self._start = keys.raw(prefix if prefix.endswith("/") or not prefix else prefix + "/")
        self._range = keys.prefix(self._start)
        self.trees = Trees(path, mode)
        self._say = say
        self._follower = Follower(source, self._changed, say)
        self._layout = Layout()
        self._dirty: set[bytes] | None = set()
        self._wake = asyncio.Event()

    async def once(self) -> None:
        """Raises TreeProblem, Unreachable, Refused."""
        self.trees.open()
        try:
            self._follower.want([self._range])
            await self._follower.fetch()
            self._dirty = None
            self._show()
        finally:
            self.trees.close()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM, or SIGINT (raises KeyboardInterrupt); the last tree stays. Raises TreeProblem at the start."""
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[int] = loop.create_future()

        def stopped(number: int) -> None:
            if not stop.done():
                stop.set_result(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped, number)
        self.trees.open()
        self._follower.want([self._range])
        tasks: list[asyncio.Future[None]] = [
            asyncio.ensure_future(work) for work in (self._follower.run(), self._follow(ready))
        ]
        try:
            either: list[asyncio.Future[Any]] = [stop, *tasks]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.trees.close()
        if stop.done() and stop.result() == signal.SIGINT:
            raise KeyboardInterrupt

    async def _follow(self, ready: Callable[[], None]) -> None:
        wait_s, first = RETRY_MIN_S, True
        await self._wake.wait()
        while True:
            self._wake.clear()
            try:
                self._show()
            except TreeProblem as error:
                self._say(str(error))
                self._dirty = None
                await asyncio.sleep(wait_s)
                self._wake.set()
                wait_s = min(2 * wait_s, RETRY_MAX_S)
                continue
            wait_s = RETRY_MIN_S
            if first:
                first = False
                ready()
            while not self._wake.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), IDLE_S)
                    break
                self.trees.prepare()
                await self._wake.wait()

    def _changed(self, changed: frozenset[bytes] | None) -> None:
        if changed is None:
            self._dirty = None
        elif self._dirty is not None:
            self._dirty |= changed
        self._wake.set()

    def _show(self) -> None:
        """Raises TreeProblem, Missing."""
        known, size = self._follower.known, len(self._start)
        if not known.covers(self._range):
            return  # it is being read anew
        dirty, self._dirty = self._dirty, set()
        if dirty is None:
            self._layout = laid_out((key[size:], value) for key, value in known.below(self._range))
        else:
            for key in dirty:
                value = known.value(key)
                if value is None:
                    self._layout.remove(key[size:])
                else:
                    self._layout.put(key[size:], value)
        count = self.trees.show(self._layout.files)
        files = len(self._layout.files)
        self._say(f"{self.trees.path}: {files} files at revision {known.revision} ({count} new or gone)")
