"""The engine ``process``: units as processes of this machine, each under a shim that outlives the node."""

import asyncio
import grp
import marshal
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from actors.engine import cgroups, deadline, inotify
from actors.engine.journal_file import JournalFile
from actors.engine.port import Place, Refused, Seen
from actors.engine.spec import Command, ProcessSpec, UnitSpec
from actors.scheduler.syntax import BadValue
from actors.scheduler.values import environment_file, expand_environment

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: A shim answers within this, or its start has failed.
START_S = 20
_ROOT = str(Path(__file__).resolve().parents[2])
#: Isolated, without site-packages: a few megabytes, and nothing that the unit's folder holds can be imported.
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from actors.engine.{0} import main; main()"


def program(name: str, *arguments: str) -> list[str]:
    """The command line of a small program of ours (``shim``, ``watchdog``)."""
    return [sys.executable, "-I", "-S", "-c", _BOOT.format(name), _ROOT, *arguments]


def load_status(folder: Path) -> dict[str, Any] | None:
    """What a shim wrote last, or None: there is nothing, or it was torn by a power cut."""
    try:
        status = marshal.loads((folder / "status").read_bytes())
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return status if isinstance(status, dict) and "run" in status else None


class ProcessEngine:
    name = "process"

    def __init__(self, place: Place) -> None:
        self.place = place
        self.units = Path(place.folder) / "units"
        self._seen: dict[str, Seen] = {}
        self._changed: Callable[[], None] = lambda: None
        self._watcher: inotify.Inotify | None = None
        self._names: dict[int, str] = {}
        self._pidfds: dict[str, tuple[str, int]] = {}
        self._logger = structlog.get_logger(engine=self.name)

    async def open(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.units.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._watcher = inotify.Inotify(self._heard)
        for folder in sorted(self.units.iterdir()):
            if (folder / "status").exists():
                self._watch(folder.name)
                self._load(folder.name)
        await self._kill_strangers()

    @property
    def blind(self) -> bool:
        return False

    def inventory(self) -> dict[str, Seen]:
        return self._seen

    async def check(self, spec: UnitSpec) -> None:
        self._shim_spec(spec, 0, 0)

    async def start(self, spec: UnitSpec, fence: int, generation: int) -> None:
        seen = self._seen.get(spec.name)
        if seen is not None and seen.live:
            return
        shim_spec = self._shim_spec(spec, fence, generation)
        folder = self.units / spec.name
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Refused(f"{folder} can't be made: {error.strerror}") from error
        self._watch(spec.name)
        answer = await asyncio.to_thread(_launch, marshal.dumps(shim_spec, 4))
        if answer == "busy":
            self._logger.info("a shim of the unit runs already", unit=spec.name)
        elif answer != "ok":
            raise Refused(f"its shim could not start: {answer}")
        self._load(spec.name)

    async def stop(self, unit: str, kill: bool = False) -> None:
        self._signal(unit, signal.SIGINT if kill else signal.SIGTERM)

    async def reload(self, unit: str) -> None:
        self._signal(unit, signal.SIGHUP)

    def _signal(self, unit: str, number: signal.Signals) -> None:
        """To the shim of the unit's run, if it lives."""
        status = load_status(self.units / unit)
        if status is None or status["phase"] == "ended":
            return
        pidfd = self._pidfds.get(unit)
        if pidfd is not None and pidfd[0] == status["run"]:
            try:
                signal.pidfd_send_signal(pidfd[1], number)
            except ProcessLookupError:
                self._load(unit)

    async def collect(self, unit: str, run: str) -> None:
        folder = self.units / unit
        status = load_status(folder)
        if status is not None and status["run"] == run and (unit not in self._seen or not self._seen[unit].live):
            (folder / "status").unlink(missing_ok=True)
            self._seen.pop(unit, None)
            if status["cgroup"]:
                cgroups.remove(status["cgroup"])  # its shim did so, if it lived

    def kept(self) -> set[str]:
        try:
            return set(os.listdir(self.units))
        except OSError:
            return set()

    async def remove(self, unit: str) -> None:
        if (seen := self._seen.get(unit)) is not None and seen.live:
            return
        self._seen.pop(unit, None)
        if self._watcher is not None:
            for watch in [watch for watch, name in self._names.items() if name == unit]:
                self._watcher.remove(watch)
                del self._names[watch]
        await asyncio.to_thread(shutil.rmtree, self.units / unit, ignore_errors=True)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        for unit in list(self._pidfds):
            self._drop_pidfd(unit)

    def say(self, unit: str, text: str) -> None:
        """A line of the supervisor's own in the unit's journal (appends of a line are atomic beside the shim's)."""
        folder = self.units / unit
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            journal = JournalFile(str(folder), size_max_bytes=1 << 62)
        except OSError:
            return
        journal.say(text)
        journal.close()

    # -- watching ---------------------------------------------------------------------------------------------

    def _watch(self, unit: str) -> None:
        if self._watcher is not None and unit not in self._names.values():
            self._names[self._watcher.add(str(self.units / unit), inotify.MOVED_TO)] = unit

    def _heard(self, watch: int, mask: int, name: str) -> None:
        if mask & inotify.OVERFLOW:
            for unit in list(self._names.values()):
                self._load(unit)
        elif name == "status" and watch in self._names:
            self._load(self._names[watch])

    def _load(self, unit: str) -> None:
        """Take over what the unit's shim wrote."""
        status = load_status(self.units / unit)
        before = self._seen.get(unit)
        if status is None or status["boot_id"] != self.place.boot_id:
            self._seen.pop(unit, None)  # of another boot: nothing of it can run
        else:
            if status["phase"] != "ended" and not self._follow(unit, status):
                status = self._lost(unit, status)
            self._seen[unit] = seen_of(status)
        if self._seen.get(unit) != before:
            self._changed()

    def _follow(self, unit: str, status: dict[str, Any]) -> bool:
        """Be woken when the run's shim ends; False if it has ended."""
        known = self._pidfds.get(unit)
        if known is not None and known[0] == status["run"]:
            return bool(cgroups.start_ticks(status["shim"]) == status["shim_ticks"])
        self._drop_pidfd(unit)
        try:
            pidfd = os.pidfd_open(status["shim"])
        except OSError:
            return False
        # opened first and checked then: a pid that was given to another process is seen
        if cgroups.start_ticks(status["shim"]) != status["shim_ticks"]:
            os.close(pidfd)
            return False
        self._pidfds[unit] = (status["run"], pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._shim_ended, unit)
        return True

    def _shim_ended(self, unit: str) -> None:
        self._drop_pidfd(unit)
        self._load(unit)

    def _drop_pidfd(self, unit: str) -> None:
        if (known := self._pidfds.pop(unit, None)) is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])

    def _lost(self, unit: str, status: dict[str, Any]) -> dict[str, Any]:
        """The shim was killed: without it nobody knows the unit's end, so what is left of it is killed too."""
        if (status := load_status(self.units / unit) or status)["phase"] == "ended":
            return status  # its last word came in between
        if status["cgroup"]:
            cgroups.kill(status["cgroup"])
            cgroups.remove(status["cgroup"])
        elif status["pid"] and cgroups.start_ticks(status["pid"]) == status["ticks"]:
            cgroups.signal(status["pid"], signal.SIGKILL)
        result, detail = "lost", "its shim was killed"
        if status["fenced"] and deadline.now_ms() >= deadline.read(self.place.folder, self.place.boot_id):
            # the watchdog ends a shim that has not started its unit yet
            result, detail = "fence", "this machine's right to run fenced units has ended; not started"
        self.say(unit, f"{detail}; nothing is left of it")
        return {**status, "phase": "ended", "result": result, "detail": detail, "signal": 9}

    async def _kill_strangers(self) -> None:
        """End what stands in our cgroups and is under no shim's record: somebody removed the unit's folder."""
        root = self.place.options.get("cgroup_root", "")
        for hierarchy in [root] if root not in ("", "none") else cgroups.roots():
            base = f"{hierarchy}/{self.place.group}"
            for unit in os.listdir(base) if os.path.isdir(base) else ():
                path = f"{base}/{unit}"
                seen = self._seen.get(unit)
                if not os.path.isdir(path) or (seen is not None and seen.live):
                    continue
                if left := cgroups.pids(path):
                    self._logger.warning("processes without a record are killed", unit=unit, pids=left)
                    cgroups.kill(path)
                for _ in range(50):  # the dead leave the group when they are reaped
                    if not cgroups.pids(path):
                        break
                    await asyncio.sleep(0.02)
                cgroups.remove(path)

    # -- what the shim is told --------------------------------------------------------------------------------

    def _shim_spec(self, spec: UnitSpec, fence: int, generation: int) -> dict[str, Any]:
        """Raises Refused for what this machine can't do: a user, a file that is missing."""
        process, place = spec.process, self.place
        if process is None:
            raise Refused("it has no [Service] for the engine process", final=True)
        identity = _identity(process)
        environment = {"PATH": PATH, "LANG": "C.UTF-8", **identity.pop("environment")}
        environment |= process.environment
        environment |= from_files(process.environment_files)
        environment |= {"CORELOG_MACHINE": place.machine, "CORELOG_UNIT": spec.name, "CORELOG_FENCE": str(fence)}
        expand = {key: [_told(command, environment) for command in getattr(process, key)] for key in _COMMANDS}
        cwd = process.cwd
        if cwd in ("~", "-~"):
            cwd = cwd.replace("~", environment.get("HOME", "/"))
        root = place.options.get("cgroup_root", "")
        return {
            "unit": spec.name,
            "machine": place.machine,
            "fence": fence,
            "generation": generation,
            "run": secrets.token_hex(8),
            "fenced": spec.fenced and place.fences,
            "folder": str(self.units / spec.name),
            "cgroup": "" if root == "none" else f"{place.group}/{spec.name}",
            "cgroup_roots": [root] if root not in ("", "none") else None,
            "type": process.type,
            "remain": process.remain,
            "env": environment,
            "cwd": cwd,
            "umask": process.umask,
            "kill_signal": int(process.kill_signal),
            "kill_mode": process.kill_mode,
            "start_timeout_s": process.start_timeout_s,
            "stop_timeout_s": process.stop_timeout_s,
            "journal_bytes": int(place.options.get("journal_bytes", 8 * 1024 * 1024)),
            **identity,
            **expand,
        }


