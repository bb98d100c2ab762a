"""One gRPC call, as its handler sees it: what was asked, and the ways to answer."""

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from actors.kv.http2 import frames, hpack, messages
from actors.kv.http2.messages import PREFIX, PREFIX_BYTES
from actors.kv.http2.request import Request

if TYPE_CHECKING:
    from actors.kv.http2.sending import Connection

_TYPE = (b"content-type", b"application/grpc")
_HEAD_BLOCK = hpack.encode([(b":status", b"200"), _TYPE])
_GZIP_HEAD_BLOCK = hpack.encode([(b":status", b"200"), _TYPE, (b"grpc-encoding", b"gzip")])
_OK_BLOCK = hpack.encode([(b"grpc-status", b"0")])
_OK_HEAD = len(_OK_BLOCK) << 8 | frames.HEADERS
_HEAD_HEAD = len(_HEAD_BLOCK) << 8 | frames.HEADERS
_LAST = frames.END_HEADERS | frames.END_STREAM

# A whole unary answer around its message: HEADERS, head of DATA, message's prefix; and the trailers.
_BEFORE = Struct(f">IBI{len(_HEAD_BLOCK)}sIBIBI")
_AFTER = Struct(f">IBI{len(_OK_BLOCK)}s")
# A whole message in a frame of its own: head of DATA, and the message's prefix.
_MESSAGE = Struct(">IBIBI")
_UNARY_BYTES_MAX = frames.FRAME_BYTES_MAX - PREFIX_BYTES


class Parts(Protocol):
    """A message in pieces. ``size``: their bytes."""

    @property
    def size(self) -> int: ...
    def protobuf(self) -> Iterator[bytes]: ...


def _nothing(*_: object) -> None:
    """A handler that wasn't set, or isn't wanted any more."""


