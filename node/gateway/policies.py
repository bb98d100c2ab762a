"""Policies of prefixes: quotas, rates, how much history is kept. The kv replica of this node answers, by its socket."""

from typing import Any

import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from actors.kv.policing import PATH, Change, rows
from actors.kv.state import KvFold
from streams.events import kv3 as says
from streams.events.base import Blob, Data

from .context import TIMEOUT_S, body, context, plain, read
from .problem import Problem


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is limited; what is left out, or 0, isn't. ``prefix``: a text, or ``{"base64": …}``."""

    prefix: Blob
    max_bytes: int = 0
    writes_per_s: float = 0.0
    burst: int = 0
    keep_age_s: int = 0
    keep_bytes: int = 0


class RemoveBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whose policy ends."""

    prefix: Blob


async def list_policies(request: Request) -> Response:
    """The policies of prefixes, and what is used of them."""
    here = context(request)
    if at := request.query_params.get("at"):
        replica = await here.past(at, KvFold, "kv")
        assert isinstance(replica.fold, KvFold)
        return read(rows(replica.fold.v3.revs), replica)
    answer = await _asked(request, "GET", b"")
    return plain(answer["policies"], headers={"etag": f'"{answer["offset"]}"'})


async def set_policy(request: Request) -> Response:
    """Limit the keys that begin with a prefix; replaces what was set for it."""
    asked = await body(request, PolicyBody)
    data = says.PolicySet(**{name: getattr(asked, name) for name in PolicyBody.__struct_fields__})
    return await _change(request, Change(set=data), data)


async def remove_policy(request: Request) -> Response:
    """End the policy of a prefix; what was compacted for it stays so."""
    asked = await body(request, RemoveBody)
    data = says.PolicyRemove(asked.prefix)
    return await _change(request, Change(remove=data), data)


async def _change(request: Request, change: Change, data: Data) -> Response:
    if request.query_params.get("dry_run"):
        principal = context(request).access.principal(request, command=True)
        event = {"type": data.TYPE, "principal": principal, "data": msgspec.to_builtins(data)}
        return plain({"dry_run": True, "event": event})
    answer = await _asked(request, "POST", msgspec.json.encode(change))
    correlation = request.headers.get("x-corelog-correlation", "")
    told = {"position": answer["position"], "correlation": correlation, "outcome": "accepted"}
    return plain(told, 202, {"location": f"/v1/log/{answer['position']}"})


async def _asked(request: Request, method: str, content: bytes) -> Any:
    """Raises Problem."""
    here = context(request)
    headers = {"x-corelog-principal": here.access.principal(request, command=method != "GET")}
    for name in ("idempotency-key", "x-corelog-correlation"):
        if given := request.headers.get(name):
            headers[name] = given
    # no certificates are read for a unix socket
    transport = httpx2.AsyncHTTPTransport(uds=str(here.folder / "run" / "kv.sock"), verify=False)
    try:
        async with httpx2.AsyncClient(transport=transport, timeout=TIMEOUT_S + 5) as client:
            answer = await client.request(method, f"http://kv{PATH}", content=content, headers=headers)
            told = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise Problem(503, "kv-unavailable", f"this node's kv replica doesn't answer: {error!r}") from error
    if answer.status_code != 200:
        more = {"position": told["position"]} if "position" in told else {}
        raise Problem(answer.status_code, told.get("code", "kv-policy"), told.get("message", ""), **more)
    return told
