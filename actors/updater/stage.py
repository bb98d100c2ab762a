"""Staging: a version becomes a tree of hardlinks, every content hashed on the way; whole or not there at all."""

import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from actors.updater.fetch import Fetcher, Wanted
from actors.updater.manifest import BadManifest, Directory, File, Link, Manifest, version_fault
from actors.updater.store import (
    Adding,
    BadObject,
    NoTree,
    Object,
    Store,
    UpdaterError,
    digest,
    remove_tree,
    space_error,
    sync_filesystem,
    sync_path,
    write_whole,
)

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
#: At most so many bad objects are told by name.
NAMED_MAX = 3


class Done(msgspec.Struct, frozen=True):
    """``already``: it was staged and is whole. ``fetched_bytes``: came over the network."""

    fetched_bytes: int = 0
    already: bool = False


def stage(store: Store, version: str, tree: str, fetcher: Fetcher) -> Done:
    """Make ``versions/<version>`` the tree ``tree``, fetching what isn't here; checked also if it is there already.

    Raises FetchFailed, BadObject, NoSpace, Cancelled or UpdaterError; the version is then staged as it was before, or
    not at all. Objects that turned out damaged are dropped from the store and fetched anew.
    """
    if fault := version_fault(version):
        raise UpdaterError(fault)
    try:
        with store.locked():
            manifest = _manifest(store, tree, fetcher)
            if store.staged().get(version) == tree and not check(store, version, manifest):
                return Done(fetcher.fetched_bytes, already=True)
            aside = store.versions / f".staging-{version}"
            remove_tree(aside)
            try:
                _fill(store, manifest, aside, fetcher)
                _publish(store, version, tree, aside)
            finally:
                remove_tree(aside)
            return Done(fetcher.fetched_bytes)
    except BadManifest as error:
        raise UpdaterError(f"tree {tree} of version {version}: {error}") from error
    except OSError as error:
        raise space_error(error, f"staging {version}") from error


def check(store: Store, version: str, manifest: Manifest) -> dict[str, str]:
    """What is wrong with a staged version: path → fault. All contents are read; files not in it don't matter."""
    root = f"{store.versions}/{version}"
    return {item.path: fault for item in manifest.items if (fault := _staged_fault(f"{root}/{item.path}", item))}


def clean(store: Store) -> None:
    """Remove what a killed process left half-done. Only the updater itself calls this, when it starts."""
    for path in [*store.versions.glob(".*"), *store.folder.glob(".*"), *store.trees.glob(".*")]:
        remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    for path in store.objects.glob(".new-*"):
        # a publisher that lives holds the lock; who can't have it alone leaves these for the next time
        with store.locked(exclusive=True):
            remove_tree(path)
    for path in store.versions.glob("*.tree"):
        if not (store.versions / path.stem).is_dir():
            path.unlink(missing_ok=True)


def _staged_fault(path: str, item: Directory | File | Link) -> str:
    try:
        status = os.lstat(path)
    except OSError as error:
        return "missing" if error.errno == errno.ENOENT else os.strerror(error.errno or 0)
    if isinstance(item, Link):
        right = stat.S_ISLNK(status.st_mode) and os.readlink(path) == item.target
        return "" if right else f"not the link to {item.target!r}"
    if stat.S_IMODE(status.st_mode) != item.mode:
        return f"mode {stat.S_IMODE(status.st_mode):o} instead of {item.mode:o}"
    if isinstance(item, Directory):
        return "" if stat.S_ISDIR(status.st_mode) else "not a directory"
    if not stat.S_ISREG(status.st_mode) or status.st_size != item.size_bytes:
        return f"{status.st_size} bytes instead of {item.size_bytes}"
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return "" if digest(descriptor, item.size_bytes) == item.hash else "its content has another hash"
    finally:
        os.close(descriptor)


def _manifest(store: Store, tree: str, fetcher: Fetcher) -> Manifest:
    try:
        return store.tree(tree)
    except NoTree:
        return fetcher.tree(tree)


