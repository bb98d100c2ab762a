"""HTTP/2 on one connection, on asyncio: frames → :class:`Call` → frames, for gRPC.

One pass over the bytes that came, one write for what they caused. A block of headers that came before means the same
while HPACK's dynamic table hasn't changed, so it isn't decoded again. Errors end a call (RST_STREAM) or the
connection (GOAWAY) as RFC 9113 says; nothing that a client sends raises out of ``data_received``.
"""

import asyncio
from typing import Any

import structlog

from actors.kv.http2 import frames, messages, request
from actors.kv.http2.call import Call
from actors.kv.http2.control import Control, calm
from actors.kv.http2.deadlines import NEVER_S, Deadlines
from actors.kv.http2.frames import ConnectionFault, StreamFault
from actors.kv.http2.hpack import Decoder, HpackError, ListTooLarge
from actors.kv.http2.limits import CONTINUATIONS_MAX, Limits
from actors.kv.http2.messages import PREFIX_BYTES
from actors.kv.http2.request import Malformed, Methods, Request, Streaming, Unary

__all__ = ["Http2", "Limits", "Methods", "Streaming", "Unary"]

#: HTTP's "request header fields too large".
TOO_LARGE = 431
#: Known header blocks of a connection.
REQUESTS_MAX = 64
#: Streams that we ended early and whose late frames are ignored.
ENDED_EARLY_MAX = 1000
#: The socket's own buffer at which calls wait.
SOCKET_BYTES_HIGH = 256 * 1024
#: After the last GOAWAY, how long the client may still read it.
LINGER_S = 1.0

_log = structlog.get_logger(actor="kv")


