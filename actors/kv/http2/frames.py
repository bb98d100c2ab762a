"""HTTP/2's frames (RFC 9113): numbers, the few that a server writes, and the two sizes of errors."""

from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Payload of one frame, both ways: HTTP/2's default, which every peer accepts.
FRAME_BYTES_MAX = 16384
WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

SET_HEADER_TABLE_SIZE, SET_ENABLE_PUSH, SET_STREAMS_MAX, SET_INITIAL_WINDOW, SET_FRAME_MAX, SET_HEADER_LIST = range(
    1, 7
)

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

#: A frame's head: length << 8 | type, flags, stream.
HEAD = Struct(">IBI")
U32 = Struct(">I")
PAIR = Struct(">HI")
TWO_U32 = Struct(">II")
SETTINGS_ACK = HEAD.pack(SETTINGS, ACK, 0)


class ConnectionFault(Exception):
    """(code, why): the whole connection ends with GOAWAY."""


class StreamFault(Exception):
    """(stream, code): this stream ends with RST_STREAM, the others go on."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(pairs: list[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(PAIR.pack(*pair) for pair in pairs))


def window_update(stream: int, bytes_more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, U32.pack(bytes_more))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, U32.pack(code))


def goaway(last: int, code: int, why: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, TWO_U32.pack(last, code) + why)


def headers(stream: int, block: bytes, end: bool) -> bytes:
    """HEADERS, with CONTINUATION as needed."""
    flags = END_STREAM if end else 0
    if len(block) <= FRAME_BYTES_MAX:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    pieces = [block[at : at + FRAME_BYTES_MAX] for at in range(0, len(block), FRAME_BYTES_MAX)]
    made = [frame(HEADERS, flags, stream, pieces[0])]
    made += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    made.append(frame(CONTINUATION, END_HEADERS, stream, pieces[-1]))
    return b"".join(made)


def unpadded(payload: bytes) -> bytes:
    """The payload of a PADDED frame without length and padding. Raises ConnectionFault."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
