"""gRPC inside HTTP/2: length-prefixed messages, gzip, timeouts, statuses. The texts are grpc-go's, to the letter."""

import zlib
from struct import Struct

PREFIX = Struct(">BI")
PREFIX_BYTES = PREFIX.size

UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 2, 3, 4
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14

_GZIP_WBITS = 31
#: Compressors write one; each costs a copy of all that follow it.
_MEMBERS_MAX = 16
_GO_SAYS = {"header": "gzip: invalid header", " check": "gzip: invalid checksum"}
_GO_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip
_UNIT_S = {ord("H"): 3600.0, ord("M"): 60.0, ord("S"): 1.0, ord("m"): 1e-3, ord("u"): 1e-6, ord("n"): 1e-9}
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}


class Refused(Exception):
    """(status, message): the call ends with these."""


class Inbox:
    """A call's received bytes → whole messages. ``size``: bytes that wait for the rest of theirs."""

    __slots__ = ("_buffer", "_gzip", "_limit")

    def __init__(self, limit: int, gzip: bool) -> None:
        self._buffer = bytearray()
        self._gzip = gzip
        self._limit = limit

    @property
    def size(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Raises Refused, on a message's prefix where that tells enough."""
        buffer, whole = self._buffer, []
        buffer += data
        while len(buffer) >= PREFIX_BYTES:
            flag, size = PREFIX.unpack_from(buffer)
            if flag > 1:
                raise Refused(INTERNAL, f"grpc: received unexpected payload format {flag}")
            if flag and not self._gzip:
                raise Refused(INTERNAL, "grpc: compressed flag set with identity or empty encoding")
            if size > self._limit:
                raise Refused(RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {self._limit})")
            end = PREFIX_BYTES + size
            if len(buffer) < end:
                break
            message = bytes(memoryview(buffer)[PREFIX_BYTES:end])
            del buffer[:end]
            whole.append(gunzip(message, self._limit) if flag else message)
        return whole


class Pieces(Inbox):
    """Of a body that has no messages: its pieces are taken as they come."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        super().__init__(0, gzip=False)
        self._held = 0

    @property
    def size(self) -> int:
        """Of what was taken: who takes it keeps it until all is there."""
        return self._held

    def feed(self, data: bytes) -> list[bytes]:
        self._held += len(data)
        return [data] if data else []


def gzip(message: bytes) -> bytes:
    packer = zlib.compressobj(wbits=_GZIP_WBITS)
    return packer.compress(message) + packer.flush()


def gunzip(packed: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes are ever unpacked, of at most _MEMBERS_MAX members (RFC 1952, 2.2). Raises Refused."""
    out, rest = b"", packed
    if not packed:
        raise _not_gzip("EOF")
    try:
        for _ in range(_MEMBERS_MAX):
            unpacker = zlib.decompressobj(wbits=_GZIP_WBITS)
            out += unpacker.decompress(rest, limit - len(out) + 1)
            if len(out) > limit:
                raise Refused(
                    RESOURCE_EXHAUSTED,
                    f"grpc: received message after decompression larger than max ({len(out)} vs. {limit})",
                )
            if not unpacker.eof:
                raise _not_gzip("unexpected EOF")
            rest = unpacker.unused_data
            if not rest:
                return out
        raise _not_gzip("too many gzip members")
    except zlib.error as error:
        why = next((words for part, words in _GO_SAYS.items() if part in str(error)), str(error))
        raise _not_gzip(why) from error


def _not_gzip(why: str) -> Refused:
    return Refused(INTERNAL, f"grpc: failed to decompress the message: {why}")


def timeout_s(text: bytes) -> float:
    """grpc-timeout's seconds. Raises Refused."""
    if len(text) < 2:
        why = f"timeout string is too short: {quoted(text)}"
    elif len(text) > 9:
        why = f"timeout string is too long: {quoted(text)}"
    elif text[-1] not in _UNIT_S:
        why = f"timeout unit is not recognized: {quoted(text)}"
    elif not text[:-1].isdigit():
        raise Refused(
            INTERNAL, f"malformed grpc-timeout: strconv.ParseUint: parsing {quoted(text[:-1])}: invalid syntax"
        )
    else:
        return int(text[:-1]) * _UNIT_S[text[-1]]
    raise Refused(INTERNAL, f"malformed grpc-timeout: transport: {why}")


def escaped(message: str) -> bytes:
    """grpc-message's value: percent-encoded UTF-8."""
    raw = message.encode("utf-8", "replace")
    if _PLAIN.issuperset(raw):
        return raw
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in raw)


def quoted(raw: bytes) -> str:
    """As Go's %q of a string of these bytes: what can't be printed, and what isn't UTF-8, is escaped."""
    return f'"{"".join(map(_quoted, raw.decode("utf-8", "surrogateescape")))}"'


def _quoted(one: str) -> str:
    if (known := _GO_ESCAPES.get(one)) is not None:
        return known
    number = ord(one)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that isn't UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if one.isprintable():
        return one
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
