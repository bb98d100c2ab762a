"""The table of all routes; the OpenAPI document is made from it."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streams.events.update import Publish

from . import history, keyhistory, keys3, kv, machines, metrics, policies, restoring, snapshotting, units, updates
from .access import needed
from .context import context, plain

Handler = Callable[[Request], Awaitable[Response]]

_AT = {"at": "as of a position (1234.7) or a time", "consistency": "linearizable (default) or serializable"}
_KEYS = {"key": "a key (any bytes, again for more)", "prefix": "all keys that begin so (again for more)"}
_AT3 = {"at": "as of a position (1234.7), a time or a revision (r123)"}
_PLAN = {"dry_run": "1: tell what would change"}
_DO = {"timeout": "seconds to wait for the outcome", "dry_run": "1: answer the event without publishing it"}


#: What is read here may hold keys' contents.
_KEYS_TOLD = ("/v1/kv/", "/v1/log", "/v1/why/", "/v1/diff", "/v1/history/", "/v1/blame/")


class Call(NamedTuple):
    """``query``: parameter → what it means. ``body``: the struct it takes. Commands answer 202, reads 200."""

    method: str
    path: str
    handler: Handler
    query: dict[str, str] = {}
    body: type[msgspec.Struct] | None = None

    @property
    def command(self) -> bool:
        return self.query is _DO

    @property
    def tells_keys(self) -> bool:
        """Where etcd's users are asked for, it needs a principal also to be read."""
        return self.method == "GET" and self.path.startswith(_KEYS_TOLD)


CALLS = [
    Call("GET", "/v1/cluster", machines.status, _AT),
    Call("GET", "/v1/machines", machines.list_machines, _AT),
    Call("GET", "/v1/machines/{machine}", machines.get_machine, _AT),
    Call("PATCH", "/v1/machines/{machine}", machines.label, _DO, machines.LabelBody),
    Call("DELETE", "/v1/machines/{machine}", machines.remove, _DO),
    Call("POST", "/v1/machines/{machine}/drain", machines.drain, _DO),
    Call("POST", "/v1/machines/{machine}/undrain", machines.drain, _DO),
    Call("GET", "/v1/units", units.list_units, _AT),
    Call("GET", "/v1/units/{name}", units.get_unit, _AT),
    Call("PUT", "/v1/units/{name}", units.submit, _DO, units.SubmitBody),
    Call("DELETE", "/v1/units/{name}", units.destroy, _DO),
    Call("POST", "/v1/units/{name}/desire", units.desire, _DO, units.DesireBody),
    Call("POST", "/v1/units/{name}/restart", units.restart, _DO),
    Call("POST", "/v1/units/{name}/verify", units.verify, {}, units.SubmitBody),
    Call(
        "GET",
        "/v1/units/{name}/journal",
        units.get_journal,
        {"lines": "how many (200)", "follow": "1: go on", "times": "1: with times"},
    ),
    Call("GET", "/v1/updates", updates.list_versions, _AT),
    Call("GET", "/v1/updates/status", updates.status, _AT),
    Call("PUT", "/v1/updates/{version}", updates.publish, _DO, Publish),
    Call("POST", "/v1/updates/rollback", updates.rollback, _DO, updates.OrderBody),
    Call("POST", "/v1/updates/gc", updates.collect, _DO, updates.OrderBody),
    Call("POST", "/v1/updates/{version}/{verb}", updates.order, _DO, updates.OrderBody),
    Call("GET", "/v1/objects/{hash}", updates.get_object),
    Call("GET", "/v1/trees/{hash}", updates.get_tree),
    Call("GET", "/v1/kv/{key:path}", kv.keys, _AT),
    Call("PUT", "/v1/kv/{key:path}", kv.keys, {}),
    Call("POST", "/v1/kv/{key:path}", kv.keys, {}),
    Call("DELETE", "/v1/kv/{key:path}", kv.keys, {}),
    Call(
        "GET", "/v1/log", history.lines, {"from": "position", "limit": "100", "stream": "", "subject": "", "type": ""}
    ),
    Call(
        "GET",
        "/v1/log/stream",
        history.stream,
        {"from": "position to resume after", "stream": "", "subject": "", "type": ""},
    ),
    Call("GET", "/v1/log/audit", history.audit),
    Call("POST", "/v1/log/snapshot", snapshotting.on_request),
    Call("GET", "/v1/log/{position}", history.one),
    Call("GET", "/v1/why/{kind}/{name:path}", history.get_why, {"at": "as of a position or a time"}),
    Call(
        "GET",
        "/v1/diff",
        history.get_diff,
        {"from": "position or time", "to": "position or time (now)", "below": "only keys, at and below this one"},
    ),
    Call(
        "GET",
        "/v1/history/{key:path}",
        keyhistory.changes,
        {
            "recursive": "true: also of all below",
            "from": "after this position or time",
            "to": "up to this position or time (now)",
            "limit": "the newest so many (100)",
        },
    ),
    Call("GET", "/v1/blame/{key:path}", keyhistory.blame, {"at": "as of a position or a time"}),
    Call(
        "GET",
        "/v1/kv3/keys",
        keys3.keys,
        {
            **_KEYS,
            "end": "with key: up to, not including, this one",
            "from_key": "this key and all behind it",
            **_AT3,
            "limit": "so many (all)",
            "keys_only": "true: without values",
            "count_only": "true: how many alone",
        },
    ),
    Call(
        "GET",
        "/v1/kv3/history",
        keys3.changes,
        {
            **_KEYS,
            "from": "after this position, time or revision",
            "to": "up to this position, time or revision (now)",
            "limit": "the newest so many (100)",
        },
    ),
    Call("GET", "/v1/kv3/blame", keys3.blame, {**_KEYS, **_AT3, "deleted": "true: also keys that are gone"}),
    Call(
        "GET",
        "/v1/kv3/diff",
        keys3.diff,
        {**_KEYS, "from": "position, time or revision", "to": "position, time or revision (now)"},
    ),
    Call("POST", "/v1/kv3/restore", restoring.restore, _PLAN, restoring.RestoreBody),
    Call("POST", "/v1/kv2/restore", restoring.restore2, _PLAN, restoring.Restore2Body),
    Call("GET", "/v1/policies", policies.list_policies, {"at": "as of a position or a time"}),
    Call("PUT", "/v1/policies", policies.set_policy, _DO, policies.PolicyBody),
    Call("POST", "/v1/policies/remove", policies.remove_policy, _DO, policies.RemoveBody),
    Call("GET", "/v1/state", history.get_state, _AT),
    Call("GET", "/health", metrics.health),
    Call("GET", "/metrics", metrics.metrics),
]


