"""etcd's snapshot file → a store of ours. Pure but for the file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from actors.kv.bolt.errors import SnapshotError
from actors.kv.bolt.snapshot import Raw, Snapshot, read
from actors.kv.proto import auth_pb2
from actors.kv.v3.auth import Auth, Permission, User
from actors.kv.v3.imports import NUMBER_MAX
from actors.kv.v3.leases import Lease
from actors.kv.v3.revs import Rev
from actors.kv.v3.store import LINE_BYTES, Store
from streams.events.base import Base64, Blob, blob

#: A key and its value in one record of the log, beside what else is in their line.
PAIR_BYTES_MAX = 5 << 19


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
            _check_size(rev)
            revs.relink(rev)
        revs.relinked(snapshot.revision, snapshot.compacted)
        if snapshot.scheduled > snapshot.compacted:
            revs.compact(snapshot.scheduled)
    while store.revs.sweep():
        pass
    return store


def taken_off(store: Store) -> list[bytes]:
    """Take keys off the leases that the file lacks; which they were. etcd logs it and goes on: nothing ends them."""
    newest, known = store.revs.newest, store.leases.by_id
    lost = [key for key in store.revs.live if (lease := newest[key].lease) and lease not in known]
    for key in lost:
        newest[key].lease = 0
    return lost


def parts(store: Store, size: int) -> Iterator[str]:
    """The store's lines, in pieces as :func:`joined` makes them."""
    return joined(store.encode(twice_escaped), size)


def twice_escaped(raw: bytes) -> Blob:
    """The form of a key or value in a line that stands in an event: as text its escapes would be escaped again, so what
    is long goes as base64."""
    return Base64(raw) if len(raw) > LINE_BYTES else blob(raw)


def joined(lines: Iterable[bytes], size: int) -> Iterator[str]:
    """In pieces of ``size`` bytes at most, but for a line that is longer."""
    gathered: list[bytes] = []
    held = 0
    for line in lines:
        if gathered and held + len(line) > size:
            yield b"".join(gathered).decode()
            gathered, held = [], 0
        gathered.append(line)
        held += len(line)
    if gathered:
        yield b"".join(gathered).decode()


def _check_size(rev: Rev) -> None:
    size = len(rev.key) + len(rev.value)
    if size > PAIR_BYTES_MAX:
        where = f"key {rev.key[:100]!r} at revision {rev.mod}"
        raise SnapshotError(where, f"it has {size} bytes with its value; no more than {PAIR_BYTES_MAX} can be imported")


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
        if auth.revision > NUMBER_MAX:
            raise SnapshotError("auth authRevision", f"{auth.revision}; no more than {NUMBER_MAX} can be")
