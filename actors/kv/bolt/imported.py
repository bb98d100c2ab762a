"""etcd's snapshot file → a store of ours. Pure but for the file."""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from actors.kv.bolt.errors import SnapshotError
from actors.kv.bolt.snapshot import Raw, Snapshot, read
from actors.kv.proto import auth_pb2
from actors.kv.v3.auth import Auth, Permission, User
from actors.kv.v3.leases import Lease
from actors.kv.v3.store import Store


def store_of(path: str | Path) -> Store:
    """All that is in the file: revisions since the compaction, leases, alarms, users and roles.

    A lease has what it had left when the file was written. Raises OSError, BoltError, SnapshotError.
    """
    store = Store()
    with read(path) as snapshot:
        _leases(store, snapshot)
        store.alarms = dict.fromkeys(snapshot.alarms())
        _auth(store.auth, snapshot.auth())
        revs = store.revs
        for rev in snapshot.revisions():
            revs.relink(rev)
        revs.relinked(snapshot.revision, snapshot.compacted)
        if snapshot.scheduled > snapshot.compacted:
            revs.compact(snapshot.scheduled)
    while store.revs.sweep():
        pass
    return store


def parts(store: Store, size: int) -> Iterator[str]:
    """The store's lines, in pieces of about ``size`` bytes."""
    gathered: list[bytes] = []
    held = 0
    for line in store.encode():
        gathered.append(line)
        held += len(line)
        if held >= size:
            yield b"".join(gathered).decode()
            gathered, held = [], 0
    if gathered:
        yield b"".join(gathered).decode()


def _leases(store: Store, snapshot: Snapshot) -> None:
    for row in snapshot.leases():
        store.leases.by_id[row.id] = Lease(row.id, row.ttl_s, 0, row.left_s * 1000, {})


def _auth(auth: Auth, rows: Iterator[Raw]) -> None:
    for bucket, key, value in rows:
        try:
            _auth_row(auth, bucket, key, value)
        except (DecodeError, UnicodeDecodeError) as error:
            raise SnapshotError(f"{bucket.decode()} {key[:32].hex()}", str(error)) from None


def _auth_row(auth: Auth, bucket: bytes, key: bytes, value: bytes) -> None:
    """Raises DecodeError, UnicodeDecodeError."""
    if bucket == b"authUsers":
        user = auth_pb2.User.FromString(value)
        name = user.name.decode()
        auth.users[name] = User(name, "" if user.options.no_password else user.password.decode(), sorted(user.roles))
    elif bucket == b"authRoles":
        role = auth_pb2.Role.FromString(value)
        found = [Permission(one.permType, one.key, one.range_end) for one in role.keyPermission]
        auth.roles[role.name.decode()] = found
    elif key == b"authEnabled":
        auth.enabled = value == b"\1"
    elif key == b"authRevision":
        auth.revision = int.from_bytes(value, "big")
