"""v2's users and roles, and what each may do. Pure; the rules and words are those of etcd 3.4's ``v2auth``.

etcd keeps them in its v2 store, beside the keys: each change takes an index of it, and the first one four more, for the
directories. Passwords are bcrypt's hashes, made before.
"""

from typing import Any

import msgspec
from msgspec import UnsetType

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from streams.events import kv as kv_says
from streams.events import kv2 as says

ROOT, GUEST = "root", "guest"
#: The form of a principal that is a user.
USER = "user:"
#: What etcd makes before the first change: /2, its users, its roles, and whether it is enabled.
DIRECTORIES = 4


class AuthError(Exception):
    """``status``: HTTP's; ``steps``: of v2's index that were taken all the same."""

    def __init__(self, status: int, words: str, steps: int = 0) -> None:
        super().__init__(f"auth: {words}")
        self.status, self.steps = status, steps


class User(msgspec.Struct):
    """``roles``: in the order they were given when made, sorted once changed; None: not said."""

    hash: str
    roles: list[str] | None = None


class Role(msgspec.Struct, omit_defaults=True):
    """Patterns of keys; see :class:`streams.events.kv2.Rights`. ``grant``, ``revoke``: what was said when it was made,
    of nothing: etcd shows it until the role is changed."""

    read: list[str] | None = None
    write: list[str] | None = None
    grant: says.Rights | None = None
    revoke: says.Rights | None = None

    def allows(self, key: str, write: bool, recursive: bool) -> bool:
        """``recursive``: only what is granted as a prefix counts."""
        for pattern in (self.write if write else self.read) or ():
            if pattern.endswith("*"):
                if key.startswith(pattern[:-1]):
                    return True
            elif not recursive and pattern == key:
                return True
        return False


class Auth(msgspec.Struct):
    """``revision`` counts changes, from 1 on. ``made``: the directories are there."""

    enabled: bool = False
    made: bool = False
    revision: int = 1
    users: dict[str, User] = {}
    roles: dict[str, Role] = {}

    # -- who may what -----------------------------------------------------------------------------------------

    def allows(self, user: str, key: str, write: bool, recursive: bool) -> bool:
        """``user`` empty: a guest, for whom etcd doesn't look at ``recursive``."""
        if not user:
            guest = self.roles.get(GUEST)
            return guest is not None and guest.allows(key, write, False)
        for name in self.roles_of(user):
            role = self.roles.get(name)
            if name == ROOT or (role is not None and role.allows(key, write, recursive)):
                return True
        return False

    def roles_of(self, user: str) -> list[str]:
        """Of a user that is there root's own role, too. Empty: no such user, or no roles."""
        found = self.users.get(user)
        return [] if found is None else with_root(user, found.roles) or []

    # -- changes ----------------------------------------------------------------------------------------------

    def change(self, data: Any) -> tuple[Any, int]:
        """Plain data of what it came to, and the steps of v2's index. Raises AuthError."""
        came: tuple[Any, int] = _CHANGES[type(data)](self, data)
        return came

    def _took(self, result: Any = None, steps: int = 1) -> tuple[Any, int]:
        """The steps, and those of the directories before them."""
        if not self.made:
            self.made, steps = True, steps + DIRECTORIES
        self.revision += 1
        return result, steps

    def _refused(self, status: int, words: str) -> AuthError:
        """By what is there: etcd has made the directories by then."""
        steps = 0 if self.made else DIRECTORIES
        self.made = True
        return AuthError(status, words, steps)

    def _enable(self, _: says.AuthEnable) -> tuple[Any, int]:
        if self.enabled:
            raise AuthError(409, "already enabled")
        if ROOT not in self.users:
            raise AuthError(409, "No root user available, please create one")
        guest = GUEST not in self.roles
        if guest:
            self.roles[GUEST] = Role(["/*"], ["/*"])
        self.enabled = True
        return self._took(steps=1 + guest)

    def _disable(self, _: says.AuthDisable) -> tuple[Any, int]:
        if not self.enabled:
            raise AuthError(409, "already disabled")
        self.enabled = False
        return self._took()

    def _user_add(self, data: says.UserAdd) -> tuple[Any, int]:
        if data.name in self.users:
            raise self._refused(409, f"User {data.name} already exists.")
        roles = with_root(data.name, data.roles)
        self.users[data.name] = User(data.hash, roles)
        return self._took({"user": data.name, "roles": roles})

    def _user_update(self, data: says.UserUpdate) -> tuple[Any, int]:
        name = data.name
        there = self.users.get(name)
        if there is None:
            raise AuthError(404, f"User {name} does not exist.")
        before = with_root(name, there.roles)
        roles = set(before or ())
        for role in data.grant:
            if role in roles:
                raise AuthError(409, f"Granting duplicate role {role} for user {name}")
            roles.add(role)
        for role in data.revoke:
            if role not in roles:
                raise AuthError(409, f"Revoking ungranted role {role} for user {name}")
            roles.remove(role)
        after = sorted(roles, key=str.encode)
        if not data.hash and after == before:
            raise AuthError(400, "User not updated. Use grant/revoke/password to update the user.")
        self.users[name] = User(data.hash or there.hash, after)
        return self._took({"user": name, "roles": after})

    def _user_delete(self, data: says.UserDelete) -> tuple[Any, int]:
        if self.enabled and data.name == ROOT:
            raise AuthError(403, "Cannot delete root user while auth is enabled.")
        if data.name not in self.users:
            raise self._refused(404, f"User {data.name} does not exist")
        del self.users[data.name]
        return self._took()

    def _role_add(self, data: says.RoleAdd) -> tuple[Any, int]:
        _no_root(data.name)
        if data.name in self.roles:
            raise self._refused(409, f"Role {data.name} already exists.")
        self.roles[data.name] = made = Role(data.rights.read, data.rights.write, data.grant, data.revoke)
        return self._took(role_data(data.name, made))

    def _role_update(self, data: says.RoleUpdate) -> tuple[Any, int]:
        _no_root(data.name)
        there = self.roles.get(data.name)
        if there is None:
            raise AuthError(404, f"Role {data.name} does not exist.")
        changed = Role(there.read, there.write)
        if data.grant is not None:
            changed = Role(
                _granted(changed.read, data.grant.read, "read"), _granted(changed.write, data.grant.write, "write")
            )
        if data.revoke is not None:
            changed = Role(_revoked(changed.read, data.revoke.read), _revoked(changed.write, data.revoke.write))
        if changed == there:
            raise AuthError(400, "Role not updated. Use grant/revoke to update the role.")
        self.roles[data.name] = changed
        return self._took(role_data(data.name, changed))

    def _role_delete(self, data: says.RoleDelete) -> tuple[Any, int]:
        _no_root(data.name)
        if data.name not in self.roles:
            raise self._refused(404, f"Role {data.name} doesn't exist.")
        del self.roles[data.name]
        return self._took()


