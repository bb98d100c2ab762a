"""etcdserverpb.Cluster: who the members are, and their changes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import Message

from actors.coordination.membership import BAD_PEERS, One, full
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.service import Call, Method, Rpc
from actors.kv.state import Cluster, Member
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.store import Result
from streams.events import cluster as says
from streams.events.base import Data

_SCHEMES = ("http", "https", "unix", "unixs")


class Members:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def methods(self) -> Iterator[Method]:
        here = "/etcdserverpb.Cluster/"
        yield Method(here + "MemberList", pb.MemberListRequest, pb.MemberListResponse, self.list)
        for name, event, asked, told in _CHANGES:
            yield Method(here + name, asked, told, self._change(event, told))

    def list(self, call: Call, request: pb.MemberListRequest, _size: int) -> None:
        # as 3.7: any user may, nobody may not
        if not call.connection.trusted:
            self._rpc.check_user(call)
        # this service's headers have no revision
        self._rpc.read(call, not request.linearizable, lambda: self._listed(pb.MemberListResponse()))

    def _change(self, event: Callable[[Any], Data], told: type[Message]) -> Callable[..., None]:
        def serve(call: Call, request: Any, size: int) -> None:
            self._rpc.check_root(call)

            def done(result: Result) -> Message:
                response: Message = self._listed(told())
                if isinstance(response, pb.MemberAddResponse):
                    _fill(response.member, *shown(self._rpc.fold.cluster)[result.value["id"]])
                return response

            self._rpc.submit(call, event(request), size, done)

        return serve

    def _listed(self, response: Any) -> Any:
        self._rpc.head(response, 0)
        for member in shown(self._rpc.fold.cluster).values():
            _fill(response.members.add(), *member)
        return response


def peer_url(text: str) -> str:
    """As etcd takes it. Raises ValueError, with the words of Go's ``url`` and etcd's ``types`` package."""
    url = text.strip()
    if any(character.isspace() for character in url):
        raise ValueError(f"parse {url!r}: invalid character in host name")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"parse {url!r}: {error}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"URL scheme must be http, https, unix, or unixs: {url}")
    if parts.scheme in ("http", "https"):
        if port is None:
            raise ValueError(f'URL address does not have the form "host:port": {url}')
        if parts.path:
            raise ValueError(f"URL must not contain a path: {url}")
    return url


def _peers(urls: Iterable[str]) -> list[str]:
    """Raises BAD_PEERS."""
    try:
        found = sorted(map(peer_url, urls))
    except ValueError:
        found = []
    if not found:
        raise V3Error(errors.INVALID, BAD_PEERS.message)
    return found


_CHANGES: tuple[tuple[str, Callable[[Any], Data], type[Message], type[Message]], ...] = (
    (
        "MemberAdd",
        lambda r: says.MemberAdd(_peers(r.peerURLs), r.isLearner),
        pb.MemberAddRequest,
        pb.MemberAddResponse,
    ),
    ("MemberRemove", lambda r: says.MemberRemove(r.ID), pb.MemberRemoveRequest, pb.MemberRemoveResponse),
    (
        "MemberUpdate",
        lambda r: says.MemberUpdate(r.ID, list(r.peerURLs)),
        pb.MemberUpdateRequest,
        pb.MemberUpdateResponse,
    ),
    ("MemberPromote", lambda r: says.MemberPromote(r.ID), pb.MemberPromoteRequest, pb.MemberPromoteResponse),
)

Shown = tuple[One, Member, list[str]]


def shown(cluster: Cluster) -> dict[str, Shown]:
    """By id in decimal: the member, its machine (an empty one before it came), its peer URLs; by these in order.

    What members have for each other is the log; where one answers stands for its peer's URL if it told none.
    """
    found = []
    for name, one in full(cluster.membership, cluster.controls).members.items():
        machine = cluster.members.get(one.machine) if one.machine else None
        if one.machine and machine is None:
            continue  # the machine was removed when it was lost
        known = machine or Member()
        found.append((one.peers or known.clients, name, one, known))
    return {name: (one, known, peers) for peers, name, one, known in sorted(found, key=lambda row: row[:2])}


def _fill(made: pb.Member, one: One, machine: Member, peers: list[str]) -> None:
    made.ID, made.name, made.isLearner = one.id, machine.name, one.learner
    made.peerURLs.extend(peers)
    made.clientURLs.extend(machine.clients)
