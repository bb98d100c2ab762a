"""What the v3 store is made of, and what its changes and reads come to: plain structs.

They stand apart from the code, which may be compiled: mypyc makes classes of its own, without these options.
"""

from typing import Any

import msgspec

from actors.kv.v3.floors import OVERHEAD_BYTES as OVERHEAD_BYTES


class Rev(msgspec.Struct, gc=False):
    """A key as one change left it; version 0: a tombstone. Never changed, but that compaction cuts ``prev`` off."""

    key: bytes
    value: bytes
    create: int
    mod: int
    version: int
    lease: int
    sub: int
    prev: "Rev | None"

    @property
    def size(self) -> int:
        return len(self.key) + len(self.value) + OVERHEAD_BYTES


class Query(msgspec.Struct, frozen=True, gc=False):
    """See :class:`streams.events.kv3.OpRange`; keys are bytes."""

    key: bytes
    end: bytes = b""
    limit: int = 0
    revision: int = 0
    order: int = 0
    by: int = 0
    keys_only: bool = False
    count_only: bool = False
    min_mod: int = 0
    max_mod: int = 0
    min_create: int = 0
    max_create: int = 0

    @property
    def fetches_all(self) -> bool:
        """Whether a limit must wait for filters or an order."""
        return bool(self.order or self.min_mod or self.max_mod or self.min_create or self.max_create)


class Ranged(msgspec.Struct, frozen=True, gc=False):
    """``count``: all keys that match the range, filters and limit aside. ``keys_only``: values are not to be shown."""

    kvs: list[Rev]
    count: int
    more: bool = False
    keys_only: bool = False


class TxnDone(msgspec.Struct, frozen=True, gc=False):
    """``results``: for each operation of the branch taken, in order."""

    succeeded: bool
    results: list["OpDone"]


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """``tombstones``: what was there is their ``prev``."""

    tombstones: list[Rev]


OpDone = Rev | Deleted | Ranged | TxnDone


class Result(msgspec.Struct, frozen=True, gc=False):
    """What a command came to, and the revision after it. ``value``: a :class:`Rev` (put), ``Deleted``, ``TxnDone``,
    ``Lease``, TTLs by id (renewals), or None."""

    revision: int
    value: Any = None
