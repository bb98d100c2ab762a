"""A folder of read-only files that changes all at once: ``PATH`` is a link to the newest of several trees beside it.

What is shown next is made of a tree that is out of use, by what differs between the two; files that are the same are
hard links to those of the tree in use. Then the link is replaced by rename(2). Nothing in a tree is changed while the
link leads to it, and for a while after.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from node.sync.layout import Steps

#: A tree that was replaced stays as it is for so long: who is on the way through it finds what was there.
GRACE_S = 2.0
SPARES_MAX = 2
#: What we make in ``.NAME.trees`` beside ``lock``: trees, and links that are about to be renamed. No other name is
#: ever removed.
_OURS = re.compile("(link-)?[0-9a-f]{12}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeProblem(Exception):
    """Why the tree can't be shown; the one before stays. The message names the path."""

    exit_code = 1


class Tree:
    """``root``: its name in ``.NAME.trees``."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.files: dict[bytes, bytes] = {}
        self.retired_s = float("-inf")


class Trees:
    """One process at a time has a ``PATH``: from ``open`` to ``close``. ``mode``: of the files.

    Whoever may write in the folder that ``PATH`` is in can put links in our way, also while we run. So that folder and
    ``.NAME.trees`` are opened once, and all is done relative to them; in the second nobody else may write.
    """

    def __init__(self, path: Path, mode: int = 0o444) -> None:
        self.path = Path(os.path.abspath(path))
        self.home = self.path.parent / f".{self.path.name}.trees"
        self._mode = mode
        #: who may read a folder may also enter it; who may write a file may not put another one there
        self._folder_mode = (mode | (mode & 0o444) >> 2) & 0o755
        self._live: Tree | None = None
        self._spares: list[Tree] = []
        #: descriptors of the folder that ``PATH`` is in, of ``home``, of the lock
        self._parent = self._home = self._lock = -1

    def open(self) -> None:
        """Raises TreeProblem: the path is in use, or something else is there."""
        try:
            self._open()
        except BlockingIOError as error:
            self._let_go()
            raise TreeProblem(f"{self.path} is kept by another process (see {self.home}/lock)") from error
        except OSError as error:
            self._let_go()
            raise TreeProblem(f"{self.path} can't be made: {error.strerror}: {error.filename}") from error
        except TreeProblem:
            self._let_go()
            raise

    def _open(self) -> None:
        if not self.path.name:
            raise TreeProblem(f"{self.path} can't be a tree of ours: give it a name, such as /run/config")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._parent = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = self._opened_home()
        self._lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._home)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shown = self._check()
        for name in os.listdir(self._home):
            if name != shown and _OURS.fullmatch(name):
                remove(os.fsencode(name), self._home)  # what a process left that was killed

    def _opened_home(self) -> int:
        """A folder of ours alone. Raises TreeProblem, OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.home.name, 0o755, dir_fd=self._parent)
        try:
            fd = os.open(self.home.name, _FOLDER, dir_fd=self._parent)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise TreeProblem(
                f"{self.home} is a link or a file, not the folder in which we keep the trees of {self.path}; "
                "see who made it, and remove it"
            ) from error
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            os.close(fd)
            raise TreeProblem(
                f"{self.home} belongs to user {found.st_uid}, and we are user {os.geteuid()}: whoever owns it could "
                f"lead us elsewhere. Run this as user {found.st_uid}, or remove that folder"
            )
        if found.st_mode & 0o022:
            os.fchmod(fd, stat.S_IMODE(found.st_mode) & ~0o022)
        return fd

    def _check(self) -> str:
        """Name of the tree that is shown now, or empty."""
        name = self.path.name
        try:
            found = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return ""
        if stat.S_ISLNK(found.st_mode):
            target = Path(os.readlink(name, dir_fd=self._parent))
            if target.parent != Path(self.home.name):
                raise TreeProblem(f"{self.path} is a link to {target}, which isn't ours")
            return target.name
        if not stat.S_ISDIR(found.st_mode):
            raise TreeProblem(f"{self.path} is there, and is no folder")
        try:
            os.rmdir(name, dir_fd=self._parent)
        except OSError as error:
            raise TreeProblem(f"{self.path} is there, and isn't empty") from error
        return ""

    def close(self) -> None:
        """What is shown stays."""
        for tree in self._spares:
            remove(tree.root, self._home)
        self._spares.clear()
        self._let_go()

    def _let_go(self) -> None:
        for fd in (self._lock, self._home, self._parent):
            if fd >= 0:
                os.close(fd)
        self._parent = self._home = self._lock = -1

    def show(self, files: Mapping[bytes, bytes]) -> int:
        """Show just these, by path; returns how many files were written, linked or removed. Raises TreeProblem."""
        tree = self._spare()
        try:
            changed = self._become(tree, files)
            self._swap(tree)
        except OSError as error:
            remove(tree.root, self._home)
            raise TreeProblem(f"{self.path} stays as it is: {error.strerror}: {error.filename!r}") from error
        if self._live is not None:
            self._live.retired_s = time.monotonic()
            self._spares.append(self._live)
        self._live = tree
        return changed

    def prepare(self) -> None:
        """Have a spare tree before the next change, and no more than needed."""
        if self._live is not None and not self._spares:
            tree = Tree(_fresh())
            try:
                self._become(tree, self._live.files)
                self._spares.append(tree)
            except OSError:
                remove(tree.root, self._home)
        now_s = time.monotonic()
        while len(self._spares) > SPARES_MAX and now_s - self._spares[0].retired_s > GRACE_S:
            remove(self._spares.pop(0).root, self._home)

    def _spare(self) -> Tree:
        """The tree that is out of use for longest, if that is long enough; else one with nothing in it."""
        if self._spares and time.monotonic() - self._spares[0].retired_s > GRACE_S:
            return self._spares.pop(0)
        return Tree(_fresh())

    # -- files ------------------------------------------------------------------------------------------------

    def _become(self, tree: Tree, files: Mapping[bytes, bytes]) -> int:
        """Raises OSError."""
        steps = Steps(tree.files, files)
        opened: set[bytes] = set()
        self._open_folder(tree.root, tree.root, opened)
        for path in steps.remove:
            self._open_folder(os.path.dirname(tree.root + b"/" + path), tree.root, opened)
            os.unlink(tree.root + b"/" + path, dir_fd=self._home)
        for path in steps.prune:
            folder = tree.root + b"/" + path
            self._open_folder(os.path.dirname(folder), tree.root, opened)
            with contextlib.suppress(OSError):
                os.rmdir(folder, dir_fd=self._home)
                opened.discard(folder)
        live = self._live
        for path in steps.put:
            target, value = tree.root + b"/" + path, files[path]
            self._open_folder(os.path.dirname(target), tree.root, opened)
            if path in tree.files:
                os.unlink(target, dir_fd=self._home)
            same = live is not None and live.files.get(path) == value
            if live is None or not same or not self._linked(live.root + b"/" + path, target):
                self._write(target, value)
        for folder in opened:
            os.chmod(folder, self._folder_mode, dir_fd=self._home)
        tree.files = dict(files)
        return len(steps.remove) + len(steps.put)

    def _open_folder(self, folder: bytes, root: bytes, opened: set[bytes]) -> None:
        """Be able to write there; it is made, with all above it, if it isn't there."""
        closed = []
        while len(folder) >= len(root) and folder not in opened:
            closed.append(folder)
            folder = os.path.dirname(folder)
        for each in reversed(closed):
            try:
                os.mkdir(each, 0o700, dir_fd=self._home)
            except FileExistsError:
                os.chmod(each, 0o700, dir_fd=self._home)
            opened.add(each)

    def _write(self, target: bytes, value: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(target, flags, 0o600, dir_fd=self._home)
        try:
            rest = memoryview(value)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, self._mode)
        finally:
            os.close(fd)

    def _linked(self, old: bytes, new: bytes) -> bool:
        try:
            os.link(old, new, src_dir_fd=self._home, dst_dir_fd=self._home, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOENT):
                raise
            return False
        return True

    def _swap(self, tree: Tree) -> None:
        new = f"link-{secrets.token_hex(6)}"
        os.symlink(os.path.join(os.fsencode(self.home.name), tree.root), os.fsencode(new), dir_fd=self._home)
        try:
            os.rename(new, self.path.name, src_dir_fd=self._home, dst_dir_fd=self._parent)
        except OSError:
            os.unlink(new, dir_fd=self._home)
            raise


def _fresh() -> bytes:
    return secrets.token_hex(6).encode()


def remove(root: bytes, home: int) -> None:
    """A tree in the folder ``home``, or what there is of it; its folders may be read-only.

    No link is followed, and no folder of somebody else's is entered, who could make it one meanwhile.
    """
    folders = [root]
    for folder in folders:  # it grows
        with contextlib.suppress(OSError):
            found = os.stat(folder, dir_fd=home, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(folder, dir_fd=home)
                continue
            if found.st_uid != os.geteuid():
                continue
            os.chmod(folder, 0o700, dir_fd=home)
            fd = os.open(folder, _FOLDER, dir_fd=home)
            try:
                folders += [folder + b"/" + os.fsencode(name) for name in os.listdir(fd)]
            finally:
                os.close(fd)
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(folder, dir_fd=home)
