"""Files put in place whole or not at all: written beside, checked, renamed. What a killed process left is removed."""

import contextlib
import fcntl
import grp
import hashlib
import os
import pwd
import secrets
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from node.sync.plan import Plan, State
from node.sync.render import OUTPUT_MAX_BYTES

_MARK = ".corelog-sync."
#: The next one means to the kernel that an owner stays as it is.
ID_MAX = 2**32 - 2
#: Who may write in the folder of a file may put a link or a pipe in our way: it isn't followed, and not waited for.
_AS_FOUND = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: A file is made and locked within this.
_LOCKED_S = 2.0


class FileProblem(Exception):
    """Why the file is as it was."""

    exit_code = 1


def state(dest: Path) -> State:
    """Of a file that is larger than any that we write only the beginning. Raises FileProblem."""
    try:
        found = os.lstat(dest)
        if stat.S_ISLNK(found.st_mode):
            return State("link")
        if not stat.S_ISREG(found.st_mode):
            return State("other")
        fd = os.open(dest, os.O_RDONLY | _AS_FOUND)
        with open(fd, "rb") as file:
            # it may have become another one meanwhile
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return State("other")
            content = file.read(OUTPUT_MAX_BYTES + 1)
        return State("file", content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    except (FileNotFoundError, NotADirectoryError):
        return State("missing")
    except OSError as error:
        raise FileProblem(f"it can't be read: {error.strerror}") from error


def user_id(name: str) -> int | None:
    """Raises FileProblem."""
    return _id("user", name, lambda: pwd.getpwnam(name).pw_uid)


def group_id(name: str) -> int | None:
    """Raises FileProblem."""
    return _id("group", name, lambda: grp.getgrnam(name).gr_gid)


def _id(what: str, name: str, named: Callable[[], int]) -> int | None:
    if not name:
        return None
    try:
        if not (name.isascii() and name.isdecimal()):
            return named()
    except (KeyError, ValueError):
        raise FileProblem(f"this machine has no {what} {name}") from None
    if len(name) > len(str(ID_MAX)) or int(name) > ID_MAX:
        raise FileProblem(f"{name[:60]} is no {what}: numbers go to {ID_MAX}")
    return int(name)


async def put(
    dest: Path, content: bytes, plan: Plan, check: Callable[[Path], Awaitable[None]], reload_due: bool = False
) -> None:
    """``check`` raises FileProblem: the new file isn't taken. ``reload_due``: remember that somebody has to be told.

    Raises FileProblem; the file is as it was then, and nothing is left beside it.
    """
    new: Path | None = None
    fd = -1
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        sweep(dest)
        new = dest.parent / f"{_marked(dest)}{secrets.token_hex(6)}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        _fill(fd, content, plan)
        await check(new)
        if reload_due:
            _mark(dest)
        os.rename(new, dest)
        new = None
        _sync_folder(dest.parent)
    except OSError as error:
        raise FileProblem(f"it can't be written: {error.strerror}") from error
    finally:
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink()
        if fd >= 0:
            os.close(fd)


def _fill(fd: int, content: bytes, plan: Plan) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
    if plan.uid is not None or plan.gid is not None:
        owner = (-1 if plan.uid is None else plan.uid, -1 if plan.gid is None else plan.gid)
        now = os.fstat(fd)
        if owner not in ((-1, -1), (now.st_uid, now.st_gid)):
            os.chown(fd, *owner)
    os.fchmod(fd, plan.mode)  # after chown, which may take bits away
    os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _marked(dest: Path) -> str:
    """What the names of all files beside ``dest`` begin with."""
    return f"{_MARK}{hashlib.sha256(os.fsencode(dest.name)).hexdigest()[:12]}."


def sweep(dest: Path) -> None:
    """Remove what processes left that were killed while they wrote ``dest``: nobody holds its lock."""
    start = _marked(dest)
    try:
        names = [name for name in os.listdir(dest.parent) if name.startswith(start) and not name.endswith(".reload")]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            fd = os.open(dest.parent / name, os.O_RDONLY | _AS_FOUND)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(fd)
                if found.st_size or time.time() - found.st_ctime > _LOCKED_S:
                    os.unlink(dest.parent / name)
            finally:
                os.close(fd)


# -- what must not be forgotten when the process is killed between the file and its reload ------------------------


def _reload_mark(dest: Path) -> Path:
    return dest.parent / f"{_marked(dest)}reload"


def _mark(dest: Path) -> None:
    fd = os.open(_reload_mark(dest), os.O_WRONLY | os.O_CREAT | _AS_FOUND, 0o600)
    os.close(fd)


def reload_due(dest: Path) -> bool:
    return os.path.lexists(_reload_mark(dest))


def reloaded(dest: Path) -> None:
    with contextlib.suppress(OSError):
        _reload_mark(dest).unlink()
