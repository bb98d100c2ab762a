"""Stream ``kv``, second family: etcd's v3 keys, leases, compactions and alarms.

Names, numbers and meanings of the fields are those of etcd's gRPC messages. Keys and values are bytes
(:data:`~streams.events.base.Blob`). ``range_end``: empty for the one key, ``"\\0"`` for all keys from ``key`` on.
``auth``: the revision of users and roles at which the asking user (``principal``: ``user:NAME``) was known, or 0.
"""

import msgspec

from streams.events.base import Base64, Blob, Data, event


class Part(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Base of what stands inside a transaction. Strict, as events are."""


@event("kv.v3.put.v1", "kv", command=True)
class Put(Data, frozen=True):
    """KV.Put. ``lease`` 0 detaches the key, unless ``ignore_lease`` keeps the one it has."""

    key: Blob
    value: Blob = ""
    lease: int = 0
    ignore_value: bool = False
    ignore_lease: bool = False
    auth: int = 0


@event("kv.v3.delete.v1", "kv", command=True)
class Delete(Data, frozen=True):
    """KV.DeleteRange."""

    key: Blob
    range_end: Blob = ""
    auth: int = 0


class Compare(Part, frozen=True):
    """One comparison. ``target``: 0 version, 1 create revision, 2 mod revision, 3 value, 4 lease;
    ``result``: 0 equal, 1 greater, 2 less, 3 not equal; ``operand``: a number, or bytes for target 3."""

    key: Blob
    target: int = 0
    result: int = 0
    operand: str | Base64 | int = 0
    range_end: Blob = ""


class OpPut(Part, frozen=True, tag_field="op", tag="put"):
    """See :class:`Put`."""

    key: Blob
    value: Blob = ""
    lease: int = 0
    ignore_value: bool = False
    ignore_lease: bool = False


class OpDelete(Part, frozen=True, tag_field="op", tag="delete"):
    """See :class:`Delete`."""

    key: Blob
    range_end: Blob = ""


class OpRange(Part, frozen=True, tag_field="op", tag="range"):
    """KV.Range inside a transaction. ``order``: 0 none, 1 ascending, 2 descending; ``by``: 0 key, 1 version,
    2 create revision, 3 mod revision, 4 value."""

    key: Blob
    range_end: Blob = ""
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


class OpTxn(Part, frozen=True, tag_field="op", tag="txn"):
    """A transaction in a transaction."""

    compare: list[Compare] = []
    success: list["OpPut | OpDelete | OpRange | OpTxn"] = []
    failure: list["OpPut | OpDelete | OpRange | OpTxn"] = []


Op = OpPut | OpDelete | OpRange | OpTxn


@event("kv.v3.txn.v1", "kv", command=True)
class Txn(Data, frozen=True):
    """KV.Txn. All comparisons, also of inner transactions, are evaluated before the first operation."""

    compare: list[Compare] = []
    success: list[Op] = []
    failure: list[Op] = []
    auth: int = 0


@event("kv.v3.compact.v1", "kv", command=True)
class Compact(Data, frozen=True):
    """KV.Compact: what was overwritten or deleted before ``revision`` may be forgotten."""

    revision: int


@event("kv.v3.lease_grant.v1", "kv", command=True)
class LeaseGrant(Data, frozen=True):
    """Lease.LeaseGrant. ``id`` is never 0: the node that was asked chooses one."""

    id: int
    ttl_s: int


@event("kv.v3.lease_revoke.v1", "kv", command=True)
class LeaseRevoke(Data, frozen=True):
    """Lease.LeaseRevoke: deletes the keys of the lease in one revision, then the lease."""

    id: int
    auth: int = 0


@event("kv.v3.leases_renew.v1", "kv", command=True)
class LeasesRenew(Data, frozen=True):
    """Keep-alives that reached one node together. ``ids``: 8 bytes each, signed, big-endian."""

    ids: Base64


@event("kv.v3.lease_expired.v1", "kv")
class LeaseExpired(Data, frozen=True):
    """The master (term): the lease ran out. Void if it was renewed since: ``renewed`` is the offset of its last
    grant, renewal or count."""

    id: int
    renewed: int


class LeaseLeft(Part, frozen=True):
    """What a lease has left; the same condition as in :class:`LeaseExpired`."""

    id: int
    renewed: int
    left_ms: int


@event("kv.v3.leases_counted.v1", "kv")
class LeasesCounted(Data, frozen=True):
    """The master (term), every few minutes: a new term counts long leases on from here instead of afresh."""

    left: list[LeaseLeft]


@event("kv.v3.alarm.v1", "kv", command=True)
class Alarm(Data, frozen=True):
    """Raises (or with ``on`` False ends) an alarm. ``kind``: 1 NOSPACE, 2 CORRUPT; ``member``: a machine's etcd id,
    0 with ``on`` False for all members' alarms, unless it is meant ``exact``, as etcd does."""

    kind: int
    member: int = 0
    on: bool = True
    exact: bool = False


@event("kv.v3.policy_set.v1", "kv", command=True)
class PolicySet(Data, frozen=True):
    """An operator limits the keys that begin with ``prefix`` (empty: all keys); replaces what was set for it before.

    ``max_bytes`` of what lives there; ``writes_per_s``, of which ``burst`` may come at once (0: a second's worth);
    the history is compacted when it is older than ``keep_age_s``, or has more than ``keep_bytes``. 0: no limit.
    """

    prefix: Blob
    max_bytes: int = 0
    writes_per_s: float = 0.0
    burst: int = 0
    keep_age_s: int = 0
    keep_bytes: int = 0


@event("kv.v3.policy_removed.v1", "kv", command=True)
class PolicyRemove(Data, frozen=True):
    """An operator ends the policy of ``prefix``; what was compacted for it stays so."""

    prefix: Blob


@event("kv.v3.prefix_compacted.v1", "kv")
class PrefixCompact(Data, frozen=True):
    """The master (term), as a policy asks: the history before ``revision`` of all keys that begin with ``prefix``
    may be forgotten. Void if the policy is gone, or it was compacted as far already."""

    prefix: Blob
    revision: int


class Permission(Part, frozen=True):
    """``kind``: 0 read, 1 write, 2 both."""

    kind: int
    key: Blob
    range_end: Blob = ""


@event("kv.v3.auth_enable.v1", "kv", command=True)
class AuthEnable(Data, frozen=True):
    """Auth.AuthEnable."""

    auth: int = 0


@event("kv.v3.auth_disable.v1", "kv", command=True)
class AuthDisable(Data, frozen=True):
    """Auth.AuthDisable."""

    auth: int = 0


@event("kv.v3.auth_token.v1", "kv", command=True)
class AuthToken(Data, frozen=True):
    """Auth.Authenticate, once the password was found right. ``digest``: SHA-256 of the token, which only its owner
    has; void if users changed since ``auth``."""

    name: str
    digest: Base64
    auth: int = 0


@event("kv.v3.user_add.v1", "kv", command=True)
class UserAdd(Data, frozen=True):
    """Auth.UserAdd. ``hash``: bcrypt's; empty: no password, the user comes by certificate."""

    name: str
    hash: str = ""
    auth: int = 0


@event("kv.v3.user_delete.v1", "kv", command=True)
class UserDelete(Data, frozen=True):
    """Auth.UserDelete."""

    name: str
    auth: int = 0


@event("kv.v3.user_password.v1", "kv", command=True)
class UserPassword(Data, frozen=True):
    """Auth.UserChangePassword."""

    name: str
    hash: str
    auth: int = 0


@event("kv.v3.user_grant.v1", "kv", command=True)
class UserGrant(Data, frozen=True):
    """Auth.UserGrantRole."""

    name: str
    role: str
    auth: int = 0


@event("kv.v3.user_revoke.v1", "kv", command=True)
class UserRevoke(Data, frozen=True):
    """Auth.UserRevokeRole."""

    name: str
    role: str
    auth: int = 0


@event("kv.v3.role_add.v1", "kv", command=True)
class RoleAdd(Data, frozen=True):
    """Auth.RoleAdd."""

    name: str
    auth: int = 0


@event("kv.v3.role_delete.v1", "kv", command=True)
class RoleDelete(Data, frozen=True):
    """Auth.RoleDelete."""

    name: str
    auth: int = 0


@event("kv.v3.role_grant.v1", "kv", command=True)
class RoleGrant(Data, frozen=True):
    """Auth.RoleGrantPermission."""

    name: str
    permission: Permission
    auth: int = 0


@event("kv.v3.role_revoke.v1", "kv", command=True)
class RoleRevoke(Data, frozen=True):
    """Auth.RoleRevokePermission."""

    name: str
    key: Blob
    range_end: Blob = ""
    auth: int = 0


@event("kv.v3.downgrade.v1", "kv", command=True)
class Downgrade(Data, frozen=True):
    """Maintenance.Downgrade: the cluster is to get this version; empty: it isn't any more."""

    version: str = ""
    auth: int = 0


@event("kv.v3.import_begun.v1", "kv", command=True)
class ImportBegin(Data, frozen=True):
    """A whole store is to come in ``parts`` records; nothing of it is there before its end. Drops an older one.

    ``v2``: it is v2's keys and users.
    """

    id: str
    parts: int
    v2: bool = False


@event("kv.v3.import_part.v1", "kv", command=True)
class ImportPart(Data, frozen=True):
    """``lines``: of a snapshot of the store, as the fold writes them. ``number``: from 0."""

    id: str
    number: int
    lines: str


@event("kv.v3.import_ended.v1", "kv", command=True)
class ImportEnd(Data, frozen=True):
    """All parts are there: they become the store, if it is still empty."""

    id: str


class Range(Part, frozen=True):
    """Keys from ``key`` to before ``end``; ``end`` as a ``range_end``."""

    key: Blob
    end: Blob = ""


@event("kv.v3.restore_begun.v1", "kv", command=True)
class RestoreBegin(Data, frozen=True):
    """Keys are to be again as they were. What follows in ``parts`` events changes nothing before its end. Drops an
    older one; with no parts it gives up the one of this id. A compaction drops it, too.

    at        what was asked for: a position, a time or ``r`` and a revision
    revision  the revision that comes back
    base      the revision that it was made of: void if a key in ``ranges`` changed since; 0: however that is
    v2        of v2's keys: revisions are indices, a range is a key with all below it (its ``end`` means nothing)
    """

    id: str
    parts: int
    at: str = ""
    revision: int = 0
    base: int = 0
    ranges: list[Range] = []
    v2: bool = False


@event("kv.v3.restore_part.v1", "kv", command=True)
class RestorePart(Data, frozen=True):
    """``number``: from 0. ``puts``: keys and values, ``deletes``: keys; all become one revision, without leases.

    Of v2 keys are paths, ``deletes`` take all below along, ``dirs`` are empty directories; each is a change of its own,
    without a TTL.
    """

    id: str
    number: int
    puts: list[tuple[Blob, Blob]] = []
    deletes: list[Blob] = []
    dirs: list[Blob] = []


@event("kv.v3.restore_ended.v1", "kv", command=True)
class RestoreEnd(Data, frozen=True):
    """All parts are there: they are done, in one revision, or if they are void none of them."""

    id: str
