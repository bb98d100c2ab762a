"""What the log's records and their replay are made of: plain data, which stays interpreted.

(A compiled class has no options, see docs/decisions/0014-native.md.)
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from streams.events.base import Event
from streams.outcomes import Outcome
from streams.sessions import Sessions

_WRITER = re.compile(r"[!-~]{1,200}")


#: Format of records.
FORMAT = 1
CHAIN_START = bytes(32)
#: The feature level from which on all folds take a record alike (docs/decisions/0019-level-3.md).
ALIKE_FROM_LEVEL = 3


class Position(NamedTuple):
    """Offset of a record and index of an event in it, written ``1234.7``."""

    offset: int
    index: int = 0  # type: ignore[assignment] # shadows tuple.index, which nobody calls on a position

    def __str__(self) -> str:
        return f"{self.offset}.{self.index}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Reads ``1234.7`` or ``1234``. Raises ValueError that names the text."""
        match = re.fullmatch(r"(\d{1,19})(?:\.(\d{1,9}))?", text)
        if match is None:
            raise ValueError(f"{text!r} is not a position (1234.7 or 1234)")
        return cls(int(match[1]), int(match[2] or 0))


class Entry(NamedTuple):
    """What a driver's tail yields: the offset and the canonical bytes (or, if foreign, whatever stood there)."""

    offset: int
    raw: bytes


class Record(msgspec.Struct, frozen=True, gc=False):
    """A head and a payload. ``offset`` is -1 until it is read back.

    log_id        32 hex digits
    stream        the record's key; one of STREAMS
    writer        ``actor@machine``
    incarnation   of the writer; counts up with each start of it
    seq           counts the writer's records of this incarnation from 1
    time_ms       wall clock of the writer, informative: cluster state may show it, nothing decides by it
    """

    log_id: str
    stream: str
    writer: str
    incarnation: int
    seq: int
    time_ms: int
    payload: bytes
    mac: str = ""
    offset: int = -1

    @property
    def machine(self) -> str:
        return self.writer.rpartition("@")[2]

    @property
    def actor(self) -> str:
        return self.writer.partition("@")[0]

    def head(self) -> bytes:
        """The canonical head line, without its newline. Raises ValueError if a field can't stand in it."""
        if not _WRITER.fullmatch(self.writer) or " " in self.stream:
            raise ValueError(f"writer {self.writer!r} or stream {self.stream!r} can't be written in a record's head")
        return (
            f"CORELOG {FORMAT} {self.log_id} {self.stream} {self.writer} {self.incarnation} {self.seq} "
            f"{self.time_ms} {self.mac or '-'}"
        ).encode()

    def canonical(self) -> bytes:
        return self.head() + b"\n" + self.payload


class Context(NamedTuple):
    """Where an event stands: passed to ``evolve`` beside it."""

    position: Position
    record: Record
    log: "LogState"


class Fold(Protocol):
    """A state machine: ``evolve`` is pure, total and deterministic, and owns the fold's state."""

    name: str
    #: streams it evolves on, beside ``log``
    streams: frozenset[str]

    def evolve(self, event: Event, context: Context) -> Outcome:
        """Apply one event. Commands that can't be are Rejected; raising means a bug or poison: the replica halts."""
        ...

    def guard(self, event: Event, context: Context) -> Outcome | None:
        """A rejection that holds for all streams (a stale term), before sessions and evolve; or None."""
        ...

    def encode(self) -> Iterator[bytes]:
        """The state in canonical chunks: equal histories give equal bytes (dicts in insertion order, no sets)."""
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """The inverse of ``encode``, into an empty fold."""
        ...


@runtime_checkable
class ManyFold(Protocol):
    """What a fold may have beside :class:`Fold`, for speed: a whole record at once."""

    def evolve_many(
        self,
        events: Sequence[Event],
        record: Record,
        log: "LogState",
        one: Callable[[Event, int], Outcome],
        results: bool,
    ) -> list[Outcome]:
        """The same outcomes and state as ``one(event, index)`` for each, which guards, counts and evolves one.

        An event applied in another way is counted here (``log.events``). Without ``results`` DONE may stand for
        what was accepted.
        """
        ...


@runtime_checkable
class KeepingFold(Protocol):
    """What a fold may have whose outcomes aren't plain, or not small."""

    def kept(self, outcome: Outcome, level: int) -> Outcome:
        """What a session keeps of an outcome, to answer a retry with: plain data, for it stands in snapshots."""
        ...


class Boundary(msgspec.Struct, frozen=True):
    position: str
    chain: str
    outcomes: str


class Opened(msgspec.Struct, omit_defaults=True):
    """``seq``: of its last record that counted; ``repeats``: records that came once more, or too late (level 2)."""

    incarnation: int
    nonce: str
    level: int
    offset: int
    seq: int = 0
    repeats: int = 0


class LogState(msgspec.Struct):
    """What every fold knows of the log. Part of snapshots and of the state hash."""

    log_id: str = ""
    level: int = 1
    operator_key: str = ""
    base: int = 0
    sealed_at: int = -1
    sealed_next: str = ""
    #: next offset to apply is above this
    offset: int = -1
    chain: bytes = CHAIN_START
    outcomes: bytes = CHAIN_START
    #: running maximum of record times: what ``--at TIME`` searches
    time_ms: int = 0
    #: events applied by this fold (its streams, not ``log``)
    events: int = 0
    foreign: int = 0
    void_incarnations: int = 0
    void_terms: int = 0
    writers: dict[str, Opened] = {}
    voided: dict[int, str] = {}
    boundaries: list[Boundary] = []
    restarts: dict[str, int] = {}
    sessions: Sessions = msgspec.field(default_factory=Sessions)

    def behind(self, level: int, removed: Collection[str] = ()) -> list[str]:
        """Writers that did not announce this feature level, but those of machines that were removed."""
        return sorted(
            writer
            for writer, opened in self.writers.items()
            if opened.level < level and writer.rpartition("@")[2] not in removed
        )


class Applied(NamedTuple):
    """One event that was applied (or voided: see outcome) and where it stood."""

    event: Event
    position: Position
    outcome: Outcome
    record: Record


class Halt(Exception):
    """The replica may not go on: the record at ``position`` can't be applied. Never skipped, never snapshot past."""

    exit_code = 5

    def __init__(self, position: Position, reason: str) -> None:
        super().__init__(
            f"halted at {position}: {reason}; look with `corelog log show {position.offset}`; if it must be passed, "
            f"an operator can run `corelog log void {position.offset}`"
        )
        self.position = position
        self.reason = reason


class Diverged(Halt):
    """A checkpoint of the master differs from what this replica has: its state can't be trusted."""
