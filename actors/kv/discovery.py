"""The public discovery protocol (discovery.etcd.io's) on etcd's port: ``/new``, and a token's pages.

A token is a folder of v2 keys, ``/_etcd/registry/<token>``: ``_config/size``, ``_config/log`` (ours: the address of the
log that the new cluster shares), and a key for each member that registered. What is asked of a page of a token is asked
of its key, so statuses, headers and bodies are those of v2's keys.
"""

import re
import secrets
from collections.abc import Callable

from actors.kv.commands import Commands, NotSent, OutcomeUnknown
from actors.kv.exchange import TEXT, Exchange
from actors.kv.keys import Keys
from actors.kv.v2 import request
from actors.kv.v2.auth import USER
from actors.kv.v2.errors import V2Error
from actors.kv.v2users import NO_AUTH, V2Users
from streams.events import kv as says
from streams.events.base import say
from streams.outcomes import Rejected
from streams.replay import Applied

REGISTRY = "/_etcd/registry"
SIZE = 3
_INT64 = 2**63
_PAGE = re.compile(r"/[0-9a-f]{32}(?:/(?P<config>_config/(?:size|log))?(?P<member>(?!\.\.?$)[^/]*))?")
_LOG = re.compile(r"kafka://[A-Za-z0-9.\-_:\[\],]+(?:/[A-Za-z0-9._\-]+)?")


class BadRequest(Exception):
    """A parameter of ``/new`` is wrong; the message names it."""


def wanted(fields: dict[str, str]) -> tuple[int, str]:
    """The size and the log (empty: none) that ``/new`` is asked for. Raises BadRequest."""
    text = fields.get("size") or str(SIZE)
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise BadRequest(f'strconv.Atoi: parsing "{text[:40]}": invalid syntax')
    size = int(text) if len(text) < 21 else _INT64
    if not -_INT64 <= size < _INT64:
        raise BadRequest(f'strconv.Atoi: parsing "{text[:40]}": value out of range')
    if size < 1:
        raise BadRequest(f"size={size}: a cluster has one member at least")
    log = fields.get("log", "")
    if log and not _LOG.fullmatch(log):
        raise BadRequest(f"log={log[:200]}: machines share a log on Kafka: write kafka://host:port,host:port[/topic]")
    return size, log


class Discovery:
    """``base()``: a URL of this node for callers that don't say which one they use."""

    def __init__(self, keys: Keys, commands: Commands, users: V2Users, base: Callable[[], str]) -> None:
        self._keys, self._commands, self._users, self._base = keys, commands, users, base

    def serve(self, exchange: Exchange, path: str) -> bool:
        """Whether the path is one of discovery's; then it is (or will be) answered."""
        if path == "/new":
            self._new(exchange)
            return True
        page = _PAGE.fullmatch(path)
        if page is None or (page["config"] and page["member"]):
            return False
        methods = ("GET",) if page["config"] else ("GET", "PUT", "DELETE") if page["member"] else ("GET", "PUT")
        if exchange.method not in methods:
            allow = f"Allow: {','.join(methods)}\r\n".encode()
            exchange.respond(405, TEXT + allow, b"Method Not Allowed\n")
            return True
        if exchange.method == "GET" and b"wait" not in exchange.query:
            # a token is made at one node and used at another, and etcd asks with quorum=false
            exchange.query = b"quorum=true&" + exchange.query
        self._keys.serve(exchange, request.PREFIX + REGISTRY + path)
        return True

    def _new(self, exchange: Exchange) -> None:
        fields: dict[str, str] = {}
        try:
            if exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == request.FORM:
                request.form(exchange.body, fields)
            request.form(exchange.query, fields)
            size, log = wanted(fields)
        except (V2Error, BadRequest) as error:
            words = error.cause if isinstance(error, V2Error) else str(error)
            exchange.respond(400, TEXT, words.encode("utf-8", "replace") + b"\n")
            return
        if self._users.guards(exchange):
            self._users.let(exchange, REGISTRY, True, lambda user: self._made(exchange, size, log, user), write=True)
        else:
            self._made(exchange, size, log, "")

    def _made(self, exchange: Exchange, size: int, log: str, user: str | None) -> None:
        """``user``: who asks, empty: a guest; None: nobody who may."""
        if user is None:
            exchange.respond(401, TEXT, f"Unable to generate token: {NO_AUTH}\n".encode())
            return
        token = secrets.token_hex(16)
        principal = USER + user if user else exchange.connection.peer
        answer = f"{self._address(exchange)}/{token}".encode("latin-1")

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                exchange.respond(result.status, TEXT, f"Unable to generate token: {result}\n".encode())
            elif isinstance(result.outcome, Rejected):
                exchange.respond(400, TEXT, f"Unable to generate token: {result.outcome.message}\n".encode())
            else:
                exchange.respond(200, TEXT, answer)

        if log:  # before the size, without which there is no token
            self._put(f"{token}/_config/log", log, principal, lambda _: None)
        self._put(f"{token}/_config/size", str(size), principal, came)

    def _put(
        self, key: str, value: str, principal: str, answer: Callable[[Applied | NotSent | OutcomeUnknown], None]
    ) -> None:
        data = says.Set(f"{REGISTRY}/{key}", value, prev_exist=False, auth=self._users.auth.revision)
        self._commands.submit(say(data, principal=principal), 300 + len(value), answer)

    def _address(self, exchange: Exchange) -> str:
        """This node, as the caller named it."""
        host = exchange.headers.get(b"host", b"").decode("latin-1")
        if not host or exchange.connection.trusted:
            return self._base().rstrip("/")
        return f"{'https' if exchange.connection.secure else 'http'}://{host}"
