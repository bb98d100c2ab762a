"""The format of segment files, and nothing else: bytes to entries and back.

A segment is a header and frames; all numbers are little endian::

    segment   "CLSEG1\\r\\n"  first offset u64  0 u32  CRC32C of the 20 bytes before u32
    frame     "\\xf7LOG"  CRC32C of all that follows u32
              length of the body u32  count u16  kind u16  offset of its first record u64  known end u64
              body: count lengths u32, then the records' canonical bytes, one after another
    hole      a frame of kind 2 and count 0; its body is one u64, the number of offsets that are skipped

A frame holds what one commit wrote (or a part of it), so it is there whole or not at all. ``known end`` is the
durable end that its writer knew: whoever finds a bad frame before any known end has found damage, not a torn tail.
After the last frame there may be zeros (space that was allocated ahead).
"""

import struct
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise

from crc32c import crc32c

from streams.log.port import RECORD_BYTES_MAX
from streams.log.segments.kinds import DamagedLog as DamagedLog
from streams.log.segments.kinds import Frame as Frame
from streams.log.segments.kinds import Stop as Stop
from streams.records import Entry

SEGMENT_MAGIC = b"CLSEG1\r\n"
FRAME_MAGIC = b"\xf7LOG"
KIND_RECORDS, KIND_HOLE = 1, 2
#: A frame is closed when it has reached this many bytes (one record may make it larger).
FRAME_BYTES = 256 * 1024
FRAME_RECORDS = 4096
BODY_BYTES_MAX = RECORD_BYTES_MAX + FRAME_BYTES + 4 * FRAME_RECORDS

_SEGMENT = struct.Struct("<8sQII")
_FRAME = struct.Struct("<4sIIHHQQ")
_CHECKED = struct.Struct("<IHHQQ")
SEGMENT_HEADER_BYTES = _SEGMENT.size
FRAME_HEADER_BYTES = _FRAME.size
_COUNT = struct.Struct("<Q")
_entry = partial(tuple.__new__, Entry)


class NotASegment(ValueError):
    """The header of a segment file can't be read."""


def segment_header(first: int) -> bytes:
    head = _SEGMENT.pack(SEGMENT_MAGIC, first, 0, 0)[:-4]
    return head + struct.pack("<I", crc32c(head))


def read_segment_header(raw: bytes) -> int:
    """The offset of the first record. Raises NotASegment with the reason."""
    if len(raw) < SEGMENT_HEADER_BYTES:
        raise NotASegment(f"the segment's header is cut off after {len(raw)} bytes")
    magic, first, _, crc = _SEGMENT.unpack_from(raw)
    if magic != SEGMENT_MAGIC:
        raise NotASegment(f"it begins with {magic!r}, a segment of this version begins with {SEGMENT_MAGIC!r}")
    if crc != crc32c(raw[: SEGMENT_HEADER_BYTES - 4]):
        raise NotASegment("the checksum of the segment's header doesn't match")
    return int(first)


def _frame(body: bytes, count: int, kind: int, first: int, known_end: int) -> bytes:
    checked = _CHECKED.pack(len(body), count, kind, first, known_end)
    return b"".join((FRAME_MAGIC, crc32c(body, crc32c(checked)).to_bytes(4, "little"), checked, body))


def records_frame(first: int, raws: Sequence[bytes], known_end: int) -> bytes:
    """One frame of at most FRAME_RECORDS records at offsets ``first`` and on."""
    count = len(raws)
    return _frame(b"".join((struct.pack(f"<{count}I", *map(len, raws)), *raws)), count, KIND_RECORDS, first, known_end)


def hole_frame(first: int, count: int, known_end: int) -> bytes:
    """A frame that says: the offsets ``first`` to ``first + count - 1`` hold nothing."""
    return _frame(_COUNT.pack(count), 0, KIND_HOLE, first, known_end)


def frames(first: int, raws: Sequence[bytes], known_end: int) -> bytes:
    """The frames of one commit, each of about FRAME_BYTES at most."""
    if len(raws) == 1:
        return records_frame(first, raws, known_end)
    out: list[bytes] = []
    begin = size = 0
    for index, raw in enumerate(raws):
        if index > begin and (size + len(raw) > FRAME_BYTES or index - begin == FRAME_RECORDS):
            out.append(records_frame(first + begin, raws[begin:index], known_end))
            begin, size = index, 0
        size += len(raw)
    out.append(records_frame(first + begin, raws[begin:], known_end))
    return b"".join(out)


