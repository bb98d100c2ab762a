"""The discovery protocol in front of any etcd's v2 keys: ``corelog discovery serve``. A node serves it by itself.

What is asked of a token's page goes on to ``/v2/keys/_etcd/registry/…`` of the first etcd that answers, and its answer
comes back piece by piece, as it is: a watch's headers are there before its event.
"""

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from actors.kv.discovery import REGISTRY, BadRequest, wanted
from actors.kv.http1 import BODY_BYTES_MAX
from actors.kv.v2 import request as v2
from actors.kv.v2.errors import V2Error

#: An etcd must take a connection in this time; a watch may wait for ever.
CONNECT_S = 5.0
_TOKEN = re.compile(r"[0-9a-f]{32}")
#: Headers that are between two ends of a connection only.
_HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host"})


class Service:
    """``base``: what tokens' URLs begin with; empty: as the caller named this service."""

    def __init__(self, etcds: Sequence[str], base: str = "") -> None:
        self._etcds, self._base = list(etcds), base.rstrip("/")
        self._client = httpx2.AsyncClient(timeout=httpx2.Timeout(None, connect=CONNECT_S), follow_redirects=False)

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def _served(self, _: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.close()

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/new", self.new, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
                Route("/health", self.health),
                Route("/{token}", self.page, methods=["GET", "PUT"]),
                Route("/{token}/", self.page, methods=["GET", "PUT"]),
                Route("/{token}/_config/size", self.page, methods=["GET"]),
                Route("/{token}/_config/log", self.page, methods=["GET"]),
                Route("/{token}/{member}", self.page, methods=["GET", "PUT", "DELETE"]),
            ],
            lifespan=self._served,
        )

    async def new(self, request: Request) -> Response:
        """A new token."""
        fields: dict[str, str] = {}
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() == v2.FORM.decode():
                v2.form(await _body(request), fields)
            v2.form(request.scope["query_string"], fields)
            size, log = wanted(fields)
        except (V2Error, BadRequest) as error:
            return PlainTextResponse(f"{error.cause if isinstance(error, V2Error) else error}\n", 400)
        token = secrets.token_hex(16)
        for page, value in (("log", log), ("size", str(size))):
            if value and not await self._put(f"{token}/_config/{page}", value):
                return PlainTextResponse("Unable to generate token\n", 400)
        return PlainTextResponse(f"{self._base or str(request.base_url).rstrip('/')}/{token}")

    async def health(self, request: Request) -> Response:
        """Healthy: a token can be made and forgotten."""
        token = secrets.token_hex(16)
        if not await self._put(f"{token}/_config/size", "1"):
            return PlainTextResponse("health failed to setupToken\n", 400)
        answer = await self._send("DELETE", f"/{token}", b"recursive=true", b"", {})
        if answer is None or answer.status_code != 200:
            return PlainTextResponse("health failed to deleteToken\n", 400)
        await answer.aclose()
        return PlainTextResponse("OK")

    async def page(self, request: Request) -> Response:
        """What a token's key is asked for."""
        if not _TOKEN.fullmatch(request.path_params["token"]) or request.path_params.get("member") in (".", ".."):
            return PlainTextResponse("404 page not found\n", 404)
        headers = {name: value for name, value in request.headers.items() if name not in _HOPS}
        headers["accept-encoding"] = "identity"
        path = request.scope["raw_path"].decode("latin-1")
        answer = await self._send(request.method, path, request.scope["query_string"], await _body(request), headers)
        if answer is None:
            return PlainTextResponse("no etcd answers\n", 502)
        back = {name: value for name, value in answer.headers.items() if name not in _HOPS}
        return StreamingResponse(_pieces(answer), answer.status_code, back)

    async def _put(self, key: str, value: str) -> bool:
        body = str(httpx2.QueryParams({"value": value})).encode()
        answer = await self._send("PUT", f"/{key}", b"prevExist=false", body, {"content-type": v2.FORM.decode()})
        if answer is not None:
            await answer.aclose()
        return answer is not None and answer.status_code == 201

    async def _send(
        self, method: str, path: str, query: bytes, body: bytes, headers: dict[str, str]
    ) -> httpx2.Response | None:
        """The answer's head; None: no etcd took a connection."""
        for etcd in list(self._etcds):
            where = v2.PREFIX + REGISTRY + path + (f"?{query.decode('latin-1')}" if query else "")
            url = httpx2.URL(etcd).copy_with(raw_path=where.encode("latin-1"))
            try:
                asked = self._client.build_request(method, url, content=body or None, headers=headers)
                return await self._client.send(asked, stream=True)
            except httpx2.ConnectError:
                self._etcds.append(self._etcds.pop(0))  # the next ones first, until they fail too
            except httpx2.HTTPError:
                return None  # it may have been done
        return None


async def _body(request: Request) -> bytes:
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > BODY_BYTES_MAX:
            raise HTTPException(413, f"a body of over {BODY_BYTES_MAX} bytes")
    return raw


async def _pieces(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()
