"""Runs sequences on all servers and compares.

The first server decides; a second real one only shows where the two part.
"""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from actors.kv.proto import auth_pb2
from actors.kv.proto import etcd_pb2 as pb
from tests.differential import masks, servers
from tests.differential.servers import Client, Plain, Server

#: Watches that settled aren't looked at longer than this.
SETTLE_S = 3.0
#: etcd looks after watches that are behind ten times a second.
CATCH_UP_S = 0.2


class Differ(AssertionError):
    """The message has the step and both answers."""


class Crashed(Exception):
    """A real etcd is gone: some requests end it. The message has the step."""


class Pairs:
    """The servers, restarted when they parted. ``errors``: messages that were met; ``fields``: requests' fields set;
    ``parted``: how the older real etcd answers otherwise than the newest, and at which step; ``crashes``: steps that
    ended one."""

    def __init__(self, folder: Path, older: bool = False) -> None:
        self.errors: Counter[str] = Counter()
        self.fields: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self.parted: dict[str, str] = {}
        self.crashes: list[str] = []
        self._folder, self._older = folder, older
        self._watched = 0.0
        self._strayed = self._downgraded = self._alarmed = False
        self._compacted: set[int] = set()
        self._stack: contextlib.ExitStack | None = None
        self._servers: list[Server] = []
        self._runs = itertools.count()
        self._pool = ThreadPoolExecutor(3)

    def __enter__(self) -> "Pairs":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._pool.shutdown()

    def _start(self) -> None:
        self._strayed = self._downgraded = self._alarmed = False
        self._compacted.clear()
        folder = self._folder / str(next(self._runs))
        folder.mkdir()
        self._stack = contextlib.ExitStack()
        enter = self._stack.enter_context
        self._servers = [enter(servers.real(servers.NEWEST, folder / "newest")), enter(servers.ours(folder / "ours"))]
        if self._older:
            self._servers.append(enter(servers.real(servers.OLDER, folder / "older")))
        for client in self._servers[1].clients:
            client.fields = self.fields

    def _stop(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()

    def run(self, sequence: list[Any]) -> None:
        """Raises Differ."""
        if self._stack is None:
            self._start()
        try:
            self._run(sequence)
            if self._strayed:
                self._stop()
        except Crashed as crashed:
            self.crashes.append(str(crashed))
            self._stop()
        except BaseException:
            self._stop()
            raise

    # -- one sequence -----------------------------------------------------------------------------------------

    def _run(self, sequence: list[Any]) -> None:
        revision = self._empty()
        try:
            for index, one in enumerate(sequence):
                self._step(f"step {index}: {_shown(one)}", one, revision)
            self._watches()
            self._compare("HashKV at the end: ", self._all(lambda c: c.call("HashKV", pb.HashKVRequest())))
        finally:
            for server in self._servers:
                for client in server.clients:
                    client.forget_watches()

    def _without_users(self) -> bool:
        """Whether auth could be ended; then users and roles are, too."""
        for server in self._servers:
            root = server.clients[0]
            root.token("")
            if root.call("AuthStatus", pb.AuthStatusRequest()).get("enabled"):
                _authenticate(root, "root", "pw")
                if "code" in root.call("AuthDisable", pb.AuthDisableRequest()):
                    return False
            for client in server.clients:
                client.token("")
            for name in root.call("UserList", pb.AuthUserListRequest()).get("users", []):
                root.call("UserDelete", pb.AuthUserDeleteRequest(name=name))
            for name in root.call("RoleList", pb.AuthRoleListRequest()).get("roles", []):
                root.call("RoleDelete", pb.AuthRoleDeleteRequest(role=name))
        return True

    def _empty(self) -> int:
        """Every sequence begins without users, keys and leases. Returns the revision then."""
        if not self._without_users():
            self._stop()
            self._start()
        for server in self._servers:
            if self._alarmed:
                for kind, member in itertools.product((pb.NOSPACE, pb.CORRUPT), (0, 5)):
                    request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=kind, memberID=member)
                    server.clients[0].call("Alarm", request)
            if self._downgraded:
                server.clients[0].call("Downgrade", pb.DowngradeRequest(action=pb.DowngradeRequest.CANCEL))
            everything = pb.DeleteRangeRequest(key=b"\0", range_end=b"\0")
            server.clients[0].call("DeleteRange", everything)
            listed = server.clients[0].call("LeaseLeases", pb.LeaseLeasesRequest())
            for lease in listed.get("leases", []):
                server.clients[0].call("LeaseRevoke", pb.LeaseRevokeRequest(ID=int(lease["ID"])))
        self._downgraded = self._alarmed = False
        put = pb.PutRequest(key=b"a", value=b"first")
        answers = self._all(lambda c: c.call("Put", put))
        self._compare("the first put", answers)
        for lease in (11, 12):
            grant = pb.LeaseGrantRequest(ID=lease, TTL=900)
            self._compare("grant", self._all(_simple("LeaseGrant")([grant], 0)))
        return int(answers[0]["header"]["revision"])

    def _all(self, what: Callable[[Client], Plain], client: int = 0) -> list[Plain]:
        return list(self._pool.map(lambda server: what(server.clients[client]), self._servers))

    def _compare(self, where: str, answers: list[Any]) -> None:
        theirs, ours, *older = [masks.masked(one) for one in answers]
        if any(isinstance(one, dict) and one.get("code") == servers.UNAVAILABLE for one in (theirs, *older)):
            raise Crashed(where)
        if older and not self._strayed and not masks.same(older[0], theirs):
            self.parted.setdefault(_parting(where, older[0], theirs), where)
            # what follows on it would be told as well
            self._strayed = _revision(older[0]) != _revision(theirs)
        if isinstance(theirs, dict) and "message" in theirs:
            self.errors[theirs["message"]] += 1
        if not masks.same(theirs, ours):
            raise Differ(f"{where}\n  etcd:    {theirs}\n  corelog: {ours}")

    def _step(self, where: str, step: Any, base: int) -> None:
        name, client, *parts = step
        self.steps[name] += 1
        ask = _ASKS[name](parts, base)
        self._downgraded |= name == "Downgrade"
        self._alarmed |= name == "Alarm"
        if name == "WatchCreate":
            self._watched = time.monotonic()
        elif name in ("Compact", "WatchCancel", "WatchProgress"):
            # etcd may take this long to catch a watch up, and what comes first ends it untold
            time.sleep(max(0.0, self._watched + CATCH_UP_S - time.monotonic()))
        answers = self._all(ask, client)
        if name == "Compact" and "code" not in answers[0]:
            self._compacted.add(base + parts[0])
        if name != "HashKV" or parts[0] is None or base + parts[0] not in self._compacted:
            self._compare(where, answers)
        if name == "SetUp":
            for number, user in enumerate(("root", "alice")):
                self._compare(f"{user}: ", self._all(lambda c, who=user: _authenticate(c, who, "pw"), number))  # type: ignore[misc]

    # -- watches ----------------------------------------------------------------------------------------------

    def _watches(self) -> None:
        """All watches must have told the same; etcd may take its time."""
        for client in range(servers.CLIENTS):
            streams = [server.clients[client].watch for server in self._servers]
            if streams[0] is None:
                continue
            until = time.monotonic() + SETTLE_S
            told = [_told(stream) for stream in streams]
            while time.monotonic() < until and not masks.same(told[0], told[1]):
                time.sleep(0.01)
                told = [_told(stream) for stream in streams]
            self._compare(f"watches of client {client}: ", told)