class Call:
    """One call. Its handler answers by ``reply``, or by ``send`` and ``finish``; when it is ``gone`` they do nothing.

    ``metadata`` has the request's headers but HTTP/2's own and grpc-timeout, names in lower case, repeated ones joined
    by commas, those of "-bin" decoded; calls share it: not to be changed. ``deadline_s`` is a time of the loop.
    A streaming handler sets ``on_message`` (each whole message), ``on_end`` (the client half-closed), ``on_gone``
    (it is over, but not by ``finish``: cancelled, deadline, connection lost; at most once) and ``on_drained``
    (``buffered()`` fell below LOW_WATER_BYTES again).
    """

    __slots__ = (
        "connection",
        "deadline_bucket",
        "deadline_s",
        "gone",
        "half_closed",
        "head_sent",
        "held",
        "inbox",
        "length_left",
        "metadata",
        "on_drained",
        "on_end",
        "on_gone",
        "on_message",
        "opened_s",
        "path",
        "queue",
        "receive_window",
        "request",
        "stream",
        "trailers",
        "waits",
        "window",
    )

    def __init__(self, connection: "Connection", stream: int, request: Request, now: float) -> None:
        self.connection = connection
        self.path = request.path
        self.metadata = request.metadata
        self.deadline_s: float | None = None
        self.on_message: Callable[[bytes], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        self.on_gone: Callable[[], None] = _nothing
        self.on_drained: Callable[[], None] = _nothing
        self.gone = False
        # the rest is the connection's
        self.request = request
        self.stream = stream
        self.opened_s = now
        self.deadline_bucket = 0.0
        self.half_closed = False
        self.length_left = request.length
        self.inbox: messages.Inbox | None = None
        self.held: bytes | None = None  # a unary call's message until the client's end
        self.receive_window = connection.limits.call_window
        self.head_sent = False
        self.queue: bytearray | None = None  # messages with their prefixes that wait
        self.trailers: bytes | None = None  # the block after the queue; empty: no fields, and a body that isn't gRPC's
        self.waits = False
        self.window = connection.call_window

    # -- the handler's side -----------------------------------------------------------------------------------

    def reply(self, message: bytes) -> None:
        """The one message of a unary call and status 0, in one write if the windows allow."""
        if self.gone:
            return
        connection, size = self.connection, len(message)
        whole = size + PREFIX_BYTES
        if (
            size > _UNARY_BYTES_MAX
            or whole > self.window
            or whole > connection.window
            or connection.paused
            or self.head_sent
            or self.queue
            or self.request.gzip
            or connection.says_table
        ):
            self.send(message)
            self.finish()
            return
        self.gone = True
        self.request.tally.end(0, self.opened_s)
        if self.on_gone is not _nothing or self.request.unary is None:
            self._forget_handlers()
        connection.window -= whole
        connection.sent += 1
        stream = self.stream
        connection.write(
            _BEFORE.pack(_HEAD_HEAD, frames.END_HEADERS, stream, _HEAD_BLOCK, whole << 8, 0, stream, 0, size)
            + message
            + _AFTER.pack(_OK_HEAD, _LAST, stream, _OK_BLOCK)
        )
        connection.over(self)

    def send(self, message: bytes) -> None:
        """Queue one message; the headers go before the first."""
        if self.gone:
            return
        connection, flag = self.connection, 0
        if self.request.gzip and message:
            message, flag = messages.gzip(message), 1
        whole = len(message)
        size = whole + PREFIX_BYTES
        if (
            not self.queue
            and size <= self.window
            and size <= connection.window
            and size <= frames.FRAME_BYTES_MAX
            and not connection.paused
        ):
            if not self.head_sent:
                self.send_head()
            self.window -= size
            connection.window -= size
            connection.sent += 1
            connection.write(_MESSAGE.pack(size << 8 | frames.DATA, 0, self.stream, flag, whole) + message)
            return
        if self.queue is None:
            self.queue = bytearray()
        self.queue += PREFIX.pack(flag, whole)
        self.queue += message
        connection.queued += size
        connection.enlist(self)

    def parts(self, message: "Parts") -> Iterator[bytes]:
        """What :meth:`part` is to be called with, one after the other: a message that is made while it is sent.

        gRPC lets a message of a call with gzip be plain, and this one is.
        """
        yield PREFIX.pack(0, message.size)
        yield from message.protobuf()

    def part(self, data: bytes) -> None:
        """Queue bytes of a message, of which its prefix is the first; the headers go before."""
        if self.gone:
            return
        if self.queue is None:
            self.queue = bytearray()
        self.queue += data
        self.connection.queued += len(data)
        self.connection.enlist(self)

    def buffered(self) -> int:
        """Bytes of this call that a window or the socket holds back."""
        return len(self.queue) if self.queue else 0

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """End the call, after what is queued. ``trailers`` as they are sent: lower case, those of "-bin" in base64."""
        if self.gone:
            return
        self._end(status, message, trailers)

    # -- the connection's side --------------------------------------------------------------------------------

    def send_head(self) -> None:
        """HEADERS, before the first message; later nothing."""
        if not self.head_sent:
            self.head_sent = True
            block = _GZIP_HEAD_BLOCK if self.request.gzip else _HEAD_BLOCK
            self.connection.write_headers(self.stream, block, end=False)

    def refuse_http(self) -> None:
        """Answer a client that doesn't speak gRPC: status, text, end."""
        body, status = self.request.body, b"%d" % self.request.http
        fields = [(b":status", status), (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        self.begin_page(fields)
        self.add_to_page(body)
        self.end_page()

    def begin_page(self, fields: list[tuple[bytes, bytes]]) -> None:
        """An answer that isn't gRPC's: its status and headers, then its body in pieces, then its end."""
        self.head_sent = True
        self.connection.write_headers(self.stream, hpack.encode(fields), end=False)

    def add_to_page(self, piece: bytes) -> None:
        if piece:
            if self.queue is None:
                self.queue = bytearray()
            self.queue += piece
            self.connection.queued += len(piece)
            self.connection.enlist(self)

    def end_page(self) -> None:
        self._forget_handlers()
        self.trailers = b""
        self.connection.enlist(self)

    def abort(self, status: int, message: str) -> None:
        """End the call from here: what waits is dropped, the handler is told."""
        self.drop_queue()
        on_gone, gone = self.on_gone, self.gone
        self._end(status, message, ())
        if not gone:
            self.connection.guarded(self, on_gone)

    def vanish(self) -> None:
        """The stream is over, nothing can be sent: drop what waits and tell the handler."""
        self.drop_queue()
        self.trailers = None
        self.connection.weed()
        on_gone, gone = self.on_gone, self.gone
        self._forget_handlers()
        if not gone:
            self.connection.guarded(self, on_gone)

    def drop_queue(self) -> None:
        if self.queue:
            self.connection.queued -= len(self.queue)
            self.connection.relieved()
        self.queue = None
        if self.waits:
            self.connection.weed()

    def send_end(self) -> None:
        """After the queue: the end, if there is one."""
        trailers, self.trailers = self.trailers, None
        if trailers is None:
            return
        if trailers:
            self.connection.write_headers(self.stream, trailers, end=True)
        else:
            self.connection.write(frames.frame(frames.DATA, frames.END_STREAM, self.stream, b""))
        self.connection.over(self)

    def _end(self, status: int, message: str, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        self._forget_handlers()
        self.request.tally.end(status, self.opened_s)
        head = self.head_sent or bool(self.queue)
        fields = [] if head else [(b":status", b"%d" % (self.request.http or 200)), _TYPE]
        fields.append((b"grpc-status", b"%d" % status))
        if message:
            fields.append((b"grpc-message", messages.escaped(message)))
        fields += trailers
        self.trailers = hpack.encode(fields)
        if not self.queue:
            self.queue = None
        self.connection.enlist(self)

    def _forget_handlers(self) -> None:
        """They hold the call, and the call holds them: so that memory comes back without a search for cycles."""
        self.gone = True
        self.on_message = self.on_end = self.on_gone = self.on_drained = _nothing
