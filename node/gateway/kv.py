"""Keys: the v2 API under ``/v1/kv/…`` with the caller's principal (etcd's own port knows only addresses).

Requests go to the kv replica of this node by its unix socket; reads ``?at=`` are replayed here.
"""

import httpx2
from starlette.requests import Request
from starlette.responses import Response

from actors.kv.state import KvFold

from .context import BODY_BYTES_MAX, TIMEOUT_S, context, read
from .problem import Problem

_PASSED = (
    "content-type", "idempotency-key", "x-corelog-client", "x-corelog-sequence", "x-corelog-floor",
    "x-corelog-correlation",
)  # fmt: skip
_BACK = ("x-etcd-index", "x-etcd-cluster-id", "x-raft-index", "x-raft-term", "x-corelog-position", "content-type")


async def keys(request: Request) -> Response:
    """GET, PUT, POST, DELETE of a key, with the parameters of etcd's ``/v2/keys``; ``?at=`` on GET."""
    here = context(request)
    command = request.method not in ("GET", "HEAD")
    principal = here.access.principal(request, command=command)
    key = request.path_params["key"]
    if not command and "at" in request.query_params:
        return await _past(request, key)
    raw = await request.body()
    if len(raw) > BODY_BYTES_MAX:
        raise Problem(413, "body-too-large", f"the body has more than {BODY_BYTES_MAX} bytes")
    # as bytes: what isn't ASCII is passed on as it came
    headers = [(name, value) for name, value in request.headers.raw if name.decode("latin-1") in _PASSED]
    headers.append((b"x-corelog-principal", principal.encode()))
    url = httpx2.URL("http://kv").copy_with(raw_path=b"/v2/keys" + _path(request) + _query(request))
    # no certificates are read for a unix socket
    transport = httpx2.AsyncHTTPTransport(uds=str(here.folder / "run" / "kv.sock"), verify=False)
    try:
        async with httpx2.AsyncClient(transport=transport, timeout=TIMEOUT_S + 5) as client:
            answer = await client.request(request.method, url, content=raw, headers=headers)
    except httpx2.HTTPError as error:
        raise Problem(503, "kv-unavailable", f"this node's kv replica doesn't answer: {error!r}") from error
    back = {name: answer.headers[name] for name in _BACK if name in answer.headers}
    return Response(answer.content, answer.status_code, back)


def _path(request: Request) -> bytes:
    """The key's path as it was escaped. Raises Problem 404 if the part before it was escaped too."""
    _, prefix, key = request.scope["raw_path"].partition(b"/v1/kv")
    if not prefix:
        raise Problem(404, "no-such-call", "write /v1/kv/ without escapes")
    raw: bytes = key
    return raw


def _query(request: Request) -> bytes:
    raw: bytes = request.scope["query_string"]
    return b"?" + raw if raw else b""


async def _past(request: Request, key: str) -> Response:
    here = context(request)
    replica = await here.past(request.query_params["at"], KvFold, "kv")
    fold = replica.fold
    assert isinstance(fold, KvFold)
    found = fold.look("/" + key.strip("/"), recursive=request.query_params.get("recursive") == "true")
    if found is None:
        raise Problem(404, "no-such-key", f"/{key.strip('/')} did not exist then (position {replica.offset})")
    return read(found, replica)
