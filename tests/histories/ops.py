"""What clients asked and were told. Keys and values are bytes; a revision of 0 means none."""

from typing import Literal

import msgspec


class Kv(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A key as one change left it; version 0: deleted, with nothing but ``key`` and ``mod``."""

    key: bytes
    value: bytes = b""
    create: int = 0
    mod: int = 0
    version: int = 0
    lease: int = 0


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A change of one key, and what lived there before."""

    kv: Kv
    prev: Kv | None = None


#: All changes there were: those of revision ``FIRST + n`` at index n, none of them empty.
Changes = list[list[Event]]
FIRST = 2

# -- requests -------------------------------------------------------------------------------------------------


class Put(msgspec.Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """No two requests of a history put the same value."""

    key: bytes
    value: bytes
    lease: int = 0
    prev_kv: bool = False


class Delete(msgspec.Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """``end``: empty for one key, else the key before which it ends."""

    key: bytes
    end: bytes = b""
    prev_kv: bool = False


class Range(msgspec.Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """``revision``: as it was then; 0: as it is. ``serializable``: what the replica has will do."""

    key: bytes
    end: bytes = b""
    revision: int = 0
    serializable: bool = False


class Compare(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of one key; of one that isn't there a value is equal to nothing, and the numbers are 0."""

    key: bytes
    target: Literal["version", "create", "mod", "value", "lease"]
    result: Literal["=", ">", "<", "!="]
    operand: int | bytes


Simple = Put | Delete | Range


class Txn(msgspec.Struct, frozen=True, gc=False, tag=True):
    compare: list[Compare]
    success: list[Simple]
    failure: list[Simple]


class Grant(msgspec.Struct, frozen=True, gc=False, tag=True):
    lease: int
    ttl_s: int


class Renew(msgspec.Struct, frozen=True, gc=False, tag=True):
    lease: int


class Revoke(msgspec.Struct, frozen=True, gc=False, tag=True):
    lease: int


Request = Put | Delete | Range | Txn | Grant | Renew | Revoke

# -- answers --------------------------------------------------------------------------------------------------


class PutDone(msgspec.Struct, frozen=True, gc=False, tag=True):
    prev: Kv | None = None


class Deleted(msgspec.Struct, frozen=True, gc=False, tag=True):
    count: int
    prevs: list[Kv] = []


class Ranged(msgspec.Struct, frozen=True, gc=False, tag=True):
    kvs: list[Kv]
    count: int


SimpleDone = PutDone | Deleted | Ranged


class TxnDone(msgspec.Struct, frozen=True, gc=False, tag=True):
    succeeded: bool
    results: list[SimpleDone]


class Alive(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Of a lease that was granted or renewed; a TTL of 0: it isn't there."""

    ttl_s: int


class Revoked(msgspec.Struct, frozen=True, gc=False, tag=True):
    pass


class Refused(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Surely without effect, as the answer says."""

    message: str


Result = PutDone | Deleted | Ranged | TxnDone | Alive | Revoked | Refused


class Op(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Times are of one clock for all clients. ``result`` None: unknown; it may have come to pass at any time after
    ``invoked_s``, once, or never. ``revision``: of the answer's header."""

    client: str
    invoked_s: float
    returned_s: float
    request: Request
    result: Result | None = None
    revision: int = 0

    def __str__(self) -> str:
        when = f"{self.client} {self.invoked_s:.3f}-{self.returned_s:.3f}"
        return f"[{when}] at {self.revision or '?'} {str(self.request)[:300]} -> {str(self.result)[:300]}"


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    return start <= key < end if end else key == start
