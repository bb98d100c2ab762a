"""Switching: one atomic link, an account of why a version is left, the health command, and what to drop.

``current`` is replaced by rename(2), so whoever opens it sees the old version or the new one. A going back writes its
reason down first (``leaving.json``): killed between the link and the fact, the next start still knows why.
"""

import asyncio
import contextlib
import os
import signal
import stat
import sys
import time
from pathlib import Path

import msgspec

from actors.updater.store import NoTree, Store, UpdaterError, remove_tree, sync_path, write_whole

#: The end of the health command's output that goes into a reason.
OUTPUT_BYTES_MAX = 400
#: A tree or object that no version of the log names is kept this long: it may be being published.
YOUNG_S = 3600.0

# dies with its starter, so that a killed node leaves no health command behind; then becomes the shell
_GUARD = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);os.execv('/bin/sh',['sh','-c',sys.argv[2]])"
)


class CannotSwitch(UpdaterError):
    """The version isn't staged, or the link can't be replaced; the old one runs on."""

    step = "switch"


class Leaving(msgspec.Struct, frozen=True):
    """A going back from ``version`` to ``to`` (empty: nothing ran before)."""

    version: str
    to: str
    reason: str


class Health(msgspec.Struct, frozen=True):
    ok: bool
    reason: str


class Freed(msgspec.Struct, frozen=True):
    versions: list[str]
    freed_bytes: int


def switch(store: Store, version: str) -> None:
    """Point ``current`` at a staged version. Raises CannotSwitch; then it points where it did."""
    if version not in store.staged():
        raise CannotSwitch(f"version {version} is not staged here")
    try:
        aside = store.folder / f".current-{os.getpid()}-{os.urandom(4).hex()}"
        os.symlink(f"versions/{version}", aside)
        store.step("link-made")
        os.rename(aside, store.current)
        store.step("link-renamed")
        sync_path(store.folder)
    except OSError as error:
        raise CannotSwitch(f"version {version}: {error.strerror} ({store.current})") from error


def go_back(store: Store, leaving: Leaving) -> None:
    """Leave an unhealthy version; ``to`` runs again, or nothing if nothing ran before. Raises CannotSwitch."""
    store.step("leaving")
    write_whole(store.folder / "leaving.json", msgspec.json.encode(leaving))
    store.step("leaving-noted")
    if leaving.to:
        switch(store, leaving.to)
    else:
        store.current.unlink(missing_ok=True)
        sync_path(store.folder)
    store.step("left")


def leaving(store: Store) -> Leaving | None:
    """The going back that is under way, or was said but not yet struck out."""
    try:
        return msgspec.json.decode((store.folder / "leaving.json").read_bytes(), type=Leaving)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def forget_leaving(store: Store) -> None:
    (store.folder / "leaving.json").unlink(missing_ok=True)


async def check_health(store: Store, version: str, previous: str, command: str, timeout_s: float) -> Health:
    """Run ``command`` in a shell, in the version's folder, with CORELOG_VERSION and CORELOG_PREVIOUS set.

    Exit status 0 within ``timeout_s`` is healthy. All processes of its group are killed when it is over.
    """
    if not command:
        return Health(True, "it has no health command")
    environment = {**os.environ, "CORELOG_VERSION": version, "CORELOG_PREVIOUS": previous}
    # a pipe of our own: asyncio's would wait for whatever the command left in the background with its output open
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    output = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(reader, _collect_output, reader, output)
    try:
        try:
            os.set_blocking(writer, True)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), command),
                cwd=store.versions / version,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
            )
        finally:
            os.close(writer)
        return await _ended(process, timeout_s, reader, output)
    except OSError as error:
        return Health(False, f"the health command could not be started: {error}")
    finally:
        loop.remove_reader(reader)
        os.close(reader)


async def _ended(process: asyncio.subprocess.Process, timeout_s: float, reader: int, output: bytearray) -> Health:
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        _collect_output(reader, output)
        return Health(False, f"the health command was not done after {timeout_s:g} s{_shown(output)}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code == 0:
        return Health(True, "")
    _collect_output(reader, output)
    ended = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
    return Health(False, f"the health command {ended}{_shown(output)}")


def _collect_output(reader: int, output: bytearray) -> None:
    """Keep the end of what the command says."""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(reader, 65536):
            output.extend(chunk)
            del output[: -4 * OUTPUT_BYTES_MAX]
            if len(chunk) < 65536:
                return
        asyncio.get_running_loop().remove_reader(reader)


def _shown(output: bytearray) -> str:
    text = bytes(output[-OUTPUT_BYTES_MAX:]).decode("utf-8", "replace").strip()
    return f": {text}" if text else ""


def collect(store: Store, keep: set[str], keep_trees: set[str], known_trees: set[str]) -> Freed:
    """Drop staged versions not in ``keep`` and everything that no kept tree needs.

    ``keep_trees``: trees that stay, staged here or not. ``known_trees``: all that the log names; one it doesn't name
    is dropped when it is older than YOUNG_S. What ``current`` points to is never dropped.
    """
    with store.locked(exclusive=True):
        staged = store.staged()
        doomed = [version for version in staged if version not in keep and version != store.running()]
        needed = keep_trees | {tree for version, tree in staged.items() if version not in doomed}
        for version in doomed:
            store.step("collect-version")
            trash = store.versions / f".trash-{version}"
            remove_tree(trash)
            os.rename(store.versions / version, trash)
            (store.versions / f"{version}.tree").unlink(missing_ok=True)
            remove_tree(trash)
        objects = _needed_objects(store, needed, known_trees)
        store.step("collect-objects")
        return Freed(doomed, _drop_objects(store, objects))


def _needed_objects(store: Store, needed: set[str], known_trees: set[str]) -> set[str]:
    """Paths of the objects that stay; drops the manifests that don't."""
    objects: set[str] = set()
    old_s = time.time() - YOUNG_S
    for path in store.trees.iterdir():
        if path.name not in needed and (path.name in known_trees or path.stat().st_mtime < old_s):
            path.unlink(missing_ok=True)
            continue
        with contextlib.suppress(NoTree, ValueError):
            objects |= {store.object_path(file.hash, file.mode) for file in store.tree(path.name).files}
    return objects


def _drop_objects(store: Store, needed: set[str]) -> int:
    freed = 0
    old_s = time.time() - YOUNG_S
    for folder in store.objects.iterdir():
        if folder.name.startswith("."):
            continue
        with os.scandir(folder) as scanned:
            entries = [entry for entry in scanned if entry.path not in needed]
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            os.unlink(entry.path)
            freed += status.st_blocks * 512 if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0
    for path in store.parts.iterdir():
        if path.stat().st_mtime < old_s:
            path.unlink(missing_ok=True)
    return freed


def current_folder(data_folder: Path) -> Path:
    """Where the running version is found: units and people read it through this link."""
    return data_folder / "updater" / "current"
