"""The notice board of a node: one page of shared memory in which each of its processes writes its own slot.

It is an anonymous mapping made before the first fork, so only processes of this node have it. It carries what must
not wait for a message: a beat (does this loop still turn?), the last words of a process that ends, its status.
One writer per slot; a reader checks length and CRC and reads again if it met a writer.
"""

import contextlib
import mmap
import os
import struct
import time
import zlib

import msgspec

SLOT_BYTES = 2048
SLOTS = 16
_BEATS = struct.Struct("<Q")
_HEAD = struct.Struct("<II")
_NOTE_AT = _BEATS.size + _HEAD.size
_NOTE_BYTES_MAX = SLOT_BYTES - _NOTE_AT
#: How often a reader tries before it says that there is nothing.
_READS = 5

ADMIN, ROOT, FIRST = 0, 1, 2


class Note(msgspec.Struct, omit_defaults=True):
    """What a process says of itself. ``state``: starting, running, ended.

    words       why it ended, in words; empty as long as it runs (and after a kill -9)
    exit_code   what the node should exit with if it ends for this
    stops_node  starting it again would not help: the node must end
    report      the actor's own last report
    sealed_at   it ended because the log was sealed at that offset; -1 otherwise
    next_log    and where that log goes on
    """

    pid: int = 0
    state: str = ""
    words: str = ""
    exit_code: int = 0
    stops_node: bool = False
    report: dict[str, object] = {}
    sealed_at: int = -1
    next_log: str = ""


class Board:
    """``slot`` numbers are given by the node's root; ADMIN and ROOT are the first two."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, SLOT_BYTES * SLOTS)
        self._news_out, self._news_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def news(self) -> int:
        """A file descriptor that is readable when somebody wrote something new."""
        return self._news_out

    def close(self) -> None:
        self._page.close()
        os.close(self._news_out)
        os.close(self._news_in)

    def ring(self) -> None:
        """Wake whoever waits for ``news``. A full pipe wakes as well."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._news_in, b"!")

    def heard(self) -> None:
        """Take what ``ring`` put into the pipe."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._news_out, 4096):
                pass

    def write(self, slot: int, note: Note, quiet: bool = False) -> None:
        """Replace the slot's note, and ring unless ``quiet``. A report or words that don't fit are cut or left out."""
        raw = msgspec.json.encode(note)
        if len(raw) > _NOTE_BYTES_MAX:
            note = msgspec.structs.replace(note, words=note.words[: SLOT_BYTES // 4], report={})
            raw = msgspec.json.encode(note)
        if len(raw) > _NOTE_BYTES_MAX:
            raw = msgspec.json.encode(msgspec.structs.replace(note, words="(words that don't fit here)"))
        at = slot * SLOT_BYTES + _BEATS.size
        self._page[at : at + _HEAD.size + len(raw)] = _HEAD.pack(len(raw), zlib.crc32(raw)) + raw
        if not quiet:
            self.ring()

    def read(self, slot: int) -> Note:
        """The slot's note; an empty one if nobody wrote it (or its writer was killed while it wrote)."""
        at = slot * SLOT_BYTES + _BEATS.size
        for _ in range(_READS):
            size, crc = _HEAD.unpack_from(self._page, at)
            if size == 0:
                return Note()
            raw = self._page[at + _HEAD.size : at + _HEAD.size + min(size, _NOTE_BYTES_MAX)]
            if zlib.crc32(raw) == crc:
                return msgspec.json.decode(raw, type=Note)
            time.sleep(0.0002)
        return Note()

    def clear(self, slot: int) -> None:
        at = slot * SLOT_BYTES
        self._page[at : at + _NOTE_AT] = bytes(_NOTE_AT)

    def beat(self, slot: int) -> None:
        """Say that this loop turns."""
        at = slot * SLOT_BYTES
        _BEATS.pack_into(self._page, at, self.beats(slot) + 1)

    def beats(self, slot: int) -> int:
        found: int = _BEATS.unpack_from(self._page, slot * SLOT_BYTES)[0]
        return found
