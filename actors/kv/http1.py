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
from typing import Any, Final

import httptools

from actors.kv.exchange import Connection, Exchange
from streams.log.port import RECORD_BYTES_MAX

#: A body up to this is read; larger ones are refused with 413 before they are.
BODY_BYTES_MAX = 2 * 1024 * 1024
#: The same under /v3: etcd's limit of a message is 2 MiB, and base64 takes a third more.
V3_BODY_BYTES_MAX = 3 * 1024 * 1024
#: The same of a step of an import or a restore, which becomes a record: as much as that may have.
STEP_BODY_BYTES_MAX: Final = RECORD_BYTES_MAX
#: Request line and headers together.
HEAD_BYTES_MAX: Final = 64 * 1024
#: Pipelined requests that may wait before reading pauses.
PIPELINE_MAX = 64
#: Unsent bytes to a slow watcher at which it is cut off.
BACKLOG_BYTES_MAX: Final = 8 * 1024 * 1024
#: A request must be whole this long after its first byte.
REQUEST_S_MAX = 30.0
#: A client that takes nothing of an answer for so long is cut off.
STALL_S_MAX = 300.0
#: After a refusal, how long what the client still sends is read and thrown away, so that it can hear the answer.
LINGER_S = 1.0

#: The first line of a request whose head may be known.
_LINE: Final = re.compile(
    rb"(GET|PUT|POST|DELETE) (/[A-Za-z0-9/_.~%+=&:@,;!$'()*-]*)(?:\?([A-Za-z0-9/_.~%+=&:@,;!$'()*?-]*))? HTTP/1\.1\r\n"
)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
#: Heads that are kept known, and bytes of one.
HEADS_MAX: Final = 512
KNOWN_HEAD_BYTES_MAX: Final = 1024
#: Behind the first line → the headers and the body's size that the parser found in these bytes when they came before.
_heads: Final[dict[bytes, tuple[dict[bytes, bytes], int]]] = {}
#: What makes of a request more than a head and a body.
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"connection"})
_TOO_LONG = f"request line and headers have over {HEAD_BYTES_MAX} bytes"
_METHODS: Final = {b"GET": "GET", b"PUT": "PUT", b"POST": "POST", b"DELETE": "DELETE"}
#: Ends of heads whose answers have few bytes.
_LENGTHS_MAX: Final = 2048
_LENGTHS: Final = [b"Content-Length: %d\r\n\r\n" % size for size in range(_LENGTHS_MAX)]
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Asked(Exchange):
    """An exchange of HTTP/1.1."""

    __slots__ = ("_at", "keep_alive")

    def __init__(self, at: "Http1") -> None:
        super().__init__(at)
        self._at = at
        self.keep_alive = False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        at = self._at
        if at.current is not self:
            return
        size = len(body)
        length = _LENGTHS[size] if size < _LENGTHS_MAX else b"Content-Length: %d\r\n\r\n" % size
        sent = b"" if self.method == "HEAD" else body
        if self.keep_alive and not at.lines:
            at.write(b"".join((_STATUS_LINES[status], headers, _date_line(), length, sent)))
        else:
            close = b"" if self.keep_alive else b"Connection: close\r\n"
            at.write(b"".join((_STATUS_LINES[status], headers, close, at.lines, _date_line(), length, sent)))
        at.served(self)

    def begin(self, status: int, headers: bytes) -> None:
        at = self._at
        if at.current is not self:
            return
        self.streams = True
        how = b"Transfer-Encoding: chunked\r\n" if self.keep_alive else b"Connection: close\r\n"
        at.write(b"".join((_STATUS_LINES[status], headers, how, at.lines, _date_line(), b"\r\n")))

    def send(self, piece: bytes) -> None:
        at = self._at
        if at.current is self and piece:
            at.write(b"%x\r\n%s\r\n" % (len(piece), piece) if self.keep_alive else piece)

    def end(self) -> None:
        at = self._at
        if at.current is self:
            if self.keep_alive:
                at.write(b"0\r\n\r\n")
            at.served(self)


