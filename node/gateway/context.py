"""What every route needs: the shell over the control fold, reads now and at an instant, commands."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from actors.control import Control, ControlFold
from actors.host import IDLE, Now, Plan
from actors.setting import Setting
from actors.shell import Shell
from streams.events.base import Data, Event, say
from streams.history.at import BadInstant, Instant, from_the_oldest, parse_instant, state_at
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied, Fold, Replica

from .access import Access
from .guard import Guard
from .problem import Problem, rejected
from .query import one_of, seconds

#: etcd's patience: 5 s and two election timeouts.
TIMEOUT_S = 7.0
BODY_BYTES_MAX = 3 * 1024 * 1024


class Passive:
    """The gateway's actor: it decides nothing, it publishes what callers ask and waits for the outcome."""

    name = "gateway"

    def __init__(self) -> None:
        self.listeners: list[Callable[[Sequence[Applied]], None]] = []

    def live(self, replica: Replica, now: Now) -> None: ...

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        for listener in self.listeners:
            listener(batch)

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None: ...

    def noticed(self, observation: Any, now: Now) -> None: ...

    def decide(self, replica: Replica, now: Now) -> Plan:
        return IDLE


class Context:
    """One per gateway process; routes find it as ``request.app.state.context``."""

    def __init__(self, setting: Setting, shell: Shell, access: Access, guard: Guard) -> None:
        self.setting = setting
        self.shell = shell
        self.access = access
        self.guard = guard
        self.folder = Path(setting.folder)

    # -- reads --------------------------------------------------------------------------------------------------

    async def replica(self, request: Request) -> Replica:
        """The replica to read from: now (linearizable unless asked otherwise) or as of ``?at=``."""
        text = request.query_params.get("at")
        if text:
            return await self.past(text, ControlFold, "control")
        if one_of(request, "consistency", ("linearizable", "serializable")) == "linearizable":
            await self.barrier()
        return self.shell.host.replica

    async def control(self, request: Request) -> tuple[Control, Replica]:
        replica = await self.replica(request)
        return replica.fold.state, replica  # type: ignore[attr-defined]

    async def barrier(self) -> None:
        try:
            await asyncio.wait_for(self.shell.barrier(), TIMEOUT_S)
        except TimeoutError:
            raise Problem(
                503, "log-unavailable", "the log doesn't answer; reads with consistency=serializable go on"
            ) from None

    async def past(self, text: str, make: Callable[[], Fold], name: str) -> Replica:
        """The state of a fold as of ``text``. Raises Problem 400 when it can't be understood or lies ahead."""
        instant = self.instant(text)
        try:
            return await state_at(
                self.shell.log,
                make,
                instant,
                snapshots_folder=self.folder / "snapshots" / name,
                log_id=self.setting.log_id,
                voided=self.voided,
            )
        except BadInstant as error:
            raise Problem(400, "bad-instant", str(error)) from error

    @property
    def voided(self) -> Mapping[int, str]:
        """Records that an operator voided: no look into the past may stop at one."""
        return self.shell.host.replica.log.voided

    def instant(self, text: str) -> Instant:
        """Raises Problem 400."""
        try:
            return parse_instant(text, time.time_ns() // 1_000_000)
        except BadInstant as error:
            raise Problem(400, "bad-instant", str(error)) from error

    async def oldest(self, make: Callable[[], Fold], name: str) -> Replica:
        """Where a replay of all that is kept of the log begins. Raises LogTruncated (a problem with 410)."""
        replica = await from_the_oldest(self.shell.log, make, self.folder / "snapshots" / name, self.setting.log_id)
        replica.foreseen = dict(self.voided)
        return replica

    async def replayed(
        self, upto: str | None, make: Callable[[], Fold], name: str, seen: Callable[[list[Applied]], None]
    ) -> Replica:
        """All that is kept of the log, up to an instant (None: now), shown to ``seen``. Raises Problem 400."""
        instant = None if upto is None else self.instant(upto)
        start = await self.oldest(make, name)
        try:
            return await state_at(self.shell.log, make, instant, start=start, seen=seen)
        except BadInstant as error:
            raise Problem(400, "bad-instant", str(error)) from error

    # -- commands -----------------------------------------------------------------------------------------------

    async def command(self, request: Request, data: Data, subject: str = "") -> Response:
        """Publish ``data`` as asked by the request's principal, wait for its outcome, answer 202 or a problem.

        ``Idempotency-Key`` makes a retry harmless on whichever node it meets; ``?dry_run=1`` answers without
        publishing; ``?timeout=S`` bounds the wait (then 504, the command stays published).
        """
        principal = self.access.principal(request, command=True)
        timeout_s = seconds(request, "timeout", TIMEOUT_S)
        correlation = request.headers.get("x-corelog-correlation") or uuid.uuid4().hex[:16]
        attributes: dict[str, Any] = {"subject": subject, "principal": principal, "correlation": correlation}
        if key := request.headers.get("idempotency-key"):
            if len(key) > 256:
                raise Problem(400, "bad-idempotency-key", "an Idempotency-Key has 256 characters at most")
            attributes |= {"client": f"{principal}/{key}", "sequence": 1}
        event = say(data, **attributes)
        if request.query_params.get("dry_run"):
            return plain({"dry_run": True, "event": msgspec.to_builtins(event)})
        applied = await self.publish(event, timeout_s)
        return outcome(applied, correlation)

    async def publish(self, event: Event, timeout_s: float = TIMEOUT_S) -> Applied:
        """Append one command and wait until it is applied here.

        When that takes too long: raises Problem 503 if it wasn't sent, and won't be, else 504.
        """
        size = len(msgspec.json.encode(event))
        work = asyncio.ensure_future(self.shell.submit([event], size))
        try:
            return (await asyncio.wait_for(asyncio.shield(work), timeout_s))[0]
        except TimeoutError:
            work.add_done_callback(_forget)
            if self.shell.host.withdraw(event):
                work.cancel()
                raise Problem(503, "log-unavailable", "the log can't be reached; nothing was sent") from None
            raise Problem(
                504,
                "outcome-unknown",
                f"published, but not applied within {timeout_s} s; ask again with the same Idempotency-Key",
                correlation=event.correlation,
            ) from None


def _forget(work: "asyncio.Future[Any]") -> None:
    """Retrieve a late outcome that nobody waits for any more, so that it isn't reported as never retrieved."""
    if not work.cancelled():
        work.exception()


def outcome(applied: Applied, correlation: str) -> Response:
    position = str(applied.position)
    if isinstance(applied.outcome, Rejected):
        raise rejected(
            applied.outcome.code,
            applied.outcome.message,
            position=position,
            correlation=correlation,
            info=applied.outcome.detail,
        )
    assert isinstance(applied.outcome, Accepted)
    body = {"position": position, "correlation": correlation, "outcome": "accepted", "result": applied.outcome.result}
    return plain(body, 202, {"location": f"/v1/log/{position}"})


def plain(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(data), status, headers, media_type="application/json")


def read(data: Any, replica: Replica) -> Response:
    """A read's answer: the offset it is of stands in the ETag."""
    return plain(data, headers={"etag": f'"{replica.offset}"', "x-corelog-position": str(replica.offset)})


async def body(request: Request, kind: Any) -> Any:
    """The request's JSON body as ``kind``. Raises Problem 413 or 400 naming the field."""
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > BODY_BYTES_MAX:
            raise Problem(413, "body-too-large", f"the body has more than {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(raw or b"{}", type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "bad-body", f"the body is not what this call takes: {error}") from error


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found
