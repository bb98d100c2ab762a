"""A request's header list → :class:`Request`: HTTP/2's rules for it (RFC 9113, 8.3), then gRPC's. Pure."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.kv.http2 import messages
from actors.kv.http2.hpack import Field
from actors.kv.http2.messages import Refused
from actors.kv.http2.tally import Tally, Traffic

if TYPE_CHECKING:
    from actors.kv.http2.call import Call

Unary = Callable[["Call", bytes], None]
Streaming = Callable[["Call"], None]

_PSEUDO = {b":method", b":scheme", b":path", b":authority"}
_PER_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
#: RFC 9113, 8.2.1: no capitals, spaces, controls, nor colons but a pseudo-header's first.
_IN_NAME = frozenset(range(0x21, 0x7F)) - frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ:")
_NOT_IN_VALUE = frozenset(b"\0\r\n")
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


@dataclass(slots=True)
class Methods:
    """Who serves which path, like ``b"/etcdserverpb.KV/Put"``. Read once by each connection."""

    unary: dict[bytes, Unary] = field(default_factory=dict)
    streaming: dict[bytes, Streaming] = field(default_factory=dict)
    tallies: dict[bytes, Tally] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    #: who serves what isn't gRPC; None: it is refused
    pages: Streaming | None = None
    #: whether it is counted how long calls take
    timed: bool = False

    def tally(self, path: bytes) -> Tally:
        """The one of a method that there is."""
        return self.tallies.get(path) or self.tallies.setdefault(path, Tally(self.timed))


class Malformed(Exception):
    """Not HTTP/2: the stream is reset (PROTOCOL_ERROR)."""


class Request:
    """What headers ask for. Shared by all calls that sent the same but grpc-timeout: not to be changed.

    ``http``: it is refused with this HTTP status, or 0; ``refusal``: gRPC's (status, message, trailers) of a refusal.
    ``length``: content-length, or -1. Neither ``unary`` nor ``streaming``: it is refused. ``method``: of a page.
    """

    __slots__ = (
        "body",
        "gzip",
        "http",
        "length",
        "metadata",
        "method",
        "path",
        "refusal",
        "streaming",
        "tally",
        "unary",
    )

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.method = b""
        self.metadata: dict[bytes, bytes] = {}
        self.length = -1
        self.gzip = False
        self.http = 0
        #: text for a client that doesn't speak gRPC
        self.body = b""
        self.refusal: tuple[int, str, tuple[Field, ...]] | None = None
        self.unary: Unary | None = None
        self.streaming: Streaming | None = None
        #: nobody looks at that of what isn't served
        self.tally = Tally()


#: A request, and the seconds that it may take: None is without end.
Asked = tuple[Request, float | None]


def without_timeout(fields: list[Field]) -> tuple[tuple[Field, ...], bytes | None]:
    """The fields but grpc-timeout, which differs from call to call where the others don't; and its value."""
    for at in range(len(fields) - 1, 0, -1):
        if fields[at][0] == b"grpc-timeout":
            if at + 1 < len(fields) and fields[at + 1][0][:1] == b":":
                break  # malformed, as read will find
            return (*fields[:at], *fields[at + 1 :]), fields[at][1]
    return tuple(fields), None


def timed(request: Request, timeout: bytes | None) -> Asked:
    """``timeout``: grpc-timeout's value."""
    if timeout is None or request.http:
        return request, None
    try:
        return request, messages.timeout_s(timeout)
    except Refused as refused:
        late = Request(request.path)
        late.http, late.refusal = 400, (*refused.args, ())
        return late, None


def read(fields: Sequence[Field], methods: Methods) -> Request:
    """Raises Malformed."""
    pseudo, plain = _split(fields)
    if len(pseudo.get(b":path", b"")) == 0 or b":method" not in pseudo or b":scheme" not in pseudo:
        raise Malformed("a pseudo-header is missing")
    request = Request(pseudo[b":path"])
    headers = _joined(plain)
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit() or len(length) > 18:
            raise Malformed("content-length")
        request.length = int(length)
    if methods.pages is not None and b"application/grpc" not in headers.get(b"content-type", b""):
        request.streaming, request.method = methods.pages, pseudo[b":method"]
        request.metadata = {b"host": pseudo.get(b":authority", b""), **headers}
        return request
    try:
        _http_rules(request, pseudo[b":method"], headers)
        if not request.http:
            _grpc_rules(request, headers, methods)
    except Refused as refused:
        # found in the headers, so HTTP's status says it as well
        request.http = request.http or 400
        request.refusal = (*refused.args, ())
    return request


