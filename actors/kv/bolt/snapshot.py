"""etcd's snapshot file: a bbolt file with etcd's buckets, and the SHA-256 of it behind.

Buckets: ``key``: revision (main, ``_``, sub, ``t`` for a tombstone) → mvccpb.KeyValue; ``lease``: id → leasepb.Lease;
``alarm``: etcdserverpb.AlarmMember → nothing; ``meta``: how far compaction and raft are; ``auth``, ``authUsers``,
``authRoles``; ``members``, ``members_removed``, ``cluster``, which a restore writes anew. Numbers are big-endian.

What a restore needs of it, tried with 3.4.23, 3.5.1 and 3.7.3: the bucket ``meta`` (without: 3.5 and 3.7 refuse, 3.4
loses the compaction), in it one of the two marks of the last compaction if there was one. Index and term are written
anew, every other bucket is made if it is missing, and a storage or cluster version is neither needed nor in the way.
"""

import hashlib
from collections.abc import Iterable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

from actors.kv.bolt import messages
from actors.kv.bolt.errors import BoltError, MessageError, SnapshotError
from actors.kv.bolt.file import Bucket, Writer
from actors.kv.bolt.read import File
from actors.kv.v3.imports import NUMBER_MAX
from actors.kv.v3.leases import TTL_MAX_S, Lease
from actors.kv.v3.revs import Rev, Revs
from actors.kv.v3.store import Store

HASH_BYTES = 32
#: A file is whole sectors; one with a hash behind it isn't.
SECTOR_BYTES = 512
HASHED_BYTES = 1 << 20

AUTH = (b"auth", b"authUsers", b"authRoles")
#: What etcd makes when it starts, whether anything is in them or not.
EMPTY = (b"members", b"members_removed", b"cluster")
SCHEDULED, FINISHED = b"scheduledCompactRev", b"finishedCompactRev"
INDEX, TERM = b"consistent_index", b"term"

#: Bucket, key, value.
Raw = tuple[bytes, bytes, bytes]


# -- writing --------------------------------------------------------------------------------------------------


class Writing:
    """A snapshot of a store as it is now; later changes are not in it. Then :meth:`plan`, then :meth:`chunks`.

    index, term: of raft, which a restore writes anew; a term tells 3.6 and newer that the file is as of 3.5.
    auth: what stands in the buckets :data:`AUTH`, in any order. ``size``: bytes of the file, when it is planned.
    """

    def __init__(self, store: Store, index: int = 1, term: int = 1, auth: Iterable[Raw] = ()) -> None:
        # revisions are never changed: the lists of them are all that has to be taken at once
        revs = store.revs.retained_lists()
        buckets = {name: dict[bytes, bytes]() for name in (b"lease", b"alarm", b"meta", *EMPTY, *AUTH)}
        buckets[b"lease"] = {_unsigned(one.id): _lease(one) for one in store.leases.by_id.values()}
        buckets[b"alarm"] = {messages.alarm(kind, member): b"" for kind, member in store.alarms}
        buckets[b"meta"] = _meta(store.revs, index, term)
        for bucket, key, value in auth:
            if bucket not in AUTH:
                raise ValueError(f"{bucket!r} is no bucket of auth")
            buckets[bucket][key] = value
        keys = Bucket(b"key", lambda: _pairs(revs), lambda: _sizes(revs))
        self._writer = Writer([keys, *(_small(name, pairs) for name, pairs in buckets.items())])

    @property
    def size(self) -> int:
        return self._writer.size + HASH_BYTES

    def plan(self) -> Iterator[None]:
        """Finds :attr:`size`, and gives the loop its turn at each step."""
        return self._writer.plan()

    def chunks(self) -> Iterator[bytes]:
        """The file, and its hash as the last chunk."""
        total = hashlib.sha256()
        for chunk in self._writer.chunks():
            total.update(chunk)
            yield chunk
        yield total.digest()


def written(store: Store, index: int = 1, term: int = 1, auth: Iterable[Raw] = ()) -> Iterator[bytes]:
    """The whole file as :class:`Writing` gives it; while that plans, chunks are empty."""
    writing = Writing(store, index, term, auth)
    for _ in writing.plan():
        yield b""
    yield from writing.chunks()


def _small(name: bytes, pairs: dict[bytes, bytes]) -> Bucket:
    return Bucket(name, lambda: sorted(pairs.items()))


def _pairs(revs: list[list[Rev]]) -> Iterator[tuple[bytes, bytes]]:
    encoded, named = messages.key_value, messages.revision_key
    return ((named(rev.mod, rev.sub, not rev.version), encoded(rev)) for some in revs for rev in some)


def _sizes(revs: list[list[Rev]]) -> Iterator[tuple[int, int]]:
    measured = messages.key_value_size
    return ((17 if rev.version else 18, measured(rev)) for some in revs for rev in some)


def _meta(revs: Revs, index: int, term: int) -> dict[bytes, bytes]:
    """etcd knows of no compaction of a prefix, and would serve its history with gaps: it is told to compact all keys as
    far when it starts."""
    out = {INDEX: _unsigned(index), TERM: _unsigned(term)}
    scheduled = max(revs.compacted, revs.floors.top) if revs.floors is not None else revs.compacted
    if scheduled >= 0:
        out[SCHEDULED] = messages.revision_key(scheduled, 0)
    if revs.compacted >= 0:
        out[FINISHED] = messages.revision_key(revs.compacted, 0)
    return out


