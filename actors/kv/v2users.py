"""``/v2/auth`` on the port, and who a request on v2's keys and members comes from (HTTP's Basic auth).

bcrypt runs in a worker thread; what it found right is remembered by a digest that is of no use elsewhere.
"""

import asyncio
import base64
import binascii
import hashlib
import posixpath
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import bcrypt
import msgspec
import orjson

from actors.kv.commands import Commands, NotSent, OutcomeUnknown
from actors.kv.exchange import JSON, TEXT, Exchange
from actors.kv.state import KvFold
from actors.kv.v2.auth import ROOT, USER, Auth, enabled, role_data, with_root
from actors.kv.v2.get import escape
from actors.kv.v2.nodes import shown
from streams.events import kv2 as says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied

PREFIX = "/v2/auth/"
#: bcrypt takes so many bytes of a password.
PASSWORD_BYTES_MAX = 72
#: Passwords that are looked at at once, each some 60 ms of a core; and those found right that are remembered.
HASHING_MAX, REMEMBERED_MAX = 2, 10_000
NO_AUTH = "Insufficient credentials"
_NOBODY = Auth()


class V2Users:
    """``cluster``: the header with the cluster's id."""

    def __init__(self, fold: KvFold, commands: Commands, cluster: bytes, cost: int) -> None:
        self._fold, self._commands, self._cluster, self._cost = fold, commands, cluster, cost
        self._hashing = asyncio.Semaphore(HASHING_MAX)
        self._salt = secrets.token_bytes(16)
        self._right: dict[bytes, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def auth(self) -> Auth:
        users = self._fold.cluster.users2
        return users if isinstance(users, Auth) else _NOBODY

    def guards(self, exchange: Exchange) -> bool:
        """Whether who asks must be known. On the node's own socket root asks, of the machine."""
        return enabled(self._fold.cluster.users2) and not exchange.connection.trusted

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    # -- who asks ---------------------------------------------------------------------------------------------

    def let(
        self, exchange: Exchange, key: str, recursive: bool, then: Callable[[str | None], None], write: bool
    ) -> None:
        """``then`` gets the user (empty: a guest) who may read or write ``key``; None: nobody may."""

        def known(user: str | None) -> None:
            may = user is not None and self.auth.allows(user, key, write, recursive)
            then(user if may else None)

        self._known(exchange, known)

    def root(self, exchange: Exchange, then: Callable[[str | None], None]) -> None:
        """``then`` gets the user, if that is one with the role root; None: it isn't. Without auth everybody is."""
        if not self.guards(exchange):
            then("")
            return
        self._known(exchange, lambda user: then(user if user and ROOT in self.auth.roles_of(user) else None))

    def _known(self, exchange: Exchange, then: Callable[[str | None], None]) -> None:
        """``then`` gets the user by certificate or password; empty: a guest; None: a wrong password, or none such."""
        given = exchange.headers.get(b"authorization", b"")
        if not given:
            name = exchange.connection.user_cn
            then(name if name in self.auth.users else "")
            return
        found = _basic(given)
        user = self.auth.users.get(found[0]) if found else None
        if found is None or user is None:
            then(None)
            return
        name, password, known = *found, user.hash.encode()
        mark = hashlib.blake2b(known + b"\0" + password, key=self._salt, digest_size=16).digest()
        if mark in self._right:
            then(name)
            return
        self._run(self._look(mark, password, known, lambda right: then(name if right else None)))

    async def _look(self, mark: bytes, password: bytes, known: bytes, then: Callable[[bool], None]) -> None:
        async with self._hashing:
            right = await asyncio.to_thread(_is_right, password, known)
        if right:
            self._right[mark] = None
            if len(self._right) > REMEMBERED_MAX:
                del self._right[next(iter(self._right))]
        then(right)

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- /v2/auth ---------------------------------------------------------------------------------------------

    def serve(self, exchange: Exchange, path: str) -> None:
        """Any path below ``/v2/auth/``."""
        tidy = posixpath.normpath(path[len(PREFIX) - 1 :])
        _, what, *rest = tidy.split("/")
        reads = exchange.method in ("GET", "HEAD") and what == "enable"
        allowed = ("GET",) if not rest and what != "enable" else ("GET", "PUT", "DELETE")
        if what not in ("users", "roles", "enable") or (what == "enable" and (rest or path.endswith("/"))):
            exchange.respond(404, TEXT + b"X-Content-Type-Options: nosniff\r\n", b"404 page not found\n")
        elif len(rest) > 1:
            self.error(exchange, 400, "Invalid path", b"")
        elif exchange.method not in allowed:
            allow = f"Allow: {','.join(allowed)}\r\nX-Content-Type-Options: nosniff\r\n".encode()
            exchange.respond(405, TEXT + allow, b"Method Not Allowed\n")
        elif reads:
            self._serve(exchange, what, "", "")
        else:
            self.root(exchange, lambda user: self._serve(exchange, what, rest[0] if rest else "", user))

    def _serve(self, exchange: Exchange, what: str, name: str, user: str | None) -> None:
        """``user``: who asks; None: somebody who may not."""
        if user is None:
            self.error(exchange, 401, NO_AUTH, b"")
            return
        try:
            if exchange.method == "GET":
                self._answer(exchange, 200, _SHOWN[what](self.auth, name))
            else:
                self._change(exchange, what, name, user)
        except _Refused as refused:
            self.error(exchange, *refused.args)

    def _change(self, exchange: Exchange, what: str, name: str, user: str) -> None:
        """Raises _Refused."""
        revision = self.auth.revision
        if what == "enable":
            enable = exchange.method == "PUT"
            self._submit(exchange, says.AuthEnable(revision) if enable else says.AuthDisable(revision), user, 200)
        elif exchange.method == "DELETE":
            if name != shown(name):  # nobody's: names come in JSON, which is UTF-8, and a log takes no other
                raise _Refused(404, f"auth: {'User' if what == 'users' else 'Role'} {shown(name)} does not exist.")
            data = says.UserDelete(name, revision) if what == "users" else says.RoleDelete(name, revision)
            self._submit(exchange, data, user, 200)
        elif what == "roles":
            role = _role_event(_parsed(exchange.body, _RoleAsked), name, revision)
            self._submit(exchange, role, user, 201 if isinstance(role, says.RoleAdd) else 200)
        else:
            self._run(self._put_user(exchange, _parsed(exchange.body, _UserAsked), name, user))

    async def _put_user(self, exchange: Exchange, asked: "_UserAsked", name: str, user: str) -> None:
        try:
            made, created = _user_event(self.auth, asked, name)
            if password := asked.password:
                raw = password.encode()
                if len(raw) > PASSWORD_BYTES_MAX:
                    raise _Refused(400, f"the password has {len(raw)} bytes; {PASSWORD_BYTES_MAX} at most")
                async with self._hashing:
                    hashed = await asyncio.to_thread(lambda: bcrypt.hashpw(raw, bcrypt.gensalt(self._cost)))
                made = msgspec.structs.replace(made, hash=hashed.decode())
            self._submit(exchange, made, user, 201 if created else 200)
        except _Refused as refused:
            self.error(exchange, *refused.args)

    def _submit(self, exchange: Exchange, data: Data, user: str, status: int) -> None:
        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                self.error(exchange, result.status, str(result))
            elif isinstance(outcome := result.outcome, Rejected):
                _, _, code = outcome.code.partition("v2-auth.")
                if code == "401":  # users came to be asked for since this node looked
                    self.error(exchange, 401, NO_AUTH, b"")
                else:
                    self.error(exchange, int(code) if code else 500, outcome.message)
            else:
                assert isinstance(outcome, Accepted)
                self._answer(exchange, status, outcome.result)

        principal = USER + user if user else exchange.connection.peer
        self._commands.submit(say(data, principal=principal), len(exchange.body) + 300, came)

    def _answer(self, exchange: Exchange, status: int, data: Any) -> None:
        body = b"" if data is None else escape(orjson.dumps(data)) + b"\n"
        exchange.respond(status, JSON + self._cluster, body)

    def error(self, exchange: Exchange, status: int, message: str, headers: bytes | None = None) -> None:
        """As etcd's: without a newline."""
        more = self._cluster if headers is None else headers
        exchange.respond(status, JSON + more, escape(orjson.dumps({"message": shown(message)})))


class _Refused(Exception):
    """(status, message), before anything is sent."""


# -- what is asked --------------------------------------------------------------------------------------------


class _RightsAsked(msgspec.Struct):
    read: list[str] | None = None
    write: list[str] | None = None


class _PermissionsAsked(msgspec.Struct):
    kv: _RightsAsked | None = None

    @property
    def rights(self) -> says.Rights:
        return says.Rights(self.kv.read, self.kv.write) if self.kv else says.Rights()


class _RoleAsked(msgspec.Struct):
    role: str | None = None
    permissions: _PermissionsAsked | None = None
    grant: _PermissionsAsked | None = None
    revoke: _PermissionsAsked | None = None


class _UserAsked(msgspec.Struct):
    user: str | None = None
    password: str | None = None
    roles: list[str] | None = None
    grant: list[str] | None = None
    revoke: list[str] | None = None


_Asked = TypeVar("_Asked", _RoleAsked, _UserAsked)


def _parsed(body: bytes, kind: type[_Asked]) -> _Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _Refused(400, "Invalid JSON in request body.") from None


def _empty(asked: _PermissionsAsked | None) -> bool:
    return asked is None or not (asked.rights.read or asked.rights.write)


def _role_event(asked: _RoleAsked, name: str, revision: int) -> Data:
    if (asked.role or "") != name:
        raise _Refused(400, "Role JSON name does not match the name in the URL")
    permissions = asked.permissions.rights if asked.permissions else says.Rights()
    grant, revoke = (one.rights if one else None for one in (asked.grant, asked.revoke))
    if _empty(asked.grant) and _empty(asked.revoke):
        return says.RoleAdd(name, permissions, revision, grant, revoke)
    if permissions.read or permissions.write:
        raise _Refused(400, "Role JSON contains both permissions and grant/revoke")
    return says.RoleUpdate(name, grant, revoke, revision)


def _user_event(auth: Auth, asked: _UserAsked, name: str) -> tuple[says.UserAdd | says.UserUpdate, bool]:
    """And whether etcd calls it created: only without roles does it look whether the user is there. No hash yet."""
    if (asked.user or "") != name:
        raise _Refused(400, "User JSON name does not match the name in the URL")
    changes = bool(asked.grant or asked.revoke)
    if changes and asked.roles:
        raise _Refused(400, "User JSON contains both roles and grant/revoke")
    if changes or (not asked.roles and name in auth.users):
        return says.UserUpdate(name, "", asked.grant or [], asked.revoke or [], auth.revision), False
    if not asked.password:
        raise _Refused(400, f"auth: Cannot create user {name} with an empty password")
    return says.UserAdd(name, "", asked.roles, auth.revision), not asked.roles


def _basic(given: bytes) -> tuple[str, bytes] | None:
    """User and password of an Authorization header; None: it is none of that kind."""
    scheme, _, rest = given.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest, validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _is_right(password: bytes, hashed: bytes) -> bool:
    try:
        return len(password) <= PASSWORD_BYTES_MAX and bcrypt.checkpw(password, hashed)
    except ValueError:
        return False  # what came from elsewhere as a hash is none


# -- what is shown --------------------------------------------------------------------------------------------


def _users(auth: Auth, name: str) -> Any:
    if name:
        if name not in auth.users:
            raise _Refused(404, f"auth: User {name} does not exist.")
        return _user(auth, name, True)
    named = sorted((name for name in auth.users if not name.startswith("_")), key=str.encode)
    return {"users": [_user(auth, name, False) for name in named] or None}


def _user(auth: Auth, name: str, strict: bool) -> dict[str, Any]:
    """``strict``: a role that isn't there is an error, else it is left out."""
    roles = []
    for role in with_root(name, auth.users[name].roles) or ():
        if role == ROOT or role in auth.roles:
            roles.append(role_data(role, auth.roles.get(role)))
        elif strict:
            raise _Refused(404, f"auth: Role {role} does not exist.")
    return {"user": name, "roles": roles} if roles else {"user": name}


def _roles(auth: Auth, name: str) -> Any:
    if name:
        if name != ROOT and name not in auth.roles:
            raise _Refused(404, f"auth: Role {name} does not exist.")
        return role_data(name, auth.roles.get(name))
    named = sorted([ROOT, *(name for name in auth.roles if not name.startswith("_"))], key=str.encode)
    return {"roles": [role_data(name, auth.roles.get(name)) for name in named]}


_SHOWN: dict[str, Callable[[Auth, str], Any]] = {
    "users": _users,
    "roles": _roles,
    "enable": lambda auth, _name: {"enabled": auth.enabled},
}