def trailers(fields: Sequence[Field]) -> None:
    """Check the fields after a request's body. Raises Malformed."""
    if _split(fields)[0]:
        raise Malformed("a pseudo-header in trailers")


def _split(fields: Sequence[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    pseudo: dict[bytes, bytes] = {}
    plain: list[Field] = []
    for name, value in fields:
        if not _NOT_IN_VALUE.isdisjoint(value):
            raise Malformed(f"value of {name!r}")
        if name[:1] == b":":
            if plain or name in pseudo or name not in _PSEUDO:
                raise Malformed(f"pseudo-header {name!r}")
            pseudo[name] = value
        else:
            if not name or not _IN_NAME.issuperset(name) or name in _PER_HOP:
                raise Malformed(f"header {name!r}")
            if name == b"te" and value != b"trailers":
                raise Malformed("te")
            plain.append((name, value))
    return pseudo, plain


def _joined(plain: list[Field]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in plain:
        if name in headers:
            if name == b"content-length" and headers[name] != value:
                raise Malformed("two content-lengths")
            if name != b"content-length":
                headers[name] += b"," + value
        else:
            headers[name] = value
    return headers


def _http_rules(request: Request, method: bytes, headers: dict[bytes, bytes]) -> None:
    kind = headers.get(b"content-type", b"")
    base = kind.lower()
    if not base.startswith(b"application/grpc") or base[16:17] not in (b"", b"+", b";"):
        request.http = 415
        why = f"invalid gRPC request content-type {messages.quoted(kind)}"
        if method != b"HEAD":
            request.body = b"this is a gRPC port: " + why.encode() + b"\n"
        raise Refused(messages.INVALID_ARGUMENT, why)
    if method != b"POST":
        request.http = 405
        shown = messages.quoted(method)
        raise Refused(messages.INTERNAL, f"Received a HEADERS frame with :method {shown} which should be POST")


def _grpc_rules(request: Request, headers: dict[bytes, bytes], methods: Methods) -> None:
    for name, value in headers.items():
        request.metadata[name] = _binary(name, value) if name.endswith(b"-bin") else value
    request.unary = methods.unary.get(request.path)
    request.streaming = methods.streaming.get(request.path)
    encoding = headers.get(b"grpc-encoding", b"")
    request.gzip = encoding == b"gzip"
    if request.unary is not None or request.streaming is not None:
        request.tally = methods.tally(request.path)
    if request.unary is None and request.streaming is None:
        request.refusal = (messages.UNIMPLEMENTED, _unknown(request.path, methods), ())
    elif encoding not in (b"", b"identity", b"gzip"):
        request.unary = request.streaming = None
        shown = messages.quoted(encoding)
        why = f"grpc: Decompressor is not installed for grpc-encoding {shown}"
        request.refusal = (messages.UNIMPLEMENTED, why, ((b"grpc-accept-encoding", b"gzip"),))


def _unknown(path: bytes, methods: Methods) -> str:
    service, slash, method = path.removeprefix(b"/").decode("utf-8", "replace").rpartition("/")
    if not slash:
        return f"malformed method name: {messages.quoted(path)}"
    known = f"/{service}/".encode()
    if any(one.startswith(known) for one in (*methods.unary, *methods.streaming)):
        return f"unknown method {method} for service {service}"
    return f"unknown service {service}"


def _binary(name: bytes, value: bytes) -> bytes:
    """Base64, padded or not; of a repeated one each by itself."""
    try:
        return b",".join(base64.b64decode(one + b"=" * (-len(one) % 4), validate=True) for one in value.split(b","))
    except binascii.Error as error:
        shown, header = map(messages.quoted, (value, name))
        # where all are digits it is too short by some, and Go names the group that isn't whole
        where = next((at for at, byte in enumerate(value) if byte not in _BASE64), len(value) // 4 * 4)
        why = f"malformed binary metadata {shown} in header {header}: illegal base64 data at input byte {where}"
        raise Refused(messages.INTERNAL, why) from error
