"""Leases: what is known of them by the log. Countdowns are the master's (:mod:`actors.kv.decide`). Pure."""

from collections.abc import Iterator
from struct import Struct

import msgspec

from actors.kv.v3 import errors
from streams.events import kv3 as says

#: etcd's bounds: with its default election time-out a lease lives two seconds at least; a TTL is 9e9 at most.
TTL_MIN_S = 2
TTL_MAX_S = 9_000_000_000


_ID = Struct(">q")


def renewed_ids(asked: says.LeasesRenew) -> Iterator[int]:
    raw = asked.ids.base64
    return (lease for (lease,) in _ID.iter_unpack(raw[: len(raw) // _ID.size * _ID.size]))


class Lease(msgspec.Struct):
    """``renewed``: offset of its last grant, renewal or count; ``left_ms``: what it had left then."""

    id: int
    ttl_s: int
    renewed: int
    left_ms: int
    #: a dict for its order: state is compared byte for byte
    keys: dict[bytes, None]


class Leases:
    """By id. The keys of a lease are those whose newest revision names it."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lease] = {}

    def known(self, lease: int) -> Lease:
        """Raises LEASE_NOT_FOUND."""
        found = self.by_id.get(lease)
        if found is None:
            raise errors.LEASE_NOT_FOUND
        return found

    def grant(self, asked: says.LeaseGrant, offset: int) -> Lease:
        """Raises LEASE_TTL_TOO_LARGE, LEASE_EXISTS; an id of 0 is LEASE_NOT_FOUND."""
        if asked.id == 0:
            raise errors.LEASE_NOT_FOUND
        if asked.ttl_s > TTL_MAX_S:
            raise errors.LEASE_TTL_TOO_LARGE
        if asked.id in self.by_id:
            raise errors.LEASE_EXISTS
        ttl_s = max(asked.ttl_s, TTL_MIN_S)
        made = self.by_id[asked.id] = Lease(asked.id, ttl_s, offset, ttl_s * 1000, {})
        return made

    def renew(self, asked: says.LeasesRenew, offset: int) -> dict[int, int]:
        """TTL by id, of those that are there."""
        out: dict[int, int] = {}
        for lease in renewed_ids(asked):
            found = self.by_id.get(lease)
            if found is not None:
                found.renewed, found.left_ms = offset, found.ttl_s * 1000
                out[found.id] = found.ttl_s
        return out

    def count(self, said: says.LeasesCounted, offset: int) -> None:
        """What a lease has left, unless it was renewed since that was counted."""
        for left in said.left:
            found = self.by_id.get(left.id)
            if found is not None and found.renewed == left.renewed:
                found.renewed, found.left_ms = offset, left.left_ms

    def attach(self, lease: int, key: bytes) -> None:
        if lease:
            self.by_id[lease].keys[key] = None

    def detach(self, lease: int, key: bytes) -> None:
        # a revoked lease is gone before its keys say so
        if lease and (found := self.by_id.get(lease)) is not None:
            found.keys.pop(key, None)