#: What the fold keeps; UNSET as long as nobody used it.
Kept = Auth | UnsetType

_CHANGES: dict[type, Any] = {
    says.AuthEnable: Auth._enable,
    says.AuthDisable: Auth._disable,
    says.UserAdd: Auth._user_add,
    says.UserUpdate: Auth._user_update,
    says.UserDelete: Auth._user_delete,
    says.RoleAdd: Auth._role_add,
    says.RoleUpdate: Auth._role_update,
    says.RoleDelete: Auth._role_delete,
}


def enabled(kept: Kept) -> bool:
    return isinstance(kept, Auth) and kept.enabled


def check_change(auth: Auth, data: Any, principal: str) -> None:
    """Before a change of users and roles is applied: only root makes them once auth is on. Raises AuthError."""
    if auth.enabled and data.auth != auth.revision and ROOT not in auth.roles_of(user_of(principal)):
        raise AuthError(401, "Insufficient credentials")


def check_command(auth: Auth, data: Any, principal: str) -> None:
    """Before a command on keys is applied. Raises V2Error 110."""
    if not auth.enabled or getattr(data, "auth", 0) == auth.revision:
        return
    key = data.key if isinstance(data.key, str) else data.key.base64.decode("utf-8", "surrogateescape")
    recursive = isinstance(data, kv_says.Delete) and data.recursive
    if not auth.allows(user_of(principal), key, True, recursive):
        raise no_auth()


def no_auth() -> V2Error:
    return V2Error(errors.UNAUTHORIZED, "Insufficient credentials")


def user_of(principal: str) -> str:
    return principal.removeprefix(USER) if principal.startswith(USER) else ""


def with_root(user: str, roles: list[str] | None) -> list[str] | None:
    """The user root has the role root, said or not."""
    return [*(roles or ()), ROOT] if user == ROOT and ROOT not in (roles or ()) else roles


def role_data(name: str, role: Role | None) -> dict[str, Any]:
    """As etcd's JSON shows it. ``role`` None: root's."""
    rights = Role(["/*"], ["/*"]) if role is None else role
    more = {"grant": rights.grant, "revoke": rights.revoke}
    said = {what: _permissions(one) for what, one in more.items() if one is not None}
    return {"role": name, "permissions": _permissions(rights), **said}


def _permissions(rights: Role | says.Rights) -> dict[str, Any]:
    return {"kv": {"read": rights.read, "write": rights.write}}


def _no_root(name: str) -> None:
    if name == ROOT:
        raise AuthError(403, f"Cannot modify role {name}: is root role.")


def _granted(there: list[str] | None, new: list[str] | None, what: str) -> list[str]:
    patterns = set(there or ())
    for pattern in new or ():
        if pattern in patterns:
            raise AuthError(409, f"Granting duplicate {what} permission {pattern}")
        patterns.add(pattern)
    return sorted(patterns, key=str.encode)


def _revoked(there: list[str] | None, gone: list[str] | None) -> list[str]:
    return sorted(set(there or ()) - set(gone or ()), key=str.encode)
