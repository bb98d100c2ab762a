"""The pages of HTTP/1.1 over HTTP/2: on a TLS port, as in etcd, what a client by HTTP/2 asks without gRPC's type.

curl, Prometheus and Go's HTTP clients choose HTTP/2 where TLS offers it.
"""

from collections.abc import Callable

from actors.kv.exchange import Connection, Exchange
from actors.kv.http1 import BACKLOG_BYTES_MAX, BODY_BYTES_MAX, V3_BODY_BYTES_MAX, date
from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from actors.kv.http2.hpack import Field
from actors.kv.http2.messages import Pieces

#: What is refused is read so far: who sends still when the answer comes has its stream reset behind it, and curl 7
#: then forgets the answer.
SWALLOWED_BYTES = 16 << 20


class Page(Exchange):
    """One exchange on a stream of its own. ``serve`` gets it when it is whole."""

    __slots__ = ("_call", "_length_max", "_pieces", "_serve", "_size")

    def __init__(self, serve: Callable[[Exchange], None], metrics_only: bool, call: Call) -> None:
        super().__init__(_Seat(call, metrics_only))
        self._serve, self._call = serve, call
        self._pieces: list[bytes] = []
        self._size = 0
        self.method = call.request.method.decode("latin-1")
        self.path, _, self.query = call.path.partition(b"?")
        self.headers = call.metadata
        self._length_max = V3_BODY_BYTES_MAX if self.path.startswith(b"/v3") else BODY_BYTES_MAX
        call.inbox = Pieces()
        call.on_message, call.on_end, call.on_gone = self._piece, self._whole, self._left

    def _piece(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._length_max:
            self._pieces.append(piece)
            return
        self.refused = (413, f"a body of over {self._length_max} bytes")
        self._pieces.clear()
        if self._size > self._length_max + SWALLOWED_BYTES:
            self._serve(self)

    def _whole(self) -> None:
        self.body = b"".join(self._pieces)
        self._pieces.clear()
        self._serve(self)

    def _left(self) -> None:
        self._pieces.clear()
        if self.gone is not None:
            self.gone()

    def _drained(self) -> None:
        if self.drained is not None:
            self.drained()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        if not self._call.gone:
            fields = _fields(status, headers + self.connection.lines)
            self._call.begin_page([*fields, (b"content-length", b"%d" % len(body))])
            if self.method != "HEAD":
                self._call.add_to_page(body)
            self._call.end_page()

    def begin(self, status: int, headers: bytes) -> None:
        if not self._call.gone:
            self.streams = True
            self._call.on_drained = self._drained
            self._call.begin_page(_fields(status, headers + self.connection.lines))

    def send(self, piece: bytes) -> None:
        call = self._call
        if call.gone or not piece:
            return
        call.add_to_page(piece)
        if call.buffered() > BACKLOG_BYTES_MAX:
            call.connection.write(frames.rst_stream(call.stream, frames.CANCEL))
            call.half_closed = True
            call.connection.over(call)
            call.vanish()

    def end(self) -> None:
        if not self._call.gone:
            self._call.end_page()


class _Seat(Connection):
    """What a page asks of its connection."""

    def __init__(self, call: Call, metrics_only: bool) -> None:
        connection = call.connection
        super().__init__(connection.peer)
        self.trusted = connection.trusted
        # v2's users by it, but the JSON gateway has none, as over HTTP/1.1
        self.user_cn = connection.client_cn
        self.metrics_only = metrics_only
        self._call = call

    @property
    def secure(self) -> bool:
        return True  # pages are served on TLS alone

    def serves(self, exchange: Exchange) -> bool:
        return not self._call.gone

    def unsent(self) -> int:
        return self._call.buffered()


def _fields(status: int, headers: bytes) -> list[Field]:
    """From header lines with CRLF."""
    pairs = (line.split(b": ", 1) for line in headers.split(b"\r\n") if line)
    return [(b":status", b"%d" % status), *((name.lower(), value) for name, value in pairs), (b"date", date())]
