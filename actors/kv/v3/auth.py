"""Users, roles and tokens, and what each user may do. Pure; the rules are those of etcd's auth store.

Passwords are bcrypt's hashes, tokens SHA-256 digests: neither can be read from the state or the log.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from actors.kv.v3 import errors
from actors.kv.v3.leases import Leases
from streams.events import kv3 as says
from streams.events.base import Base64, Blob, blob, unblob

ROOT = "root"
READ, WRITE, BOTH = 0, 1, 2
#: The oldest tokens go when there are more.
TOKENS_MAX = 10_000
#: The form of a principal that is a user.
USER = "user:"


class User(msgspec.Struct):
    """``hash``: bcrypt's, or empty: without a password. ``roles``: sorted."""

    name: str
    hash: str
    roles: list[str] = []


class Permission(msgspec.Struct):
    """``end``: as a range's: empty for one key, one zero byte for all behind."""

    kind: int
    key: bytes
    end: bytes

    def allows(self, kind: int) -> bool:
        return self.kind in (BOTH, kind)


class Auth:
    """``revision`` counts the changes of users and roles."""

    def __init__(self) -> None:
        self.enabled = False
        self.revision = 1
        self.users: dict[str, User] = {}
        self.roles: dict[str, list[Permission]] = {}
        #: digest → user
        self.tokens: dict[bytes, str] = {}

    @property
    def untouched(self) -> bool:
        return self.revision == 1 and not self.users and not self.roles

    # -- what a user may ------------------------------------------------------------------------------------------

    def check(self, user: str, revision: int, key: bytes, end: bytes, kind: int) -> None:
        """Raises USER_EMPTY, OLD_AUTH_REVISION, PERMISSION_DENIED. ``revision``: at which the user was known, or 0."""
        if not self.enabled:
            return
        if not revision:
            raise errors.USER_EMPTY
        if revision < self.revision:
            raise errors.OLD_AUTH_REVISION
        found = self.users.get(user)
        if found is None:
            raise errors.PERMISSION_DENIED
        if ROOT not in found.roles and not self._permitted(found, key, end, kind):
            raise errors.PERMISSION_DENIED

    def check_root(self, user: str) -> None:
        """Raises USER_EMPTY, USER_NOT_FOUND, PERMISSION_DENIED."""
        if not self.enabled:
            return
        if not user:
            raise errors.USER_EMPTY
        found = self.users.get(user)
        if found is None:
            raise errors.USER_NOT_FOUND
        if ROOT not in found.roles:
            raise errors.PERMISSION_DENIED

    def _permitted(self, user: User, key: bytes, end: bytes, kind: int) -> bool:
        granted = [one for role in user.roles for one in self.roles.get(role, ()) if one.allows(kind)]
        if not end:
            return any(_holds(one, key) for one in granted)
        return _covered(key, b"" if end == b"\0" else end, granted)

    # -- changes ----------------------------------------------------------------------------------------------

    def change(self, data: Any) -> None:
        """A command on users and roles. Raises V3Error, changing nothing."""
        _CHANGES[type(data)](self, data)

    def _changed(self) -> None:
        self.revision += 1

    def _enable(self, _: says.AuthEnable) -> None:
        if self.enabled:
            return
        root = self.users.get(ROOT)
        if root is None:
            raise errors.ROOT_USER_MISSING
        if ROOT not in root.roles:
            raise errors.ROOT_ROLE_MISSING
        self.enabled = True

    def _disable(self, _: says.AuthDisable) -> None:
        if self.enabled:
            self.enabled = False
            self.tokens.clear()
            self._changed()

    def _token(self, data: says.AuthToken) -> None:
        if not self.enabled:
            raise errors.AUTH_NOT_ENABLED
        if data.auth != self.revision or data.name not in self.users:
            raise errors.OLD_AUTH_REVISION
        self.tokens[data.digest.base64] = data.name
        if len(self.tokens) > TOKENS_MAX:
            del self.tokens[next(iter(self.tokens))]

    def _user(self, name: str) -> User:
        found = self.users.get(name)
        if found is None:
            raise errors.USER_NOT_FOUND
        return found

    def _user_add(self, data: says.UserAdd) -> None:
        if not data.name:
            raise errors.USER_EMPTY
        if data.name in self.users:
            raise errors.USER_EXISTS
        self.users[data.name] = User(data.name, data.hash, [])
        self._changed()

    def _user_delete(self, data: says.UserDelete) -> None:
        if self.enabled and data.name == ROOT:
            raise errors.INVALID_MANAGEMENT
        del self.users[self._user(data.name).name]
        self._forget_tokens(data.name)
        self._changed()

    def _user_password(self, data: says.UserPassword) -> None:
        self._user(data.name).hash = data.hash
        self._forget_tokens(data.name)
        self._changed()

    def _forget_tokens(self, user: str) -> None:
        self.tokens = {digest: name for digest, name in self.tokens.items() if name != user}

    def _user_grant(self, data: says.UserGrant) -> None:
        user = self._user(data.name)
        if data.role != ROOT and data.role not in self.roles:
            raise errors.ROLE_NOT_FOUND
        if data.role not in user.roles:
            user.roles = sorted([*user.roles, data.role])
            self._changed()

    def _user_revoke(self, data: says.UserRevoke) -> None:
        if self.enabled and data.name == ROOT and data.role == ROOT:
            raise errors.INVALID_MANAGEMENT
        user = self._user(data.name)
        if data.role not in user.roles:
            raise errors.ROLE_NOT_GRANTED
        user.roles = [role for role in user.roles if role != data.role]
        self._changed()

    def _role(self, name: str) -> list[Permission]:
        found = self.roles.get(name)
        if found is None:
            raise errors.ROLE_NOT_FOUND
        return found

    def _role_add(self, data: says.RoleAdd) -> None:
        if not data.name:
            raise errors.ROLE_EMPTY
        if data.name in self.roles:
            raise errors.ROLE_EXISTS
        self.roles[data.name] = []
        self._changed()

    def _role_delete(self, data: says.RoleDelete) -> None:
        if self.enabled and data.name == ROOT:
            raise errors.INVALID_MANAGEMENT
        self._role(data.name)
        del self.roles[data.name]
        for user in self.users.values():
            user.roles = [role for role in user.roles if role != data.name]
        self._changed()

    def _role_grant(self, data: says.RoleGrant) -> None:
        key, end = unblob(data.permission.key), unblob(data.permission.range_end)
        if not key or (end and end != b"\0" and end <= key):
            raise errors.INVALID_MANAGEMENT
        permissions = self._role(data.name)
        for one in permissions:
            if (one.key, one.end) == (key, end):
                one.kind = data.permission.kind
                break
        else:
            permissions.append(Permission(data.permission.kind, key, end))
            permissions.sort(key=lambda one: one.key)
        self._changed()

    def _role_revoke(self, data: says.RoleRevoke) -> None:
        permissions, named = self._role(data.name), (unblob(data.key), unblob(data.range_end))
        left = [one for one in permissions if (one.key, one.end) != named]
        if len(left) == len(permissions):
            raise errors.PERMISSION_NOT_GRANTED
        self.roles[data.name] = left
        self._changed()

    # -- snapshots --------------------------------------------------------------------------------------------

    def encode(self) -> "Kept | None":
        if self.untouched:
            return None
        roles = {
            name: [(one.kind, blob(one.key), blob(one.end)) for one in permissions]
            for name, permissions in self.roles.items()
        }
        tokens = [(Base64(digest), user) for digest, user in self.tokens.items()]
        return Kept(self.enabled, self.revision, list(self.users.values()), roles, tokens)

    def restore(self, kept: "Kept | None") -> None:
        if kept is None:
            return
        self.enabled, self.revision = kept.enabled, kept.revision
        self.users = {user.name: user for user in kept.users}
        self.roles = {
            name: [Permission(kind, unblob(key), unblob(end)) for kind, key, end in permissions]
            for name, permissions in kept.roles.items()
        }
        self.tokens = {digest.base64: user for digest, user in kept.tokens}


