"""The engine ``docker``: units with a [Container] section as containers of a dockerd, through its API.

Containers bear labels (log, machine, unit, fence, generation, run) and restart=no: who starts them again is the
supervisor. By the labels a supervisor that starts anew adopts them. Nothing is loaded and nobody is asked before the
machine has a container or is to have one.
"""

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from actors.engine import cgroups, deadline
from actors.engine.fences import Fences
from actors.engine.port import Away, Place, Refused, Seen
from actors.engine.process import from_files
from actors.engine.spec import UnitSpec

if TYPE_CHECKING:
    from actors.engine.docker_api import DockerApi

SOCKET = "/var/run/docker.sock"
PREFIX = "corelog."
#: dockerd is asked again so soon after it went away, then later and later.
RETRY_S, RETRY_MAX_S = 0.5, 10.0
#: Exit codes of signals that end a container cleanly, as for processes.
CLEAN = (0, 128 + 1, 128 + 2, 128 + 13, 128 + 15)


class DockerEngine:
    name = "docker"

    def __init__(self, place: Place, fences: Fences | None = None) -> None:
        self.place = place
        self.fences = fences
        self.socket = (place.options.get("docker") or SOCKET).removeprefix("unix://")
        self._api: DockerApi | None = None
        self._seen: dict[str, Seen] = {}
        self._stopping: set[str] = set()
        self._starting: dict[str, Seen] = {}
        self._changed: Callable[[], None] = lambda: None
        self._watcher: asyncio.Task[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listed = False
        self._logger = structlog.get_logger(engine=self.name)

    @property
    def api(self) -> "DockerApi":
        if self._api is None:
            from actors.engine.docker_api import DockerApi

            self._api = DockerApi(self.socket)
        return self._api

    async def open(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        if not os.path.exists(self.socket):
            return  # no dockerd, no containers; the first start asks again
        try:
            await self._list()
        except Exception as error:  # a dockerd that comes up later is met by the watcher
            self._logger.warning("dockerd can't be asked", error=str(error))
        self._watch()

    @property
    def blind(self) -> bool:
        if not self._listed:
            self._watch()
        return not self._listed

    def inventory(self) -> dict[str, Seen]:
        return {**self._seen, **self._starting} if self._starting else self._seen

    async def check(self, spec: UnitSpec) -> None:
        from actors.engine.docker_api import DockerAway, DockerError

        container = spec.container
        if container is None:
            raise Refused("it has no [Container] for the engine docker", final=True)
        from_files(container.environment_files)
        try:
            await self.api.call("GET", f"/images/{container.image}/json")
        except DockerAway as error:
            raise Away(str(error)) from error
        except DockerError as error:
            if container.pull == "never":
                raise Refused(f"image {container.image} is not on this machine, and Pull=never") from error

    async def start(self, spec: UnitSpec, fence: int, generation: int) -> None:
        from actors.engine.docker_api import DockerAway, DockerError

        if (seen := self._seen.get(spec.name)) is not None and seen.live:
            return
        run = secrets.token_hex(8)
        self._starting[spec.name] = Seen(
            unit=spec.name, engine=self.name, run=run, phase="starting", fence=fence, generation=generation
        )
        try:
            async with asyncio.timeout(spec.container.start_timeout_s or None if spec.container else 0):
                await self._start(spec, fence, generation, run)
        except DockerAway as error:
            raise Away(str(error)) from error
        except DockerError as error:
            raise Refused(f"dockerd says: {error}") from error
        except TimeoutError as error:
            raise Refused("it was not started within TimeoutStartSec") from error
        finally:
            self._starting.pop(spec.name, None)

    async def stop(self, unit: str, kill: bool = False) -> None:
        seen = self._seen.get(unit)
        if seen is None or not seen.live:
            return
        self._stopping.add(seen.container)
        self._seen[unit] = _phase(seen, "stopping")
        verb = "kill" if kill else "stop"
        self._spawn(f"{verb} {seen.container}", self._post(seen.container, verb))
        self._changed()

    async def reload(self, unit: str) -> None:
        """A container has no ExecReload; a unit file that asks for it is refused."""

    async def collect(self, unit: str, run: str) -> None:
        seen = self._seen.get(unit)
        if seen is None or seen.live or seen.run != run:
            return
        await self._delete(seen.container)
        self._seen.pop(unit, None)
        if seen.fenced and self.fences is not None:
            await self.fences.drop_container(unit)

    def kept(self) -> set[str]:
        return set(self._seen)

    async def remove(self, unit: str) -> None:
        if (seen := self._seen.get(unit)) is not None:
            await self.collect(unit, seen.run)

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._watcher] if self._watcher is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- starting ---------------------------------------------------------------------------------------------

    async def _start(self, spec: UnitSpec, fence: int, generation: int, run: str) -> None:
        from actors.engine.docker_spec import body_of

        assert spec.container is not None
        await self._list()
        self._watch()
        old = self._seen.get(spec.name)
        if old is not None:
            if old.live:
                return  # it was there, and dockerd had been away
            await self._delete(old.container)
        await self._image(spec.container.image, spec.container.pull)
        labels = {
            "log": self.place.log_id,
            "machine": self.place.machine,
            "unit": spec.name,
            "fence": str(fence),
            "generation": str(generation),
            "run": run,
            "boot": self.place.boot_id,
            "fenced": "yes" if spec.fenced and self.place.fences else "no",
        }
        environment = {**spec.container.environment, **from_files(spec.container.environment_files)}
        environment |= {
            "CORELOG_MACHINE": self.place.machine,
            "CORELOG_UNIT": spec.name,
            "CORELOG_FENCE": str(fence),
        }
        body = body_of(spec.container, environment, {PREFIX + key: value for key, value in labels.items()})
        name = spec.container.name or f"corelog-{self.place.machine[:8]}-{_safe(spec.name)}"
        made = await self.api.call("POST", "/containers/create", {"name": name}, body)
        container = str(made["Id"])
        try:
            for network in spec.container.networks[1:]:
                await self.api.call("POST", f"/networks/{network}/connect", None, {"Container": container})
            if spec.fenced and self.fences is not None:
                await self.fences.hold_container(spec.name, container, self.socket)
            await self.api.call("POST", f"/containers/{container}/start")
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._delete(container))
            raise
        self._starting.pop(spec.name, None)
        await self._inspect(container)

    async def _image(self, image: str, pull: str) -> None:
        """Have the image, as Pull= says. Raises Refused with the reason when nobody has it."""
        from actors.engine.docker_api import DockerError

        try:
            await self.api.call("GET", f"/images/{image}/json")
            here = True
        except DockerError as error:
            if error.status != 404:
                raise
            here = False
        if here and pull not in ("always", "newer"):
            return
        if pull == "never":
            raise Refused(f"image {image} is not on this machine, and Pull=never")
        name, _, digest = image.partition("@")
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, "latest"
        query = {"fromImage": repository if not digest else image, "tag": digest or tag}
        try:
            async for chunk in self.api.stream("POST", "/images/create", query):
                for line in chunk.splitlines():
                    with contextlib.suppress(ValueError):
                        if "error" in (said := json.loads(line)):
                            raise DockerError(500, str(said["error"]))
        except DockerError as error:
            if here and pull == "newer":
                return
            raise Refused(f"image {image} is missing and can't be pulled: {error}") from error

    async def _post(self, container: str, verb: str) -> None:
        """Stop or kill; tried again while dockerd is away, as long as it is not known to have ended."""
        from actors.engine.docker_api import DockerAway, DockerError

        while True:
            try:
                await self.api.call("POST", f"/containers/{container}/{verb}", timeout_s=0)
                return
            except DockerError as error:
                if error.status not in (304, 404, 409):
                    self._logger.warning(f"a container can't be {verb}ed", container=container, error=str(error))
                return
            except DockerAway:
                await asyncio.sleep(RETRY_S)

    async def _delete(self, container: str) -> None:
        from actors.engine.docker_api import DockerError

        try:
            await self.api.call("DELETE", f"/containers/{container}", {"v": "true", "force": "true"})
        except DockerError as error:
            if error.status not in (404, 409):  # gone, or being removed
                raise

    # -- watching ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        """Events of our containers; after each (re)connection the whole list, so that none is missed."""
        from actors.engine.docker_api import DockerAway, DockerError

        retry_s = RETRY_S
        filters = {"type": ["container"], "label": [f"{PREFIX}machine={self.place.machine}"]}
        while True:
            try:
                rest = b""
                stream = self.api.stream("GET", "/events", {"filters": json.dumps(filters)})
                listing = asyncio.ensure_future(self._list_soon())
                try:
                    async for chunk in stream:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            await self._event(line)
                        retry_s = RETRY_S
                finally:
                    listing.cancel()
            except (DockerAway, DockerError) as error:
                self._logger.info("dockerd is away", error=str(error))
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)

    async def _list_soon(self) -> None:
        """List once the event stream has surely begun: what happens after the list is an event then."""
        await asyncio.sleep(0.2)
        with contextlib.suppress(Exception):
            await self._list()

    async def _event(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            container, action = said["Actor"]["ID"], said["Action"]
        except (ValueError, KeyError, TypeError):
            return
        if action in ("start", "die", "oom", "destroy", "remove", "died") or action.startswith("health_status"):
            await self._inspect(container)

    async def _list(self) -> None:
        """Take over every container that bears our machine's label."""
        filters = {"label": [f"{PREFIX}machine={self.place.machine}"]}
        found = await self.api.call("GET", "/containers/json", {"all": "true", "filters": json.dumps(filters)})
        known = {seen.container for seen in self._seen.values()}
        for each in found:
            await self._inspect(each["Id"])
        for container in known - {each["Id"] for each in found}:
            await self._inspect(container)
        if not self._listed:
            self._listed = True
            self._changed()

    async def _inspect(self, container: str) -> None:
        from actors.engine.docker_api import DockerError

        try:
            told = await self.api.call("GET", f"/containers/{container}/json")
        except DockerError as error:
            if error.status != 404:
                raise
            gone = [unit for unit, seen in self._seen.items() if seen.container == container]
            for unit in gone:
                # removed by hand: if it lived, that was its end
                seen = self._seen.pop(unit)
                if seen.live:
                    self._seen[unit] = _lost(seen)
            if gone:
                self._changed()
            return
        labels = {key.removeprefix(PREFIX): value for key, value in (told["Config"]["Labels"] or {}).items()}
        unit = labels.get("unit", "")
        if not unit or labels.get("log") != self.place.log_id or unit in self._starting:
            return
        status = told["State"]["Status"]
        if status == "created" or (labels.get("boot") != self.place.boot_id and status != "running"):
            await self._delete(container)  # never started, or of another boot: nothing of it can be adopted
            return
        seen = self._seen_of(told, labels)
        before = self._seen.get(unit)
        if before is not None and before.live and before.container != container and not seen.live:
            return
        if before is not None and before.container == container and before.ready and seen.live:
            seen = _ready(seen)
        self._seen[unit] = seen
        if f"logs {container}" not in self._tasks and (seen.live or before is None):
            self._spawn(f"logs {container}", self._logs(unit, container))
        if seen != before:
            self._changed()

    def _seen_of(self, told: dict[str, Any], labels: dict[str, str]) -> Seen:
        state, container = told["State"], told["Id"]
        live = state["Status"] in ("running", "paused", "restarting")
        health = (state.get("Health") or {}).get("Status", "none")
        ready = live and health in ("none", "", "healthy")
        phase = "ended" if not live else "running" if ready else "started"
        if live and container in self._stopping:
            phase = "stopping"
        fenced = labels.get("fenced") == "yes"
        result, detail = "", ""
        if not live:
            result, detail = self._result(state, container, fenced)
        code = int(state.get("ExitCode", 0)) if not live else 0
        pid = int(state.get("Pid") or 0)
        return Seen(
            unit=labels["unit"],
            engine=self.name,
            run=labels.get("run", container),
            phase=phase,
            fence=int(labels.get("fence", 0)),
            generation=int(labels.get("generation", 0)),
            fenced=fenced,
            ready=ready,
            pid=pid,
            started_ticks=cgroups.start_ticks(pid) if pid else 0,
            boot_id=self.place.boot_id,
            container=container,
            code=0 if code > 128 else code,
            signal=code - 128 if code > 128 else 0,
            result=result,
            detail=detail,
            text=health if health != "none" else "",
        )

    def _result(self, state: dict[str, Any], container: str, fenced: bool) -> tuple[str, str]:
        """How a container ended, in the words that processes have."""
        code = int(state.get("ExitCode", 0))
        if container in self._stopping:
            return "stopped", ""
        if fenced and code == 137 and deadline.now_ms() >= deadline.read(self.place.folder, self.place.boot_id):
            return "fence", "killed: this machine's right to run it ended"
        if state.get("OOMKilled"):
            return "signal", "it was killed for want of memory"
        if code in CLEAN:
            return "success", ""
        if state.get("Error"):
            return "exec", str(state["Error"])
        if code > 128:
            return "signal", f"it was killed by signal {code - 128}"
        return "exit-code", f"it exited with code {code}"

    async def _logs(self, unit: str, container: str) -> None:
        """Copy the container's output into the unit's journal; goes on where the journal ends after an adoption."""
        from actors.engine.docker_api import DockerAway, DockerError
        from actors.engine.docker_logs import copy

        folder = Path(self.place.folder).parent
        while True:
            try:
                await copy(self.api, container, folder, unit, int(self.place.options.get("journal_bytes", 8 << 20)))
                return
            except DockerError as error:
                self._logger.warning("a container's output can't be read", unit=unit, error=str(error))
                return
            except DockerAway:
                await asyncio.sleep(RETRY_S)

    def _spawn(self, name: str, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def _ended(self, name: str, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(name) is task and not name.startswith("logs "):
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("work on a container failed", work=name, error=repr(error), exc_info=error)


def _safe(unit: str) -> str:
    """A container's name from a unit's: dockerd takes letters, digits, ``_``, ``.`` and ``-``."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "_" for char in unit)


def _phase(seen: Seen, phase: str) -> Seen:
    return msgspec.structs.replace(seen, phase=phase)


def _ready(seen: Seen) -> Seen:
    """It was ready once: an unhealthy container is said by ``text``, its state stays."""
    return msgspec.structs.replace(seen, ready=True, phase="running" if seen.phase == "started" else seen.phase)


def _lost(seen: Seen) -> Seen:
    return msgspec.structs.replace(
        seen, phase="ended", result="lost", detail="its container was removed by somebody else", signal=9
    )
