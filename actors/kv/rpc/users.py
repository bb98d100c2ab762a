"""etcdserverpb.Auth. Passwords are hashed and compared in a worker thread, and never leave this module."""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import bcrypt
from google.protobuf.message import Message

from actors.kv.proto import auth_pb2
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.service import Call, Method, Rpc
from actors.kv.v3 import errors
from actors.kv.v3.auth import BOTH, ROOT, Auth
from actors.kv.v3.errors import V3Error
from streams.events import kv3 as says
from streams.events.base import Base64, Data, blob

#: bcrypt takes so many bytes of a password, Go's refuses more.
PASSWORD_BYTES_MAX = 72
#: Hashes that are made at once: each takes some 60 ms of a core.
HASHING_MAX = 2
TOO_LONG = V3Error(errors.UNKNOWN, "bcrypt: password length exceeds 72 bytes")
NO_PASSWORD = V3Error(errors.UNKNOWN, "auth: authentication failed, password was given for no password user")
#: In the place of a hash: no password fits it.
UNFIT = "!"
#: How often a token is made anew because users changed meanwhile.
TRIES = 5


class Users:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._hashing = asyncio.Semaphore(HASHING_MAX)
        self._cost = rpc.setting.etcd.bcrypt_cost

    def methods(self) -> Iterator[Method]:
        for name, event, asked, told in _COMMANDS:
            yield Method(f"/etcdserverpb.Auth/{name}", asked, told, self._command(event, told))
        for name, work, asked, told in (
            ("Authenticate", self._authenticate, pb.AuthenticateRequest, pb.AuthenticateResponse),
            ("UserAdd", self._user_add, pb.AuthUserAddRequest, pb.AuthUserAddResponse),
            ("UserChangePassword", self._password, pb.AuthUserChangePasswordRequest, _PASSWORD_CHANGED),
        ):
            yield Method(f"/etcdserverpb.Auth/{name}", asked, told, self._served(work))
        for name, answer, asked, told in (
            ("AuthStatus", self._status, pb.AuthStatusRequest, pb.AuthStatusResponse),
            ("UserGet", self._user, pb.AuthUserGetRequest, pb.AuthUserGetResponse),
            ("UserList", self._users, pb.AuthUserListRequest, pb.AuthUserListResponse),
            ("RoleGet", self._role, pb.AuthRoleGetRequest, pb.AuthRoleGetResponse),
            ("RoleList", self._roles, pb.AuthRoleListRequest, pb.AuthRoleListResponse),
        ):
            yield Method(f"/etcdserverpb.Auth/{name}", asked, told, self._read(answer))

    @property
    def _auth(self) -> Auth:
        return self._rpc.fold.v3.auth

    # -- kinds of calls ---------------------------------------------------------------------------------------

    def _command(self, event: Callable[[Any], Data], told: type[Message]) -> Callable[..., None]:
        def serve(call: Call, request: Any, size: int) -> None:
            self._rpc.check_root(call)
            data = event(request)
            self._rpc.submit(call, data, size, lambda result: self._rpc.head(told(), result.revision))

        return serve

    def _served(self, work: Callable[..., Any]) -> Callable[..., None]:
        return lambda call, request, _size: self._rpc.run(call, work(call, request))

    def _read(self, answer: Callable[[Call, Any], Message]) -> Callable[..., None]:
        """Linearizable, as etcd's: it orders even these."""
        return lambda call, request, _size: self._rpc.read(call, False, lambda: answer(call, request))

    # -- passwords and tokens ---------------------------------------------------------------------------------

    async def _hash(self, password: str) -> str:
        """Raises V3Error."""
        raw = password.encode()
        if len(raw) > PASSWORD_BYTES_MAX:
            raise TOO_LONG
        async with self._hashing:
            made = await asyncio.to_thread(lambda: bcrypt.hashpw(raw, bcrypt.gensalt(self._cost)))
        return made.decode()

    async def _check_root(self, call: Call) -> None:
        """By all that was acknowledged anywhere before, too. Raises V3Error."""
        try:
            self._rpc.check_root(call)
        except V3Error as error:
            if error not in errors.RIGHTS:
                raise
            await self._rpc.linearizable()
            self._rpc.check_root(call)

    async def _user_add(self, call: Call, request: pb.AuthUserAddRequest) -> pb.AuthUserAddResponse:
        await self._check_root(call)
        if not request.name:
            raise errors.USER_EMPTY
        hashed = "" if request.options.no_password else await self._hash(request.password)
        result = await self._rpc.command(call, says.UserAdd(request.name, hashed), 200)
        return self._rpc.head(pb.AuthUserAddResponse(), result.revision)

    async def _password(
        self, call: Call, request: pb.AuthUserChangePasswordRequest
    ) -> pb.AuthUserChangePasswordResponse:
        await self._check_root(call)
        await self._rpc.linearizable()
        user = self._auth.users.get(request.name)
        if user is not None and not user.hash:
            hashed = ""
        elif request.password:
            hashed = await self._hash(request.password)
        elif request.hashedPassword:
            hashed = _given_hash(request.hashedPassword)
        else:
            # as etcd's, no password fits it from now on
            hashed = UNFIT
        result = await self._rpc.command(call, says.UserPassword(request.name, hashed), 200)
        return self._rpc.head(pb.AuthUserChangePasswordResponse(), result.revision)

    async def _authenticate(self, call: Call, request: pb.AuthenticateRequest) -> pb.AuthenticateResponse:
        """A token is a secret of 128 bits; the log has its digest, so that all nodes know it."""
        await self._rpc.linearizable()
        for _ in range(TRIES):
            auth = self._auth
            if not auth.enabled:
                raise errors.AUTH_NOT_ENABLED
            user, revision, raw = auth.users.get(request.name), auth.revision, request.password.encode()
            if user is not None and not user.hash:
                raise NO_PASSWORD
            if user is None or len(raw) > PASSWORD_BYTES_MAX:
                raise errors.AUTH_FAILED
            known = user.hash.encode()
            async with self._hashing:
                right = await asyncio.to_thread(_right, raw, known)
            if not right:
                raise errors.AUTH_FAILED
            if (jwts := self._rpc.jwts) is not None:
                if not jwts.signs:
                    raise errors.VERIFY_ONLY
                return self._rpc.head(pb.AuthenticateResponse(token=jwts.sign(request.name, revision)))
            token = secrets.token_hex(16) + "." + str(revision)
            digest = hashlib.sha256(token.encode()).digest()
            try:
                result = await self._rpc.command(
                    _Anonymous(call), says.AuthToken(request.name, Base64(digest), revision), 200
                )
            except V3Error as error:
                if error.message == errors.OLD_AUTH_REVISION.message:
                    continue
                raise
            return self._rpc.head(pb.AuthenticateResponse(token=token), result.revision)
        raise errors.OLD_AUTH_REVISION

    # -- reads ------------------------------------------------------------------------------------------------

    def _status(self, call: Call, _request: pb.AuthStatusRequest) -> pb.AuthStatusResponse:
        """Anybody may ask, but not with a token that is none."""
        self._rpc.user(call)
        auth = self._auth
        return self._rpc.head(pb.AuthStatusResponse(enabled=auth.enabled, authRevision=auth.revision))

    def _user(self, call: Call, request: pb.AuthUserGetRequest) -> pb.AuthUserGetResponse:
        if (self._rpc.user(call) or "") != request.name:
            self._rpc.check_root(call)
        found = self._auth.users.get(request.name)
        if found is None:
            raise errors.USER_NOT_FOUND
        return self._rpc.head(pb.AuthUserGetResponse(roles=found.roles))

    def _users(self, call: Call, _request: pb.AuthUserListRequest) -> pb.AuthUserListResponse:
        self._rpc.check_root(call)
        return self._rpc.head(pb.AuthUserListResponse(users=sorted(self._auth.users, key=str.encode)))

    def _role(self, call: Call, request: pb.AuthRoleGetRequest) -> pb.AuthRoleGetResponse:
        user = self._auth.users.get(self._rpc.user(call) or "")
        if user is None or request.role not in user.roles:
            self._rpc.check_root(call)
        found = self._auth.roles.get(request.role)
        if found is None:
            raise errors.ROLE_NOT_FOUND
        response = self._rpc.head(pb.AuthRoleGetResponse())
        if request.role == ROOT:
            response.perm.add(permType=auth_pb2.Permission.Type.ValueType(BOTH), range_end=b"\0")
            return response
        for one in found:
            kind = auth_pb2.Permission.Type.ValueType(one.kind)
            response.perm.add(permType=kind, key=one.key, range_end=one.end)
        return response

    def _roles(self, call: Call, _request: pb.AuthRoleListRequest) -> pb.AuthRoleListResponse:
        self._rpc.check_root(call)
        return self._rpc.head(pb.AuthRoleListResponse(roles=sorted(self._auth.roles, key=str.encode)))


