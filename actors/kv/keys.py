"""``/v2/keys`` on the port: an exchange becomes a command, a read or a watch, and its outcome an answer."""

import hashlib
import html
import time
from typing import Final

import msgspec
import orjson

from actors.kv.commands import Commands, NotSent, OutcomeUnknown, Reads, TooLarge, position_header
from actors.kv.exchange import JSON, TEXT, Exchange
from actors.kv.state import KvFold
from actors.kv.v2 import again, errors, request
from actors.kv.v2.auth import USER, no_auth
from actors.kv.v2.errors import MESSAGES, V2Error
from actors.kv.v2.get import change_json, created, get_json
from actors.kv.v2.nodes import Change, shown
from actors.kv.v2.watch import Hub, Watcher
from actors.kv.v2users import V2Users
from actors.shell import Shell
from streams.events.base import Event, said, say
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied

METHODS: Final = frozenset({"HEAD", "GET", "PUT", "POST", "DELETE"})
#: How a session's refusals show as HTTP statuses.
_REFUSALS = {"sequence-reused": 409, "session-expired": 410, "sealed": 503, "void-incarnation": 503, "voided": 409}


class Keys:
    """Serves exchanges on keys. ``hub`` is fed by the actor with what is applied."""

    def __init__(
        self, shell: Shell, fold: KvFold, commands: Commands, reads: Reads, cluster_id: str, users: V2Users
    ) -> None:
        self.hub = Hub(lambda: fold.store)
        self._shell = shell
        self._fold = fold
        self._commands = commands
        self._reads = reads
        self._users = users
        self._base = JSON + f"X-Etcd-Cluster-Id: {cluster_id}\r\n".encode()
        #: the last lines of an answer's headers, and the record and term that they are of
        self._place: tuple[int, int, bytes] = (-1, -1, b"")

    def serve(self, exchange: Exchange, path: str) -> None:
        """``path``: percent-decoded."""
        method, headers = exchange.method, exchange.headers
        try:
            if method not in METHODS:
                request.tidied(path, exchange.query)
                exchange.respond(405, TEXT + b"Allow: HEAD,GET,PUT,POST,DELETE\r\n", b"Method Not Allowed\n")
                return
            asked = request.asked(method, path, exchange.query, headers.get(b"content-type", b""), exchange.body)
            if self._users.guards(exchange):
                self._guarded(exchange, path, asked)
            else:
                self._do(exchange, asked)
        except V2Error as error:
            self.error(exchange, error)
        except request.Redirect as redirect:
            _redirect(exchange, redirect.location)

    def _do(self, exchange: Exchange, asked: request.Asked, user: str = "") -> None:
        """Raises V2Error."""
        if isinstance(asked, request.Command):
            self._command(exchange, asked, user)
        elif self._is_local(exchange, asked):
            self._answer(exchange, asked)
        else:
            self._reads.linearizable(lambda error: self._answer(exchange, asked, error), id(exchange.connection))

    def _guarded(self, exchange: Exchange, path: str, asked: request.Asked) -> None:
        """v2's auth is on: who asks must be let."""

        def let(user: str | None) -> None:
            try:
                if user is None:
                    raise no_auth()
                self._do(exchange, asked, user)
            except V2Error as error:
                self.error(exchange, error)

        recursive = request.recursive(exchange.method, exchange.query, exchange.headers, exchange.body)
        write = exchange.method not in ("GET", "HEAD")
        self._users.let(exchange, path[len(request.PREFIX) :], recursive, let, write)

    # -- commands ---------------------------------------------------------------------------------------------

    def _command(self, exchange: Exchange, command: request.Command, user: str = "") -> None:
        if (auth := self._users.auth).enabled:
            # applied after users changed, its author is asked for again
            command = msgspec.structs.replace(command, data=request.let(command.data, auth.revision))
        event = envelope(exchange, command, USER + user if user else "")
        size = 300 + 2 * (len(exchange.body) + len(exchange.path) + len(exchange.query))
        self._commands.submit(
            event, size, lambda result: self._came_to(exchange, command, result), id(exchange.connection)
        )

    def _came_to(
        self, exchange: Exchange, command: request.Command, result: Applied | NotSent | OutcomeUnknown
    ) -> None:
        if not isinstance(result, Applied):
            self._failed(exchange, result)
            return
        outcome = result.outcome
        position = position_header(result) if exchange.connection.trusted else b""
        if isinstance(outcome, Rejected):
            self._rejected(exchange, outcome, position)
            return
        assert isinstance(outcome, Accepted)
        made = outcome.result
        change: Change = made if isinstance(made, tuple) else again.change(made, result.event.data)
        headers = self._headers(change[0], result.position.offset) + position
        exchange.respond(201 if created(change) else 200, headers, change_json(change, command.no_value))

    def _rejected(self, exchange: Exchange, outcome: Rejected, position: bytes) -> None:
        if outcome.code.startswith("v2."):
            detail = outcome.detail
            error = V2Error(int(outcome.code[3:]), detail["cause"], detail["index"])
        else:
            cause = f"{outcome.code}: {outcome.message}"
            error = V2Error(errors.RAFT_INTERNAL, cause, self._fold.store.index, _REFUSALS.get(outcome.code, 409))
        self.error(exchange, error, position)

    def _failed(self, exchange: Exchange, failed: NotSent | OutcomeUnknown) -> None:
        if isinstance(failed, TooLarge):
            cause = f"too large: {failed}"
        else:
            cause = f"{'not sent' if isinstance(failed, NotSent) else 'outcome unknown'}: {failed}"
        self.error(exchange, V2Error(errors.RAFT_INTERNAL, cause, self._fold.store.index, failed.status))

    # -- reads ------------------------------------------------------------------------------------------------

    def _is_local(self, exchange: Exchange, asked: request.Read | request.Watch) -> bool:
        """Whether what this replica has will do: said so, or a watch from an index on (that one can't be stale)."""
        if asked.quorum is not None:
            return not asked.quorum
        if isinstance(asked, request.Watch) and asked.since:
            return True
        if exchange.headers.get(b"x-corelog-consistency", b"") == b"serializable":
            return True
        return b"consistency=serializable" in exchange.query.split(b"&")

    def _answer(self, exchange: Exchange, asked: request.Read | request.Watch, failed: NotSent | None = None) -> None:
        if failed is not None:
            self._failed(exchange, failed)
            return
        try:
            if isinstance(asked, request.Watch):
                self._watch(exchange, asked)
                return
            store = self._fold.store
            body = get_json(store, asked.key, asked.recursive, asked.ordered, int(time.time() * 1000))
        except V2Error as error:
            self._count("getsFail")
            self.error(exchange, error)
            return
        self._count("getsSuccess")
        exchange.respond(200, self._headers(store.index, self._shell.host.replica.offset), body)

    def _watch(self, exchange: Exchange, asked: request.Watch) -> None:
        headers = self._headers(self._fold.store.index, self._shell.host.replica.offset)

        def send(body: bytes) -> None:
            if not exchange.streams:
                exchange.begin(200, headers)
            exchange.send(body)
            if not asked.stream:
                exchange.end()

        watcher: Watcher = self.hub.watch(asked.key, asked.recursive, asked.stream, asked.since, send)
        if not watcher.done:
            exchange.gone = lambda: self.hub.forget(watcher)
            if not exchange.streams:
                exchange.begin(200, headers)
            if not exchange.connection.serves(exchange):  # left meanwhile
                self.hub.forget(watcher)

    # -- bytes ------------------------------------------------------------------------------------------------

    def error(self, exchange: Exchange, error: V2Error, more: bytes = b"") -> None:
        body = {"errorCode": error.code, "message": MESSAGES[error.code]}
        if error.cause:
            body["cause"] = shown(error.cause)
        body["index"] = error.index
        headers = self._base + b"X-Etcd-Index: %d\r\n" % error.index + more
        exchange.respond(error.status, headers, orjson.dumps(body) + b"\n")

    def _headers(self, index: int, offset: int) -> bytes:
        term: int = self._fold.cluster.election.term
        place = self._place
        if place[0] != offset or place[1] != term:
            place = self._place = (offset, term, b"\r\nX-Raft-Index: %d\r\nX-Raft-Term: %d\r\n" % (offset, term))
        return b"".join((self._base, b"X-Etcd-Index: ", str(index).encode(), place[2]))

    def _count(self, what: str) -> None:
        self._fold.counts[what] = self._fold.counts.get(what, 0) + 1


