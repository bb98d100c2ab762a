"""HTTP/1.1 on one connection: bytes → :class:`Exchange` → bytes. httptools parses; the rules here are its edges.

One exchange at a time is served, in order; pipelined ones wait (then reading pauses). What is malformed, too large
or too slow ends this connection alone, with an answer that says why where that can still be heard.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import httptools

#: A body up to this is read; larger ones are refused with 413 before they are.
BODY_BYTES_MAX = 2 * 1024 * 1024
#: The same under /v3 and in steps of a restore: etcd's limit of a message is 2 MiB, and base64 takes a third more.
V3_BODY_BYTES_MAX = 3 * 1024 * 1024
#: Request line and headers together.
HEAD_BYTES_MAX = 64 * 1024
#: Pipelined requests that may wait before reading pauses.
PIPELINE_MAX = 64
#: Unsent bytes to a slow watcher at which it is cut off.
BACKLOG_BYTES_MAX = 8 * 1024 * 1024
#: A request must be whole this long after its first byte.
REQUEST_S_MAX = 30.0
#: A client that takes nothing of an answer for so long is cut off.
STALL_S_MAX = 300.0
#: After a refusal, how long what the client still sends is read and thrown away, so that it can hear the answer.
LINGER_S = 1.0

JSON = b"Content-Type: application/json\r\n"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
#: The first line of a request whose head may be known.
_LINE = re.compile(
    rb"(GET|PUT|POST|DELETE) (/[A-Za-z0-9/_.~%+=&:@,;!$'()*-]*)(?:\?([A-Za-z0-9/_.~%+=&:@,;!$'()*?-]*))? HTTP/1\.1\r\n"
)
#: Heads that are kept known, and bytes of one.
HEADS_MAX, KNOWN_HEAD_BYTES_MAX = 512, 1024
#: Behind the first line → the headers and the body's size that the parser found in these bytes when they came before.
_heads: dict[bytes, tuple[dict[bytes, bytes], int]] = {}
#: What makes of a request more than a head and a body.
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"connection"})
_TOO_LONG = f"request line and headers have over {HEAD_BYTES_MAX} bytes"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Exchange:
    """A whole request and the way to answer it, once: ``respond``, or ``begin``, ``send`` and ``end``.

    ``method`` as sent; ``path`` and ``query`` undecoded; header names in lower case. ``refused``: it could not be
    read: (status, why). ``gone`` is called when the client left before it was answered; ``drained``, of an answer
    piece by piece, when the socket takes more again.
    """

    __slots__ = (
        "body",
        "connection",
        "drained",
        "gone",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "refused",
        "streams",
    )

    def __init__(self, connection: "Http1") -> None:
        self.connection = connection
        self.method = ""
        self.path = b""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = False
        self.refused: tuple[int, str] | None = None
        self.gone: Callable[[], None] | None = None
        self.drained: Callable[[], None] | None = None
        self.streams = False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer whole. ``headers``: lines with CRLF, without length and date. No-op if the client left."""
        connection = self.connection
        if connection.current is not self:
            return
        close = connection.lines if self.keep_alive else b"Connection: close\r\n" + connection.lines
        head = b"%s%s%sDate: %s\r\nContent-Length: %d\r\n\r\n" % (
            _STATUS_LINES[status],
            headers,
            close,
            date(),
            len(body),
        )
        connection.write(head if self.method == "HEAD" else head + body)
        connection.served(self)

    def begin(self, status: int, headers: bytes) -> None:
        """Answer piece by piece: the head goes out at once."""
        connection = self.connection
        if connection.current is not self:
            return
        self.streams = True
        how = b"Transfer-Encoding: chunked\r\n" if self.keep_alive else b"Connection: close\r\n"
        how += connection.lines
        connection.write(b"%s%s%sDate: %s\r\n\r\n" % (_STATUS_LINES[status], headers, how, date()))

    def send(self, piece: bytes) -> None:
        connection = self.connection
        if connection.current is self and piece:
            connection.write(b"%x\r\n%s\r\n" % (len(piece), piece) if self.keep_alive else piece)

    def end(self) -> None:
        connection = self.connection
        if connection.current is self:
            if self.keep_alive:
                connection.write(b"0\r\n\r\n")
            connection.served(self)