def _fill(store: Store, manifest: Manifest, aside: Path, fetcher: Fetcher) -> None:
    """Get what isn't here, then link all of it below ``aside``."""
    missing = [file for file in _once(manifest.files) if not os.path.lexists(store.object_path(file.hash, file.mode))]
    links = len(manifest.items) - sum(1 for _ in manifest.files)
    store.check_space(sum(file.size_bytes for file in missing), len(missing) + links, "staging")
    _obtain(store, missing, fetcher)
    store.step("stage")
    bad = _link(store, manifest, aside)
    if bad:
        # damaged objects are worth nothing to anyone: drop them, and try to have them anew
        for file in bad:
            Path(store.object_path(file.hash, file.mode)).unlink(missing_ok=True)
        _obtain(store, list(bad), fetcher, bad)
        remove_tree(aside)
        if bad := _link(store, manifest, aside):
            raise BadObject(_told(bad), {(file.hash, file.mode): why for file, why in bad.items()})
    store.step("stage-sync")
    sync_filesystem(store.versions)


def _once(files: Iterable[File]) -> list[File]:
    """One file for each object (hash and mode)."""
    seen: dict[Object, File] = {}
    for file in files:
        seen.setdefault((file.hash, file.mode), file)
    return list(seen.values())


def _obtain(store: Store, missing: list[File], fetcher: Fetcher, why: dict[File, str] | None = None) -> None:
    """Put the missing objects into the store: copied from one of another mode that is whole, else fetched."""
    wanted: dict[str, Wanted] = {}
    with Adding(store) as adding:
        for file in missing:
            if not _copied(store, file, adding):
                before = wanted.get(file.hash)
                modes = (*before.modes, file.mode) if before else (file.mode,)
                wanted[file.hash] = Wanted(file.hash, file.size_bytes, modes, file.path)
    try:
        fetcher.objects(list(wanted.values()))
    except UpdaterError as error:
        if why:
            raise type(error)(f"{error} ({_told(why)})") from error
        raise


def _copied(store: Store, file: File, adding: Adding) -> bool:
    found = store.find(file.hash)
    if found is None or store.object_fault((file.hash, int(found.suffix[1:], 8)), file.size_bytes):
        return False
    descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        adding.copy(descriptor, (file.hash, file.mode), file.size_bytes)
    finally:
        os.close(descriptor)
    return True


def _link(store: Store, manifest: Manifest, aside: Path) -> dict[File, str]:
    """Make the tree; returns the files whose object is missing or damaged (they are left out)."""
    root = str(aside)
    os.mkdir(root, 0o755)
    os.chmod(root, 0o755)
    bad: dict[File, str] = {}
    known: dict[Object, str] = {}
    modes: list[tuple[str, int]] = []
    for item in manifest.items:
        path = f"{root}/{item.path}"
        if isinstance(item, File):
            object_ = (item.hash, item.mode)
            fault = known.get(object_)
            if fault is None:
                fault = known[object_] = store.object_fault(object_, item.size_bytes)
            if fault:
                bad[item] = fault
            else:
                _hardlink(store, object_, path)
        elif isinstance(item, Directory):
            os.mkdir(path, 0o700)
            modes.append((path, item.mode))
        else:
            os.symlink(item.target, path)
    for path, mode in reversed(modes):
        os.chmod(path, mode)
    return bad


def _hardlink(store: Store, object_: Object, path: str) -> None:
    source = store.object_path(*object_)
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        # ext4 allows 65,000 names of an inode: an object that is everywhere (an empty file) gets a fresh one
        fresh = f"{source}.fresh"
        Path(fresh).unlink(missing_ok=True)
        Path(fresh).write_bytes(Path(source).read_bytes())
        os.chmod(fresh, object_[1])
        os.rename(fresh, source)
        os.link(source, path, follow_symlinks=False)


def _publish(store: Store, version: str, tree: str, aside: Path) -> None:
    """Give the staged tree its name. A damaged one that stood there is exchanged in one step and removed."""
    final = store.versions / version
    note = store.versions / f"{version}.tree"
    if final.is_dir() and (not note.exists() or note.read_text().strip() != tree):
        if store.running() == version:
            raise UpdaterError(f"version {version} runs with another tree than {tree}; switch away from it first")
        remove_tree(final)
    store.step("stage-note")
    write_whole(note, tree.encode() + b"\n")
    store.step("stage-name")
    if final.is_dir():
        _exchange(aside, final)
    else:
        os.rename(aside, final)
    sync_path(store.versions)
    store.step("staged")


def _exchange(one: Path, other: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE: both names at once, so that the version is never missing."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def _told(bad: dict[File, str]) -> str:
    named = [f"object {file.hash} of {file.path!r}: {why}" for file, why in list(bad.items())[:NAMED_MAX]]
    more = f"; and {len(bad) - NAMED_MAX} more" if len(bad) > NAMED_MAX else ""
    return "; ".join(named) + more
