"""A client of one HTTP/2 connection without a socket: what it says goes in, frames come out."""

import asyncio
from typing import Any, NamedTuple

import hpack

from actors.kv.http2 import frames
from actors.kv.http2.call import Call
from actors.kv.http2.connection import Http2, Limits, Methods

ECHO, STREAM, SILENT = "/test.Echo/Once", "/test.Echo/Many", "/test.Echo/Never"
HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", ECHO), (":authority", "x")]
HEADERS += [("content-type", "application/grpc"), ("te", "trailers")]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class Clock:
    """The running loop, whose time is put forward by ``later``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead_s = 0.0

    def time(self) -> float:
        return self._loop.time() + self._ahead_s

    def later(self, seconds: float) -> None:
        self._ahead_s += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Transport:
    """``ended``: our side said that it writes no more."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = self.ended = self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.ended
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0


class Peer:
    """``calls``: those of the streaming method and the silent one, as their handlers got them."""

    def __init__(self, limits: Limits = Limits(), settings: bytes | None = None) -> None:  # noqa: B008 - frozen
        self.calls: list[Call] = []
        self.seen: list[tuple[str, Any]] = []
        self.transport = Transport()
        methods = Methods({ECHO.encode(): lambda call, raw: call.reply(raw), SILENT.encode(): self._silent})
        methods.streaming[STREAM.encode()] = self._stream
        self.open_ones: set[Any] = set()
        self.server = Http2(methods, self.open_ones, "addr:test", trusted=False, limits=limits)
        self.clock: Any = Clock()
        self.server._loop = self.clock
        self.server.connection_made(self.transport)
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._next = 1
        self.feed(frames.PREFACE + (frames.settings([]) if settings is None else settings))

    def _silent(self, call: Call, raw: bytes) -> None:
        self.calls.append(call)
        call.on_gone = lambda: self.seen.append(("gone", call))

    def _stream(self, call: Call) -> None:
        self.calls.append(call)
        call.on_message = lambda raw: self.seen.append(("message", raw))
        call.on_end = lambda: self.seen.append(("end", call))
        call.on_gone = lambda: self.seen.append(("gone", call))
        call.on_drained = lambda: self.seen.append(("drained", call))

    # -- saying -----------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self.server.data_received(data)

    def block(self, path: str = ECHO, more: list[tuple[str, str]] | None = None, huffman: bool = True) -> bytes:
        fields = [(name, path if name == ":path" else value) for name, value in HEADERS]
        encoded: bytes = self._encoder.encode(fields + (more or []), huffman=huffman)
        return encoded

    def open(self, path: str = ECHO, more: list[tuple[str, str]] | None = None, end: bool = False) -> int:
        stream, self._next = self._next, self._next + 2
        self.feed(frames.headers(stream, self.block(path, more), end=end))
        return stream

    def data(self, stream: int, payload: bytes, end: bool = False) -> None:
        """In frames as large as they may be."""
        most = frames.FRAME_BYTES_MAX
        for at in range(0, len(payload) or 1, most):
            last = end and at + most >= len(payload)
            self.feed(frames.frame(frames.DATA, frames.END_STREAM if last else 0, stream, payload[at : at + most]))

    def ask(self, message: bytes, path: str = ECHO, more: list[tuple[str, str]] | None = None) -> int:
        stream = self.open(path, more)
        self.data(stream, grpc(message), end=True)
        return stream

    # -- hearing ----------------------------------------------------------------------------------------------

    async def frames(self) -> list[Frame]:
        """All that was written since the last time."""
        for _ in range(3):
            await asyncio.sleep(0)
        out, raw = [], bytes(self.transport.written)
        self.transport.written.clear()
        at = 0
        while at < len(raw):
            size, kind = int.from_bytes(raw[at : at + 3], "big"), raw[at + 3]
            assert size <= frames.FRAME_BYTES_MAX
            stream = int.from_bytes(raw[at + 5 : at + 9], "big")
            out.append(Frame(kind, raw[at + 4], stream, raw[at + 9 : at + 9 + size]))
            at += 9 + size
        assert at == len(raw)
        return out

    async def answers(self) -> dict[int, "Answer"]:
        """What was said since the last time, by stream."""
        found: dict[int, Answer] = {}
        for one in await self.frames():
            if not one.stream:
                continue
            answer = found.setdefault(one.stream, Answer())
            if one.kind == frames.HEADERS:
                answer.headers |= {_text(name): _text(value) for name, value in self._decoder.decode(one.payload)}
            elif one.kind == frames.DATA:
                answer.data += one.payload
            elif one.kind == frames.RST_STREAM:
                answer.reset = int.from_bytes(one.payload, "big")
            answer.ended |= one.kind in (frames.HEADERS, frames.DATA) and bool(one.flags & frames.END_STREAM)
        return found

    async def goaway(self) -> tuple[int, str] | None:
        """Code and words of the last GOAWAY."""
        for one in reversed(await self.frames()):
            if one.kind == frames.GOAWAY:
                return int.from_bytes(one.payload[4:8], "big"), one.payload[8:].decode()
        return None


class Answer:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.data = b""
        self.reset: int | None = None
        self.ended = False

    @property
    def status(self) -> tuple[int, str]:
        return int(self.headers["grpc-status"]), self.headers.get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        out, at = [], 0
        while at < len(self.data):
            size = int.from_bytes(self.data[at + 1 : at + 5], "big")
            out.append(self.data[at + 5 : at + 5 + size])
            at += 5 + size
        return out


def grpc(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
