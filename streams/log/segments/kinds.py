"""Places and frames of segments: plain data, which stays interpreted (docs/decisions/0014-native.md)."""

from enum import Enum
from pathlib import Path
from typing import NamedTuple

from streams.log.port import LogError


class Place(NamedTuple):
    """The durable end: next offset, the segment (by its first offset) and the byte in it where it will stand."""

    end: int
    segment: int
    byte: int


class Stop(Enum):
    """Why :func:`decode` stopped before its limit."""

    REACHED = ""
    SHORT = "the frame is cut off"
    NO_FRAME = "no frame begins here"
    LENGTH = "the frame's length can't be true"
    CHECKSUM = "the checksum doesn't match"
    ORDER = "the frame has another offset than what stands before it leads to"
    KIND = "the frame is of an unknown kind or its lengths don't add up"


class Frame(NamedTuple):
    """A frame as :func:`walk` finds it: where it stands, how long it is, what it covers, what its writer knew."""

    byte: int
    size_bytes: int
    first: int
    next: int
    known_end: int
    raws: list[bytes]


class DamagedLog(LogError):
    """A frame before a known durable end can't be read: nothing may go on past it.

    segment: the file; byte: where in it the bad frame begins; offset: the record that should stand there.
    """

    def __init__(self, segment: Path, byte: int, offset: int, reason: str, known_end: int) -> None:
        super().__init__(
            f"{segment} is damaged at byte {byte} (record {offset}): {reason}; records below {known_end} were durable. "
            f"Nothing was changed. Look with `corelog log verify`, and bring that file back from a copy or an archive"
        )
        self.segment, self.byte, self.offset, self.reason, self.known_end = segment, byte, offset, reason, known_end