def starlette_routes() -> list[Route]:
    """All calls, and the document that describes them."""
    table: dict[str, list[Call]] = {}
    for call in CALLS:
        table.setdefault(call.path, []).append(call)
    routes = [
        Route(call.path, checked(call.handler, call.tells_keys), methods=[call.method])
        for calls in table.values()
        for call in calls
    ]
    return [*routes, Route("/openapi.json", checked(openapi), methods=["GET"])]


def checked(handler: Handler, tells_keys: bool = False) -> Handler:
    """Check Host and Origin before anything else; commands also need a principal before their body is read."""

    async def run(request: Request) -> Response:
        here = context(request)
        here.access.check_host(request)
        if request.method not in ("GET", "HEAD"):
            here.access.principal(request, command=True)
        elif (
            tells_keys
            and here.access.principal(request, command=False).startswith("addr:")
            and await here.guard.closed()
        ):
            raise needed("reads of keys and of the log, where etcd's users are asked for,")
        return await handler(request)

    run.__name__ = handler.__name__
    return run


async def openapi(request: Request) -> Response:
    return plain(document(context(request).setting.version))


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of CALLS."""
    bodies = [call.body for call in CALLS if call.body is not None]
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        paths.setdefault(call.path.replace(":path", ""), {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "corelog", "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(call: Call) -> dict[str, Any]:
    doc = (call.handler.__doc__ or call.handler.__name__).strip().splitlines()[0]
    names = [part[1:-1].removesuffix(":path") for part in call.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "description": what, "schema": {"type": "string"}}
        for name, what in call.query.items()
    ]
    if call.method != "GET":
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 256}})
    status, what = ("202", "published and accepted: position, correlation, result") if call.command else ("200", doc)
    operation: dict[str, Any] = {
        "summary": doc,
        "operationId": f"{call.method.lower()}_{re.sub('[^a-z0-9]+', '_', call.path.removesuffix('}').lstrip('/'))}",
        "parameters": parameters,
        "responses": {status: {"description": what}, "default": {"description": "a problem (RFC 9457)"}},
    }
    if call.body is not None:
        schema = {"$ref": f"#/components/schemas/{call.body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if call.method != "GET":
        operation["security"] = [{"token": []}]
    elif call.tells_keys:  # only where etcd's users are asked for
        operation["security"] = [{}, {"token": []}]
    return operation