_COMMANDS = ("pre", "start", "post", "reload", "stop", "stop_post")


def seen_of(status: dict[str, Any]) -> Seen:
    return Seen(
        unit=status["unit"],
        engine="process",
        run=status["run"],
        phase=status["phase"],
        fence=status["fence"],
        generation=status["generation"],
        fenced=status["fenced"],
        ready=status["ready"],
        pid=status["pid"],
        started_ticks=status["ticks"],
        boot_id=status["boot_id"],
        code=status["code"],
        signal=status["signal"],
        result=status["result"],
        detail=status["detail"],
        text=status["text"],
    )


def _launch(raw: bytes) -> str:
    """Start a shim; ``ok``, ``busy`` or why not. Blocks for some tens of milliseconds."""
    try:
        done = subprocess.run(
            program("shim"),
            input=raw,
            capture_output=True,
            start_new_session=True,
            timeout=START_S,
            check=False,
            env={},
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout.decode("utf-8", "replace") or done.stderr.decode("utf-8", "replace").strip()[-400:]


def _identity(process: ProcessSpec) -> dict[str, Any]:
    """uid, gid, groups and what the environment says of them. Raises Refused for a user that isn't there."""
    try:
        group = _group(process.group) if process.group else None
        if not process.user:
            none = None if group is None else os.getuid()
            return {"uid": none, "gid": group, "groups": [], "environment": {}}
        known = pwd.getpwuid(int(process.user)) if process.user.isdigit() else pwd.getpwnam(process.user)
    except KeyError as error:
        raise Refused(f"this machine has no user or group like that: {error.args[0]}", final=True) from error
    gid = known.pw_gid if group is None else group
    environment = {"USER": known.pw_name, "LOGNAME": known.pw_name, "HOME": known.pw_dir, "SHELL": known.pw_shell}
    return {
        "uid": known.pw_uid,
        "gid": gid,
        "groups": os.getgrouplist(known.pw_name, gid),
        "environment": environment,
    }


def _group(name: str) -> int:
    return grp.getgrgid(int(name)).gr_gid if name.isdigit() else grp.getgrnam(name).gr_gid


def from_files(files: tuple[tuple[str, bool], ...]) -> dict[str, str]:
    """The variables of EnvironmentFile=, later files over earlier ones. Raises Refused naming file and line."""
    out: dict[str, str] = {}
    for path, optional in files:
        try:
            out |= environment_file(Path(path).read_text())
        except FileNotFoundError as error:
            if not optional:
                raise Refused(f"EnvironmentFile={path} is not there") from error
        except (OSError, UnicodeDecodeError, BadValue) as error:
            raise Refused(f"EnvironmentFile={path}: {error}") from error
    return out


def _told(command: Command, environment: dict[str, str]) -> dict[str, Any]:
    """A command as the shim takes it: variables expanded, but $MAINPID, which only the shim knows."""
    argv = command.argv
    expanded = list(argv)
    if not command.plain:
        expanded = expand_environment(argv, {**environment, "MAINPID": "$MAINPID"})
    return {"argv": expanded, "path": command.path, "ignore": command.ignore, "privileged": command.privileged}
