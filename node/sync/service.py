"""All templates of a ``corelog kv sync``: once, or followed until it is told to end."""

import asyncio
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from node.sync.etcd import V3, Endpoints, Source
from node.sync.etcd2 import V2
from node.sync.following import Follower
from node.sync.keys import Known, Missing, Range
from node.sync.resource import Resource, ResourceError, parse
from node.sync.worker import Told, Worker

Say = Callable[[str], None]


def read_folder(folder: Path) -> list[Resource]:
    """The template resources of a folder as confd has it: ``conf.d/*.toml`` with ``templates/`` beside, or ``*.toml``
    with the templates in ``../templates`` if that is there, else beside them. Raises ResourceError."""
    inner = folder / "conf.d" if (folder / "conf.d").is_dir() else folder
    beside = inner.parent / "templates"
    templates = beside if beside.is_dir() else inner
    found = []
    try:
        for path in sorted(inner.iterdir()):
            if path.suffix == ".toml" and not path.name.startswith("."):
                found.append(parse(str(path), path.read_text("utf-8"), str(templates.absolute())))
    except OSError as error:
        raise ResourceError(f"{error.filename or inner}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ResourceError(f"{path}: byte {error.start} is not UTF-8") from error
    dests: set[str] = set()
    for resource in found:
        if resource.dest in dests:
            raise ResourceError(f"{inner}: two resources write {resource.dest}")
        dests.add(resource.dest)
    return found


def source_of(api: str, endpoints: Endpoints) -> Source:
    return V2(endpoints) if api == "v2" else V3(endpoints)


class ServiceFault(Exception):
    """What can't be has happened. The exit code isn't 0, so that a service manager starts it again."""

    exit_code = 1

    def __init__(self, error: BaseException) -> None:
        where = "".join(
            f" in {place.filename}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)[-1:]
        )
        super().__init__(
            f"a fault of ours: {error!r:.500}{where}; all files stay as they are. Please report it, and start again"
        )


class Service:
    """``read``: the resources, now and whenever SIGHUP comes. ``tell``: what became of a file; ``say``: what is wrong,
    and that it is right again; ``note``: the rest."""

    def __init__(
        self,
        endpoints: Callable[[], Endpoints],
        read: Callable[[], list[Resource]],
        tell: Callable[[Told], None],
        say: Say,
        note: Say,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._read, self._tell, self._say, self._note, self._environ = read, tell, say, note, environ
        self._endpoints = endpoints
        self._followers: dict[str, Follower] = {}
        self._workers: dict[Resource, tuple[Worker, asyncio.Task[None]]] = {}
        #: by their files: what was asked for no longer, and is about to end
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        #: the signal that ends it
        self._stop: asyncio.Future[int] | None = None

    # -- once -------------------------------------------------------------------------------------------------

    async def once(self, dry: bool = False) -> list[Told]:
        """Render all. Raises Unreachable, Refused, ResourceError."""
        return [await self._once(resource, dry) for resource in self._read()]

    async def _once(self, resource: Resource, dry: bool) -> Told:
        worker, follower = self._worker(resource), self._follower(resource.api)
        while True:
            try:
                told = await worker.turn(dry)
            except Missing as error:
                follower.want(error.ranges)
                await follower.fetch()
                continue
            self._tell(told)
            return told

    # -- for ever ---------------------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM, or SIGINT (raises KeyboardInterrupt).

        Raises ServiceFault; ResourceError, at the start only.
        """
        loop = asyncio.get_running_loop()
        stop = self._stop = loop.create_future()

        def stopped(number: int) -> None:
            if not stop.done():
                stop.set_result(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped, number)
        loop.add_signal_handler(signal.SIGHUP, self._again)
        try:
            self._take(self._read())
            waiting = asyncio.ensure_future(self._all_settled(ready))
            self._tasks.append(waiting)
            await stop
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            await self.close()
        if stop.result() == signal.SIGINT:
            raise KeyboardInterrupt

    async def _all_settled(self, ready: Callable[[], None]) -> None:
        await asyncio.gather(*(worker.settled.wait() for worker, _ in self._workers.values()))
        ready()

    async def close(self) -> None:
        tasks = [*self._tasks, *self._ending.values(), *(task for _, task in self._workers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _again(self) -> None:
        """SIGHUP: read the resources and the templates anew."""
        try:
            resources = self._read()
        except ResourceError as error:
            self._say(f"{error}; going on with what was read before")
            return
        self._take(resources)
        for worker, _ in self._workers.values():
            worker.changed(None)

    def _take(self, resources: Sequence[Resource]) -> None:
        """Go on with these: what is the same goes on as it is."""
        self._note(f"following {len(resources)} template{'' if len(resources) == 1 else 's'}")
        for resource in set(self._workers) - set(resources):
            worker, task = self._workers.pop(resource)
            worker.end()
            self._ending[resource.dest] = task
        for resource in resources:
            if resource not in self._workers:
                worker = self._worker(resource)
                task = asyncio.ensure_future(_run_after(self._ending.get(resource.dest), worker))
                task.add_done_callback(self._ended)
                self._workers[resource] = (worker, task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._stop is not None and not self._stop.done():
            fault = ServiceFault(error)
            fault.__cause__ = error
            self._stop.set_exception(fault)

    def _follower(self, api: str) -> Follower:
        if api not in self._followers:

            def changed(keys: frozenset[bytes] | None) -> None:
                for resource, (worker, _) in self._workers.items():
                    if resource.api == api:
                        worker.changed(keys)

            self._followers[api] = Follower(source_of(api, self._endpoints()), changed, self._say)
        return self._followers[api]

    def _worker(self, resource: Resource) -> Worker:
        follower = self._follower(resource.api)
        started = False

        def known() -> Known:
            return follower.known

        def need(ranges: frozenset[Range]) -> None:
            nonlocal started
            follower.want(ranges)
            if not started and not any(task.get_name() == resource.api for task in self._tasks):
                task = asyncio.create_task(follower.run(), name=resource.api)
                task.add_done_callback(self._ended)
                self._tasks.append(task)
            started = True

        return Worker(resource, known, need, self._tell, self._environ)


async def _run_after(before: "asyncio.Task[None] | None", worker: Worker) -> None:
    """Two don't put one file at a time."""
    if before is not None:
        await asyncio.wait([before])
    await worker.run()
