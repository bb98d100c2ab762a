"""Publishing: a folder becomes objects and a manifest in the store of this machine."""

import errno
import hashlib
import os
import stat
from pathlib import Path

from actors.updater import manifest as manifests
from actors.updater.manifest import BadManifest, Directory, File, Item, Link, Manifest
from actors.updater.store import CHUNK_BYTES, Adding, Step, Store, UpdaterError, no_step, space_error, write_all
from streams.events.update import Publish

#: Files up to this size are read whole and hashed before anything is written.
SMALL_BYTES = 1024 * 1024
HEALTH_TIMEOUT_MS = 30_000


class CannotPublish(UpdaterError):
    """The folder is missing, holds what a tree can't, or changed while it was read; the message names the path."""

    step = "publish"
    exit_code = 2
    http_status = 422


def publish_folder(
    data_folder: Path,
    source: Path,
    version: str,
    *,
    health: str = "",
    health_timeout_ms: int = HEALTH_TIMEOUT_MS,
    gateways: list[str] | None = None,
    machine: str = "",
    step: Step = no_step,
) -> Publish:
    """Put the tree at ``source`` into the store of ``data_folder`` (a node's); returns what to say on the log.

    Idempotent: the same tree gives the same hash and writes nothing twice. Killed at any point it leaves whole objects
    or none. Raises CannotPublish, NoSpace or UpdaterError, having changed nothing that anyone sees.
    """
    if fault := manifests.version_fault(version):
        raise CannotPublish(fault)
    if health_timeout_ms <= 0:
        raise CannotPublish(f"a health time-out of {health_timeout_ms} ms leaves no time for the check")
    store = Store(data_folder / "updater", step)
    tree = publish(store, source)
    manifest = store.tree(tree)
    return Publish(
        tree=tree,
        files=sum(1 for _ in manifest.files),
        size_bytes=manifest.size_bytes,
        health=health,
        health_timeout_ms=health_timeout_ms,
        gateways=list(gateways or []),
        machine=machine,
    )


def publish(store: Store, source: Path) -> str:
    """As :func:`publish_folder`; returns the tree's hash."""
    root = _checked_root(store, source)
    try:
        with store.locked():
            with Adding(store) as adding:
                manifest = _walk(root, adding)
            return store.put_tree(manifest.encode())
    except BadManifest as error:
        raise CannotPublish(f"{source}: {error}") from error
    except OSError as error:
        raise space_error(error, f"publishing {source}") from error


def _checked_root(store: Store, source: Path) -> str:
    try:
        root = os.path.realpath(source, strict=True)
    except OSError as error:
        what = "there is no such folder" if error.errno == errno.ENOENT else os.strerror(error.errno or 0)
        raise CannotPublish(f"{source}: {what}; name the folder whose content is the version") from error
    if not os.path.isdir(root):
        raise CannotPublish(f"{source}: not a folder; name the folder whose content is the version")
    if os.path.commonpath([root, os.path.realpath(store.folder)]) == root:
        raise CannotPublish(f"{source}: the data folder {store.folder} lies in it and would be published with it")
    return root


def _walk(root: str, adding: Adding) -> Manifest:
    items: list[Item] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(f"{root}/{folder}" if folder else root) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if fault := manifests.path_fault(path):
                    raise CannotPublish(f"{root}: path {path!r}: {fault}; rename it")
                item = _item(f"{root}/{path}", path, entry, adding)
                items.append(item)
                if isinstance(item, Directory):
                    waiting.append(path)
    return manifests.build(items)


def _item(full: str, path: str, entry: "os.DirEntry[str]", adding: Adding) -> Item:
    try:
        if entry.is_symlink():
            target = os.readlink(full)
            if fault := manifests.target_fault(target):
                raise CannotPublish(f"{full!r}: {fault}")
            return Link(path, target)
        if entry.is_dir(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            return Directory(_mode(full, status), path)
        if not entry.is_file(follow_symlinks=False):
            raise CannotPublish(f"{full!r}: a device, socket or pipe can't be part of a version; remove it")
        return _file(full, path, adding)
    except FileNotFoundError:
        raise CannotPublish(f"{full!r} vanished while it was read; publish again when nothing writes there") from None
    except PermissionError as error:
        raise CannotPublish(f"{full!r}: {os.strerror(error.errno or 0)}") from error


def _file(full: str, path: str, adding: Adding) -> File:
    descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        mode = _mode(full, status)
        if status.st_size > SMALL_BYTES:
            hash_ = _large(descriptor, status.st_size, mode, adding, full)
        else:
            content = os.read(descriptor, SMALL_BYTES + 1)
            if len(content) != status.st_size:
                raise CannotPublish(f"{full!r} changed while it was read; publish again when nothing writes there")
            hash_ = hashlib.sha256(content).hexdigest()
            if not adding.has((hash_, mode)):
                adding.store.step("object")
                adding.room(len(content), f"publishing {full!r}")
                adding.put(content, (hash_, mode))
        after = os.fstat(descriptor)
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise CannotPublish(f"{full!r} changed while it was read; publish again when nothing writes there")
        return File(mode, path, status.st_size, hash_)
    finally:
        os.close(descriptor)


def _large(descriptor: int, size_bytes: int, mode: int, adding: Adding, full: str) -> str:
    """Hash, and copy unless the store has it. What is copied is hashed again: the name fits what was written."""
    hasher = hashlib.sha256()
    while chunk := os.read(descriptor, CHUNK_BYTES):
        hasher.update(chunk)
    if adding.has((hasher.hexdigest(), mode)):
        return hasher.hexdigest()
    adding.store.step("object")
    adding.room(size_bytes, f"publishing {full!r}")
    os.lseek(descriptor, 0, os.SEEK_SET)
    hasher = hashlib.sha256()
    copy, path = adding.open()
    try:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            hasher.update(chunk)
            write_all(copy, chunk)
        adding.take(copy, path, (hasher.hexdigest(), mode), size_bytes)
    finally:
        os.close(copy)
    return hasher.hexdigest()


def _mode(full: str, status: os.stat_result) -> int:
    """The mode. Owners aren't kept, so a set-id bit is taken only where it means root already."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode) and (
        (mode & stat.S_ISUID and status.st_uid) or (mode & stat.S_ISGID and status.st_gid)
    ):
        raise CannotPublish(
            f"{full!r} is set-id of another owner than root; owners aren't kept, so it would become root's"
        )
    return mode
