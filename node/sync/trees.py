"""A folder of read-only files that changes all at once: ``PATH`` is a link to the newest of several trees beside it.

What is shown next is made of a tree that is out of use, by what differs between the two; files that are the same are
hard links to those of the tree in use. Then the link is replaced by rename(2). Nothing in a tree is changed while the
link leads to it, and for a while after.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from node.sync.layout import Steps

#: A tree that was replaced stays as it is for so long: who is on the way through it finds what was there.
GRACE_S = 2.0
SPARES_MAX = 2


class TreeProblem(Exception):
    """Why the tree can't be shown; the one before stays. The message names the path."""

    exit_code = 1


class Tree:
    def __init__(self, root: bytes) -> None:
        self.root = root
        self.files: dict[bytes, bytes] = {}
        self.retired_s = float("-inf")


class Trees:
    """One process at a time has a ``PATH``: from ``open`` to ``close``. ``mode``: of the files."""

    def __init__(self, path: Path, mode: int = 0o444) -> None:
        self.path = Path(os.path.abspath(path))
        self.home = self.path.parent / f".{self.path.name}.trees"
        self._mode = mode
        #: who may read a folder may also enter it
        self._folder_mode = mode | (mode & 0o444) >> 2
        self._live: Tree | None = None
        self._spares: list[Tree] = []
        self._lock = -1

    def open(self) -> None:
        """Raises TreeProblem: the path is in use, or something else is there."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shown = self._check()
            for entry in list(self.home.iterdir()):
                if entry.name not in ("lock", shown):
                    remove(os.fsencode(entry))  # what a process left that was killed
        except BlockingIOError as error:
            raise TreeProblem(f"{self.path} is kept by another process (see {self.home}/lock)") from error
        except OSError as error:
            raise TreeProblem(f"{self.path} can't be made: {error.strerror}: {error.filename}") from error

    def _check(self) -> str:
        """Name of the tree that is shown now, or empty."""
        if self.path.is_symlink():
            target = Path(os.readlink(self.path))
            if target.parent.name != self.home.name:
                raise TreeProblem(f"{self.path} is a link to {target}, which isn't ours")
            return target.name
        if self.path.is_dir():
            try:
                self.path.rmdir()
            except OSError as error:
                raise TreeProblem(f"{self.path} is there, and isn't empty") from error
        elif self.path.exists():
            raise TreeProblem(f"{self.path} is there, and is no folder")
        return ""

    def close(self) -> None:
        """What is shown stays."""
        for tree in self._spares:
            remove(tree.root)
        self._spares.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def show(self, files: Mapping[bytes, bytes]) -> int:
        """Show just these, by path; returns how many files were written, linked or removed. Raises TreeProblem."""
        tree = self._spare()
        try:
            changed = self._become(tree, files)
            self._swap(tree)
        except OSError as error:
            remove(tree.root)
            raise TreeProblem(f"{self.path} stays as it is: {error.strerror}: {error.filename!r}") from error
        if self._live is not None:
            self._live.retired_s = time.monotonic()
            self._spares.append(self._live)
        self._live = tree
        return changed

    def prepare(self) -> None:
        """Have a spare tree before the next change, and no more than needed."""
        if self._live is not None and not self._spares:
            tree = Tree(self._fresh())
            with contextlib.suppress(OSError):
                self._become(tree, self._live.files)
                self._spares.append(tree)
        now_s = time.monotonic()
        while len(self._spares) > SPARES_MAX and now_s - self._spares[0].retired_s > GRACE_S:
            remove(self._spares.pop(0).root)

    def _spare(self) -> Tree:
        """The tree that is out of use for longest, if that is long enough; else one with nothing in it."""
        if self._spares and time.monotonic() - self._spares[0].retired_s > GRACE_S:
            return self._spares.pop(0)
        return Tree(self._fresh())

    def _fresh(self) -> bytes:
        return os.fsencode(self.home / secrets.token_hex(6))

    # -- files ------------------------------------------------------------------------------------------------

    def _become(self, tree: Tree, files: Mapping[bytes, bytes]) -> int:
        """Raises OSError."""
        steps = Steps(tree.files, files)
        opened: set[bytes] = set()
        self._open_folder(tree.root, tree.root, opened)
        for path in steps.remove:
            self._open_folder(os.path.dirname(tree.root + b"/" + path), tree.root, opened)
            os.unlink(tree.root + b"/" + path)
        for path in steps.prune:
            folder = tree.root + b"/" + path
            self._open_folder(os.path.dirname(folder), tree.root, opened)
            with contextlib.suppress(OSError):
                os.rmdir(folder)
                opened.discard(folder)
        live = self._live
        for path in steps.put:
            target, value = tree.root + b"/" + path, files[path]
            self._open_folder(os.path.dirname(target), tree.root, opened)
            if path in tree.files:
                os.unlink(target)
            if live is None or live.files.get(path) != value or not _linked(live.root + b"/" + path, target):
                self._write(target, value)
        for folder in opened:
            os.chmod(folder, self._folder_mode)
        tree.files = dict(files)
        return len(steps.remove) + len(steps.put)

    def _open_folder(self, folder: bytes, root: bytes, opened: set[bytes]) -> None:
        """Be able to write there; it is made, with all above it, if it isn't there."""
        if folder in opened:
            return
        if len(folder) > len(root):
            self._open_folder(os.path.dirname(folder), root, opened)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            os.chmod(folder, 0o700)
        opened.add(folder)

    def _write(self, target: bytes, value: bytes) -> None:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(value)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, self._mode)
        finally:
            os.close(fd)

    def _swap(self, tree: Tree) -> None:
        new = self.home / f"link-{secrets.token_hex(6)}"
        os.symlink(os.path.join(os.fsencode(self.home.name), os.path.basename(tree.root)), os.fsencode(new))
        os.rename(new, self.path)


def _linked(old: bytes, new: bytes) -> bool:
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOENT):
            raise
        return False
    return True


def remove(root: bytes) -> None:
    """A tree, or what there is of it; its folders may be read-only."""
    if os.path.islink(root) or not os.path.isdir(root):
        with contextlib.suppress(OSError):
            os.unlink(root)
        return
    for folder, _, _ in os.walk(root):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(root, ignore_errors=True)
