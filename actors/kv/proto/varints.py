"""What the codecs of etcd_wire.py share: varints, and the way to protobuf for what isn't written as usual."""

from typing import Final

from google.protobuf.message import Message

#: Messages in each other that are read here, and that protobuf takes at all.
DEPTH_MAX, PROTOBUFS_DEPTH_MAX = 20, 100
#: Bytes of a varint at most.
_BYTES_MAX = 10
#: Bits of the bytes of a varint that are put together as a small number.
_SMALL_BITS = 56
#: Seven bits as a varint's last byte, and as one that more follow.
_ONE_BYTE: Final = [bytes((number,)) for number in range(128)]
_AND_ON: Final = [bytes((number | 128,)) for number in range(128)]
_64_BITS = (1 << 64) - 1


class Irregular(Exception):
    """It is for protobuf to say what this message is."""


def canonical(kind: type[Message], raw: bytes) -> bytes:
    """The same message as protobuf writes it, without unknown fields. Raises DecodeError."""
    message = kind.FromString(raw)
    message.DiscardUnknownFields()
    return message.SerializeToString()


def more(raw: bytes, at: int, number: int) -> tuple[int, int]:
    """The rest of a varint whose first byte was ``number``: its value below 2**70, and where it ends.

    Raises Irregular, IndexError.
    """
    number &= 127
    shift = 7
    while shift < _SMALL_BITS:
        byte = raw[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    high = shift = 0  # apart, so that most steps are of small numbers
    while shift < 7 * _BYTES_MAX - _SMALL_BITS:
        byte = raw[at]
        at += 1
        high |= (byte & 127) << shift
        if byte < 128:
            return number | high << _SMALL_BITS, at
        shift += 7
    raise Irregular


def signed(raw: bytes, at: int, number: int) -> tuple[int, int]:
    """The same of an int64. Raises Irregular, IndexError."""
    number, at = more(raw, at, number)
    if number >> 63:  # rare: its numbers are large ones, compiled
        number &= _64_BITS
        number -= (number >> 63) << 64
    return number, at


def uint64(number: int) -> int:
    return number & _64_BITS


def int32(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def varint(number: int) -> bytes:
    """Unsigned, or a negative int64."""
    if 0 <= number < 128:
        return _ONE_BYTE[number]
    if 0 <= number < 1 << 14:
        return _AND_ON[number & 127] + _ONE_BYTE[number >> 7]
    if 0 <= number < 1 << 21:
        return _AND_ON[number & 127] + _AND_ON[number >> 7 & 127] + _ONE_BYTE[number >> 14]
    if 0 <= number < 1 << 28:
        front = _AND_ON[number & 127] + _AND_ON[number >> 7 & 127]
        return front + _AND_ON[number >> 14 & 127] + _ONE_BYTE[number >> 21]
    number &= _64_BITS
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