class Http2(Control, asyncio.Protocol):
    """``open_ones`` has the open connections. Gets the bytes from the connection's preface on."""

    def __init__(
        self,
        methods: Methods,
        open_ones: set[Any],
        peer: str,
        trusted: bool,
        client_cn: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(peer, trusted, client_cn, limits)
        self._methods = methods
        self._open_ones = open_ones
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(limits.header_bytes)
        self._requests: dict[bytes, Request] = {}
        self._generation = 0
        self._rest = b""
        self._prefaced = self._settled = False
        self._deaf = False
        self._corked = False
        self._woken = False
        self._unread = False
        #: a header block that isn't whole yet: its stream (0: none), HEADERS' flags, its parts; since when
        self._block_stream = self._block_flags = self._block_bytes = 0
        self._block: list[bytes] = []
        self._waiting_since = 0.0
        self._receive_window = limits.connection_window
        self._partial = 0
        self._deadlines: Deadlines[Call] = Deadlines()
        self._alarm: asyncio.TimerHandle | None = None
        self._fast_max = min(frames.FRAME_BYTES_MAX, limits.message_bytes + PREFIX_BYTES)

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        limits = self.limits
        self.transport = transport
        self._open_ones.add(self)
        self.heard_s = self._waiting_since = self.now = self._loop.time()
        transport.set_write_buffer_limits(high=SOCKET_BYTES_HIGH)
        pairs = [(frames.SET_INITIAL_WINDOW, limits.call_window), (frames.SET_HEADER_LIST, limits.header_bytes)]
        if limits.calls < frames.WINDOW_MAX:
            pairs.append((frames.SET_STREAMS_MAX, limits.calls))
        more = limits.connection_window - frames.WINDOW_DEFAULT
        self.write(frames.settings(pairs) + (frames.window_update(0, more) if more > 0 else b""))

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self.now = self.heard_s = self._loop.time()
        self._corked = True
        try:
            self._rest = self._received(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self._fail(*fault.args)
        except Exception:
            _log.exception("HTTP/2 failed", peer=self.peer)
            self._fail(frames.INTERNAL_ERROR, "internal error")
        self._corked = False
        self.flush()
        if self.paused and not self._deaf:
            self._read_less()

    def eof_received(self) -> bool:
        """A client that only ended its sending gets what its calls are still answered."""
        self._deaf = True
        if not self.calls:
            return False
        self.draining = 2
        for call in list(self.calls.values()):
            if not call.half_closed:
                call.half_closed = True
                self.over(call)
                call.vanish()
        return bool(self.calls)

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        self._deaf = True
        if self._alarm is not None:
            self._alarm.cancel()
        calls = list(self.calls.values())
        self.calls.clear()
        for call in calls:
            call.vanish()
        self.out, self._rest, self._block = [], b"", []
        self._requests.clear()

    def pause_writing(self) -> None:
        self.paused = True
        self.paused_s = self._loop.time()

    def resume_writing(self) -> None:
        self.paused, self.paused_s, self.control_unsent = False, 0.0, 0
        if self._unread:
            self._unread = False
            self.transport.resume_reading()
        self.pump()

    def wake(self) -> None:
        if not self._corked and not self._woken:
            self._woken = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._woken = False
        self.flush()

    def _read_less(self) -> None:
        """A client that doesn't read but asks on would fill our memory with answers: it waits, too."""
        if self.control_unsent > self.limits.control_bytes or self.queued > self.limits.unsent_bytes:
            self._unread = True
            self.transport.pause_reading()

    # -- the port's sweeps and ends ---------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether to end it: a head not whole, a ping not answered, a client that doesn't read. May ping."""
        if self._waiting_since and now - self._waiting_since > self.limits.head_s:
            return True
        return self.unheard(now)

    def too_slow(self) -> None:
        self._fail(frames.NO_ERROR, "too slow")
        self.transport.abort()

    def drain(self) -> None:
        """End gracefully: no new calls, and the connection ends when the last is over."""
        if not self.draining and not self._deaf:
            self.first_drain()
            self._loop.call_later(self.limits.drain_s, self.last_calls)

    def close(self) -> None:
        """End at once: what is written by now can still arrive."""
        if self.transport is None or self.transport.is_closing():
            return
        self._deaf = True
        self.write(frames.goaway(self.last_stream, frames.NO_ERROR))
        self.flush()
        if self.paused:
            self.transport.abort()
        else:
            self.transport.close()

    def finish_drain(self) -> None:
        if self.draining == 2 and not self.calls and not self._deaf:
            self._deaf = True
            self.flush()
            self.transport.close()

    def _fail(self, code: int, why: str) -> None:
        """GOAWAY, then nothing more is heard; the client may still read it."""
        if self._deaf:
            return
        self._deaf = True
        self._rest, self._block = b"", []
        for call in list(self.calls.values()):
            call.half_closed = True
            call.vanish()
        self.calls.clear()
        self.write(frames.goaway(self.last_stream, code, why.encode()))
        self.flush()
        # closing with unread bytes would reset the connection, and the client might not read why
        self._loop.call_later(0 if self.paused else LINGER_S, self.transport.abort)

    # -- frames -----------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> bytes:
        """Take the whole frames; returns the rest. Raises ConnectionFault."""
        at, end = 0, len(data)
        if not self._prefaced:
            size = min(end, len(frames.PREFACE))
            if data[:size] != frames.PREFACE[:size]:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "not HTTP/2's preface")
            if end < len(frames.PREFACE):
                return data
            self._prefaced, at = True, size
        unpack, known, calls = frames.HEAD.unpack_from, self._requests, self.calls
        while end - at >= 9 and not self._deaf:
            head, flags, stream = unpack(data, at)
            size, kind, start = head >> 8, head & 0xFF, at + 9
            if size > frames.FRAME_BYTES_MAX:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if start + size > end:
                break
            at = start + size
            try:
                if kind == frames.DATA and flags == frames.END_STREAM and not self._block_stream:
                    call = calls.get(stream)
                    if call is not None and self._unary(call, data, start, size):
                        continue
                elif kind == frames.HEADERS and flags & ~1 == frames.END_HEADERS and not self._block_stream:
                    known_one = known.get(data[start:at])
                    if known_one is not None and stream > self.last_stream and stream & 1 and not self.draining:
                        self._open(stream, flags, known_one)
                        continue
                self._frame(kind, flags, stream & 0x7FFFFFFF, data[start:at])
            except StreamFault as fault:
                self._reset(*fault.args)
        return data[at:] if at else data

    def _unary(self, call: Call, data: bytes, start: int, size: int) -> bool:
        """The common case: a unary call's only DATA frame has its whole message. False: it isn't that."""
        unary = call.request.unary
        if (
            unary is None
            or call.inbox is not None
            or call.half_closed
            or call.gone
            or not PREFIX_BYTES <= size <= self._fast_max
            or data[start]
            or int.from_bytes(data[start + 1 : start + 5], "big") != size - PREFIX_BYTES
            or (call.length_left >= 0 and call.length_left != size)
        ):
            return False
        self._consumed(size)
        call.half_closed = True
        try:
            unary(call, data[start + 5 : start + size])
        except Exception:
            self._failed(call)
        return True

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block_stream:
            if kind != frames.CONTINUATION or stream != self._block_stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block isn't whole")
            self._continued(flags, payload)
        elif not self._settled and kind != frames.SETTINGS:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS come first")
        elif kind == frames.DATA:
            self._data(flags, stream, payload)
        elif kind == frames.HEADERS:
            self._headers(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        else:
            if not self._settled:
                if flags & frames.ACK:
                    raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS come first")
                self._settled, self._waiting_since = True, 0.0
            self.control_frame(kind, flags, stream, payload)

    # -- headers ----------------------------------------------------------------------------------------------

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"HEADERS on stream {stream}")
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        own_parent = False
        if flags & frames.PRIORITIZED:
            if len(payload) < 5:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS without its priority")
            own_parent = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == stream
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._block_whole(stream, flags, payload, own_parent)
            return
        self._block_stream, self._block_flags = stream, flags
        self._block, self._block_bytes = [payload], len(payload)
        self._waiting_since = self.now

    def _continued(self, flags: int, payload: bytes) -> None:
        self._block.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > self.limits.header_bytes or len(self._block) > CONTINUATIONS_MAX:
            raise calm("a header block is too large")
        if flags & frames.END_HEADERS:
            stream, block = self._block_stream, b"".join(self._block)
            self._block_stream, self._block, self._waiting_since = 0, [], 0.0
            self._block_whole(stream, self._block_flags, block, own_parent=False)

    def _block_whole(self, stream: int, flags: int, block: bytes, own_parent: bool) -> None:
        """Decode whatever becomes of the stream: all blocks after depend on it."""
        found = self._requests.get(block)
        if found is None or stream <= self.last_stream:
            found = self._decoded(stream, flags, block)
            if found is None:
                return
        if stream <= self.last_stream or own_parent:
            raise StreamFault(stream, frames.PROTOCOL_ERROR)
        self._open(stream, flags, found)

    def _decoded(self, stream: int, flags: int, block: bytes) -> Request | None:
        """None: they were trailers. Raises ConnectionFault, StreamFault."""
        decoder = self._decoder
        before = decoder.generation
        fields: list[tuple[bytes, bytes]] | None
        try:
            fields = decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(frames.COMPRESSION_ERROR, str(error)) from error
        except ListTooLarge:
            fields = None
        if decoder.generation != before:
            self._requests.clear()
        if stream <= self.last_stream:
            self._trailers(stream, flags, fields)
            return None
        try:
            found = _too_large(self.limits.header_bytes) if fields is None else request.read(fields, self._methods)
        except Malformed as error:
            self.last_stream = stream
            raise StreamFault(stream, frames.PROTOCOL_ERROR) from error
        if decoder.generation == before and fields is not None:
            if len(self._requests) >= REQUESTS_MAX:
                self._requests.clear()
            self._requests[block] = found
        return found

    def _trailers(self, stream: int, flags: int, fields: list[tuple[bytes, bytes]] | None) -> None:
        call = self.calls.get(stream)
        if call is None:
            if stream in self.ended_early:
                return
            known = stream == self.last_stream
            code = frames.STREAM_CLOSED if known else frames.PROTOCOL_ERROR
            raise ConnectionFault(code, f"HEADERS on stream {stream}, which is closed")
        if call.half_closed:
            raise StreamFault(stream, frames.STREAM_CLOSED)
        try:
            request.trailers(fields or [])
        except Malformed as error:
            raise StreamFault(stream, frames.PROTOCOL_ERROR) from error
        if not flags & frames.END_STREAM:
            raise StreamFault(stream, frames.PROTOCOL_ERROR)
        self._half_closed(call)

    def _open(self, stream: int, flags: int, found: Request) -> None:
        if not self._settled:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS come first")
        if self.draining == 2:
            return  # as GOAWAY's last stream said
        self.last_stream = stream
        limits = self.limits
        if len(self.calls) >= limits.calls or self.queued > limits.unsent_bytes:
            raise StreamFault(stream, frames.REFUSED_STREAM)
        call = self.calls[stream] = Call(self, stream, found, self.now)
        if found.timeout_s is not None and found.timeout_s < NEVER_S:
            self._set_deadline(call, self.now + found.timeout_s)
        if found.refusal is not None and found.http in (0, TOO_LARGE):
            call.half_closed = bool(flags & frames.END_STREAM)
            call.finish(*found.refusal)
            return
        if found.streaming is not None:
            self.guarded(call, found.streaming, call)
        if flags & frames.END_STREAM:
            self._half_closed(call)

    # -- data -------------------------------------------------------------------------------------------------

    def _consumed(self, size: int) -> None:
        """All that comes is taken at once, so the window is opened again by halves."""
        left = self._receive_window = self._receive_window - size
        limit = self.limits.connection_window
        if left < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more than the connection's window")
        if left < limit // 2:
            self._receive_window = limit
            self.answer(frames.window_update(0, limit - left))

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        size, end = len(payload), flags & frames.END_STREAM
        if not stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "DATA without a stream")
        self.not_idle(stream)
        if flags & frames.PADDED:
            payload = frames.unpadded(payload)
        if not payload and not end:
            self.junk()
        self._consumed(size)
        if stream > self.last_stream:
            return  # of a call that GOAWAY said isn't served
        call = self.calls.get(stream)
        if call is None:
            if stream not in self.ended_early:
                raise StreamFault(stream, frames.STREAM_CLOSED)
            if end:
                del self.ended_early[stream]
            return
        if call.half_closed:
            raise StreamFault(stream, frames.STREAM_CLOSED)
        call.receive_window -= size
        if call.receive_window < 0:
            raise StreamFault(stream, frames.FLOW_CONTROL_ERROR)
        if call.length_left >= 0:
            call.length_left -= len(payload)
            if call.length_left < 0:
                raise StreamFault(stream, frames.PROTOCOL_ERROR)
        if not call.gone and not call.request.http:
            self._take(call, payload)
        if end:
            if stream in self.calls:
                self._half_closed(call)
        elif call.receive_window < self.limits.call_window // 2 and stream in self.calls:
            self.answer(frames.window_update(stream, self.limits.call_window - call.receive_window))
            call.receive_window = self.limits.call_window

    def _take(self, call: Call, payload: bytes) -> None:
        """Find the whole messages and hand them over."""
        inbox = call.inbox
        if inbox is None:
            inbox = call.inbox = messages.Inbox(self.limits.message_bytes, call.request.gzip)
        before = inbox.size
        try:
            whole = inbox.feed(payload)
            self._partial += inbox.size - before
            if self._partial > self.limits.partial_bytes:
                raise messages.Refused(messages.RESOURCE_EXHAUSTED, "too many unfinished messages on this connection")
            for message in whole:
                if call.request.unary is None:
                    self.guarded(call, call.on_message, message)
                elif call.held is not None:
                    raise messages.Refused(messages.INTERNAL, _TWO_MESSAGES)
                else:
                    call.held = message
                    self._partial += len(message)
        except messages.Refused as refused:
            call.abort(*refused.args)

    def _half_closed(self, call: Call) -> None:
        """The client sends no more. Raises StreamFault."""
        call.half_closed = True
        if call.length_left > 0:
            raise StreamFault(call.stream, frames.PROTOCOL_ERROR)
        if call.gone:
            return
        if call.request.body:
            call.refuse_http()
            return
        if call.request.http and call.request.refusal is not None:
            call.finish(*call.request.refusal)
            return
        if call.inbox is not None and call.inbox.size:
            call.abort(messages.INTERNAL, "unexpected EOF")
            return
        unary = call.request.unary
        if unary is None:
            self.guarded(call, call.on_end)
        elif call.held is None:
            call.finish(messages.INTERNAL, _NO_MESSAGE)
        else:
            message, call.held = call.held, None
            self._partial -= len(message)
            self.guarded(call, unary, call, message)

    # -- ends of calls ----------------------------------------------------------------------------------------

    def over(self, call: Call) -> None:
        self.calls.pop(call.stream, None)
        if call.deadline_bucket:
            self._deadlines.discard(call, call.deadline_bucket)
        if call.inbox is not None:
            self._partial -= call.inbox.size + len(call.held or b"")
            call.inbox = call.held = None
        if not call.half_closed:
            # as grpc-go does: the answer is whole, what the client still sends isn't wanted
            self._ended_early(call.stream)
            self.write(frames.rst_stream(call.stream, frames.NO_ERROR))
        if self.draining:
            self.finish_drain()

    def _ended_early(self, stream: int) -> None:
        self.ended_early[stream] = None
        if len(self.ended_early) > ENDED_EARLY_MAX:
            del self.ended_early[next(iter(self.ended_early))]

    def _reset(self, stream: int, code: int) -> None:
        """RST_STREAM of our own; the client may make us do so only so often. Raises ConnectionFault."""
        call = self.calls.get(stream)
        if call is not None:
            if not call.half_closed:
                self._ended_early(stream)
            call.half_closed = True
            self.over(call)
            call.vanish()
        else:
            self._ended_early(stream)
        self.answer(frames.rst_stream(stream, code))
        self.made_to_reset()

    def _failed(self, call: Call) -> None:
        _log.exception("a gRPC handler failed", path=call.path.decode("utf-8", "replace"))
        call.finish(messages.INTERNAL, "internal error")

    def _set_deadline(self, call: Call, deadline_s: float) -> None:
        call.deadline_s = deadline_s
        call.deadline_bucket = self._deadlines.add(call, deadline_s, self.now)
        if self._alarm is None or self._alarm.when() > call.deadline_bucket:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(call.deadline_bucket, self._expire)

    def _expire(self) -> None:
        self.now = self._loop.time()
        for call in self._deadlines.due(self.now + 1e-3):
            call.abort(messages.DEADLINE_EXCEEDED, "context deadline exceeded")
        when = self._deadlines.next()
        self._alarm = None if when is None else self._loop.call_at(when, self._expire)


_NO_MESSAGE = "cardinality violation: received no request message from non-client-streaming RPC"
_TWO_MESSAGES = "cardinality violation: received multiple request messages for non-client-streaming RPC"


def _too_large(limit: int) -> Request:
    found = Request(b"")
    found.http = TOO_LARGE
    found.refusal = (messages.RESOURCE_EXHAUSTED, f"the headers have over {limit} bytes", ())
    return found
