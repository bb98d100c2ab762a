"""Errors as problem+json (RFC 9457), typed by whose fault."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from actors.host import Unresolved, Unwritten
from streams.log.port import LogError, LogTruncated

#: Rejection codes (outcomes) by HTTP status; others are 409.
_STATUS = {"not-found": 404, "unknown-unit": 404, "unknown-machine": 404, "unknown-version": 404, "bad-unit": 400}


class Problem(Exception):
    """Raised by routes. ``kind`` is stable and typed; ``exit_code`` is what the command line ends with."""

    def __init__(self, status: int, kind: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.more = status, kind, detail, more


def answer(status: int, kind: str, detail: str, **more: Any) -> Response:
    body = {"type": f"corelog:{kind}", "title": kind.replace("-", " "), "status": status, "detail": detail, **more}
    return Response(msgspec.json.encode(body), status, media_type="application/problem+json")


def rejected(code: str, message: str, **more: Any) -> Problem:
    """A command that was published and refused at apply."""
    return Problem(_STATUS.get(code, 409), code, message or code, **more)


async def on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(error.status, error.kind, error.detail, **error.more)


async def on_log_error(_request: Request, error: Exception) -> Response:
    if isinstance(error, LogTruncated):
        return answer(410, "log-truncated", str(error))
    assert isinstance(error, LogError)
    return answer(error.http_status, "log-unavailable", str(error))


async def on_unwritten(_request: Request, error: Exception) -> Response:
    return answer(503, "unwritten", f"nothing was written: {error}; try again later")


async def on_unresolved(_request: Request, error: Exception) -> Response:
    return answer(
        504,
        "outcome-unknown",
        f"the command was published, its outcome isn't known: {error}; ask again with the same Idempotency-Key",
    )


HANDLERS: dict[Any, Any] = {
    Problem: on_problem,
    LogError: on_log_error,
    Unwritten: on_unwritten,
    Unresolved: on_unresolved,
}
