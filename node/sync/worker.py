"""One template and its file: rendered when a key of it changed, checked, put in place, its reload told."""

import asyncio
import contextlib
import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from node.sync import commands, files, keys, limits
from node.sync.commands import CommandFailed
from node.sync.files import FileProblem
from node.sync.keys import Known, Missing, Range
from node.sync.plan import Plan, Wanted, plan
from node.sync.render import RenderError, Template
from node.sync.resource import Resource, command

RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0

What = Literal["rendered", "unchanged", "failed", "reload failed", "would render"]


class Told(msgspec.Struct, frozen=True):
    """What became of a file. ``why``: for people; ``key``: the one that is missing."""

    dest: str
    what: What
    why: str = ""
    revision: int = 0
    key: str = ""
    diff: str = ""

    @property
    def well(self) -> bool:
        return self.what in ("rendered", "unchanged", "would render")


class Worker:
    """``need``: more ranges have to be followed. ``tell`` gets what became of the file, once as long as it is so."""

    def __init__(
        self,
        resource: Resource,
        known: Callable[[], Known],
        need: Callable[[frozenset[Range]], None],
        tell: Callable[[Told], None],
        environ: Mapping[str, str],
    ) -> None:
        self.resource, self.dest = resource, Path(resource.dest)
        self._known, self._need, self._tell, self._environ = known, need, tell, environ
        self._template: tuple[str, Template] | None = None
        self._ranges: frozenset[Range] = frozenset()
        self._wake = asyncio.Event()
        self._told: Told | None = None
        self._over = False
        self.settled = asyncio.Event()

    # -- when -------------------------------------------------------------------------------------------------

    def changed(self, changed: frozenset[bytes] | None) -> None:
        """These keys changed; None: any may have."""
        if changed is None or any(one.has(key) for key in changed for one in self._ranges):
            self._wake.set()

    def end(self) -> None:
        """Nothing is begun any more; a file that is being put gets its reload."""
        self._over = True
        self._wake.set()

    async def run(self) -> None:
        """Follow until :meth:`end`."""
        files.sweep(self.dest)
        wait_s = RETRY_MIN_S
        while not self._over:
            self._wake.clear()
            try:
                told = await self.turn()
            except Missing as error:
                self._need(error.ranges)
                await self._wake.wait()
                continue
            self._say(told)
            self.settled.set()
            wait_s = RETRY_MIN_S if told.well else wait_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), None if told.well else wait_s)
            wait_s = RETRY_MIN_S if self._wake.is_set() else min(2 * wait_s, RETRY_MAX_S)

    def _say(self, told: Told) -> None:
        same = self._told is not None and (told.what, told.why) == (self._told.what, self._told.why)
        if not (same and told.what != "rendered"):
            self._tell(told)
        self._told = told

    # -- what -------------------------------------------------------------------------------------------------

    async def turn(self, dry: bool = False) -> Told:
        """Bring the file to what the keys say now. Raises Missing: more has to be known."""
        revision = self._known().revision
        try:
            content = self._rendered()
            revision = self._known().revision
            return await self._brought(content, revision, dry)
        except (RenderError, FileProblem) as error:
            kept = "the file stays as it is" if os.path.lexists(self.dest) else "there is no file yet"
            return Told(str(self.dest), "failed", f"{error}; {kept}", revision, getattr(error, "key", ""))

    def _rendered(self) -> bytes:
        """Raises Missing, RenderError."""
        known, resource = self._known(), self.resource
        own = frozenset({Range(keys.raw(resource.source_key))}) if resource.source_key else frozenset[Range]()
        self._ranges |= own
        template = self._read(known)
        asked = template.ranges(resource) | own
        self._ranges = asked
        if lacking := known.lacks(asked):
            raise Missing(lacking)
        made = limits.within(template.name, lambda: template.render(known, resource, self._environ))
        self._ranges = made.ranges | own
        return made.content

    def _read(self, known: Known) -> Template:
        """Raises Missing, RenderError."""
        resource = self.resource
        if resource.source_key:
            value = known.value(keys.raw(resource.source_key))
            if value is None:
                raise RenderError(resource.source, 0, "there is no such key", resource.source_key)
            source = keys.text(value)
        else:
            try:
                source = Path(resource.source).read_text("utf-8", "surrogateescape")
            except OSError as error:
                raise RenderError(resource.source, 0, str(error.strerror)) from error
        if self._template is None or self._template[0] != source:
            # constants are worked out as it is read, so that it can take as much as when it is rendered
            self._template = (source, limits.within(resource.source, lambda: Template(resource.source, source)))
        return self._template[1]

    async def _brought(self, content: bytes, revision: int, dry: bool) -> Told:
        """Raises FileProblem."""
        resource, dest = self.resource, str(self.dest)
        now = files.state(self.dest)
        uid, gid = files.user_id(resource.owner), files.group_id(resource.group)
        found = plan(now, Wanted(content, resource.mode, uid, gid))
        if found.refused:
            raise FileProblem(found.refused)
        if dry:
            what: What = "would render" if found.reasons else "unchanged"
            return Told(dest, what, ", ".join(found.reasons), revision, diff=_diff(dest, now.content, content))
        if found.reasons:
            await self._put(content, found)
        if resource.reload and (found.reasons or files.reload_due(self.dest)):
            try:
                await commands.run(command(resource.reload, dest, dest))
            except CommandFailed as error:
                return Told(dest, "reload failed", f"the file is new, but its reload failed: {error}", revision)
            files.reloaded(self.dest)
        return Told(dest, "rendered" if found.reasons else "unchanged", ", ".join(found.reasons), revision)

    async def _put(self, content: bytes, found: Plan) -> None:
        async def checked(new: Path) -> None:
            if self.resource.check:
                try:
                    await commands.run(command(self.resource.check, str(new), str(self.dest)))
                except CommandFailed as error:
                    raise FileProblem(f"the check failed: {error}") from error

        await files.put(self.dest, content, found, checked, bool(self.resource.reload))


def _diff(dest: str, before: bytes, after: bytes) -> str:
    old, new = (part.decode("utf-8", "replace").splitlines(keepends=True) for part in (before, after))
    return "".join(difflib.unified_diff(old, new, dest, f"{dest} (new)"))
