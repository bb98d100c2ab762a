"""What etcd's services share: the call's side, headers, commands and reads, and how failures are told."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
from google.protobuf.message import DecodeError, Message

from actors.coordination import membership
from actors.kv.commands import Commands, NotSent, OutcomeUnknown, Reads, TooLarge, TooMany
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto.etcd_wire import ResponseHeader, encode_response_header
from actors.kv.proto.varints import varint
from actors.kv.rpc import json_short
from actors.kv.rpc.jwts import Jwts
from actors.kv.rpc.rates import Rates
from actors.kv.state import KvFold
from actors.kv.v3 import errors
from actors.kv.v3.auth import READ, TOKENS_MAX, USER, Auth
from actors.kv.v3.errors import V3Error
from actors.kv.v3.store import NOSPACE, Result
from actors.setting import Setting
from actors.shell import Shell
from streams.events import kv3 as v3_says
from streams.events.base import Data, Event, said, say
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied

#: What a database may have by default, as etcd's.
QUOTA_BYTES = 2 * 1024**3
UNHEARD_LEASES = 3
#: Simple tokens are good for so long by default, as etcd's.
TOKEN_IDLE_S = 300
#: What a key, or a lease, costs beyond its bytes, for the quota.
KEY_BYTES, LEASE_BYTES = 256, 64

# a constant is sooner there than an import, compiled
_APPLIED: Final = Applied
_REJECTED: Final = Rejected
_RESULT: Final = Result

Answer = TypeVar("Answer", bound=Message)
#: An answer as it is made: a message, or one encoded.
Made = Message | bytes

_log = structlog.get_logger(actor="kv")


class Caller(Protocol):
    """Who is at the other end. ``trusted``: on the unix socket; ``client_cn``: of a verified certificate."""

    peer: str
    trusted: bool
    client_cn: str


class Call(Protocol):
    """One call, of HTTP/2 or of the gateway; see :class:`actors.kv.http2.call.Call`."""

    gone: bool
    on_message: Callable[[bytes], None]
    on_end: Callable[[], None]
    on_gone: Callable[[], None]
    on_drained: Callable[[], None]

    @property
    def metadata(self) -> Mapping[bytes, bytes]: ...
    @property
    def connection(self) -> Caller: ...
    def reply(self, message: bytes) -> None: ...
    def send(self, message: bytes) -> None: ...
    def parts(self, message: Any) -> Iterator[bytes]: ...
    def part(self, data: bytes) -> None: ...
    def finish(self, status: int = 0, message: str = "") -> None: ...
    def buffered(self) -> int: ...


@dataclass(frozen=True)
class Method:
    """``serve``: of a unary call ``(call, request, size in bytes)``, else ``(call)``; ``answers``: many messages.

    ``waits``: for what others do, for as long as it takes. ``parse``: reads what ``serve`` of a unary call takes, where
    that isn't a message of protobuf's. ``json``: as such a ``serve``, and its answer is JSON (the gateway's short way).
    """

    path: str
    request: type[Message]
    response: type[Message]
    serve: Callable[..., None]
    asks_many: bool = False
    answers_many: bool = False
    waits: bool = False
    parse: Callable[[bytes], Any] | None = None
    json: Callable[[Call, Any, int], None] | None = None


class Rpc:
    """One replica's services stand on this. Called on the loop's thread only."""

    def __init__(self, shell: Shell, fold: KvFold, commands: Commands, reads: Reads, setting: Setting) -> None:
        self.shell, self.fold, self.setting = shell, fold, setting
        self.revs, self.leases = fold.v3.revs, fold.v3.leases
        self.commands, self.reads = commands, reads
        self.cluster_id, self.member_id = int(setting.log_id[:16], 16), self.member(setting.machine)
        self.learner = False
        self._header = pb.ResponseHeader(cluster_id=self.cluster_id, member_id=self.member_id)
        #: field 1 of responses: its first two fields, and the last one that was made, with what it was made of
        self._header_ids = _ids(self.cluster_id, self.member_id)
        self._header_of, self._header_bytes = (-1, -1), b""
        self._header_json_of, self._header_json = (-1, -1), b""
        self._tokens_used: dict[bytes, float] = {}
        #: unused for so long, simple tokens are no good
        self._token_idle_s = float(setting.etcd.auth_token_ttl or TOKEN_IDLE_S)
        self.jwts = None if setting.etcd.auth_token == "simple" else Jwts(setting.etcd.auth_token)
        self.quota_bytes = setting.etcd.quota_backend_bytes or QUOTA_BYTES
        #: the alarm of a full store is on its way
        self._alarming = False
        #: calls that are told that there is no space when the alarm is on
        self._refused: list[Call] = []
        self.rates = Rates(self.revs)
        #: the master's last renewal, and when it was new here
        self._heard = (-1, 0.0)
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def member(self, machine: str) -> int:
        """A machine's id as etcd's clients see it."""
        return membership.id_of(self.fold.cluster.membership, machine)

    def saw_members(self) -> None:
        """Who this machine is may have changed."""
        self.learner = membership.is_learner(self.fold.cluster.membership, self.setting.machine)
        if (member_id := self.member(self.setting.machine)) != self.member_id:
            self.member_id = self._header.member_id = member_id
            self._header_ids, self._header_of = _ids(self.cluster_id, member_id), (-1, -1)
            self._header_json_of = (-1, -1)

    # -- answers ----------------------------------------------------------------------------------------------

    def head(self, answer: Answer, revision: int | None = None) -> Answer:
        """Fill the header of a response, which it returns. Without ``revision``: the current one."""
        filled: Any = answer
        header = self._header
        header.revision = self.revs.revision if revision is None else revision
        header.raft_term = self.fold.cluster.election.term
        filled.header.CopyFrom(header)
        return answer

    def header_bytes(self, revision: int) -> bytes:
        """Field 1 of any response, encoded: the whole answer where there is no more to say."""
        of = (revision, self.fold.cluster.election.term)
        if of != self._header_of:
            raw = self._header_ids
            if revision:
                raw += b"\x18" + varint(revision)
            if of[1]:
                raw += b"\x20" + varint(of[1])
            self._header_of, self._header_bytes = of, b"\x0a" + bytes((len(raw),)) + raw
        return self._header_bytes

    def header_json(self, revision: int) -> bytes:
        """The same as JSON, with its name."""
        of = (revision, self.fold.cluster.election.term)
        if of != self._header_json_of:
            header = ResponseHeader()
            header.cluster_id, header.member_id, header.revision, header.raft_term = (
                self.cluster_id,
                self.member_id,
                *of,
            )
            self._header_json_of, self._header_json = of, json_short.header(header)
        return self._header_json

    def leaderless(self) -> bool:
        """No master is known here, or the log can't be reached. Asked now and then: see :meth:`_unheard`."""
        if not self.fold.cluster.election.holder or self.commands.stuck or not self.shell.host.live:
            return True
        return not self.setting.alone and self._unheard()

    def _unheard(self) -> bool:
        """Whether nothing of a master came for three leases: also this node is cut off then, if it asks for nothing.

        As etcd, which looks for three of its election timeouts. Alone, nothing is renewed.
        """
        at, now_s = self.fold.cluster.election.proof_at, time.monotonic()
        if at != self._heard[0]:
            self._heard = (at, now_s)
        return now_s - self._heard[1] > UNHEARD_LEASES * self.setting.lease_ms / 1000

    # -- users ------------------------------------------------------------------------------------------------

    def user(self, call: Call) -> str | None:
        """The user who asks, by token or certificate; None: there is neither, or no auth. Raises INVALID_TOKEN."""
        known = self.identity(call)
        return None if known is None else known[0]

    def identity(self, call: Call) -> tuple[str, int] | None:
        """User, and the auth revision that the caller knows of. Raises INVALID_TOKEN."""
        auth = self.fold.v3.auth
        if not auth.enabled:
            return None
        token = _token(call)
        if token is None:
            name = call.connection.client_cn
            return (name, auth.revision) if name else None
        if self.jwts is None:
            return self._known(auth, hashlib.sha256(token).digest()), auth.revision
        found = self.jwts.verify(token.decode("latin-1").removeprefix("Bearer "))
        if found is None:
            raise errors.INVALID_TOKEN
        return found

    def saw_tokens(self) -> None:
        """A token's time begins when it is first known here, be it used here or not."""
        used, now = self._tokens_used, time.monotonic()
        for digest in reversed(self.fold.v3.auth.tokens):
            if digest in used:
                break
            used[digest] = now
        if len(used) > 2 * TOKENS_MAX:
            self._tokens_used = {one: at for one, at in used.items() if one in self.fold.v3.auth.tokens}

    def _known(self, auth: Auth, digest: bytes) -> str:
        """Tokens that nobody used for a while are no good any more; each node sees to that by itself."""
        user, now = auth.tokens.get(digest), time.monotonic()
        if user is None or now - self._tokens_used.get(digest, now) > self._token_idle_s:
            raise errors.INVALID_TOKEN
        self._tokens_used[digest] = now
        return user

    def lacks_token(self, call: Call) -> bool:
        """Whether the call has a simple token that isn't known here: another member may have made it a moment ago."""
        auth = self.fold.v3.auth
        if not auth.enabled or self.jwts is not None or self.learner:
            return False
        token = _token(call)
        return token is not None and hashlib.sha256(token).digest() not in auth.tokens

    def later(self, call: Call, serve: Callable[[], None]) -> None:
        """``serve`` when this member has all that was acknowledged anywhere before now; failing that, with what it has.

        Etcd refuses such a token instead, and leaves it to its clients to ask again.
        """

        def caught_up(_: NotSent | None) -> None:
            if not call.gone:
                try:
                    serve()
                except Exception:
                    failed(call)

        self.reads.linearizable(caught_up, id(call.connection))

    def check(self, call: Call, key: bytes, end: bytes, kind: int = READ) -> None:
        """Whether the caller may. Raises V3Error."""
        if (who := self._checked(call)) is not None:
            self.fold.v3.auth.check(*who, key, end, kind)

    def check_keys(self, call: Call, keys: Iterable[bytes], kind: int = READ) -> None:
        """Whether the caller may read (or write) each of them. Raises V3Error."""
        if (who := self._checked(call)) is not None:
            for key in keys:
                self.fold.v3.auth.check(*who, key, b"", kind)

    def _checked(self, call: Call) -> tuple[str, int] | None:
        """The user whose rights count, and as of which revision; None: nobody's do. Raises INVALID_TOKEN."""
        if not self.fold.v3.auth.enabled:
            return None
        known = self.identity(call)
        if known is None and call.connection.trusted:
            return None  # on the node's own socket root asks, of the machine
        return known or ("", 0)

    def check_user(self, call: Call) -> None:
        """Any user will do. Raises USER_EMPTY, INVALID_TOKEN."""
        if self.fold.v3.auth.enabled and self.user(call) is None:
            raise errors.USER_EMPTY

    def check_root(self, call: Call) -> None:
        """Raises V3Error. On the node's own socket root asks, of the machine."""
        if self.fold.v3.auth.enabled and not call.connection.trusted:
            self.fold.v3.auth.check_root(self.user(call) or "")

    def event(self, call: Call, data: Data) -> Event:
        """``data`` with who asks. Raises INVALID_TOKEN."""
        if not self.fold.v3.auth.enabled:
            connection = call.connection
            return said(data, self.principal(call) if connection.trusted else connection.peer)
        if hasattr(data, "auth") and not data.auth:
            known = self.identity(call)
            if known is not None:
                data = msgspec.structs.replace(data, auth=known[1])
        principal = self.principal(call)
        if principal.startswith(USER):
            return say(data, principal=principal, source=call.connection.peer)
        return say(data, principal=principal)

    # -- quota ------------------------------------------------------------------------------------------------

    def spend(self, size: int) -> None:
        """Before a command that adds ``size`` bytes. Raises NO_SPACE, and then says so on the log, as etcd does; who is
        refused is told by :meth:`refuse`, when that is applied: it may ask for alarms next."""
        if self.revs.size + size <= self.quota_bytes or self.quota_bytes < 0:
            return
        alarm = (NOSPACE, self.member_id)
        if alarm not in self.fold.v3.alarms and not self._alarming:
            self._alarming = True
            event = say(v3_says.Alarm(*alarm), principal=f"machine:{self.setting.machine}")
            self.commands.submit(event, 200, self._alarmed)
        raise errors.NO_SPACE

    def _alarmed(self, _: object) -> None:
        self._alarming = False
        refused, self._refused = self._refused, []
        for call in refused:
            if not call.gone:
                call.finish(errors.NO_SPACE.code, errors.NO_SPACE.message)

    def refuse(self, call: Call, error: V3Error) -> None:
        """The end of a call that isn't served."""
        if error is errors.NO_SPACE and self._alarming:
            self._refused.append(call)
        else:
            call.finish(error.code, error.message)

    # -- commands and reads -----------------------------------------------------------------------------------

    def principal(self, call: Call) -> str:
        """Who asks, as the log is told. Raises INVALID_TOKEN."""
        if (user := self.user(call)) is not None:
            return USER + user
        connection = call.connection
        if connection.trusted and (named := call.metadata.get(b"x-corelog-principal")):
            return named.decode("utf-8", "replace")
        return connection.peer

    def submit(self, call: Call, data: Data, size: int, done: Callable[[Result], Made]) -> None:
        """Order ``data``; ``done`` makes the answer when it is applied here."""
        event, over = self.event(call, data), self.rates.admit(data)

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if over is not None:
                over()
            if call.gone:
                return
            try:
                call.reply(encoded(done(outcome(result))))
            except V3Error as error:
                call.finish(error.code, error.message)
            except Exception:
                failed(call)

        self.commands.submit(event, 200 + size, came, id(call.connection))

    async def command(self, call: Call, data: Data, size: int) -> Result:
        """The same for coroutines. Raises V3Error."""
        future: asyncio.Future[Applied | NotSent | OutcomeUnknown] = asyncio.get_running_loop().create_future()
        event, over = self.event(call, data), self.rates.admit(data)

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if over is not None:
                over()
            if not future.done():
                future.set_result(result)

        self.commands.submit(event, 200 + size, came)
        return outcome(await future)

    def tell(self, call: Call, data: Data) -> None:
        """Order ``data``; nobody waits for what becomes of it."""
        self.commands.submit(self.event(call, data), 1000, void)

    def read(self, call: Call, local: bool, answer: Callable[[], Made | None]) -> None:
        """Reply with ``answer()``, at once if what this replica has will do, else when it has all that was
        acknowledged anywhere before now. None: ``answer`` saw to the reply itself."""
        if local:
            # may refuse at once: the caller is inside unary()
            if (made := answer()) is not None:
                call.reply(encoded(made))
            return

        def caught_up(error: NotSent | None) -> None:
            if call.gone:
                return
            try:
                if error is not None:
                    raise errors.TIMEOUT
                if (made := answer()) is not None:
                    call.reply(encoded(made))
            except V3Error as refused:
                call.finish(refused.code, refused.message)
            except Exception:
                failed(call)

        self.reads.linearizable(caught_up, id(call.connection))

    async def linearizable(self) -> None:
        """Raises V3Error."""
        future: asyncio.Future[NotSent | None] = asyncio.get_running_loop().create_future()
        self.reads.linearizable(lambda error: None if future.done() else future.set_result(error))
        if await future is not None:
            raise errors.TIMEOUT

    def run(self, call: Call, work: Coroutine[Any, Any, Message | None]) -> None:
        """Serve a call by a coroutine, cancelled when the call is gone; its answer, if any, ends the call."""

        async def served() -> None:
            try:
                answer = await work
                if answer is None:
                    call.finish()
                else:
                    call.reply(answer.SerializeToString())
            except V3Error as error:
                call.finish(error.code, error.message)
            except asyncio.CancelledError:
                call.finish(errors.STOPPED.code, errors.STOPPED.message)
            except Exception:
                failed(call)

        task = asyncio.ensure_future(served())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.on_gone = lambda: None if task.done() else void(task.cancel())


def _ids(cluster: int, member: int) -> bytes:
    return encode_response_header(cluster, member)


def _token(call: Call) -> bytes | None:
    return call.metadata.get(b"token") or call.metadata.get(b"authorization")


def encoded(made: Made) -> bytes:
    return made if isinstance(made, bytes) else made.SerializeToString()


def void(_: object) -> None:
    """A callback has no result."""


def outcome(result: Applied | NotSent | OutcomeUnknown) -> Result:
    """Raises V3Error: why there is none."""
    if type(result) is not _APPLIED:
        if isinstance(result, TooMany):
            raise errors.TOO_MANY_REQUESTS
        raise errors.TOO_LARGE if isinstance(result, TooLarge) else errors.TIMEOUT
    came_to = result.outcome
    if type(came_to) is _REJECTED:
        family, _, code = came_to.code.partition(".")
        if family == "v3":
            raise V3Error(int(code), came_to.message)
        raise V3Error(errors.UNAVAILABLE, f"corelog: {came_to.code}: {came_to.message}")
    assert isinstance(came_to, Accepted)
    # an event of another family has a plain result, and no revision
    value = came_to.result
    return value if type(value) is _RESULT else Result(0, value)


def failed(call: Call) -> None:
    """A fault of ours, inside an ``except``."""
    _log.exception("a v3 call failed")
    call.finish(errors.INTERNAL, "internal error")


def parsed(call: Call, kind: type[Message], raw: bytes) -> Any:
    """A message of a stream; None: the call was ended because it is none."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        call.finish(errors.INTERNAL, f"grpc: failed to unmarshal the received message: {error}")
        return None
