"""Stream ``kv``: v2's users and roles, as etcd's ``/v2/auth`` changes them.

Each has ``auth``: the revision of v2's users at which its author was let through (0: nobody asked). Where it is
another one by now, the author is asked for again when it is applied.
"""

from streams.events.base import Data, event


class Rights(Data, frozen=True):
    """Patterns of keys; one that ends in ``*`` is a prefix. None: as JSON's null, not said."""

    read: list[str] | None = None
    write: list[str] | None = None


@event("kv.v2.auth_enable.v1", "kv", command=True)
class AuthEnable(Data, frozen=True):
    """PUT /v2/auth/enable; makes the role guest if there is none."""

    auth: int = 0


@event("kv.v2.auth_disable.v1", "kv", command=True)
class AuthDisable(Data, frozen=True):
    """DELETE /v2/auth/enable."""

    auth: int = 0


@event("kv.v2.user_add.v1", "kv", command=True)
class UserAdd(Data, frozen=True):
    """PUT of a user who must not be there. ``hash``: bcrypt's."""

    name: str
    hash: str
    roles: list[str] | None = None
    auth: int = 0


@event("kv.v2.user_update.v1", "kv", command=True)
class UserUpdate(Data, frozen=True):
    """PUT of a user who must be there. ``hash``: of the new password; empty: it stays."""

    name: str
    hash: str = ""
    grant: list[str] = []
    revoke: list[str] = []
    auth: int = 0


@event("kv.v2.user_delete.v1", "kv", command=True)
class UserDelete(Data, frozen=True):
    """DELETE of a user."""

    name: str
    auth: int = 0


@event("kv.v2.role_add.v1", "kv", command=True)
class RoleAdd(Data, frozen=True):
    """PUT of a role that must not be there. ``grant`` and ``revoke``: of nothing, which etcd keeps and shows."""

    name: str
    rights: Rights = Rights()
    auth: int = 0
    grant: Rights | None = None
    revoke: Rights | None = None


@event("kv.v2.role_update.v1", "kv", command=True)
class RoleUpdate(Data, frozen=True):
    """PUT of a role that must be there; granted first, then revoked."""

    name: str
    grant: Rights | None = None
    revoke: Rights | None = None
    auth: int = 0


@event("kv.v2.role_delete.v1", "kv", command=True)
class RoleDelete(Data, frozen=True):
    """DELETE of a role; users keep its name, which then means nothing."""

    name: str
    auth: int = 0
