"""HTTP/2 (RFC 9113) on one connection, on asyncio: frames → :class:`call.Call` → frames, for gRPC.

One pass over the bytes that came, one write for what they caused. Errors end a call (RST_STREAM) or the connection
(GOAWAY) as the RFC says; nothing that a client sends raises out of ``data_received``.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import structlog

from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from actors.kv.http2.frames import ConnectionFault, StreamFault
from actors.kv.http2.limits import Limits
from actors.kv.http2.receiving import Receiving
from actors.kv.http2.request import Methods, Streaming, Unary

__all__ = ["Call", "Http2", "Limits", "Methods", "Streaming", "Unary"]

#: The socket's own buffer at which calls wait.
SOCKET_BYTES_HIGH = 256 * 1024
#: About what a call costs beside its queue.
CALL_BYTES = 512
#: After the last GOAWAY, how long the client may still read it.
LINGER_S = 1.0

_log = structlog.get_logger(actor="kv")


class Http2(Receiving):
    """``open_ones`` has the open connections; ``soon`` calls what writes what was collected.

    Gets the bytes from the connection's preface on.

    An :class:`asyncio.Protocol` by its methods alone: compiled, a class that inherits interpreted ones is slow.
    """

    def __init__(
        self,
        methods: Methods,
        open_ones: set[Any],
        peer: str,
        trusted: bool,
        client_cn: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__(methods, peer, trusted, client_cn, limits)
        self._open_ones = open_ones
        self._loop = asyncio.get_running_loop()
        self._soon = soon or self._loop.call_soon
        self._rest = b""
        self._prefaced = False
        #: nothing is heard any more
        self._deaf = False
        self._corked = False
        self._woken = False
        self._unread = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf
        self._cutting: asyncio.TimerHandle | None = None

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        limits = self.limits
        self.transport = transport
        self._open_ones.add(self)
        self.heard_s = self.waiting_since = self.now = self._loop.time()
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
        self.traffic.received += len(data)
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

    def eof_received(self) -> None:
        """A client that ended its sending could open no window and cancel nothing: as with grpc-go, all is over."""
        self.flush()
        self._deaf = True
        self.drop_calls()
        self._cut_off(LINGER_S)

    def connection_lost(self, error: Exception | None) -> None:
        self._open_ones.discard(self)
        self._deaf = self.ended = True
        for timer in (self._alarm, self._cutting):
            if timer is not None:
                timer.cancel()
        self.drop_calls()
        self.out, self._rest = [], b""

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
            self._soon(self._wake)

    def _wake(self) -> None:
        self._woken = False
        self.flush()

    def _read_less(self) -> None:
        """A client that doesn't read but asks on would fill our memory with answers: it waits, too."""
        if (
            self.control_unsent > self.limits.control_bytes
            or self.queued + CALL_BYTES * len(self.calls) > self.limits.unsent_bytes
        ):
            self._unread = True
            self.transport.pause_reading()

    def alarm(self, when: float) -> None:
        if when < self._alarm_s:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_s, self._alarm = when, self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self.now, self._alarm, self._alarm_s = self._loop.time(), None, math.inf
        when = self.expire()
        if when is not None:
            self.alarm(when)

    # -- the port's sweeps and ends ---------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether to end it: a head not whole, a ping not answered, a client that doesn't read. May ping."""
        if self._deaf:
            return False
        if self.waiting_since and now - self.waiting_since > self.limits.head_s:
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
        if not self._deaf:
            self._deaf = True
            self.write_goaway(frames.NO_ERROR)
        self.flush()
        if self.paused:
            self.transport.abort()
        else:
            self.transport.close()

    def finish_drain(self) -> None:
        if self.draining == 2 and not self.calls and not self._deaf:
            self._hang_up(self.limits.stall_s if self.paused else self.limits.ping_wait_s)

    def _fail(self, code: int, why: str) -> None:
        """GOAWAY, then nothing more is heard; the client may still read it."""
        if self._deaf:
            return
        self._deaf = True
        self.drop_calls()
        self.write_goaway(code, why.encode())
        self._hang_up(0.0 if self.paused else LINGER_S)

    def _hang_up(self, linger_s: float) -> None:
        """End our side. Closing with unread bytes would reset the connection, and the client might not read why."""
        self._deaf = True
        self._rest = b""
        self.flush()
        self.ended = True
        if not self.transport.can_write_eof():
            self.transport.close()  # TLS ends in words of its own
        else:
            try:
                self.transport.write_eof()
            except OSError:
                linger_s = 0.0  # the client has left already
        self._cut_off(linger_s)

    def _cut_off(self, after_s: float) -> None:
        if self._cutting is None:
            self._cutting = self._loop.call_later(after_s, self.transport.abort)

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
        unpack, known, calls = frames.HEAD.unpack_from, self.requests, self.calls
        while end - at >= 9 and not self._deaf:
            head, flags, stream = unpack(data, at)
            size, kind, start = head >> 8, head & 0xFF, at + 9
            if size > frames.FRAME_BYTES_MAX:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if start + size > end:
                break
            at = start + size
            try:
                if kind == frames.DATA and flags == frames.END_STREAM and not self.block_stream:
                    call = calls.get(stream)
                    if call is not None and self.unary(call, data, start, size):
                        continue
                elif kind == frames.HEADERS and flags & ~1 == frames.END_HEADERS and not self.block_stream:
                    asked = known.get(data[start:at])
                    if asked is not None and self.last_stream < stream <= frames.WINDOW_MAX and stream & 1:
                        self.open(stream, flags, asked)
                        continue
                self.frame(kind, flags, stream & 0x7FFFFFFF, data[start:at])
            except StreamFault as fault:
                self.reset(*fault.args)
        return b"" if self._deaf else data[at:] if at else data
