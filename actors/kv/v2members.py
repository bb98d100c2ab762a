"""``/v2/members`` and ``/v2/machines``: who the members are, and their changes, by the same events as v3's.

Sources of the rules and words: etcd 3.4's ``v2http/client.go``, ``pkg/types/urls.go``.
"""

from typing import Any

import msgspec
import orjson

from actors.coordination.membership import BAD_PEERS, Membership, One, full
from actors.kv.commands import Commands, NotSent, OutcomeUnknown
from actors.kv.exchange import JSON, TEXT, Exchange
from actors.kv.rpc.members import peer_url, shown
from actors.kv.state import KvFold, Member
from actors.kv.v2.auth import USER
from actors.kv.v2users import NO_AUTH, V2Users
from streams.events import cluster as says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied

PREFIX = "/v2/members"
#: What etcd's clients are told of a refusal at apply, by its code: status and words (None: ours).
_REFUSED = {
    "etcdserver: Peer URLs already exists": (409, "membership: peerURL exists"),
    "etcdserver: member not found": (404, None),
    BAD_PEERS.message: (400, BAD_PEERS.message.removeprefix("etcdserver: ")),
}


class V2Members:
    def __init__(self, fold: KvFold, commands: Commands, users: V2Users, cluster: bytes) -> None:
        self._fold, self._commands, self._users, self._cluster = fold, commands, users, cluster

    def machines(self, exchange: Exchange) -> None:
        """The URLs of all members, one after the other."""
        urls = [url for one, machine, _ in shown(self._fold.cluster).values() for url in machine.clients]
        exchange.respond(200, TEXT, ", ".join(sorted(urls)).encode())

    def serve(self, exchange: Exchange, path: str) -> None:
        """Any path at or below ``/v2/members``."""
        rest = path[len(PREFIX) :].removeprefix("/")
        if exchange.method not in ("GET", "POST", "DELETE", "PUT"):
            self._no_method(exchange)
        elif exchange.method == "GET":
            self._show(exchange, rest)
        else:
            self._users.root(exchange, lambda user: self._change(exchange, rest, user))

    def _no_method(self, exchange: Exchange) -> None:
        allow = b"Allow: GET,POST,DELETE,PUT\r\nX-Content-Type-Options: nosniff\r\n"
        exchange.respond(405, TEXT + allow, b"Method Not Allowed\n")

    def _show(self, exchange: Exchange, rest: str) -> None:
        cluster = self._fold.cluster
        known, holder = shown(cluster), cluster.election.holder
        if not rest:
            self._json(exchange, {"members": [_member(*member) for member in known.values()]})
        elif rest != "leader":
            self._users.error(exchange, 404, "Not found")
        elif leader := next((member for member in known.values() if holder and member[0].machine == holder), None):
            self._json(exchange, _member(*leader))
        else:
            self._users.error(exchange, 503, "During election")

    def _change(self, exchange: Exchange, rest: str, user: str | None) -> None:
        if user is None:
            self._users.error(exchange, 401, NO_AUTH, b"")
            return
        if exchange.method != "POST" and not rest:
            more = self._cluster + b"X-Content-Type-Options: nosniff\r\n"
            exchange.respond(405, TEXT + more, b"Method Not Allowed\n")
            return
        try:
            data = _event(exchange, rest, full(self._fold.cluster.membership, self._fold.cluster.controls))
        except _Refused as refused:
            self._users.error(exchange, *refused.args)
            return

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                self._users.error(exchange, result.status, str(result))
            elif isinstance(outcome := result.outcome, Rejected):
                status, words = _REFUSED.get(outcome.message, (500, "Internal Server Error"))
                self._users.error(exchange, status, words or f"No such member: {rest}")
            elif isinstance(data, says.MemberAdd):
                assert isinstance(outcome, Accepted)
                self._json(exchange, _member(*shown(self._fold.cluster)[outcome.result["id"]]), 201)
            else:
                exchange.respond(204, self._cluster, b"")

        principal = USER + user if user else exchange.connection.peer
        self._commands.submit(say(data, principal=principal), 500, came)

    def _json(self, exchange: Exchange, data: Any, status: int = 200) -> None:
        exchange.respond(status, JSON + self._cluster, orjson.dumps(data) + b"\n")


class _Refused(Exception):
    """(status, message), in etcd's words."""


class _Peers(msgspec.Struct, rename={"urls": "peerURLs"}):
    urls: list[str] | None = None


def _member(one: One, machine: Member, peers: list[str]) -> dict[str, Any]:
    return {"id": f"{one.id:x}", "name": machine.name, "peerURLs": peers, "clientURLs": machine.clients}


def _event(exchange: Exchange, rest: str, members: Membership) -> Data:
    """What a request asks for. Raises _Refused."""
    found = 0
    if exchange.method != "POST":
        found = _known(rest, members)
        if exchange.method == "DELETE":
            return says.MemberRemove(found)
    peers = _peers(exchange)
    if exchange.method == "POST":
        return says.MemberAdd(peers)
    if str(found) not in members.members:
        raise _Refused(404, f"No such member: {found:x}")
    return says.MemberUpdate(found, peers)


def _known(rest: str, members: Membership) -> int:
    try:
        found = int(rest, 16) if rest.isalnum() else -1
    except ValueError:
        found = -1
    if not 0 <= found < 2**64:
        raise _Refused(404, f"No such member: {rest}")
    if str(found) in members.removed:
        raise _Refused(410, f"Member permanently removed: {found:x}")
    return found


def _peers(exchange: Exchange) -> list[str]:
    kind = exchange.headers.get(b"content-type", b"").decode("latin-1")
    if ";" in kind:
        kind = kind.partition(";")[0].lower().strip()
    if kind != "application/json":
        raise _Refused(415, f"Bad Content-Type {kind}, accept application/json")
    try:
        urls = msgspec.json.decode(exchange.body, type=_Peers).urls or []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refused(400, str(error)) from None
    if not urls:
        raise _Refused(400, "no valid URLs given")
    try:
        return sorted(map(peer_url, urls))
    except ValueError as error:
        raise _Refused(400, str(error)) from None
