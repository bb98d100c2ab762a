"""The receiving half of a connection: blocks of headers → calls, DATA → messages (RFC 9113, 5.1, 6.1, 6.2, 8.1). Pure.

A block of headers that came before means the same while HPACK's dynamic table hasn't changed, so it isn't decoded
again.
"""

from abc import abstractmethod

from actors.kv.http2 import frames, messages, request
from actors.kv.http2.call import Call
from actors.kv.http2.control import Control, calm
from actors.kv.http2.deadlines import NEVER_S, Deadlines
from actors.kv.http2.frames import ConnectionFault, StreamFault
from actors.kv.http2.hpack import Decoder, Field, HpackError, ListTooLarge
from actors.kv.http2.limits import CONTINUATIONS_MAX, Limits
from actors.kv.http2.messages import PREFIX_BYTES
from actors.kv.http2.request import Asked, Malformed, Methods, Request

#: HTTP's "request header fields too large".
TOO_LARGE = 431
#: Known header blocks of a connection.
REQUESTS_MAX = 64
#: Streams that we ended early and whose late frames are ignored.
ENDED_EARLY_MAX = 1000

_NO_MESSAGE = "cardinality violation: received no request message from non-client-streaming RPC"
_TWO_MESSAGES = "cardinality violation: received multiple request messages for non-client-streaming RPC"
#: These are told when the client's headers are there; other refusals of HTTP's wait for the end of its body.
_AT_ONCE = (0, 400, TOO_LARGE)


