"""HTTP/1.1 as a client, as far as etcd's gateway needs it: a connection a request, answers also piece by piece."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec

UNIX_PATH_BYTES = 108


class Unreachable(Exception):
    """Nobody answers there, or who answers can't now: to be tried again, or elsewhere."""

    exit_code = 5


class Address(msgspec.Struct, frozen=True):
    """``path``: of a unix socket; empty: ``host`` and ``port``."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False


def address(text: str) -> Address:
    """``host:port``, ``http://…``, ``https://…``, ``unix:///path``, ``unixs:///path``. Raises ValueError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme in ("unix", "unixs"):
        if not rest:
            raise ValueError(f"{text!r} names no socket")
        return Address(text, path=rest, tls=scheme == "unixs")
    try:
        split = urlsplit("//" + rest)
        host, port = split.hostname, split.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no endpoint: {error}") from error
    if scheme not in ("http", "https") or not host or set("@ \t\n") & set(rest) or split.path not in ("", "/"):
        raise ValueError(f"{text!r} is no endpoint: write HOST:PORT, https://HOST:PORT or unix:///PATH")
    return Address(text, host, port or 2379, tls=scheme == "https")


class Answer:
    """``pieces``: the body as it comes."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status, self.headers = status, headers
        self._reader = reader

    async def pieces(self) -> AsyncIterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._reader.readuntil(b"\n")).partition(b";")[0], 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
        elif "content-length" in self.headers:
            yield await self._reader.readexactly(int(self.headers["content-length"]))
        else:
            while piece := await self._reader.read(65536):
                yield piece

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def lines(self) -> AsyncIterator[bytes]:
        """The last one may have no end."""
        rest: list[bytes] = []
        async for piece in self.pieces():
            *whole, last = piece.split(b"\n")
            for line in whole:
                yield b"".join([*rest, line])
                rest = []
            rest.append(last)
        if any(rest):
            yield b"".join(rest)


@contextlib.asynccontextmanager
async def asked(
    at: Address,
    context: ssl.SSLContext | None,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    timeout_s: float = 10.0,
) -> AsyncIterator[Answer]:
    """An answer, once its head is there. Raises Unreachable, also while its body is read."""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connected(at, context)
            lines = [f"{method} {path} HTTP/1.1", f"host: {at.host or 'localhost'}", "connection: close"]
            lines += [f"content-length: {len(body)}", *(f"{name}: {text}" for name, text in (headers or {}).items())]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            await writer.drain()
            answer = _head(await reader.readuntil(b"\r\n\r\n"), reader)
        yield answer
    except TimeoutError as error:
        raise Unreachable(f"{at.text} gave no answer in {timeout_s:g} s") from error
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unreachable(f"{at.text} broke off its answer") from error
    except OSError as error:
        raise Unreachable(f"{at.text}: {error.strerror or error}") from error
    except ValueError as error:
        raise Unreachable(f"{at.text} doesn't answer as etcd does: {error}") from error
    finally:
        if writer is not None:
            writer.transport.abort()


async def _connected(at: Address, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    tls = (context or ssl.create_default_context()) if at.tls else None
    if at.path:
        name = "localhost" if tls else None
        if len(os.fsencode(at.path)) < UNIX_PATH_BYTES:
            return await asyncio.open_unix_connection(at.path, ssl=tls, server_hostname=name)
        # a socket's address has room for few bytes: go by the folder's descriptor
        folder = os.open(os.path.dirname(at.path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            short = f"/proc/self/fd/{folder}/{os.path.basename(at.path)}"
            return await asyncio.open_unix_connection(short, ssl=tls, server_hostname=name)
        finally:
            os.close(folder)
    reader, writer = await asyncio.open_connection(at.host, at.port, ssl=tls)
    sock = writer.get_extra_info("socket")
    # a server that vanished in mid-watch is noticed within half a minute
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, number in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4)):
        sock.setsockopt(socket.IPPROTO_TCP, option, number)
    return reader, writer


def _head(raw: bytes, reader: asyncio.StreamReader) -> Answer:
    first, *rest = raw.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"{first[:40]!r} is no HTTP")
    fields = (line.partition(":") for line in rest if line)
    return Answer(int(status[:3]), {name.strip().lower(): text.strip() for name, _, text in fields}, reader)
