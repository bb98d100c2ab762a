"""The engine's side of the fences: publishes the deadline, and keeps a watchdog alive."""

import asyncio
import collections
import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import structlog

from actors.engine import deadline
from actors.engine.port import Away, Place
from actors.engine.process import START_S, program

#: A watchdog that can't be started is tried again after this long.
RETRY_S = 1.0
ANSWER_S = 2.0
#: No fenced unit is started within the last part of the right: it would be killed at once.
START_MARGIN_MS = 200


class Fences:
    """``changed`` is called when fenced units may be started now, and weren't before, or the other way round.

    A machine that is alone on its log needs none of this: the lock on the log's files proves that no other copy of a
    unit can be placed, so it has no ``Fences`` at all.
    """

    def __init__(self, place: Place, fence_ms: int, changed: Callable[[], None]) -> None:
        self.place = place
        self.fence_ms = fence_ms
        self._changed = changed
        self._deadline_ms = deadline.read(place.folder, place.boot_id)
        self._writer: asyncio.StreamWriter | None = None
        self._answers: collections.deque[asyncio.Future[str]] = collections.deque()
        self._keeper: asyncio.Task[None] | None = None
        self._logger = structlog.get_logger(engine="fences")

    async def open(self, adopted: bool) -> None:
        """Start the watchdog, or find the one that runs. ``adopted``: fenced units run here already.

        A folder without any deadline was alone until now: what runs gets T_a from now to hear of a renewal.
        """
        if adopted and not (Path(self.place.folder) / deadline.NAME).exists():
            self.extend(deadline.now_ms() + self.fence_ms)
        self._keeper = asyncio.ensure_future(self._keep())
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Let go: the watchdog stays as long as there is something to guard."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def ok(self) -> bool:
        """Whether a fenced unit may be started now."""
        return self._writer is not None and deadline.now_ms() + START_MARGIN_MS < self._deadline_ms

    def extend(self, deadline_ms: int) -> None:
        """Move the deadline on (never back)."""
        if deadline_ms <= self._deadline_ms:
            return
        was = self.ok
        deadline.write(self.place.folder, self.place.boot_id, deadline_ms)
        self._deadline_ms = deadline_ms
        if self.ok and not was:
            self._changed()

    async def hold_container(self, unit: str, container: str, docker: str) -> None:
        """Put a container, not yet started, under the watchdog. Raises Away."""
        folder = Path(self.place.folder) / "units" / unit
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / "fenced-container").write_text(f"{container} {docker}\n", encoding="ascii")
            answer = await self._ask(f"hold docker {unit} {container} {docker}")
        except (OSError, UnicodeError) as error:
            raise Away(f"no watchdog holds its deadline ({error}): a fenced unit is not started") from error
        if not answer.startswith("ok") or not self.ok:
            raise Away(f"the watchdog refuses: {answer.removeprefix('no ')}")

    async def drop_container(self, unit: str) -> None:
        """The container is gone: nothing is held any more."""
        (Path(self.place.folder) / "units" / unit / "fenced-container").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            await self._ask(f"drop {unit}")

    async def _ask(self, line: str) -> str:
        """One request. Raises OSError when no watchdog answers."""
        if self._writer is None:
            raise ConnectionError("it does not run")
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._writer.write(line.encode() + b"\n")
        async with asyncio.timeout(ANSWER_S):
            return await answer

    async def _keep(self) -> None:
        """Have a watchdog, always: its end is the end of our connection."""
        while True:
            try:
                reader = await self._connect()
            except OSError as error:
                self._logger.warning("no watchdog: no fenced unit is started", error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            self._changed()
            await self._answer(reader)
            self._logger.warning("the watchdog is gone; another is started")
            self._changed()

    async def _connect(self) -> asyncio.StreamReader:
        answer = await asyncio.to_thread(_launch, self.place.folder)
        if answer not in ("ok", "busy"):
            raise ConnectionError(answer)
        folder = os.open(self.place.folder, os.O_PATH | os.O_CLOEXEC)
        try:  # through the descriptor: a socket's path has at most 107 bytes
            reader, self._writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/watchdog.sock")
        finally:
            os.close(folder)
        return reader

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        """Hand answers to who asked, in order, until the connection ends."""
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if self._answers and not (asked := self._answers.popleft()).done():
                    asked.set_result(line.decode("utf-8", "replace").strip())
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._answers:
            if not (asked := self._answers.popleft()).done():
                asked.set_exception(ConnectionError("it went away"))


def _launch(folder: str) -> str:
    """Start a watchdog for the folder; ``ok``, ``busy`` (there is one), or why not."""
    try:
        done = subprocess.run(
            program("watchdog", folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            timeout=START_S,
            check=False,
            env={},
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout.decode("utf-8", "replace") or done.stderr.decode("utf-8", "replace")[-400:]