class Receiving(Control):
    def __init__(self, methods: Methods, peer: str, trusted: bool, client_cn: str, limits: Limits) -> None:
        super().__init__(peer, trusted, client_cn, limits)
        self._methods = methods
        self.traffic = methods.traffic
        self._decoder = Decoder(limits.header_bytes)
        #: what the known blocks ask for
        self.requests: dict[bytes, Asked] = {}
        #: the same by their fields, for blocks that differ only in how their fields are written, or in their timeout
        self._requests_by_fields: dict[tuple[Field, ...], Request] = {}
        #: the client's first SETTINGS came
        self.settled = False
        #: since when the first SETTINGS or the rest of a header block is awaited, or 0
        self.waiting_since = 0.0
        #: the stream of a header block that isn't whole yet, or 0
        self.block_stream = 0
        self._block_flags = self._block_bytes = 0
        self._block_own_parent = False
        self._block: list[bytes] = []
        self._receive_window = max(limits.connection_window, frames.WINDOW_DEFAULT)
        self._receive_limit = self._receive_window
        self._partial = 0
        self._whole_max = min(frames.FRAME_BYTES_MAX, limits.message_bytes + PREFIX_BYTES, limits.call_window)
        self.deadlines: Deadlines[Call] = Deadlines()

    @abstractmethod
    def alarm(self, when: float) -> None:
        """See to it that what is due in ``deadlines`` at ``when`` is ended then."""

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take one frame. Raises ConnectionFault, StreamFault."""
        if self.block_stream:
            if kind != frames.CONTINUATION or stream != self.block_stream:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block isn't whole")
            self._continued(flags, payload)
        elif not self.settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS come first")
        elif kind == frames.DATA:
            self._data(flags, stream, payload)
        elif kind == frames.HEADERS:
            self._headers(flags, stream, payload)
        elif kind == frames.CONTINUATION:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        else:
            if not self.settled:
                self.settled, self.waiting_since = True, 0.0
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
        self.block_stream, self._block_flags, self._block_own_parent = stream, flags, own_parent
        self._block, self._block_bytes = [payload], len(payload)
        self.waiting_since = self.now

    def _continued(self, flags: int, payload: bytes) -> None:
        self._block.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > self.limits.header_bytes or len(self._block) > CONTINUATIONS_MAX:
            raise calm("a header block is too large")
        if flags & frames.END_HEADERS:
            stream, block = self.block_stream, b"".join(self._block)
            self.block_stream, self._block, self.waiting_since = 0, [], 0.0
            self._block_whole(stream, self._block_flags, block, self._block_own_parent)

    def _block_whole(self, stream: int, flags: int, block: bytes, own_parent: bool) -> None:
        """Decode whatever becomes of the stream: all blocks after depend on it."""
        asked = self.requests.get(block)
        if asked is None or stream <= self.last_stream:
            asked = self._decoded(stream, flags, block)
            if asked is None:
                return
        if own_parent:
            self.last_stream = stream
            raise StreamFault(stream, frames.PROTOCOL_ERROR)
        self.open(stream, flags, asked)

    def _decoded(self, stream: int, flags: int, block: bytes) -> Asked | None:
        """None: they were trailers. Raises ConnectionFault, StreamFault."""
        decoder = self._decoder
        before = decoder.generation
        fields: list[Field] | None
        try:
            fields = decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(frames.COMPRESSION_ERROR, str(error)) from error
        except ListTooLarge:
            fields = None
        if decoder.generation != before:
            self.requests.clear()
        if stream <= self.last_stream:
            self._trailers(stream, flags, fields)
            return None
        try:
            asked = (_too_large(self.limits.header_bytes), None) if fields is None else self._read(fields)
        except Malformed as malformed:
            self.last_stream = stream
            raise StreamFault(stream, frames.PROTOCOL_ERROR) from malformed
        if decoder.generation == before and fields is not None:
            if len(self.requests) >= REQUESTS_MAX:
                self.requests.clear()
            self.requests[block] = asked
        return asked

    def _read(self, fields: list[Field]) -> Asked:
        """Raises Malformed."""
        rest, timeout = request.without_timeout(fields)
        found = self._requests_by_fields.get(rest)
        if found is None:
            found = request.read(rest, self._methods)
            if len(self._requests_by_fields) >= REQUESTS_MAX:
                self._requests_by_fields.clear()
            self._requests_by_fields[rest] = found
        return request.timed(found, timeout)

    def _trailers(self, stream: int, flags: int, fields: list[Field] | None) -> None:
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

    def open(self, stream: int, flags: int, asked: Asked) -> None:
        """A new call. Raises StreamFault."""
        self.last_stream = stream
        found, timeout_s = asked
        limits = self.limits
        if self.draining == 2:
            self._ended_early(stream)  # as GOAWAY's last stream said
            return
        if len(self.calls) >= limits.calls or self.queued > limits.unsent_bytes:
            raise StreamFault(stream, frames.REFUSED_STREAM)
        call = self.calls[stream] = Call(self, stream, found, self.now)
        found.tally.started += 1
        end = call.half_closed = flags & frames.END_STREAM == frames.END_STREAM
        if timeout_s is not None and timeout_s < NEVER_S:
            call.deadline_s = self.now + timeout_s
            call.deadline_bucket = self.deadlines.add(call, call.deadline_s, self.now)
            self.alarm(call.deadline_bucket)
        if found.refusal is not None and found.http in _AT_ONCE:
            self._refuse(call)
            return
        if found.streaming is not None:
            self.guarded(call, found.streaming, call)
        if end:
            self._half_closed(call)

    def _refuse(self, call: Call) -> None:
        if call.request.body:
            call.refuse_http()
        elif call.request.refusal is not None:
            call.finish(*call.request.refusal)

    # -- data -------------------------------------------------------------------------------------------------

    def unary(self, call: Call, data: bytes, start: int, size: int) -> bool:
        """The common case: a unary call's only DATA frame has its whole message. False: it isn't that."""
        serve = call.request.unary
        if (
            serve is None
            or call.inbox is not None
            or call.half_closed
            or call.gone
            or not PREFIX_BYTES <= size <= self._whole_max
            or data[start]
            or int.from_bytes(data[start + 1 : start + 5], "big") != size - PREFIX_BYTES
            or (call.length_left >= 0 and call.length_left != size)
        ):
            return False
        self._consumed(size)
        call.half_closed = True
        try:
            serve(call, data[start + 5 : start + size])
        except Exception:
            self.failed(call)
        return True

    def _consumed(self, size: int) -> None:
        """All that comes is taken at once, so the window is opened again by halves."""
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more than the connection's window")
        self.relieved()

    def relieved(self) -> None:
        """Open the connection's window, but not for a client that doesn't read what it asked for."""
        left, limit = self._receive_window, self._receive_limit
        if left < limit // 2 and self.queued <= self.limits.unsent_bytes:
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
        if end:
            call.half_closed = True
        if not call.gone and not call.request.http:
            self._take(call, payload)
        if end:
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
            try:
                whole = inbox.feed(payload)
            finally:
                self._partial += inbox.size - before
            if self._partial > self.limits.partial_bytes and call.request.method:
                raise StreamFault(call.stream, frames.ENHANCE_YOUR_CALM)
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
        if call.request.http:
            self._refuse(call)
            return
        unary = call.request.unary
        if call.inbox is not None and call.inbox.size and not call.request.method:
            call.abort(messages.INTERNAL if unary is None else messages.UNKNOWN, "unexpected EOF")
            return
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
        if self.calls.pop(call.stream, None) is None:
            return
        if call.deadline_bucket:
            self.deadlines.discard(call, call.deadline_bucket)
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

    def gone(self, call: Call) -> None:
        call.half_closed = True
        self.over(call)
        call.vanish()

    def reset(self, stream: int, code: int) -> None:
        """RST_STREAM of our own; the client may make us do so only so often. Raises ConnectionFault."""
        self.answer(frames.rst_stream(stream, code))
        call = self.calls.get(stream)
        if code != frames.STREAM_CLOSED:
            self._ended_early(stream)
        if call is not None:
            self.gone(call)
        self.made_to_reset()

    def drop_calls(self) -> None:
        """The connection is lost or given up."""
        calls = list(self.calls.values())
        self.calls.clear()
        self.deadlines = Deadlines()
        self._partial = 0
        for call in calls:
            call.half_closed = True
            call.vanish()
        self._block = []
        self.requests.clear()
        self._requests_by_fields.clear()

    def expire(self) -> float | None:
        """End the calls whose time is up; when the next may be."""
        for call in self.deadlines.due(self.now + 1e-3):
            call.abort(messages.DEADLINE_EXCEEDED, "context deadline exceeded")
        return self.deadlines.next()


def _too_large(limit: int) -> Request:
    found = Request(b"")
    found.http = TOO_LARGE
    found.refusal = (messages.RESOURCE_EXHAUSTED, f"the headers have over {limit} bytes", ())
    return found