class Http1(Connection):
    """One connection. ``serve`` gets each exchange, in order, the next one when the last is answered.

    An :class:`asyncio.Protocol` by its methods alone: compiled, a class that inherits interpreted ones is slow.
    """

    def __init__(self, serve: Callable[[Exchange], None], open_ones: "set[Any]", peer: str = "") -> None:
        super().__init__(peer)
        self.current: Asked | None = None
        #: when the request that is being read began; 0: none
        self.reading_since = 0.0
        #: when the socket last took no more; 0: it does
        self._stalled_since = 0.0
        self._serve = serve
        self._open_ones = open_ones
        self._transport: Any = None
        self._waiting: deque[Asked] = deque()
        self._waiting_bytes = 0
        self._reading: Asked | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = self._field_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes, self._body_max = 0, BODY_BYTES_MAX
        self._in_head = True
        self._deaf = False
        self._paused = False
        self._ended = False
        self._busy = False
        #: the last POST whose head was known: its size, its head, and what it was
        self._same_size, self._same_head = -1, b""
        self._same: Asked | None = None
        self._parser: Any = httptools.HttpRequestParser(self)

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        fresh = self._reading is None and not self._waiting
        known = self._known(data) if fresh else None
        if known is not None:
            if self.current is None and not self._stalled_since:
                self._serve_now(known)
            else:
                self._waiting.append(known)
                self._waiting_bytes += len(known.body)
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            fresh = self._feed(data) and fresh
        except _Refused as refused:
            self._refuse(*refused.args)
        except httptools.HttpParserCallbackError as error:
            refused_by = error.__context__
            self._refuse(*(refused_by.args if isinstance(refused_by, _Refused) else (400, "malformed request")))
        except httptools.HttpParserError as unread:
            self._refuse(400, f"malformed request: {unread}")
        else:
            if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(431, _TOO_LONG)
            elif fresh and self._reading is None and len(self._waiting) == 1:
                _learn(data, self._waiting[0])
        self._next()

    def _feed(self, data: bytes) -> bool:
        """Whether the parser took it as it stands. Raises _Refused, and what httptools does."""
        rest: bytes | memoryview = data
        as_it_stands = True
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # asked for another protocol: it is served as if it hadn't been
                rest, as_it_stands = memoryview(rest)[upgrade.args[0] :], False
                self._without_upgrade()
        return as_it_stands

    def _without_upgrade(self) -> None:
        """Read the head at hand again, without what asks for another protocol: its body follows then."""
        asked, self._reading = self._reading, None
        if asked is None or asked.method == "CONNECT":
            raise _Refused(400, "this server speaks HTTP/1.1 here; no upgrade")
        line = b"%s %s HTTP/%s\r\n" % (asked.method.encode(), self._url, self._parser.get_http_version().encode())
        kept = {
            name: value
            for name, value in asked.headers.items()
            if name not in (b"upgrade", b"http2-settings", b"expect")
        }
        if (options := kept.pop(b"connection", None)) is not None:
            names = (name.strip().lower() for name in options.split(b","))
            kept[b"connection"] = b", ".join(name for name in names if name not in (b"upgrade", b"http2-settings"))
        head = b"".join(b"%s: %s\r\n" % field for field in kept.items())
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(line + head + b"\r\n")

    def _known(self, data: bytes) -> Asked | None:
        """The whole request in ``data``, if the parser has seen its head before: clients send the same ones again."""
        same = self._same
        if same is not None and len(data) == self._same_size and data.startswith(self._same_head):
            return self._like(same, data[len(self._same_head) :])
        line = _LINE.match(data)
        if line is None:
            return None
        begin: int = line.end()
        end = data.find(b"\r\n\r\n", begin - 2, begin + KNOWN_HEAD_BYTES_MAX) + 4
        found = _heads.get(data[begin:end]) if end > 3 else None
        if found is None or found[1] != len(data) - end or end > HEAD_BYTES_MAX:
            return None
        asked = Asked(self)
        asked.method = _METHODS[line[1]]
        asked.path, asked.query = line[2], line[3] or b""
        asked.headers, asked.body, asked.keep_alive = found[0], data[end:], True
        if asked.method == "POST":
            self._same_size, self._same_head, self._same = len(data), data[:end], self._like(asked, b"")
        return asked

    def _like(self, other: Asked, body: bytes) -> Asked:
        asked = Asked(self)
        asked.method, asked.path, asked.query = other.method, other.path, other.query
        asked.headers, asked.body, asked.keep_alive = other.headers, body, True
        return asked

    def eof_received(self) -> bool:
        """A client that only ended its sending is still answered, unless it is a watcher."""
        self._deaf = self._ended = True
        return bool(self._waiting) if self.current is None else not self.current.streams

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        self._deaf = True
        current, self.current = self.current, None
        self._same = None
        self._waiting.clear()
        if current is not None and current.gone is not None:
            current.gone()

    def pause_writing(self) -> None:
        self._stalled_since = time.monotonic()

    def resume_writing(self) -> None:
        self._stalled_since = 0.0
        if self.current is None:
            if not self._busy:
                self._next()
        elif self.current.drained is not None:
            self.current.drained()

    @property
    def secure(self) -> bool:
        return self._transport.get_extra_info("sslcontext") is not None

    def serves(self, exchange: Exchange) -> bool:
        return self.current is exchange

    def unsent(self) -> int:
        size: int = self._transport.get_write_buffer_size()
        return size

    # -- httptools' callbacks ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._reading = reading = Asked(self)
        self.reading_since = self.reading_since or time.monotonic()
        reading.headers = self._headers = {}
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
        self._headers[name.lower()] = value
        self._field(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        reading = self._reading
        assert reading is not None
        self._in_head, self._head_bytes = False, 0
        reading.method = self._parser.get_method().decode("latin-1")
        path, _, reading.query = self._target().partition(b"?")
        reading.path = path
        length = reading.headers.get(b"content-length", b"0")
        if self.trusted and path.startswith(b"/internal/"):
            self._body_max = STEP_BODY_BYTES_MAX
        else:
            self._body_max = V3_BODY_BYTES_MAX if path.startswith(b"/v3") else BODY_BYTES_MAX
        if int(length) > self._body_max:
            raise _Refused(413, f"a body of {length.decode()} bytes; {self._body_max} at most")
        if (
            reading.headers.get(b"expect", b"").lower() == b"100-continue"
            and self.current is None
            and not self._waiting
        ):
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _target(self) -> bytes:
        """The path and query; what a client says to a proxy names the host as well (RFC 9112, 3.2.2)."""
        absolute = _ABSOLUTE.match(self._url)
        if absolute is None:
            return self._url
        self._headers[b"host"] = absolute[1]
        rest = self._url[absolute.end() :]
        return rest if rest.startswith(b"/") else b"/" + rest

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        if self._body_bytes > self._body_max:
            raise _Refused(413, f"a body of over {self._body_max} bytes")
        self._body.append(piece)

    def on_message_complete(self) -> None:
        reading = self._reading
        assert reading is not None
        if self._parser.should_upgrade():
            return  # the parser takes no body then: see _without_upgrade
        reading.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        # chunked answers need 1.1; httptools knows what the connection header and the version say together
        reading.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        self._reading, self._body = None, []
        self._in_head, self._head_bytes, self.reading_since = True, 0, 0.0
        self._waiting.append(reading)
        self._waiting_bytes += len(reading.body)
        if (len(self._waiting) >= PIPELINE_MAX or self._waiting_bytes > V3_BODY_BYTES_MAX) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    # -- answering --------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            transport.abort()  # one answer may be larger, but nothing is put behind it
        else:
            transport.write(data)

    def served(self, exchange: Asked) -> None:
        """``exchange`` is answered: go on with the next one, or end."""
        self.current = None
        if not exchange.keep_alive:
            self._close(exchange.refused is not None)
        elif not self._busy and (self._waiting or self._ended):
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

    def _serve_now(self, asked: Asked) -> None:
        """Serve what came, when nothing is served and nothing waits."""
        self._busy, self.current = True, asked
        try:
            self._serve(asked)
        finally:
            self._busy = False

    def _next(self) -> None:
        """Serve what waits while answers come at once; ``_busy`` keeps an immediate answer from recursing."""
        self._busy = True
        try:
            # answers that the client doesn't take hold up what it asked behind them
            while self.current is None and self._waiting and not self._stalled_since:
                self.current = exchange = self._waiting.popleft()
                self._waiting_bytes -= len(exchange.body)
                self._serve(exchange)
        finally:
            self._busy = False
        if self._paused and len(self._waiting) < PIPELINE_MAX // 2 and self._waiting_bytes <= V3_BODY_BYTES_MAX:
            self._paused = False
            self._transport.resume_reading()
        if self._ended and self.current is None and not self._waiting and not self._transport.is_closing():
            self._transport.close()

    def _refuse(self, status: int, why: str) -> None:
        """What is being read can't be served: answer so after those before it, then close."""
        self._deaf, self.reading_since = True, 0.0
        exchange = self._reading or Asked(self)
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


def _learn(data: bytes, exchange: Asked) -> None:
    """``exchange`` is what the parser made of ``data``, and of nothing else."""
    line = _LINE.match(data)
    headers = exchange.headers
    if line is None or not exchange.keep_alive or exchange.refused is not None or not _SPECIAL.isdisjoint(headers):
        return
    begin: int = line.end()
    end = data.find(b"\r\n\r\n", begin - 2) + 4
    length = int(headers.get(b"content-length", b"0"))
    if end - begin > KNOWN_HEAD_BYTES_MAX or length != len(data) - end or length > BODY_BYTES_MAX:
        return
    if len(_heads) >= HEADS_MAX:
        _heads.clear()
    _heads[data[begin:end]] = headers, length


class _Refused(Exception):
    """(status, why), out of a callback of the parser."""


#: The second, and the Date header's line and value in it.
_date: tuple[int, bytes, bytes] = (0, b"", b"")


def _now() -> tuple[int, bytes, bytes]:
    global _date
    now = int(time.time())
    if _date[0] != now:
        value = formatdate(now, usegmt=True).encode()
        _date = (now, b"Date: %s\r\n" % value, value)
    return _date


def _date_line() -> bytes:
    return _now()[1]


def date() -> bytes:
    """The Date header's value, made once a second."""
    return _now()[2]
