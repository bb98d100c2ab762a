"""Whatever stands in a query, a path or a header: the gateway answers it, and never with its own fault."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.gateway.routes import CALLS, Call

from .test_gateway import UNIT, Gateway, gateway, problem

__all__ = ["gateway"]

#: What people and programs give where a number, a position or a time belongs.
JUNK = [
    "", " ", "x", "-1", "-0", "1.5", "1e9", "1e400", "nan", "inf", "-inf", "0x10", "1_0", "٣", "²", "9" * 30,
    "9" * 5000,
    "9" * 19, "1." + "9" * 9, "1.", ".1", "1.-1", "true", "null", "now", "\0", "\n",
    "\ud7ff", "a" * 300, "../x", "%", "@9",
    "@" + "9" * 12, "@1e9", "24:61", "99:99", "0001-01-01", "9999-12-31T23:59:59-23:59", "9" * 400 + " days ago",
    "9" * 20 + " weeks ago", "1 ms ago", "[]", "'", '"', "linearizable", "0.0", "9223372036854775807",
]  # fmt: skip
PARAMETERS = ("name", "machine", "version", "verb", "hash", "position", "kind")
#: The snapshotter is a program of its own, on files; it takes no parameter.
TABLE = [call for call in CALLS if call.path != "/v1/log/snapshot"]


async def ask(
    app: Any, method: str, path: str, query: str = "", headers: dict[str, str] | None = None, raw_path: str = ""
) -> tuple[int, bytes]:
    """Status and body of a request whose caller hangs up after the first piece: a live stream ends too."""
    hung_up = asyncio.Event()
    status, body = 0, b""
    given = [b"{}"]

    async def receive() -> dict[str, Any]:
        if given:
            return {"type": "http.request", "body": given.pop(), "more_body": False}
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
            if (b"content-type", b"text/event-stream; charset=utf-8") in message["headers"]:
                hung_up.set()
        else:
            body += message.get("body", b"")

    raw = {"host": "localhost", **(headers or {})}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
        "path": path, "raw_path": (raw_path or quote(path)).encode(), "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in raw.items()],
        "client": ("uid:0", 1), "server": ("localhost", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    return status, body


def said(status: int, body: bytes, what: Any) -> None:
    """An answer, or a problem that says what is wrong."""
    assert status, what
    if status >= 400 and status not in (404, 405):
        told = json.loads(body)
        assert told["detail"], what
        # the kv replica isn't here, and who waits for no time at all doesn't learn the outcome
        assert status < 500 or told["type"] in ("corelog:kv-unavailable", "corelog:outcome-unknown"), (what, told)


def path_of(call: Call, value: str = "x") -> str:
    path = call.path.replace("{key:path}", value).replace("{name:path}", value)
    for name in PARAMETERS:
        path = path.replace("{" + name + "}", value)
    return path


def titles(call: Call) -> str:
    return f"{call.method} {call.path}"


@pytest.mark.parametrize("call", TABLE, ids=titles)
async def test_no_value_of_a_parameter_is_the_gateways_fault(gateway: Gateway, call: Call) -> None:
    names = {**call.query, "dry_run": "", "timeout": "", "at": "", "limit": "", "lines": "", "from": "", "to": ""}
    for name in names:
        others = "" if name == "from" or call.path != "/v1/diff" else "&from=0"
        for value in JUNK:
            query = f"{name}={quote(value)}{others}"
            said(*await ask(gateway.app, call.method, path_of(call), query), (call.path, query[:80]))


@pytest.mark.parametrize("call", [call for call in TABLE if "{" in call.path], ids=titles)
async def test_no_name_in_a_path_is_the_gateways_fault(gateway: Gateway, call: Call) -> None:
    for value in JUNK:
        said(*await ask(gateway.app, call.method, path_of(call, value)), (call.path, value[:80]))


@given(value=st.text(max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_text_at_all_is_the_gateways_fault(gateway: Gateway, value: str) -> None:
    for path in ("/v1/log", "/v1/log/stream", "/v1/diff", "/v1/units", "/v1/units/x/journal"):
        for name in ("from", "at", "limit", "lines", "consistency"):
            text = quote(value.encode("utf-8", "surrogatepass"))
            said(*await ask(gateway.app, "GET", path, f"{name}={text}"), (path, name))


async def test_what_is_wrong_is_named_and_nothing_is_published(gateway: Gateway) -> None:
    before = len(gateway.log.entries)
    async with gateway.client("uid:0") as client:
        for path in (
            "/v1/log?limit=ten", "/v1/log?limit=-1", "/v1/units/a.service/journal?lines=-1",
            "/v1/units?consistency=serialisable",
        ):  # fmt: skip
            name, _, value = path.partition("?")[2].partition("=")
            told = problem(await client.get(path), 400, "bad-parameter")
            assert told["parameter"] == name
            assert told["detail"].startswith(f"{name}={value!r}")
        for value in ("soon", "nan", "inf", "-1"):
            answer = await client.put(f"/v1/units/a.service?timeout={value}", json={"content": UNIT})
            assert problem(answer, 400, "bad-parameter")["parameter"] == "timeout"
        assert problem(await client.get("/v1/log?from=yesterday"), 400, "bad-position")["parameter"] == "from"
    assert len(gateway.log.entries) == before


@pytest.mark.parametrize("bad", ["x", "12x", "-1", "99999", "9" * 30])
async def test_a_stream_that_can_not_be_resumed_is_refused_before_it_begins(gateway: Gateway, bad: str) -> None:
    async with gateway.client("uid:0") as client:
        asked = await client.get("/v1/log/stream", params={"from": bad})
        assert problem(asked, 400, "bad-position")["parameter"] == "from"
        resumed = await client.get("/v1/log/stream", headers={"last-event-id": bad})
        assert problem(resumed, 400, "bad-position")["parameter"] == "Last-Event-ID"


async def test_headers_beyond_ascii_and_odd_paths_are_taken(gateway: Gateway) -> None:
    odd = {"idempotency-key": "ü", "x-corelog-correlation": "ö", "content-type": "ß"}
    for call in TABLE:
        said(*await ask(gateway.app, call.method, path_of(call), headers=odd), call.path)
    status, _ = await ask(gateway.app, "GET", "/v1/kv/x", raw_path="/v1%2Fkv/x")
    assert status == 404