def decode(buffer: bytes, at: int, expected: int, limit: int, out: list[Entry]) -> tuple[int, int, Stop]:
    """Append the entries from byte ``at`` on to ``out``, up to record offset ``limit``; checks every frame.

    ``expected`` is the offset that the first frame must have. Returns the byte and the offset reached, and why it
    stopped (SHORT: the buffer ends within a frame). This is the hot path of a replay: no call per record that can
    be a call per frame.
    """
    view = memoryview(buffer)
    size = len(buffer)
    unpack, unpack_from = struct.unpack_from, _FRAME.unpack_from
    while expected < limit:
        body = at + FRAME_HEADER_BYTES
        if body > size:
            return at, expected, Stop.SHORT
        magic, crc, length, count, kind, first, _ = unpack_from(buffer, at)
        if magic != FRAME_MAGIC:
            return at, expected, Stop.NO_FRAME
        if length > BODY_BYTES_MAX:
            return at, expected, Stop.LENGTH
        end = body + length
        if end > size:
            return at, expected, Stop.SHORT
        if crc32c(view[at + 8 : end]) != crc:
            return at, expected, Stop.CHECKSUM
        if first != expected:
            return at, expected, Stop.ORDER
        if count == 1 and kind == KIND_RECORDS:
            out.append(_entry((first, buffer[body + 4 : end])))
            expected += 1
        elif kind == KIND_RECORDS and length >= 4 * count > 0:
            lengths = unpack(f"<{count}I", buffer, body)
            edges = list(accumulate(lengths, initial=body + 4 * count))
            if edges[-1] != end:
                return at, expected, Stop.KIND
            raws = [buffer[left:right] for left, right in pairwise(edges)]
            expected += count
            out.extend(map(_entry, zip(range(first, expected), raws, strict=True)))
        elif kind == KIND_HOLE and length == _COUNT.size:
            expected += _COUNT.unpack_from(buffer, body)[0]
        else:
            return at, expected, Stop.KIND
        at = end
    return at, expected, Stop.REACHED


def skip_to(buffer: bytes, at: int, expected: int, target: int) -> tuple[int, int, int]:
    """Hop over frames (by their headers alone) that end at or before ``target``.

    Returns byte and offset of the frame that holds ``target`` (or that the buffer doesn't tell more of), and the
    bytes that this frame needs (0 when it was found). A bad header stops it: decoding from there finds out.
    """
    size = len(buffer)
    while expected < target:
        if at + FRAME_HEADER_BYTES > size:
            return at, expected, FRAME_HEADER_BYTES
        magic, _, length, count, kind, first, _ = _FRAME.unpack_from(buffer, at)
        if magic != FRAME_MAGIC or length > BODY_BYTES_MAX or first != expected:
            return at, expected, 0
        if kind == KIND_HOLE:
            if at + FRAME_HEADER_BYTES + _COUNT.size > size:
                return at, expected, FRAME_HEADER_BYTES + _COUNT.size
            count = _COUNT.unpack_from(buffer, at + FRAME_HEADER_BYTES)[0]
        if expected + count > target or count == 0:
            return at, expected, 0
        at += FRAME_HEADER_BYTES + length
        expected += count
    return at, expected, 0


def walk(raw: bytes, expected: int, until: int | None = None) -> Iterator[Frame | tuple[int, int, Stop]]:
    """All whole frames of a segment, then one tuple (byte, offset, why it stopped). For recovery and verification.

    SHORT at the very end of the bytes, or NO_FRAME before zeros only, is the clean end of a segment.
    ``until``: frames at this offset and above don't count (a later segment begins there).
    """
    at = SEGMENT_HEADER_BYTES
    while True:
        if until is not None and expected >= until:
            yield at, expected, Stop.REACHED
            return
        out: list[Entry] = []
        end, following, stop = decode(raw, at, expected, expected + 1, out)
        if stop is not Stop.REACHED:
            yield at, expected, stop
            return
        known_end = _FRAME.unpack_from(raw, at)[6]
        yield Frame(at, end - at, expected, following, known_end, [entry.raw for entry in out])
        at, expected = end, following


def is_clean_end(raw: bytes, at: int) -> bool:
    """Whether nothing but zeros (space allocated ahead) stands from byte ``at`` on."""
    return raw.count(0, at) == len(raw) - at


def known_end_after(raw: bytes, at: int) -> int:
    """The greatest known end of the whole frames that stand anywhere behind byte ``at`` (0 if there is none).

    A length that was hit can't be followed, so the bytes are searched for frames whose checksum holds.
    """
    known = 0
    view = memoryview(raw)
    found = raw.find(FRAME_MAGIC, at + 1)
    while found >= 0:
        if found + FRAME_HEADER_BYTES <= len(raw):
            _, crc, length, _, _, _, known_end = _FRAME.unpack_from(raw, found)
            end = found + FRAME_HEADER_BYTES + length
            if end <= len(raw) and known_end > known and crc32c(view[found + 8 : end]) == crc:
                known = known_end
        found = raw.find(FRAME_MAGIC, found + 1)
    return known
