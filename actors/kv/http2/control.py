"""A connection's own affairs (RFC 9113, 6): SETTINGS, PING, WINDOW_UPDATE, keep-alive, floods, graceful end. Pure."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from actors.kv.http2 import frames
from actors.kv.http2.frames import ConnectionFault, StreamFault
from actors.kv.http2.hpack import TABLE_BYTES
from actors.kv.http2.limits import RAPID_S, Floods, Limits
from actors.kv.http2.sending import Connection

if TYPE_CHECKING:
    from actors.kv.http2.call import Call

_KEEPALIVE_PING = b"corelog?"
_DRAIN_PING = b"draining"


class Control(Connection):
    """``now`` is the loop's time of what is being handled."""

    def __init__(self, peer: str, trusted: bool, client_cn: str, limits: Limits) -> None:
        super().__init__(peer, trusted, client_cn, limits)
        self.now = 0.0
        #: the highest stream that the client opened; and the highest that is served, once GOAWAY said it
        self.last_stream = 0
        self.served_stream = frames.WINDOW_MAX
        #: 0: no; 1: told to open no more calls; 2: later ones are not served
        self.draining = 0
        self.heard_s = 0.0
        #: streams that we ended while the client may still send, oldest first
        self.ended_early: dict[int, None] = {}
        #: when the socket paused us, or 0
        self.paused_s = 0.0
        #: answers to control frames since the socket paused us, bytes
        self.control_unsent = 0
        self._pinged_s = 0.0
        self._client_ping_s = -1e9
        self._strikes = 0
        self._told_table = False
        self._sent_at_ping = self._sent_at_update = 0
        self._floods = Floods()

    @abstractmethod
    def gone(self, call: "Call") -> None:
        """The client reset ``call``."""

    @abstractmethod
    def finish_drain(self) -> None:
        """The last calls may be over."""

    def control_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Any frame but DATA, HEADERS and CONTINUATION. Raises ConnectionFault, StreamFault."""
        if kind == frames.WINDOW_UPDATE:
            self._window_update(stream, payload)
        elif kind == frames.RST_STREAM:
            self._rst_stream(stream, payload)
        elif kind == frames.SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == frames.PING:
            self._ping(flags, stream, payload)
        elif kind == frames.PRIORITY:
            self._priority(stream, payload)
        elif kind == frames.GOAWAY:
            if stream or len(payload) < 8:
                raise ConnectionFault(frames.PROTOCOL_ERROR if stream else frames.FRAME_SIZE_ERROR, "GOAWAY")
            self.junk()
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a client can't push")
        else:
            self.junk()

    def junk(self) -> None:
        """A frame without use. Raises ConnectionFault when they are many."""
        if not self._floods.junk.take(self.now):
            raise calm("too many frames without use")

    def answer(self, data: bytes) -> None:
        """Write what a control frame asks for; it counts while the client doesn't read."""
        if self.paused:
            self.control_unsent += len(data)
        self.write(data)

    def made_to_reset(self) -> None:
        """A stream was opened and reset, by the client or by its doing. Raises ConnectionFault when they are many."""
        if not self._floods.resets.take(self.now):
            raise calm("too many resets")

    def _window_update(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE")
        # each frame of ours may be answered by updates of its call and of the connection
        earned, self._sent_at_update = 2 * (self.sent - self._sent_at_update), self.sent
        if not self._floods.updates.take(self.now, earned):
            raise calm("too many window updates")
        more = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if stream:
            self.not_idle(stream)
            if not more:
                raise StreamFault(stream, frames.PROTOCOL_ERROR)
            call = self.calls.get(stream)
            if call is not None:
                self.opened(call, more)
        elif not more:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        else:
            self.opened(None, more)

    def _rst_stream(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "RST_STREAM")
        self.not_idle(stream)
        call = self.calls.get(stream)
        if call is None:
            self.ended_early.pop(stream, None)
            self.junk()
            return
        self.gone(call)
        if self.now - call.opened_s < RAPID_S:
            self.made_to_reset()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS with ACK and payload")
            self.junk()
            return
        if len(payload) % 6:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS")
        if not self._floods.settings.take(self.now):
            raise calm("too many settings")
        window = None
        for key, value in frames.PAIR.iter_unpack(payload):
            if key == frames.SET_HEADER_TABLE_SIZE:
                # our encoder uses no table, but a client that made its own smaller waits to hear it (RFC 7541, 4.2)
                if value < TABLE_BYTES and not self._told_table:
                    self.says_table = self._told_table = True
            elif key == frames.SET_INITIAL_WINDOW:
                if value > frames.WINDOW_MAX:
                    raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE")
                window = value
            elif (key == frames.SET_ENABLE_PUSH and value > 1) or (
                key == frames.SET_FRAME_MAX and not frames.FRAME_BYTES_MAX <= value < 1 << 24
            ):
                raise ConnectionFault(frames.PROTOCOL_ERROR, f"SETTINGS {key} {value}")
        # the answer first: what the new windows let through comes after it
        self.answer(frames.SETTINGS_ACK)
        if window is not None:
            self.resized(window)

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING")
        if not flags & frames.ACK:
            self.answer(frames.frame(frames.PING, frames.ACK, 0, payload))
            self._count_ping()
        elif payload == _DRAIN_PING and self.draining == 1:
            self.last_calls()
        else:
            self.junk()

    def _count_ping(self) -> None:
        """etcd's policy. Raises ConnectionFault, with the words that make grpc-go ping less often."""
        limits, before = self.limits, self._client_ping_s
        self._client_ping_s = self.now
        if self.sent != self._sent_at_ping:
            self._sent_at_ping, self._strikes = self.sent, 0
            return
        apart_s = limits.client_ping_s if self.calls else limits.client_ping_idle_s
        if self.now - before < apart_s:
            self._strikes += 1
            if self._strikes > limits.ping_strikes:
                raise calm("too_many_pings")

    def _priority(self, stream: int, payload: bytes) -> None:
        if not stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise StreamFault(stream, frames.FRAME_SIZE_ERROR)
        self.not_own_parent(stream, payload)
        self.junk()

    def not_own_parent(self, stream: int, payload: bytes) -> None:
        """Priorities are ignored, but not one that can't be. Raises StreamFault."""
        if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == stream:
            raise StreamFault(stream, frames.PROTOCOL_ERROR)

    def not_idle(self, stream: int) -> None:
        """Raises ConnectionFault."""
        if not stream & 1 or stream > self.last_stream:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"stream {stream} isn't open")

    # -- keep-alive and the end -------------------------------------------------------------------------------

    def unheard(self, now: float) -> bool:
        """Ping a silent client; whether it doesn't answer, or has stopped reading."""
        limits = self.limits
        if self.paused_s and now - self.paused_s > limits.stall_s:
            return True
        if self._pinged_s > self.heard_s:
            return now - self._pinged_s > limits.ping_wait_s
        if now - self.heard_s >= limits.ping_after_s:
            self._pinged_s = now
            self.write(frames.frame(frames.PING, 0, 0, _KEEPALIVE_PING))
        return False

    def first_drain(self) -> None:
        """Tell the client to open no more calls; those on their way are still served, until its ping comes back."""
        self.draining = 1
        self.write(frames.goaway(frames.WINDOW_MAX, frames.NO_ERROR, b"graceful_stop"))
        self.write(frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def last_calls(self) -> None:
        """Calls after those that are open now aren't served."""
        if self.draining == 1:
            self.draining = 2
            self.write_goaway(frames.NO_ERROR, b"graceful_stop")
            self.finish_drain()

    def write_goaway(self, code: int, why: bytes = b"") -> None:
        """Its last stream never rises (RFC 9113, 6.8)."""
        self.served_stream = min(self.served_stream, self.last_stream)
        self.write(frames.goaway(self.served_stream, code, why))


def calm(why: str) -> ConnectionFault:
    return ConnectionFault(frames.ENHANCE_YOUR_CALM, why)