def _parting(where: str, older: Any, newest: Any) -> str:
    """Which calls, and what kinds of answers: words of errors, else the names of the fields that aren't alike."""
    kind = where.partition(": ")[2].partition(" ")[0] or where
    told = [
        one["message"]
        if "message" in one
        else "fields " + " ".join(sorted(name for name in one if one.get(name) != other.get(name)))
        for one, other in ((older, newest), (newest, older))
    ]
    return f"{kind}: {told[0]} | {told[1]}"


def _revision(answer: Any) -> Any:
    return answer.get("header", {}).get("revision")


def _told(stream: Any) -> Plain:
    return {"events": dict(stream.events), "controls": dict(stream.controls), "ended": stream.ended}


#: A message of more isn't shown: its text would take longer than its step.
SHOWN_BYTES_MAX = 20_000


def _shown(step: Any) -> str:
    return " ".join(_part(part) for part in step)


def _part(part: Any) -> str:
    if isinstance(part, Message) and part.ByteSize() > SHOWN_BYTES_MAX:
        return f"{part.DESCRIPTOR.name} of {part.ByteSize()} bytes"
    return str(part).replace("\n", " ")


# -- how each step asks ---------------------------------------------------------------------------------------


def _range(parts: Any, base: int) -> pb.RangeRequest:
    asked, back, bounds = parts
    request = pb.RangeRequest()
    request.CopyFrom(asked)
    if back is not None:
        request.revision = base + back
    names = ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")
    for name, bound in zip(names, bounds, strict=True):
        if bound is not None:
            setattr(request, name, base + bound)
    return request


def _authenticate(client: Client, name: str, password: str) -> Plain:
    answer = client.call("Authenticate", pb.AuthenticateRequest(name=name, password=password))
    if "token" in answer:
        client.token(answer["token"])
    return answer


