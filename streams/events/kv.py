"""Stream ``kv``: etcd's two stores. This file declares the v2 keys; v3 comes as a second family.

Keys and values are bytes (:data:`~streams.events.base.Blob`).
"""

from streams.events.base import Blob, Data, event


@event("kv.set.v1", "kv", command=True)
class Set(Data, frozen=True):
    """v2 PUT, with every parameter that decides its outcome. ``ttl_s`` None keeps/has none, 0 clears."""

    key: Blob
    value: Blob = ""
    directory: bool = False
    ttl_s: int | None = None
    prev_exist: bool | None = None
    prev_value: Blob | None = None
    prev_index: int | None = None
    refresh: bool = False


@event("kv.appended.v1", "kv", command=True)
class Append(Data, frozen=True):
    """v2 POST: creates an in-order key (20 digits of the new index) below ``key``."""

    key: Blob
    value: Blob = ""
    directory: bool = False
    ttl_s: int | None = None


@event("kv.delete.v1", "kv", command=True)
class Delete(Data, frozen=True):
    key: Blob
    recursive: bool = False
    directory: bool = False
    prev_value: Blob | None = None
    prev_index: int | None = None


@event("kv.expired.v1", "kv")
class Expired(Data, frozen=True):
    """The master (term): the TTL of ``key`` ran out; void where the key changed after ``modified_index``."""

    key: Blob
    modified_index: int
