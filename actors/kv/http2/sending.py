"""The sending half of a connection: windows, what waits for them, and whose turn it is (RFC 9113, 5.2). Pure.

A call's messages go out at once while the socket and both windows take them. What they don't take waits in the call's
own queue, and the calls that can go on take turns, a frame each. Control frames and the ends of calls don't wait for
windows.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from actors.kv.http2 import frames, messages
from actors.kv.http2.frames import ConnectionFault
from actors.kv.http2.limits import Limits
from actors.kv.http2.tally import Traffic

if TYPE_CHECKING:
    from actors.kv.http2.call import Call

#: Collected output is handed to the socket at the latest when it is this much.
FLUSH_BYTES = 64 * 1024
#: ``on_drained`` is called when a call's queue falls below this.
LOW_WATER_BYTES = 64 * 1024
#: HPACK's "my dynamic table has 0 bytes" (RFC 7541, 6.3).
_TABLE_OF_0 = b"\x20"

_log = structlog.get_logger(actor="kv")


class Connection:
    """What a call knows of its connection. ``peer``, ``trusted`` and ``client_cn`` say who is there."""

    def __init__(self, peer: str, trusted: bool, client_cn: str, limits: Limits) -> None:
        self.peer = peer
        self.trusted = trusted
        self.client_cn = client_cn
        self.limits = limits
        self.traffic = Traffic()
        self.transport: Any = None
        #: calls by stream
        self.calls: dict[int, Call] = {}
        #: frames that wait for ``flush``, and their bytes
        self.out: list[bytes] = []
        self.out_bytes = 0
        #: the socket takes no more
        self.paused = False
        #: our side has ended: nothing can be written any more
        self.ended = False
        #: bytes that the client still takes, in all; and of each new call
        self.window = frames.WINDOW_DEFAULT
        self.call_window = frames.WINDOW_DEFAULT
        #: bytes in the queues of all calls
        self.queued = 0
        #: frames of calls that were sent; pings and window updates aren't held against a client that is being sent
        #: something
        self.sent = 0
        #: the client wants a smaller dynamic table, and the next block of headers has to say that it is empty
        self.says_table = False
        #: calls with a queue; and those that have only their end to say when the socket takes more
        self._turns: deque[Call] = deque()
        self._ends: deque[Call] = deque()
        self._pumping = False

    @abstractmethod
    def wake(self) -> None:
        """See to it that ``flush`` is called soon."""

    @abstractmethod
    def over(self, call: "Call") -> None:
        """Nothing more is sent on ``call``'s stream: forget it."""

    @abstractmethod
    def relieved(self) -> None:
        """``queued`` fell."""

    def write(self, data: bytes) -> None:
        self.out.append(data)
        self.out_bytes += len(data)
        if self.out_bytes > FLUSH_BYTES:
            self.flush()
        else:
            self.wake()

    def write_headers(self, stream: int, block: bytes, end: bool) -> None:
        """Blocks must be written in the order in which the client decodes them: not to be kept for later."""
        if self.says_table:
            self.says_table, block = False, _TABLE_OF_0 + block
        self.sent += 1
        self.write(frames.headers(stream, block, end))

    def flush(self) -> None:
        """Hand over to the socket what was collected; it may pause us."""
        out = self.out
        if out:
            self.traffic.sent += self.out_bytes
            self.out, self.out_bytes = [], 0
            if not self.ended and not self.transport.is_closing():
                self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    # -- turns ------------------------------------------------------------------------------------------------

    def enlist(self, call: "Call") -> None:
        """``call`` has something to send."""
        if not call.queue:
            if self.paused:
                self._ends.append(call)
            else:
                call.send_end()
            return
        if not call.waits:
            call.waits = True
            self._turns.append(call)
        if self.window > 0:
            self.pump()

    def pump(self) -> None:
        """Send what the socket and the windows take, a frame of each call in turn."""
        if self._pumping:
            return
        self._pumping = True
        turns, ends = self._turns, self._ends
        try:
            while ends and not self.paused:
                ends.popleft().send_end()
            while turns and self.window > 0 and not self.paused:
                call = turns.popleft()
                if self._turn(call):
                    turns.append(call)
                else:
                    call.waits = False
        finally:
            self._pumping = False

    def weed(self) -> None:
        """Forget turns and ends of calls that have nothing to send any more, when they are most."""
        turns, ends, enough = self._turns, self._ends, 2 * len(self.calls) + 64
        if self._pumping:
            return
        if len(turns) > enough:
            waiting = [call for call in turns if call.queue]
            for call in turns:
                call.waits = bool(call.queue)
            turns.clear()
            turns.extend(waiting)
        if len(ends) > enough:
            ending = [call for call in ends if call.trailers is not None]
            ends.clear()
            ends.extend(ending)

    def _turn(self, call: "Call") -> bool:
        """One frame of ``call``; whether it can go on."""
        queue = call.queue
        if not queue:
            call.send_end()
            return False
        size = min(len(queue), frames.FRAME_BYTES_MAX, call.window, self.window)
        if size <= 0:
            return False  # its own window is used up: its WINDOW_UPDATE enlists it again
        call.send_head()
        with memoryview(queue) as view:
            piece = bytes(view[:size])
        del queue[:size]
        self.spend(call, size)
        self.write(frames.HEAD.pack(size << 8 | frames.DATA, 0, call.stream) + piece)
        self.queued -= size
        self.relieved()
        left = len(queue)
        if left < LOW_WATER_BYTES <= left + size and not call.gone:
            self.guarded(call, call.on_drained)
        if call.queue:
            return True
        call.send_end()
        return False

    def spend(self, call: "Call", size: int) -> None:
        self.window -= size
        call.window -= size
        self.sent += 1

    def opened(self, call: "Call | None", more: int) -> None:
        """WINDOW_UPDATE of a call, or of the connection. Raises ConnectionFault, StreamFault."""
        if call is None:
            if self.window + more > frames.WINDOW_MAX:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self.window += more
        else:
            if call.window + more > frames.WINDOW_MAX:
                raise frames.StreamFault(call.stream, frames.FLOW_CONTROL_ERROR)
            call.window += more
            if call.queue and not call.waits:
                call.waits = True
                self._turns.append(call)
        if self._turns and self.window > 0:
            self.pump()

    def resized(self, window: int) -> None:
        """The client's SETTINGS_INITIAL_WINDOW_SIZE: all windows move, perhaps below zero. Raises ConnectionFault."""
        more = window - self.call_window
        self.call_window = window
        for call in list(self.calls.values()):
            call.window += more
            if call.window > frames.WINDOW_MAX:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "a call's window is too large")
            if more > 0 and call.queue and not call.waits:
                call.waits = True
                self._turns.append(call)
        self.pump()

    def guarded(self, call: "Call", what: Callable[..., None], *args: Any) -> None:
        """Call a handler: its exception ends this call alone."""
        try:
            what(*args)
        except Exception:
            self.failed(call)

    def failed(self, call: "Call") -> None:
        """In an except block: a handler's exception ends its call, and it is told that nobody asks any more."""
        _log.exception("a gRPC handler failed", path=call.path.decode("utf-8", "replace"))
        on_gone, gone = call.on_gone, call.gone
        call.finish(messages.INTERNAL, "internal error")
        if not gone:
            self.guarded(call, on_gone)