def _set_up(client: Client) -> Plain:
    """root, and alice who may read and write some keys; the other clients are seen to by ``_run``."""
    everything = [
        ("UserAdd", pb.AuthUserAddRequest(name="root", password="pw")),
        ("UserAdd", pb.AuthUserAddRequest(name="alice", password="pw")),
        ("RoleAdd", pb.AuthRoleAddRequest(name="root")),
        ("RoleAdd", pb.AuthRoleAddRequest(name="r")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="alice", role="r")),
    ]
    for kind, key, end in ((2, b"a", b"b\x01"), (0, b"c/1", b""), (1, b"c/2", b""), (0, b"d", b"\0")):
        perm = auth_pb2.Permission(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]
        everything.append(("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="r", perm=perm)))
    everything.append(("AuthEnable", pb.AuthEnableRequest()))
    return {str(index): client.call(name, request) for index, (name, request) in enumerate(everything)}


def _forget(client: Client) -> Plain:
    client.token("")
    return {}


def _watch_request(parts: Any, base: int) -> pb.WatchCreateRequest:
    asked, back = parts
    request = pb.WatchCreateRequest()
    request.CopyFrom(asked)
    if back is not None:
        request.start_revision = base + back
    return request


def _simple(name: str) -> Callable[[Any, int], Callable[[Client], Plain]]:
    return lambda parts, base: lambda client: client.call(name, parts[0])


def _grant_any(client: Client, ttl: int) -> Plain:
    """An id of the server's choice; gone again, so that lists stay comparable."""
    answer = client.call("LeaseGrant", pb.LeaseGrantRequest(TTL=ttl))
    if "ID" not in answer:
        return answer
    answer["ID"] = client.call("LeaseRevoke", pb.LeaseRevokeRequest(ID=int(answer["ID"]))).keys() == {"header"}
    return answer


def _downgrade(client: Client, action: Any, version: str) -> Plain:
    """With what Status tells of it; each cluster has another version."""
    request = pb.DowngradeRequest(action=action, version=version.replace("LOWER", client.lower))
    answer = client.call("Downgrade", request)
    info = client.call("Status", pb.StatusRequest()).get("downgradeInfo", {})
    return {**answer, "told": {**info, "targetVersion": info.get("targetVersion") == f"{client.lower}.0"}}


def _members(answer: Plain) -> Plain:
    """Names, ids and URLs are each cluster's own."""
    return {**answer, "members": len(answer.get("members", []))}


def _watch(client: Client, request: pb.WatchCreateRequest) -> Plain:
    client.watches().create(request)
    return {}


def _cancel(client: Client, watch_id: int) -> Plain:
    client.watches().say(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))
    return {}


_ASKS: dict[str, Callable[[Any, int], Callable[[Client], Plain]]] = {
    **{name: _simple(name) for name in ("Put", "DeleteRange", "Txn", "LeaseGrant")},
    **{name: _simple(name) for name in servers.NAMES if name.startswith(("Auth", "User", "Role"))},
    "Authenticate": lambda parts, base: lambda client: _authenticate(client, *parts),
    "Forget": lambda parts, base: _forget,
    "SetUp": lambda parts, base: _set_up,
    "Range": lambda parts, base: lambda client: client.call("Range", _range(parts, base)),
    "RangeStream": lambda parts, base: lambda client: client.range_stream(_range(parts, base)),
    "Compact": lambda parts, base: (
        lambda client: client.call("Compact", pb.CompactionRequest(revision=base + parts[0], physical=parts[1]))
    ),
    "LeaseGrantAny": lambda parts, base: lambda client: _grant_any(client, parts[0]),
    "LeaseRevoke": lambda parts, base: lambda client: client.call("LeaseRevoke", pb.LeaseRevokeRequest(ID=parts[0])),
    "LeaseTimeToLive": lambda parts, base: (
        lambda client: client.call("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=parts[0], keys=parts[1]))
    ),
    "LeaseLeases": lambda parts, base: lambda client: client.call("LeaseLeases", pb.LeaseLeasesRequest()),
    "LeaseKeepAlive": lambda parts, base: lambda client: client.keep_alive(parts[0]),
    "HashKV": lambda parts, base: (
        lambda client: client.call("HashKV", pb.HashKVRequest(revision=0 if parts[0] is None else base + parts[0]))
    ),
    "WatchCreate": lambda parts, base: lambda client: _watch(client, _watch_request(parts, base)),
    "WatchCancel": lambda parts, base: lambda client: _cancel(client, parts[0]),
    "Alarm": _simple("Alarm"),
    "WatchProgress": lambda parts, base: lambda client: client.watches().ask_progress(),
    "MemberList": lambda parts, base: (
        lambda client: _members(client.call("MemberList", pb.MemberListRequest(linearizable=parts[0])))
    ),
    "Member": lambda parts, base: lambda client: client.call(*parts),
    "MoveLeader": lambda parts, base: lambda client: client.call("MoveLeader", pb.MoveLeaderRequest(targetID=parts[0])),
    "Downgrade": lambda parts, base: lambda client: _downgrade(client, *parts),
    "Status": lambda parts, base: lambda client: client.call("Status", pb.StatusRequest()),
    "Lock": lambda parts, base: lambda client: client.lock(*parts),
    "Campaign": lambda parts, base: lambda client: client.campaign(*parts),
    "Defragment": lambda parts, base: lambda client: client.call("Defragment", pb.DefragmentRequest()),
}


@contextlib.contextmanager
def pairs(folder: Path, older: bool = False) -> Iterator[Pairs]:
    with Pairs(folder, older) as made:
        yield made