def _lease(one: Lease) -> bytes:
    """What is left is told only once it is counted, as in etcd; 0 would mean the whole TTL."""
    left_s = max(1, one.left_ms // 1000)
    return messages.lease(one.id, one.ttl_s, left_s if left_s < one.ttl_s else 0)


def _unsigned(number: int) -> bytes:
    return (number % (1 << 64)).to_bytes(8, "big")


# -- reading --------------------------------------------------------------------------------------------------


class LeaseRow(NamedTuple):
    """``left_s``: what it had left when that was last counted; the TTL if it never was."""

    id: int
    ttl_s: int
    left_s: int


class Snapshot:
    """A snapshot file, mapped into memory; a context manager.

    ``revision``: of the store; ``compacted``: the last compaction, -1 if none; ``scheduled``: a compaction that had
    begun but not ended (else as ``compacted``): what it voids is partly still there, compact to it after reading;
    ``hashed``: whether a SHA-256 stood behind the file (and was right), which a copy of ``member/snap/db`` hasn't.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises OSError, BoltError, SnapshotError."""
        with open(path, "rb") as file:
            file.seek(0, 2)
            if not file.tell():
                raise BoltError(0, "an empty file")
            self._data = mmap(file.fileno(), 0, access=ACCESS_READ)
        try:
            self.hashed = _checked(self._data)
            self._file = File(self._data)
            self._read_meta()
        except BaseException:
            self._data.close()
            raise

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go; what was read stays."""
        self._data.close()

    def revisions(self) -> Iterator[Rev]:
        """All that are in the file, in order, without ``prev``. Raises BoltError, SnapshotError (after some, perhaps);
        each call reads anew."""
        for key, value in self._pairs(b"key"):
            try:
                main, sub, dead = messages.to_revision(key)
                if value:  # a restore with a bumped revision leaves an empty mark of it
                    yield messages.to_rev(value, main, sub, dead)
            except MessageError as error:
                raise _wrong(b"key", key, error) from None

    def leases(self) -> Iterator[LeaseRow]:
        """By id. Raises BoltError, SnapshotError."""
        for key, value in self._pairs(b"lease"):
            try:
                lease, ttl_s, left_s = messages.to_lease(value)
                if _unsigned(lease) != key:
                    raise MessageError(f"holds the lease {lease}")
                if max(ttl_s, left_s) > TTL_MAX_S:
                    raise MessageError(f"a TTL of {max(ttl_s, left_s)} s; etcd grants {TTL_MAX_S} at most")
            except MessageError as error:
                raise _wrong(b"lease", key, error) from None
            yield LeaseRow(lease, ttl_s, left_s or ttl_s)

    def alarms(self) -> Iterator[tuple[int, int]]:
        """Kind and member. Raises BoltError, SnapshotError."""
        for key, _nothing in self._pairs(b"alarm"):
            try:
                yield messages.to_alarm(key)
            except MessageError as error:
                raise _wrong(b"alarm", key, error) from None

    def auth(self) -> Iterator[Raw]:
        """What stands in the buckets :data:`AUTH`. Raises BoltError."""
        for bucket in AUTH:
            for key, value in self._pairs(bucket):
                yield bucket, key, value

    def _pairs(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._file.pairs(bucket) if bucket in self._file.buckets else iter(())

    def _read_meta(self) -> None:
        if b"key" not in self._file.buckets:
            raise SnapshotError("the file", "no bucket 'key': a bbolt file, but not etcd's")
        meta = dict(self._pairs(b"meta"))
        try:
            self.compacted = _main_of(meta.get(FINISHED))
            self.scheduled = max(self.compacted, _main_of(meta.get(SCHEDULED)))
        except MessageError as error:
            raise SnapshotError("meta", str(error)) from None
        last = self._file.last(b"key")
        try:
            newest = messages.to_revision(last[0])[0] if last else 1
        except MessageError as error:
            raise SnapshotError("key", str(error)) from None
        self.revision = max(1, newest, self.scheduled)
        if self.revision > NUMBER_MAX:
            raise SnapshotError("key or meta", f"revision {self.revision}; above {NUMBER_MAX} is no room for more")


def read(path: str | Path) -> Snapshot:
    """Open a snapshot file and check its hash, if there is one. Raises OSError, BoltError, SnapshotError."""
    return Snapshot(path)


def _checked(data: mmap) -> bool:
    """Whether a hash stands behind the file; it has to be right."""
    end = len(data)
    if not end % SECTOR_BYTES:
        return False
    if end % SECTOR_BYTES != HASH_BYTES:
        raise SnapshotError("the file", f"{end} bytes are neither whole pages nor those and a SHA-256: it was cut off")
    end -= HASH_BYTES
    total = hashlib.sha256()
    with memoryview(data) as view:
        for at in range(0, end, HASHED_BYTES):
            total.update(view[at : min(at + HASHED_BYTES, end)])
    if total.digest() != data[end:]:
        raise SnapshotError("the file", "its SHA-256 isn't the one behind it: it was changed, or cut off")
    return True


def _main_of(revision: bytes | None) -> int:
    return -1 if revision is None else messages.to_revision(revision)[0]


def _wrong(bucket: bytes, key: bytes, error: MessageError) -> SnapshotError:
    return SnapshotError(f"{bucket.decode()} {key[:32].hex()}", str(error))
