"""A v2 data folder → v2's keys and users. Pure but for the files.

The requests after the snapshot are done again on a store that holds all of etcd's tree, as its own replay does it, so
that indices come out alike.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from actors.kv.bolt.errors import FolderError
from actors.kv.bolt.imported import PAIR_BYTES_MAX
from actors.kv.bolt.v2 import KEYS, Backup, Request, read
from actors.kv.v2 import delete, put
from actors.kv.v2.auth import Auth, Kept, Role, User
from actors.kv.v2.errors import V2Error
from actors.kv.v2.nodes import Dir, File, blob_of, shown
from actors.kv.v2.store import BESIDE, LINE_BYTES, Store
from streams.events import kv as says
from streams.events import kv2 as users_say
from streams.events.base import Base64, Blob

#: Where etcd keeps v2's users, and what nobody may change as a key.
USERS = "/2"
#: The year 2000.
EXPIRES_NS_MIN = 946_684_800 * 10**9
_READ_ONLY = frozenset({"/", "/0", KEYS})


def store_of(folder: Path, now_ms: int) -> tuple[Store, Kept]:
    """All keys and users at the last commit that the folder knows. A TTL has what it has left at ``now_ms``.

    Raises FolderError, OSError.
    """
    whole = _Whole(read(folder))
    users = _users(whole.store)
    return _keys(whole, now_ms), users


def twice_escaped(value: str) -> Blob:
    """As :func:`actors.kv.bolt.imported.twice_escaped`."""
    return Base64(_raw(value)) if len(value) > LINE_BYTES else blob_of(value)


def _raw(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


class _Whole:
    """``store``: all of etcd's tree; ``expires_ns``: of what has a TTL."""

    def __init__(self, backup: Backup) -> None:
        self.store, self.expires_ns = Store(), dict[str, int]()
        store = self.store
        for path in ("/0", KEYS):
            store.dirs[""].children[path] = None
            store.dirs[path] = Dir({}, 0, 0)
        for node in backup.nodes:
            if node.value is not None and node.path in store.dirs:
                raise FolderError("member/snap", 0, f"{node.path!r} is a file where etcd has a directory")
            expires_ms = max(1, node.expires_ns // 1_000_000) if node.expires_ns is not None else 0
            store.dirs[node.path.rpartition("/")[0]].children[node.path] = None
            if node.value is None:
                children = store.dirs[node.path].children if node.path in store.dirs else {}
                store.dirs[node.path] = Dir(children, node.created, node.modified, expires_ms)
            else:
                store.files[node.path] = File(node.value, node.created, node.modified, expires_ms)
            if node.expires_ns is not None:
                store.ttls[node.path], self.expires_ns[node.path] = 0, node.expires_ns
        store.index = backup.index
        for one in backup.requests:
            self._do(one)

    def _do(self, one: Request) -> None:
        """A request that etcd refused is refused again, and changes nothing."""
        store, path = self.store, one.path
        try:
            match one.method:
                case "SYNC":
                    self._expire(one.time_ns)
                case "MEMBER":
                    store.skip(one.steps, 0)
                case "DELETE" if path not in _READ_ONLY:
                    before = (blob_of(one.prev_value) if one.prev_value else None, one.prev_index or None)
                    delete.delete(store, says.Delete(blob_of(path), one.recursive, one.dir, *before), 0)
                case "POST":
                    said = says.Append(blob_of(path), blob_of(one.value), one.dir, _ttl_s(one))
                    made = put.append(store, said, _ms(one))
                    self._note(made[2], one)
                case "PUT" if path not in _READ_ONLY:
                    self._put(path, one)
                case _:
                    pass
        except V2Error:
            pass

    def _put(self, path: str, one: Request) -> None:
        said = says.Set(
            blob_of(path),
            blob_of(one.value),
            one.dir,
            _ttl_s(one),
            one.prev_exist,
            blob_of(one.prev_value) if one.prev_value else None,
            one.prev_index or None,
            bool(one.refresh),
        )
        put.put(self.store, said, _ms(one))
        self._note(path, one)

    def _note(self, path: str, one: Request) -> None:
        """The store counts milliseconds, etcd's SYNC nanoseconds."""
        self.expires_ns.pop(path, None)
        if _expires(one):
            self.expires_ns[path] = one.expires_ns

    def _expire(self, time_ns: int) -> None:
        store = self.store
        for _, path in sorted((at, path) for path, at in self.expires_ns.items() if at <= time_ns):
            if store.find(path) is not None and path in store.ttls:
                store.remove(path)
                store.skip(1, 0)
        self.expires_ns = {path: at for path, at in self.expires_ns.items() if path in store.ttls}


def _ttl_s(one: Request) -> int | None:
    """No seconds after the time that :func:`_ms` gives; None: no TTL."""
    return 0 if _expires(one) else None


def _expires(one: Request) -> bool:
    """Where etcd makes a key, it takes a time before the year 2000 for none: too long a TTL becomes negative."""
    makes = one.method == "POST" or one.prev_exist is False or (one.prev_exist is None and not _compares(one))
    return one.expires_ns >= EXPIRES_NS_MIN if makes else bool(one.expires_ns)


def _compares(one: Request) -> bool:
    return bool(one.prev_index or one.prev_value)


def _ms(one: Request) -> int:
    return one.expires_ns // 1_000_000


def _keys(whole: _Whole, now_ms: int) -> Store:
    """The part below :data:`KEYS`, as a store of its own."""
    source, made, cut = whole.store, Store(), len(KEYS)
    made.index = source.index
    for path in source.dirs:
        if path.startswith(KEYS + "/"):
            there = source.dirs[path]
            made.dirs[path[cut:]] = Dir({}, there.created, there.modified, there.expires_ms)
    for path, file in source.files.items():
        if path.startswith(KEYS + "/"):
            if (size := len(_raw(file.value or ""))) > PAIR_BYTES_MAX:
                why = (
                    f"the value of {shown(path[cut:])} has {size} bytes; no more than {PAIR_BYTES_MAX} can be imported"
                )
                raise FolderError("member", 0, why)
            made.files[path[cut:]] = file
    for path, there in source.dirs.items():
        if path == KEYS or path.startswith(KEYS + "/"):
            made.dirs[path[cut:]].children = {child[cut:]: None for child in there.children}
    for path in source.ttls:
        if path.startswith(KEYS + "/") and (node := source.find(path)) is not None:
            made.ttls[path[cut:]] = max(0, node.expires_ms - now_ms)
    if made.index:
        made.history.append((made.index, "update", BESIDE, None, None, now_ms, True))
    return made


# -- users ----------------------------------------------------------------------------------------------------


class _Rights(msgspec.Struct):
    read: list[str] | None = None
    write: list[str] | None = None


class _Permissions(msgspec.Struct):
    kv: _Rights = msgspec.field(default_factory=_Rights)


class _Role(msgspec.Struct):
    role: str
    permissions: _Permissions = msgspec.field(default_factory=_Permissions)
    grant: _Permissions | None = None
    revoke: _Permissions | None = None


class _User(msgspec.Struct):
    user: str
    password: str = ""
    roles: list[str] | None = None


def _users(store: Store) -> Kept:
    """UNSET: nobody used them."""
    if USERS not in store.dirs:
        return msgspec.UNSET
    enabled = store.files.get(f"{USERS}/enabled")
    auth = Auth(made=enabled is not None, enabled=enabled is not None and enabled.value == "true")
    for path, text in _below(store, f"{USERS}/users"):
        user = _decoded(path, text, _User)
        auth.users[user.user] = User(user.password, user.roles)
    for path, text in _below(store, f"{USERS}/roles"):
        role = _decoded(path, text, _Role)
        rights = role.permissions.kv
        auth.roles[role.role] = Role(rights.read, rights.write, _said(role.grant), _said(role.revoke))
    return auth


def _said(permissions: _Permissions | None) -> users_say.Rights | None:
    return users_say.Rights(permissions.kv.read, permissions.kv.write) if permissions else None


def _below(store: Store, folder: str) -> Iterator[tuple[str, str]]:
    there = store.dirs.get(folder)
    for path in there.children if there else ():
        if (file := store.files.get(path)) is not None:
            yield path, file.value or ""


_Decoded = TypeVar("_Decoded", _User, _Role)


def _decoded(path: str, text: str, kind: type[_Decoded]) -> _Decoded:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise FolderError("member", 0, f"{path}: {error}") from None