class Kept(msgspec.Struct):
    """All of it, in a snapshot."""

    enabled: bool
    revision: int
    users: list[User]
    roles: dict[str, list[tuple[int, Blob, Blob]]]
    tokens: list[tuple[Base64, str]]


_CHANGES: dict[type, Any] = {
    says.AuthEnable: Auth._enable,
    says.AuthDisable: Auth._disable,
    says.AuthToken: Auth._token,
    says.UserAdd: Auth._user_add,
    says.UserDelete: Auth._user_delete,
    says.UserPassword: Auth._user_password,
    says.UserGrant: Auth._user_grant,
    says.UserRevoke: Auth._user_revoke,
    says.RoleAdd: Auth._role_add,
    says.RoleDelete: Auth._role_delete,
    says.RoleGrant: Auth._role_grant,
    says.RoleRevoke: Auth._role_revoke,
}
#: Commands that change users and roles.
CHANGES = frozenset(_CHANGES)


def _holds(permission: Permission, key: bytes) -> bool:
    if not permission.end:
        return key == permission.key
    return permission.key <= key and (permission.end == b"\0" or key < permission.end)


def _covered(start: bytes, end: bytes, granted: Iterable[Permission]) -> bool:
    """Whether what is granted has the whole range, without a gap; ``end`` empty: to the end of all keys.

    A range of nothing (its end isn't behind its start) is nobody's; what etcd says of one hangs on the order in which
    its interval tree was built.
    """
    if end and start >= end:
        return False
    asked_end, reach = _limit(end or b"\0"), (0, start)
    for one in sorted(granted, key=lambda permission: permission.key):
        if (0, one.key) > reach:
            break
        reach = max(reach, _limit(one.end or one.key + b"\0"))
    return reach >= asked_end


