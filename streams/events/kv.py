"""Stream ``kv``: etcd's two stores. This file declares the v2 keys; v2's users and v3 are families of their own.

Keys and values are bytes (:data:`~streams.events.base.Blob`). A key is a path, ``/a/b``; evolve cleans it (``//``,
``.`` and ``..``) as etcd does.
"""

from streams.events.base import Blob, Data, event


@event("kv.put.v1", "kv", command=True)
class Put(Data, frozen=True):
    """v2 PUT of text, without conditions, TTL and options: what most puts are, and the shortest to read back.

    It comes to the same as :class:`Set` with this key and value.
    """

    key: str
    value: str


@event("kv.set.v1", "kv", command=True)
class Set(Data, frozen=True):
    """v2 PUT, with every parameter that decides its outcome.

    ttl_s       None: no TTL, and an old one is cleared; 0: expires at once
    prev_exist  True: update (or compare, if a prev_value or prev_index is given too); False: create only
    prev_value  compared if given and not empty; prev_index: compared if given and above 0
    refresh     keeps the value, sets the TTL, wakes no watcher
    auth        the revision of v2's users at which its author was let through; see :mod:`streams.events.kv2`
    """

    key: Blob
    value: Blob = ""
    directory: bool = False
    ttl_s: int | None = None
    prev_exist: bool | None = None
    prev_value: Blob | None = None
    prev_index: int | None = None
    refresh: bool = False
    auth: int = 0


@event("kv.appended.v1", "kv", command=True)
class Append(Data, frozen=True):
    """v2 POST: creates an in-order key (20 digits of the new index) below ``key``."""

    key: Blob
    value: Blob = ""
    directory: bool = False
    ttl_s: int | None = None
    auth: int = 0


@event("kv.delete.v1", "kv", command=True)
class Delete(Data, frozen=True):
    """v2 DELETE; with prev_value or prev_index it compares (files only)."""

    key: Blob
    recursive: bool = False
    directory: bool = False
    prev_value: Blob | None = None
    prev_index: int | None = None
    auth: int = 0


@event("kv.expired.v1", "kv")
class Expired(Data, frozen=True):
    """The master (term): the TTL of ``key`` ran out. Void where the key changed since, or its TTL was set anew:
    ``modified_index`` and ``expires_ms`` (the expiration shown) must both be those of the key."""

    key: Blob
    modified_index: int
    expires_ms: int


class Left(Data, frozen=True):
    """What a key's TTL has left; the same conditions as in :class:`Expired`."""

    key: Blob
    modified_index: int
    expires_ms: int
    left_ms: int


@event("kv.ttls_counted.v1", "kv")
class TtlsCounted(Data, frozen=True):
    """The master (term), every few minutes: a new term counts on from here instead of afresh."""

    left: list[Left]


@event("kv.served.v1", "kv")
class Served(Data, frozen=True):
    """The writer's machine serves etcd's clients at these URLs; empty: it doesn't."""

    clients: list[str]