class _Anonymous:
    """A call as somebody without a token: who authenticates may still send an old one."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.metadata: dict[bytes, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def _right(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:
        return False  # what was given as a hash is none


def _given_hash(hashed: str) -> str:
    """Of its base64. Raises V3Error."""
    try:
        return base64.b64decode(hashed, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise NO_PASSWORD from error


def _granted(request: pb.AuthRoleGrantPermissionRequest) -> Data:
    if not request.HasField("perm"):
        raise errors.PERMISSION_NOT_GIVEN
    perm = request.perm
    return says.RoleGrant(request.name, says.Permission(perm.permType, blob(perm.key), blob(perm.range_end)))


_PASSWORD_CHANGED = pb.AuthUserChangePasswordResponse
_COMMANDS: tuple[tuple[str, Callable[[Any], Data], type[Message], type[Message]], ...] = (
    ("AuthEnable", lambda _: says.AuthEnable(), pb.AuthEnableRequest, pb.AuthEnableResponse),
    ("AuthDisable", lambda _: says.AuthDisable(), pb.AuthDisableRequest, pb.AuthDisableResponse),
    ("UserDelete", lambda r: says.UserDelete(r.name), pb.AuthUserDeleteRequest, pb.AuthUserDeleteResponse),
    (
        "UserGrantRole",
        lambda r: says.UserGrant(r.user, r.role),
        pb.AuthUserGrantRoleRequest,
        pb.AuthUserGrantRoleResponse,
    ),
    (
        "UserRevokeRole",
        lambda r: says.UserRevoke(r.name, r.role),
        pb.AuthUserRevokeRoleRequest,
        pb.AuthUserRevokeRoleResponse,
    ),
    ("RoleAdd", lambda r: says.RoleAdd(r.name), pb.AuthRoleAddRequest, pb.AuthRoleAddResponse),
    ("RoleDelete", lambda r: says.RoleDelete(r.role), pb.AuthRoleDeleteRequest, pb.AuthRoleDeleteResponse),
    ("RoleGrantPermission", _granted, pb.AuthRoleGrantPermissionRequest, pb.AuthRoleGrantPermissionResponse),
    (
        "RoleRevokePermission",
        lambda r: says.RoleRevoke(r.role, blob(r.key), blob(r.range_end)),
        pb.AuthRoleRevokePermissionRequest,
        pb.AuthRoleRevokePermissionResponse,
    ),
)
