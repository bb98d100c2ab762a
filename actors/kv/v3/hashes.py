"""HashKV: etcd's own number over the revisions, for comparing replicas, ours and etcd's. Pure.

CRC-32C over the name of the bucket, then of each revision its bbolt key and its protobuf value.
"""

from collections.abc import Iterator

import crc32c

from actors.kv.v3 import errors
from actors.kv.v3.revs import Rev, Revs

#: Revisions hashed between two turns of the loop.
STEP = 2048


def hash_kv(revs: Revs, revision: int = 0) -> Iterator[int]:
    """Yields the number after every STEP revisions; the last one yielded is the answer (and those before are not).

    revision: up to it, 0: up to now. It is of the compaction that holds at the end. Raises COMPACTED (at any step),
    FUTURE_REV (at the first one).
    """
    began = None
    while began != (revs.compacted, revs.floors):  # what is compacted between two steps would be hashed in part
        began = revs.compacted, revs.floors
        if revision and (revision < revs.compacted or (revs.floors is not None and revision < revs.floors.top)):
            raise errors.COMPACTED
        if revision > revs.revision:
            raise errors.FUTURE_REV
        yield from _hashed(revs, revision or revs.revision)


def _hashed(revs: Revs, upto: int) -> Iterator[int]:
    """Ends early where something was compacted meanwhile."""
    compacted, floors = revs.compacted, revs.floors
    total = crc32c.crc32c(b"key")
    nothing_lives = not _any_lives(revs, upto)
    done = 0
    for segment in list(revs.segments):
        for rev in list(segment.revs):
            if rev.mod > upto:
                break
            if rev.mod <= compacted and not _kept(revs, rev, compacted if nothing_lives else upto):
                continue
            if floors is not None and not revs.keeps(rev):
                continue
            total = crc32c.crc32c(_value(rev), crc32c.crc32c(_name(rev), total))
        done += len(segment.revs)
        if done >= STEP:
            done = 0
            yield total
            if (revs.compacted, revs.floors) != (compacted, floors):
                return
    yield total


def _any_lives(revs: Revs, at: int) -> bool:
    if at == revs.revision:
        return bool(revs.live)
    return any(revs.at(key, at) for key in [*revs.live, *revs.dead])


def _kept(revs: Revs, rev: Rev, at: int) -> bool:
    """Of what the compaction reached, only what still lived at the revision asked for."""
    return revs.at(rev.key, at) is rev


def _name(rev: Rev) -> bytes:
    mark = b"" if rev.version else b"t"
    return rev.mod.to_bytes(8, "big") + b"_" + rev.sub.to_bytes(8, "big") + mark


def _value(rev: Rev) -> bytes:
    """mvccpb.KeyValue; of a tombstone the key alone."""
    out = b"\n" + varint(len(rev.key)) + rev.key
    if not rev.version:
        return out
    out += b"\x10" + varint(rev.create) + b"\x18" + varint(rev.mod) + b"\x20" + varint(rev.version)
    if rev.value:
        out += b"\x2a" + varint(len(rev.value)) + rev.value
    return out + (b"\x30" + varint(rev.lease) if rev.lease else b"")


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