def _limit(end: bytes) -> tuple[int, bytes]:
    """Comparable: behind all keys, or before ``end``."""
    return (1, b"") if end == b"\0" else (0, end)


# -- what a command needs -------------------------------------------------------------------------------------


def check_event(auth: Auth, leases: Leases, data: Any, principal: str) -> None:
    """Before a command is applied. Raises V3Error."""
    if type(data) is says.AuthToken:
        return
    user = principal.removeprefix(USER) if principal.startswith(USER) else ""
    if type(data) in CHANGES or type(data) in (says.Compact, says.Downgrade):
        auth.check_root(user)
        return
    for key, end, kind in needs(leases, data):
        auth.check(user, data.auth, key, end, kind)


Need = tuple[bytes, bytes, int]


def needs(leases: Leases, data: Any) -> list[Need]:
    """The ranges that a command reads and writes."""
    match data:
        case says.Put() | says.OpPut():
            return [(unblob(data.key), b"", WRITE), *_keys_of(leases, data.lease)]
        case says.Delete() | says.OpDelete():
            return [(unblob(data.key), unblob(data.range_end), WRITE)]
        case says.OpRange() | says.Compare():
            return [(unblob(data.key), unblob(data.range_end), READ)]
        case says.Txn() | says.OpTxn():
            parts: list[Any] = [*data.compare, *data.success, *data.failure]
            return [need for part in parts for need in needs(leases, part)]
        case says.LeaseRevoke():
            return _keys_of(leases, data.id)
        case _:
            return []


def _keys_of(leases: Leases, lease: int) -> list[Need]:
    """Who puts on a lease, or revokes it, may end its other keys: they must be the user's to write."""
    found = leases.by_id.get(lease)
    return [] if found is None else [(key, b"", WRITE) for key in found.keys]
