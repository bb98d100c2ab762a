"""The protobuf messages in etcd's files, by hand. Fields by number: a number, or the bytes of what has a length.

mvccpb.KeyValue: key 1, create_revision 2, mod_revision 3, version 4, value 5, lease 6. leasepb.Lease: ID 1, TTL 2,
RemainingTTL 3. etcdserverpb.AlarmMember: memberID 1, alarm 2.
"""

import struct
from collections.abc import Iterator

from actors.kv.bolt.errors import MessageError
from actors.kv.v3.hashes import varint
from actors.kv.v3.imports import NUMBER_MAX
from actors.kv.v3.revs import Rev

_INT64 = 1 << 63
_UINT64 = 1 << 64
_LENGTHS = {1: 8, 5: 4}


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field, in order. Raises MessageError."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _number(message, at)
        wire = tag & 7
        if wire in (0, 2):
            number, at = _number(message, at)
            if wire == 0:
                yield tag >> 3, number
                continue
        elif wire in _LENGTHS:
            number = _LENGTHS[wire]
        else:
            raise MessageError(f"field {tag >> 3} has the wire type {wire}")
        if number > end - at:
            raise MessageError(f"field {tag >> 3} has {number} bytes, of which {end - at} are there")
        yield tag >> 3, message[at : at + number]
        at += number


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and the place behind it."""
    out = shift = 0
    try:
        while (byte := message[at]) > 127:
            out |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if shift == 70:
                raise MessageError("a number of over 10 bytes")
    except IndexError:
        raise MessageError("it ends within a number") from None
    return (out | byte << shift) % _UINT64 if shift else byte, at + 1


def signed(value: int | bytes) -> int:
    """An int64."""
    number = unsigned(value)
    return number - _UINT64 if number >= _INT64 else number


def unsigned(value: int | bytes) -> int:
    """A number. Raises MessageError for bytes."""
    if isinstance(value, int):
        return value
    raise MessageError("bytes where a number belongs")


def raw(value: int | bytes) -> bytes:
    """Bytes. Raises MessageError for a number."""
    if isinstance(value, bytes):
        return value
    raise MessageError("a number where bytes belong")


# -- KeyValue -------------------------------------------------------------------------------------------------


def key_value(rev: Rev) -> bytes:
    """As etcd writes it; of a tombstone the key alone."""
    out = b"\n" + varint(len(rev.key)) + rev.key if rev.key else b""
    if not rev.version:
        return out
    out += b"\x10" + varint(rev.create) + b"\x18" + varint(rev.mod) + b"\x20" + varint(rev.version)
    if rev.value:
        out += b"\x2a" + varint(len(rev.value)) + rev.value
    return out + (b"\x30" + varint(rev.lease) if rev.lease else b"")


def key_value_size(rev: Rev) -> int:
    """Length of :func:`key_value`, without making it."""
    size = len(rev.key)
    out = 1 + _width(size) + size if size else 0
    if not rev.version:
        return out
    out += 3 + _width(rev.create) + _width(rev.mod) + _width(rev.version)
    if rev.value:
        size = len(rev.value)
        out += 1 + _width(size) + size
    return out + 1 + _width(rev.lease) if rev.lease else out


def _width(number: int) -> int:
    """Bytes of a varint."""
    return (number.bit_length() + 6) // 7 if number > 0 else 10 if number else 1


def to_rev(message: bytes, main: int, sub: int, dead: bool) -> Rev:
    """The revision (main, sub), a tombstone if ``dead``. Raises MessageError."""
    key = value = b""
    create = mod = version = lease = 0
    for number, content in fields(message):
        match number:
            case 1:
                key = raw(content)
            case 2:
                create = signed(content)
            case 3:
                mod = signed(content)
            case 4:
                version = signed(content)
            case 5:
                value = raw(content)
            case 6:
                lease = signed(content)
    if dead:
        return Rev(key, b"", 0, main, 0, 0, sub, None)
    if mod != main or not 0 < create <= mod or not 0 < version <= NUMBER_MAX:
        raise MessageError(f"created at {create}, changed at {mod}, version {version} beside revision {main}")
    return Rev(key, value, create, mod, version, lease, sub, None)


# -- Lease, AlarmMember ---------------------------------------------------------------------------------------


def lease(lease_id: int, ttl_s: int, left_s: int) -> bytes:
    """``left_s``: 0 for the whole TTL."""
    return _numbers((lease_id, ttl_s, left_s))


def to_lease(message: bytes) -> tuple[int, int, int]:
    """Id, TTL and what is left of it (0: all), in seconds. Raises MessageError."""
    found = _first_three(message)
    return found[0], found[1], found[2]


def alarm(kind: int, member: int) -> bytes:
    return _numbers((member, kind))


def to_alarm(message: bytes) -> tuple[int, int]:
    """Kind and member (unsigned). Raises MessageError."""
    found = _first_three(message)
    return found[1], found[0] % _UINT64


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"".join(bytes([at << 3]) + varint(value) for at, value in enumerate(values, 1) if value)


def _first_three(message: bytes) -> list[int]:
    out = [0, 0, 0]
    for number, content in fields(message):
        if 1 <= number <= 3:
            out[number - 1] = signed(content)
    return out


_revision = struct.Struct(">qcq")


def revision_key(main: int, sub: int, dead: bool = False) -> bytes:
    """A revision as it stands in bbolt."""
    return _revision.pack(main, b"_", sub) + (b"t" if dead else b"")


def to_revision(key: bytes) -> tuple[int, int, bool]:
    """Main, sub, and whether it is a tombstone. Raises MessageError."""
    if len(key) not in (17, 18) or key[8:9] != b"_" or key[17:] not in (b"", b"t"):
        raise MessageError(f"{key[:32]!r} is no revision")
    main, _mark, sub = _revision.unpack_from(key)
    if main < 0 or sub < 0:
        raise MessageError(f"{key!r} is a revision below 0")
    return main, sub, len(key) == 18