def _redirect(exchange: Exchange, location: str) -> None:
    """As Go's: a page for who reads one."""
    where = b"Location: " + location.encode("latin-1", "replace") + b"\r\n"
    if exchange.method not in ("GET", "HEAD"):
        exchange.respond(301, where, b"")
        return
    page = f'<a href="{html.escape(location)}">Moved Permanently</a>.\n\n'.replace("&quot;", "&#34;")
    exchange.respond(301, b"Content-Type: text/html; charset=utf-8\r\n" + where, page.encode("latin-1", "replace"))


def envelope(exchange: Exchange, command: request.Command, user: str = "") -> Event:
    """The event of a command: who asks, and what makes its retry harmless. Raises V2Error 209 on bad headers."""
    headers, connection = exchange.headers, exchange.connection
    principal, correlation = user or connection.peer, ""
    if connection.trusted:
        principal = _text(headers.get(b"x-corelog-principal", b""), "X-Corelog-Principal") or principal
        correlation = _text(headers.get(b"x-corelog-correlation", b""), "X-Corelog-Correlation")
    if (key := headers.get(b"idempotency-key")) is not None:
        client = "key:" + hashlib.blake2b(key, digest_size=16).hexdigest()
        return say(command.data, principal=principal, correlation=correlation, client=client, sequence=1)
    if client := _text(headers.get(b"x-corelog-client", b""), "X-Corelog-Client"):
        sequence = _number(headers.get(b"x-corelog-sequence", b""), "X-Corelog-Sequence")
        floor = _number(headers.get(b"x-corelog-floor", b"0"), "X-Corelog-Floor")
        return say(
            command.data,
            principal=principal,
            correlation=correlation,
            client=client,
            sequence=sequence,
            floor=floor,
        )
    if correlation:
        return say(command.data, principal=principal, correlation=correlation)
    return said(command.data, principal)


def _text(raw: bytes, name: str) -> str:
    if not raw:
        return ""
    text = raw.decode("latin-1")
    if len(text) > 200 or not (text.isascii() and text.isprintable()):
        raise V2Error(errors.INVALID_FIELD, f"header {name} must be at most 200 printable ASCII characters")
    return text


def _number(raw: bytes, name: str) -> int:
    if not raw.isdigit() or len(raw) > 18:
        raise V2Error(errors.INVALID_FIELD, f"header {name} must be a number of at most 18 digits")
    return int(raw)
