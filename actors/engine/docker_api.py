"""As much HTTP as dockerd's API needs, on its unix socket: one connection a request, JSON both ways, streams.

Written on httptools, which the node has loaded anyway: docker-py and requests would cost a node 15 MB.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import httptools

ANSWER_S = 30.0
_BLOCK = 65536


class DockerAway(OSError):
    """dockerd doesn't answer at its socket."""


class DockerError(Exception):
    """dockerd answered with an error: ``status`` and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Parsed:
    """Callbacks of httptools: status, whole or partial body."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.head_done = False
        self.done = False

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.done = True

    def take(self) -> bytes:
        taken = b"".join(self.body)
        self.body.clear()
        return taken


class DockerApi:
    """``socket``: path of dockerd's unix socket (``unix://`` may stand before it)."""

    def __init__(self, socket: str) -> None:
        self.socket = socket.removeprefix("unix://")

    async def call(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, timeout_s: float = ANSWER_S
    ) -> Any:
        """One request; returns the decoded JSON (None for an empty answer). Raises DockerError, DockerAway."""
        try:
            async with asyncio.timeout(timeout_s or None):
                chunks = [chunk async for chunk in self.stream(method, path, query, body)]
        except TimeoutError as error:
            raise DockerAway(f"dockerd did not answer {method} {path} within {timeout_s:g} s") from error
        raw = b"".join(chunks).strip()
        try:
            return json.loads(raw) if raw else None
        except ValueError:
            return raw.decode("utf-8", "replace")

    async def stream(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None
    ) -> AsyncIterator[bytes]:
        """Pieces of the answer as they come. Raises DockerError, DockerAway (also when it breaks off)."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError as error:
            raise DockerAway(f"no dockerd answers at {self.socket}: {error.strerror or error}") from error
        try:
            writer.write(_request(method, path, query, body))
            parsed = _Parsed()
            parser = httptools.HttpResponseParser(parsed)
            while not parsed.done:
                raw = await reader.read(_BLOCK)
                if not raw:
                    if parsed.head_done and not parsed.body:
                        return  # an answer without length ends with the connection
                    raise DockerAway("dockerd broke off its answer")
                parser.feed_data(raw)
                if not parsed.head_done:
                    continue
                status = parser.get_status_code()
                if status >= 400:
                    if parsed.done:
                        raise DockerError(status, _message(parsed.take()))
                    continue
                if parsed.body:
                    yield parsed.take()
        except (ConnectionError, httptools.HttpParserError) as error:
            raise DockerAway(f"dockerd broke off its answer: {error}") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _request(method: str, path: str, query: dict[str, Any] | None, body: Any) -> bytes:
    target = quote(path, safe="/:@%") + ("?" + urlencode(query) if query else "")
    content = b"" if body is None else json.dumps(body).encode()
    kind = "Content-Type: application/json\r\n" if body is not None else ""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{kind}Content-Length: {len(content)}\r\n"
    )
    return head.encode() + b"\r\n" + content


def _message(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return raw.decode("utf-8", "replace").strip()
