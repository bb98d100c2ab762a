"""The store on disk: contents by hash, manifests by hash, versions as trees of hardlinks, and the link ``current``.

    <data folder>/updater/
      objects/ab/cdef….755    a content: SHA-256 in hex, split after two digits, and the mode of its inode (a hardlink
                              shares mode and content, so a content that a tree has with two modes is kept twice)
      trees/<sha256>          manifests, canonical bytes
      parts/<sha256>.part     fetches under way, resumed by range
      versions/<version>/     a staged tree; there is a whole one or none: it is made aside and renamed
      versions/<version>.tree the hash of its manifest, written before the tree is
      current                 link to versions/<version>: what runs
      leaving.json            a going back under way, with its reason (see switch.py)
      lock                    flock: shared by who adds, exclusive for who collects

Everything is written aside, synced, renamed. All functions block; callers run them in a thread.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.updater import manifest as manifests
from actors.updater.manifest import BadManifest, Manifest

CHUNK_BYTES = 1024 * 1024
#: Above this many new files one syncfs is cheaper than an fsync each.
SYNC_EACH_MAX = 32
#: New objects are made durable and given their names in groups of this many files or bytes.
GROUP_FILES = 4000
GROUP_BYTES = 256 * 1024 * 1024
#: While adding, free space is asked for again after so much.
ROOM_BYTES = 16 * 1024 * 1024
#: Never filled by us: left free for the log.
RESERVE_BYTES = 64 * 1024 * 1024

#: Called with the name of each step that is about to be done; tests kill the process there.
Step = Callable[[str], None]
_libc = ctypes.CDLL(None, use_errno=True)


def no_step(_name: str) -> None:
    return None


class UpdaterError(ValueError):
    """Base of what can go wrong here. ``step`` names where, as in ``update.failed``."""

    step = "store"
    exit_code = 4
    http_status = 409


class NoSpace(UpdaterError):
    """Not enough room; nothing was written (or what was is removed)."""

    step = "space"
    http_status = 507


class BadObject(UpdaterError):
    """Objects of a tree are missing or damaged. ``bad``: object (hash and mode) → what is wrong."""

    step = "verify"

    def __init__(self, message: str, bad: "dict[Object, str]") -> None:
        super().__init__(message)
        self.bad = bad


class NoTree(UpdaterError):
    """A manifest is not in the store, or not what its name says."""

    step = "verify"


#: hash and mode: one inode of the store
Object = tuple[str, int]


class Store:
    """The store below ``folder`` (the data folder's ``updater/``), made if it isn't there."""

    def __init__(self, folder: Path, step: Step = no_step) -> None:
        self.folder = folder
        self.step = step
        self.objects = folder / "objects"
        self.trees = folder / "trees"
        self.parts = folder / "parts"
        self.versions = folder / "versions"
        self.current = folder / "current"
        for path in (self.objects, self.trees, self.parts, self.versions):
            path.mkdir(parents=True, exist_ok=True)
        # hash and mode are looked at by path text: pathlib would double the time of a large tree
        self._objects = str(self.objects)

    def object_path(self, hash_: str, mode: int) -> str:
        return f"{self._objects}/{hash_[:2]}/{hash_[2:]}.{mode:o}"

    def find(self, hash_: str) -> Path | None:
        """Any file with this content, whatever its mode."""
        for mode in (0o644, 0o755):
            if os.path.lexists(path := self.object_path(hash_, mode)):
                return Path(path)
        try:
            names = os.listdir(self.objects / hash_[:2])
        except FileNotFoundError:
            return None
        found = sorted(name for name in names if name.startswith(hash_[2:] + "."))
        return self.objects / hash_[:2] / found[0] if found else None

    def object_fault(self, object_: Object, size_bytes: int) -> str:
        """What is wrong with an object, read whole; an empty string if it is as its name says."""
        hash_, mode = object_
        try:
            # O_NOATIME would save writes, but only the owner may use it
            descriptor = os.open(self.object_path(hash_, mode), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return os.strerror(error.errno or 0)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != mode:
                return f"damaged: mode {stat.S_IMODE(status.st_mode):o} instead of {mode:o}"
            if status.st_size != size_bytes:
                return f"damaged: {status.st_size} bytes instead of {size_bytes}"
            return "" if digest(descriptor, size_bytes) == hash_ else "damaged: its content has another hash"
        except OSError as error:
            return f"unreadable: {os.strerror(error.errno or 0)}"
        finally:
            os.close(descriptor)

    def tree(self, hash_: str) -> Manifest:
        """Read and check a manifest. Raises NoTree (missing, damaged) or BadManifest (as published)."""
        try:
            raw = (self.trees / hash_).read_bytes()
        except FileNotFoundError:
            raise NoTree(f"tree {hash_} is not in the store") from None
        if hashlib.sha256(raw).hexdigest() != hash_:
            (self.trees / hash_).unlink(missing_ok=True)
            raise NoTree(f"tree {hash_} was damaged on disk; it is removed and will be fetched anew")
        return manifests.parse(raw)

    def put_tree(self, raw: bytes) -> str:
        """Keep a manifest's bytes (checked by the caller); returns its hash."""
        hash_ = hashlib.sha256(raw).hexdigest()
        self.step("tree")
        write_whole(self.trees / hash_, raw)
        return hash_

    def staged(self) -> dict[str, str]:
        """Version → tree hash of what is staged whole."""
        out = {}
        for path in sorted(self.versions.glob("*.tree")):
            if (self.versions / path.stem).is_dir():
                out[path.stem] = path.read_text().strip()
        return out

    def running(self) -> str:
        """The version that ``current`` points to; empty if there is none."""
        try:
            target = os.readlink(self.current)
        except OSError:
            return ""
        return target.removeprefix("versions/") if (self.folder / target).is_dir() else ""

    @contextmanager
    def locked(self, exclusive: bool = False) -> Iterator[None]:
        """Who adds objects shares the lock; who collects has it alone (and waits for the others)."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def check_space(self, size_bytes: int, files: int, what: str) -> None:
        """Raises NoSpace if ``size_bytes`` in ``files`` new files don't fit beside the reserve."""
        fs = os.statvfs(self.folder)
        need = size_bytes + files * fs.f_frsize // 2
        free = max(0, fs.f_bavail * fs.f_frsize - min(RESERVE_BYTES, fs.f_blocks * fs.f_frsize // 20))
        if need > free:
            raise NoSpace(
                f"{what} needs {need} bytes, {free} are free in {self.folder}; free some, or run `corelog update gc`"
            )
        if fs.f_files and files > fs.f_favail:
            raise NoSpace(f"{what} needs {files} inodes, {fs.f_favail} are free in {self.folder}")


class Adding:
    """Puts new objects into the store in groups: written aside, synced together, then given their names.

    A context manager; on an error what was written aside is removed. ``added_bytes`` counts what was new.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.added_bytes = 0
        self._pending: dict[Object, str] = {}
        self._bytes = 0
        self._count = 0
        self._unasked = ROOM_BYTES
        self._aside = store.objects / f".new-{os.getpid()}-{os.urandom(4).hex()}"

    def __enter__(self) -> "Adding":
        self._aside.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            remove_tree(self._aside)

    def has(self, object_: Object) -> bool:
        return object_ in self._pending or os.path.lexists(self.store.object_path(*object_))

    def room(self, size_bytes: int, what: str) -> None:
        """Before a write: raises NoSpace if it doesn't fit. The file system is asked once per ROOM_BYTES."""
        self._unasked += size_bytes + 1
        if self._unasked > ROOM_BYTES:
            self.store.check_space(size_bytes, 1, what)
            self._unasked = 1

    def open(self) -> tuple[int, str]:
        """A new file to write a content to: descriptor and path; then :meth:`take` it."""
        self._count += 1
        path = f"{self._aside}/{self._count}"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    def put(self, content: bytes, object_: Object) -> None:
        """Add a content that was checked against its hash."""
        if self.has(object_):
            return
        descriptor, path = self.open()
        try:
            write_all(descriptor, content)
            self.take(descriptor, path, object_, len(content))
        finally:
            os.close(descriptor)

    def take(self, descriptor: int, path: str, object_: Object, size_bytes: int) -> None:
        """The file at ``path`` (of this file system) is whole and checked: it becomes ``object_``."""
        os.fchmod(descriptor, object_[1])
        self._pending[object_] = path
        self._bytes += size_bytes
        self.added_bytes += size_bytes
        if len(self._pending) >= GROUP_FILES or self._bytes >= GROUP_BYTES:
            self.commit()

    def keep(self, descriptor: int, path: str, hash_: str, modes: tuple[int, ...], size_bytes: int) -> None:
        """As :meth:`take`, for a content that is wanted with several modes: the file and copies of it."""
        for mode in modes[1:]:
            self.copy(descriptor, (hash_, mode), size_bytes)
        self.take(descriptor, path, (hash_, modes[0]), size_bytes)

    def copy(self, source: int, object_: Object, size_bytes: int) -> None:
        """Add a copy of the open file ``source``, whose content was checked, as ``object_``."""
        descriptor, path = self.open()
        try:
            at = 0
            while chunk := os.pread(source, CHUNK_BYTES, at):
                write_all(descriptor, chunk)
                at += len(chunk)
            self.take(descriptor, path, object_, size_bytes)
        finally:
            os.close(descriptor)

    def commit(self) -> None:
        """Make the group durable, then visible."""
        if not self._pending:
            return
        self.store.step("objects-sync")
        few = len(self._pending) <= SYNC_EACH_MAX
        if few:
            for path in self._pending.values():
                sync_path(path)
        else:
            sync_filesystem(self.store.objects)
        self.store.step("objects-name")
        folders = set()
        for (hash_, mode), path in self._pending.items():
            final = self.store.object_path(hash_, mode)
            try:
                os.rename(path, final)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(final), exist_ok=True)
                os.rename(path, final)
            folders.add(os.path.dirname(final))
        for folder in sorted(folders) if few else ():
            sync_path(folder)
        if few:
            sync_path(self.store.objects)
        else:
            sync_filesystem(self.store.objects)
        self._pending, self._bytes = {}, 0


def digest(descriptor: int, size_bytes: int) -> str:
    """SHA-256 in hex of an open file, read from its start."""
    if size_bytes <= CHUNK_BYTES:
        return hashlib.sha256(os.read(descriptor, CHUNK_BYTES + 1)).hexdigest()
    hasher = hashlib.sha256()
    while chunk := os.read(descriptor, CHUNK_BYTES):
        hasher.update(chunk)
    return hasher.hexdigest()


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file aside, sync, rename, sync its folder: the old content or the new one, never a part."""
    aside = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_path(path.parent)


def sync_path(path: str | Path) -> None:
    """fsync of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: Path) -> None:
    """syncfs(2) of the file system that ``path`` is on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """rm -rf without following links; what is gone already is no error. Folders without w are opened up."""
    try:
        entries = list(os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        os.chmod(path, 0o700)
        entries = list(os.scandir(path))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path))
        else:
            try:
                os.unlink(entry.path)
            except PermissionError:
                os.chmod(path, 0o700)
                os.unlink(entry.path)
    path.rmdir()


def space_error(error: OSError, what: str) -> UpdaterError:
    """ENOSPC and EDQUOT as NoSpace, anything else as UpdaterError; both name the file."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{what}: the disk is full{where}; free some space, or run `corelog update gc`")
    return UpdaterError(f"{what}: {os.strerror(error.errno or 0)}{where}")


__all__ = [
    "Adding",
    "BadManifest",
    "BadObject",
    "NoSpace",
    "NoTree",
    "Object",
    "Store",
    "UpdaterError",
    "digest",
    "remove_tree",
    "space_error",
    "sync_filesystem",
    "sync_path",
    "write_all",
    "write_whole",
]