class Http1(asyncio.Protocol):
    """One connection. ``serve`` gets each exchange, in order, the next one when the last is answered."""

    def __init__(self, serve: Callable[[Exchange], None], open_ones: "set[Http1]", peer: str = "") -> None:
        self.peer = peer
        self.trusted = False
        self.client_cn = ""
        #: of a verified certificate, which stands for a user of v2 (etcd's gateway of v3 doesn't look at it)
        self.user_cn = ""
        #: header lines of every answer while the exchange at hand is served
        self.lines = b""
        #: at a listener of --listen-metrics-urls
        self.metrics_only = False
        self.current: Exchange | None = None
        #: when the request that is being read began; 0: none
        self.reading_since = 0.0
        #: when the socket last took no more; 0: it does
        self._stalled_since = 0.0
        self._serve = serve
        self._open_ones = open_ones
        self._transport: Any = None
        self._waiting: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._url = b""
        self._head_bytes = self._field_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes, self._body_max = 0, BODY_BYTES_MAX
        self._in_head = True
        self._deaf = False
        self._paused = False
        self._ended = False
        self._busy = False
        self._parser = httptools.HttpRequestParser(self)

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        fresh = self._reading is None and not self._waiting
        if fresh and (known := self._known(data)) is not None:
            self._waiting.append(known)
            self._next()
            return
        if not self.reading_since:
            self.reading_since = time.monotonic()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # asked for another protocol: it is answered as if it hadn't been
            self._refuse(400, "this server speaks HTTP/1.1 here; no upgrade")
        except _Refused as refused:
            self._refuse(*refused.args)
        except httptools.HttpParserCallbackError as error:
            refused_by = error.__context__
            self._refuse(*(refused_by.args if isinstance(refused_by, _Refused) else (400, "malformed request")))
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed request: {error}")
        else:
            if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(431, _TOO_LONG)
            elif fresh and self._reading is None and len(self._waiting) == 1:
                _learn(data, self._waiting[0])
        self._next()

    def _known(self, data: bytes) -> Exchange | None:
        """The whole request in ``data``, if the parser has seen its head before: clients send the same ones again."""
        line = _LINE.match(data)
        if line is None:
            return None
        end = data.find(b"\r\n\r\n", line.end() - 2, line.end() + KNOWN_HEAD_BYTES_MAX) + 4
        found = _heads.get(data[line.end() : end]) if end > 3 else None
        if found is None or found[1] != len(data) - end or end > HEAD_BYTES_MAX:
            return None
        exchange = Exchange(self)
        exchange.method = line[1].decode()
        exchange.path, exchange.query = line[2], line[3] or b""
        exchange.headers, exchange.body, exchange.keep_alive = found[0], data[end:], True
        return exchange

    def eof_received(self) -> bool:
        """A client that only ended its sending is still answered, unless it is a watcher."""
        self._deaf = self._ended = True
        return self.current is not None and not self.current.streams

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        self._deaf = True
        current, self.current = self.current, None
        self._waiting.clear()
        if current is not None and current.gone is not None:
            current.gone()

    def pause_writing(self) -> None:
        self._stalled_since = time.monotonic()

    def resume_writing(self) -> None:
        self._stalled_since = 0.0
        if self.current is not None and self.current.drained is not None:
            self.current.drained()

    @property
    def secure(self) -> bool:
        return self._transport.get_extra_info("sslcontext") is not None

    def unsent(self) -> int:
        """Bytes that the client doesn't take."""
        size: int = self._transport.get_write_buffer_size()
        return size

    # -- httptools' callbacks ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._reading = Exchange(self)
        self._url, self._field_bytes = b"", 0
        self._body, self._body_bytes = [], 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._field(len(url))

    def _field(self, size: int) -> None:
        """A head that came whole in one read is limited as well."""
        self._field_bytes += size
        if self._field_bytes > HEAD_BYTES_MAX:
            raise _Refused(431, _TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._reading is not None
        self._reading.headers[name.lower()] = value
        self._field(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        reading = self._reading
        assert reading is not None
        self._in_head, self._head_bytes = False, 0
        reading.method = self._parser.get_method().decode("latin-1")
        path, _, reading.query = self._url.partition(b"?")
        reading.path = path
        length = reading.headers.get(b"content-length", b"0")
        self._body_max = V3_BODY_BYTES_MAX if path.startswith((b"/v3", b"/internal/")) else BODY_BYTES_MAX
        if int(length) > self._body_max:
            raise _Refused(413, f"a body of {length.decode()} bytes; {self._body_max} at most")
        if reading.headers.get(b"expect", b"").lower() == b"100-continue" and not self._busy:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        if self._body_bytes > self._body_max:
            raise _Refused(413, f"a body of over {self._body_max} bytes")
        self._body.append(piece)

    def on_message_complete(self) -> None:
        reading = self._reading
        assert reading is not None
        reading.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        # chunked answers need 1.1; httptools knows what the connection header and the version say together
        reading.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        self._reading, self._body = None, []
        self._in_head, self._head_bytes, self.reading_since = True, 0, 0.0
        self._waiting.append(reading)
        if len(self._waiting) >= PIPELINE_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    # -- answering --------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        transport = self._transport
        transport.write(data)
        if transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            transport.abort()

    def served(self, exchange: Exchange) -> None:
        """``exchange`` is answered: go on with the next one, or end."""
        self.current = None
        if not exchange.keep_alive:
            self._close(exchange.refused is not None)
        elif not self._busy:
            self._next()

    def overdue(self, now: float) -> bool:
        """Whether a request began over REQUEST_S_MAX ago and isn't whole yet, or an answer isn't taken."""
        if self._stalled_since:
            return now - self._stalled_since > STALL_S_MAX
        return bool(self.reading_since) and now - self.reading_since > REQUEST_S_MAX

    def too_slow(self) -> None:
        if self._stalled_since:
            self._transport.abort()
            return
        self._refuse(408, f"the request was not whole after {REQUEST_S_MAX:.0f} s")
        self._next()

    def close(self) -> None:
        """End at once (the port closes)."""
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        """Serve what waits while answers come at once; ``_busy`` keeps an immediate answer from recursing."""
        self._busy = True
        try:
            while self.current is None and self._waiting:
                self.current = exchange = self._waiting.popleft()
                self._serve(exchange)
        finally:
            self._busy = False
        if self._paused and len(self._waiting) < PIPELINE_MAX // 2:
            self._paused = False
            self._transport.resume_reading()
        if self._ended and self.current is None and not self._transport.is_closing():
            self._transport.close()

    def _refuse(self, status: int, why: str) -> None:
        """What is being read can't be served: answer so after those before it, then close."""
        self._deaf, self.reading_since = True, 0.0
        exchange = self._reading or Exchange(self)
        exchange.refused, exchange.keep_alive = (status, why), False
        self._reading, self._body = None, []
        self._waiting.append(exchange)

    def _close(self, linger: bool) -> None:
        self._waiting.clear()
        self._deaf = True
        if linger and not self._ended:
            # closing with unread bytes would reset the connection, and the client might not read the answer
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()


def _learn(data: bytes, exchange: Exchange) -> None:
    """``exchange`` is what the parser made of ``data``, and of nothing else."""
    line = _LINE.match(data)
    headers = exchange.headers
    if line is None or not exchange.keep_alive or exchange.refused is not None or not _SPECIAL.isdisjoint(headers):
        return
    end = data.find(b"\r\n\r\n", line.end() - 2) + 4
    length = int(headers.get(b"content-length", b"0"))
    if end - line.end() > KNOWN_HEAD_BYTES_MAX or length != len(data) - end or length > BODY_BYTES_MAX:
        return
    if len(_heads) >= HEADS_MAX:
        _heads.clear()
    _heads[data[line.end() : end]] = headers, length


class _Refused(Exception):
    """(status, why), out of a callback of the parser."""


_date = (0, b"")


def date() -> bytes:
    """The Date header's value, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True).encode())
    return _date[1]
