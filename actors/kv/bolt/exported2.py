"""v2's keys and users → a data folder as ``etcdctl backup``'s, on which etcd 3.4 starts by ``--force-new-cluster``.

``member/snap`` has a raft snapshot with the whole tree as JSON, and a database that knows of nothing but the same index
of raft (etcd looks for it); ``member/wal`` a log that knows that snapshot. Nobody is a member: the first who starts on
it becomes one. Sources: etcd 3.4's ``etcdctl/ctlv2/command/backup_command.go``, ``server/etcdserver/raft.go``.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from crc32c import crc32c

from actors.kv.bolt import wal
from actors.kv.bolt.imported2 import USERS
from actors.kv.bolt.snapshot import written
from actors.kv.bolt.v2 import FOREVER, KEYS
from actors.kv.v2.auth import Auth, Kept, Role
from actors.kv.v2.nodes import Dir, File, shown
from actors.kv.v2.store import Store
from actors.kv.v3.hashes import varint
from actors.kv.v3.store import Store as V3Store

#: The place in raft's log, which has nothing before it.
INDEX, TERM = 1, 1
SHA_BYTES = 32


def write(folder: Path, store: Store, users: Kept) -> int:
    """Into a new folder; the bytes of its snapshot. Raises OSError (FileExistsError: there is something)."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(17, "there is something in it", str(folder))
    snap, log = folder / "member" / "snap", folder / "member" / "wal"
    for made in (snap, log):
        made.mkdir(parents=True, mode=0o700)
    data = orjson.dumps({"Root": _root(store, users), "CurrentIndex": store.index, "CurrentVersion": 2})
    content = _snapshot(data)
    _put(snap / f"{TERM:016x}-{INDEX:016x}.snap", [content])
    _put(snap / "db", _database())
    _put(log / f"{0:016x}-{0:016x}.wal", [_log()])
    return len(content)


def _put(path: Path, pieces: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as out:
        out.writelines(pieces)
        out.flush()
        os.fsync(descriptor)


# -- the tree -------------------------------------------------------------------------------------------------


def _root(store: Store, users: Kept) -> dict[str, Any]:
    children = {"0": _directory("/0", {}), "1": _node(store, "", store.dirs[""])}
    if isinstance(users, Auth) and users.made:
        children["2"] = _of_users(users)
    return _directory("/", children)


def _node(store: Store, path: str, node: File | Dir) -> dict[str, Any]:
    made = {
        "Path": KEYS + shown(path),
        "CreatedIndex": node.created,
        "ModifiedIndex": node.modified,
        "ExpireTime": _time(node.expires_ms),
        "Value": "",
        "Children": None,
    }
    if isinstance(node, Dir):
        cut = len(path) + 1
        made["Children"] = {shown(child[cut:]): _node(store, child, store.node(child)) for child in node.children}
    else:
        made["Value"] = shown(node.value or "")
    return made


def _time(expires_ms: int) -> str:
    if not expires_ms:
        return FOREVER
    return datetime.fromtimestamp(expires_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _directory(path: str, children: dict[str, Any]) -> dict[str, Any]:
    return {**_file(path, ""), "Children": children}


def _file(path: str, value: str) -> dict[str, Any]:
    return {
        "Path": path,
        "CreatedIndex": 0,
        "ModifiedIndex": 0,
        "ExpireTime": FOREVER,
        "Value": value,
        "Children": None,
    }


def _of_users(auth: Auth) -> dict[str, Any]:
    """As etcd's ``v2auth`` keeps them: JSON in files."""
    users = {name: {"user": name, "password": user.hash, "roles": user.roles} for name, user in auth.users.items()}
    roles = {name: {"role": name, "permissions": _rights(role)} for name, role in auth.roles.items()}
    parts: dict[str, dict[str, Any]] = {"users": users, "roles": roles}
    children = {
        part: _directory(
            f"{USERS}/{part}",
            {name: _file(f"{USERS}/{part}/{name}", orjson.dumps(one).decode()) for name, one in named.items()},
        )
        for part, named in parts.items()
    }
    enabled = _file(f"{USERS}/enabled", "true" if auth.enabled else "false")
    return _directory(USERS, {**children, "enabled": enabled})


def _rights(role: Role) -> dict[str, Any]:
    return {"kv": {"read": role.read, "write": role.write}}


# -- files ----------------------------------------------------------------------------------------------------


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def _snapshot(data: bytes) -> bytes:
    """snappb.Snapshot of raftpb.Snapshot; without nodes in its state."""
    metadata = _bytes(1, b"") + _number(2, INDEX) + _number(3, TERM)
    inner = _bytes(1, data) + _bytes(2, metadata)
    return _number(1, crc32c(inner)) + _bytes(2, inner)


def _database() -> Iterator[bytes]:
    """v3's, of nothing; without the hash that etcd's snapshot files have behind them."""
    held = b""
    for chunk in written(V3Store(), INDEX, TERM):
        held += chunk
        if len(held) > SHA_BYTES:
            yield held[:-SHA_BYTES]
            held = held[-SHA_BYTES:]


def _log() -> bytes:
    """Who wrote it (any ids), the snapshots it knows, and that all up to the last one is committed."""
    ids = [secrets.randbits(63) | 1 for _ in range(2)]
    records = [
        (wal.METADATA, _number(1, ids[0]) + _number(2, ids[1])),
        (wal.SNAPSHOT, _number(1, 0) + _number(2, 0)),
        (wal.SNAPSHOT, _number(1, INDEX) + _number(2, TERM)),
        (wal.STATE, _number(1, TERM) + _number(2, 0) + _number(3, INDEX)),
    ]
    total, out = 0, [_framed(_number(1, wal.CRC) + _number(2, 0))]
    for kind, data in records:
        total = crc32c(data, total)
        out.append(_framed(_number(1, kind) + _number(2, total) + _bytes(3, data)))
    return b"".join(out)


def _framed(record: bytes) -> bytes:
    padding = -len(record) % wal.FRAME_BYTES
    frame = len(record) | ((0x80 | padding) << 56 if padding else 0)
    return frame.to_bytes(wal.FRAME_BYTES, "little") + record + bytes(padding)
