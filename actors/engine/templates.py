"""Files that units need, rendered from keys: one ``corelog kv sync`` for all units of the machine, as a child process.

The child is told by TOML files in ``<engine's folder>/templates`` and SIGHUP, and tells by JSON lines. A template that
loops for ever, or takes all memory, is its fault and not the engine's. It ends with the engine; files stay.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from actors.engine.port import Away, Refused
from actors.engine.spec import UnitSpec

#: A file that isn't rendered within this is taken as it is from before, if it is there.
WAIT_S = 10.0
RETRY_MIN_S, RETRY_MAX_S = 0.5, 30.0
WELL = ("rendered", "unchanged")


class Templates:
    """``changed`` gets the names of units one of whose files is new. ``data``: the node's folder."""

    def __init__(self, folder: Path, data: Path, changed: Callable[[str], None]) -> None:
        self._folder, self._data, self._changed = folder, data, changed
        self._units: dict[str, UnitSpec] = {}
        self._owner: dict[str, str] = {}
        #: dest → what the child said last
        self._told: dict[str, dict[str, Any]] = {}
        #: files that were once rendered as they are asked for now
        self._good: set[str] = set()
        self._trouble = ""
        self._news = asyncio.Event()
        self._child: asyncio.subprocess.Process | None = None
        self._running: asyncio.Task[None] | None = None
        self._writing = False
        self._hears = self._hup_due = False
        self._logger = structlog.get_logger(actor="engine")

    # -- what is wanted ---------------------------------------------------------------------------------------

    def want(self, unit: str, spec: UnitSpec | None) -> None:
        """Keep the files of this unit; ``spec`` None, or without templates: no longer."""
        before = self._units.get(unit)
        now = spec if spec is not None and spec.templates else None
        if (before.templates if before else ()) == (now.templates if now else ()):
            return
        for file in before.templates if before else ():
            if self._owner.get(file.dest) == unit:
                del self._owner[file.dest]
                self._told.pop(file.dest, None)
                self._good.discard(file.dest)
        self._units.pop(unit, None)
        if now is not None:
            self._units[unit] = now
            for file in now.templates:
                self._owner.setdefault(file.dest, unit)
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write)

    async def ready(self, spec: UnitSpec) -> None:
        """Before the unit starts: its files are as the keys say. Raises Refused, or Away: to be tried again.

        A file that was rendered before will do, as long as the log can't be reached or its template is broken since.
        """
        if not spec.templates:
            return
        self.want(spec.name, spec)
        for file in spec.templates:
            if (owner := self._owner.get(file.dest)) != spec.name:
                raise Refused(f"Template: {file.dest} is a file of {owner}", final=True)
        dests = [file.dest for file in spec.templates]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while not all(dest in self._told for dest in dests):
                    self._news.clear()
                    await self._news.wait()
        for dest in dests:
            told = self._told.get(dest)
            if told is None:
                why = self._trouble or f"it was not rendered within {WAIT_S:g} s"
                if not os.path.isfile(dest):
                    raise Away(f"Template: {dest}: {why}")
                self._logger.warning("a unit starts with a file from before", unit=spec.name, file=dest, why=why)
            elif told["what"] not in WELL and dest not in self._good:
                raise Away(f"Template: {dest}: {told['why']}")

    # -- the child --------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """The child's configuration, and a child as long as there is anything for it."""
        self._writing = False
        wanted = {
            f"{unit}.{number}.toml": _toml(unit, file.source, file.dest, file.mode, file.user, file.group)
            for unit, spec in self._units.items()
            for number, file in enumerate(spec.templates)
            if self._owner.get(file.dest) == unit
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._folder.iterdir():
                if path.name not in wanted:
                    path.unlink()
            for name, text in wanted.items():
                (self._folder / name).write_text(text)
        except OSError as error:
            self._trouble = f"{error.filename} can't be written: {error.strerror}"
            self._logger.warning("templates can't be followed", why=self._trouble)
            return
        if not wanted:
            if self._running is not None:
                self._running.cancel()
                self._running = None
        elif self._running is None:
            self._running = asyncio.ensure_future(self._run())
        else:
            self._hup()

    def _hup(self) -> None:
        """The child reads anew; one that has said nothing yet is told when it has: it may not listen to signals yet."""
        if self._child is None or self._child.returncode is not None:
            return
        self._hup_due = not self._hears
        if self._hears:
            self._child.send_signal(signal.SIGHUP)

    async def _run(self) -> None:
        wait_s = RETRY_MIN_S
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                await self._one_child()
            except OSError as error:
                self._trouble = f"`corelog kv sync` can't be started: {error.strerror}"
            self._logger.error("who renders templates ended; it is started again", why=self._trouble, in_s=wait_s)
            if asyncio.get_running_loop().time() - began_s > RETRY_MAX_S:
                wait_s = RETRY_MIN_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _one_child(self) -> None:
        """Raises OSError."""
        words = [sys.executable, "-m", "node.cli.main", "kv", "sync", "--config", str(self._folder)]
        words += ["--data", str(self._data), "-o", "jsonl", "--parent", str(os.getpid())]
        child = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=1 << 20
        )
        self._child, self._hears, self._hup_due = child, False, False
        try:
            assert child.stdout is not None
            async for line in child.stdout:
                with contextlib.suppress(ValueError):
                    self._heard(json.loads(line))
            self._trouble = f"`corelog kv sync` ended ({await child.wait()})"
        finally:
            self._child = None
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    def _heard(self, told: dict[str, Any]) -> None:
        if not self._hears:
            self._hears = True
            if self._hup_due:
                self._hup()
        if "noted" in told:
            return
        if "said" in told:
            self._trouble = told["said"]
            self._logger.info("templates", said=self._trouble)
            return
        dest, unit = told["dest"], self._owner.get(told["dest"])
        if unit is None:
            return
        self._told[dest] = told
        if told["what"] in WELL:
            self._good.add(dest)
        else:
            self._logger.warning("a template failed", unit=unit, file=dest, why=told["why"])
        self._news.set()
        if told["what"] == "rendered":
            self._logger.info("a file of a unit is new", unit=unit, file=dest, revision=told["revision"])
            self._changed(unit)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None


def _toml(unit: str, source: str, dest: str, mode: str, user: str, group: str) -> str:
    """A template resource; JSON's texts are TOML's."""
    fields = {"src": source, "dest": dest, "mode": mode, "owner": user, "group": group}
    lines = ["[template]", *(f"{name} = {json.dumps(text)}" for name, text in fields.items() if text)]
    return "\n".join([*lines, "[template.variables]", f"unit = {json.dumps(unit)}", ""])
