"""The log port: five verbs, five errors. Drivers differ in nothing else; tests/contract runs on all of them.

A log holds records in one order. Offsets grow; holes are legal. A record is durable and visible when ``append``
returns, and ``tail`` never yields what is not durable.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from streams.records import Entry, Record

#: The largest canonical record that any driver takes (Kafka's message limit of the topic, less its overhead).
RECORD_BYTES_MAX = 4 * 1024 * 1024 - 4096
#: Records of these streams are many, and who waits for them is in the process that writes them: the other ones are told
#: of them this late, so that they read dozens at once. Five processes woken by each put cost more than it.
QUIET, QUIET_S = frozenset({"kv"}), 0.1
#: A log on other machines may tell even those who act on quiet streams so late, while nobody here waits for what others
#: write; who had to wait for it will again, and for HASTY_S nothing comes late.
CALM_S, HASTY_S = 0.02, 1.0


class LogError(Exception):
    """Base of the port's errors. ``exit_code`` and ``http_status`` are hints for the edge."""

    exit_code = 5
    http_status = 503


class LogUnavailable(LogError):
    """Nothing was written (or read). Trying again later is safe."""


class OutcomeUnknown(LogError):
    """The records may or may not be written, now or later. Never resend them: a new incarnation's barrier
    (``actor.opened``) decides; a record absent before it is void for ever."""

    exit_code = 6
    http_status = 504


class LogTruncated(LogError):
    """The asked offset is below ``first()``, or the log is shorter than it was: halt, rejoin by snapshot."""


class ForeignLog(LogError):
    """This is another log (id, settings or hash of the last record differ), or not a log at all."""

    exit_code = 4
    http_status = 409
    #: for the supervisor: another start would not help
    stops_node = True


class RecordTooLarge(LogError):
    """A record is larger than RECORD_BYTES_MAX; nothing was written."""

    exit_code = 4
    http_status = 413


def canonical(records: Sequence[Record]) -> list[bytes]:
    """The canonical bytes of records. Raises RecordTooLarge if one of them is: then none is to be written."""
    raws = [record.canonical() for record in records]
    for record, raw in zip(records, raws, strict=True):
        if len(raw) > RECORD_BYTES_MAX:
            raise RecordTooLarge(f"record {record.writer}#{record.seq} has {len(raw)} bytes, max {RECORD_BYTES_MAX}")
    return raws


class Log(Protocol):
    """One ordered log. All verbs may be called concurrently from one event loop; see each driver for processes."""

    @property
    def address(self) -> str:
        """``segments:///path``, ``kafka://a:9092,b:9092/topic`` or ``memory://``."""
        ...

    @property
    def end_is_linearizable(self) -> bool:
        """Whether ``end()`` read now covers all that was acknowledged anywhere before (segments: yes, Kafka: no)."""
        ...

    async def append(self, records: Sequence[Record]) -> list[int]:
        """Append in order; returns their offsets when all are durable.

        Calls are pipelined: order of calls is order in the log. Raises LogUnavailable (none written),
        OutcomeUnknown (some may be), RecordTooLarge (none written).
        """
        ...

    def tail(self, start: int, streams: Collection[str] | None = None) -> AsyncGenerator[list[Entry], None]:
        """Batches of entries from offset ``start`` on, in order, for ever; waits at the end for more.

        ``streams`` keeps only records of these streams (foreign ones are always yielded). Raises LogTruncated
        when ``start`` is below ``first()`` or above ``end()``; waits while the log is unavailable.
        """
        ...

    async def first(self) -> int:
        """The lowest offset still there (0 in a log never trimmed, also when empty)."""
        ...

    async def end(self) -> int:
        """One past the last durable offset. On segments reading it is a linearizable read; on Kafka it is not."""
        ...

    async def trim(self, before: int) -> None:
        """Forget records below ``before`` (or fewer, where the driver drops whole files only)."""
        ...

    async def close(self) -> None: ...


#: Told once, on the loop's thread: the records as they stand in the log when all are durable, or what ``append`` would
#: raise.
Landed = Callable[[Sequence[Entry] | LogError], None]


@runtime_checkable
class Handing(Log, Protocol):
    """What a driver may have beside the five verbs, for replicas that apply their own records when they are durable,
    without reading them back."""

    @property
    def one_at_a_time(self) -> bool:
        """Whether a record waits here until the one before it is durable."""
        ...

    def hand(self, records: Sequence[Record], landed: Landed, still: bool = False) -> None:
        """``append`` without a task, at once. Raises what is known before anything is done.

        ``still``: the loop may stand still until they are durable, if that is sooner; ``landed`` may then be called
        in here.
        """
        ...

    def tail(
        self,
        start: int,
        streams: Collection[str] | None = None,
        passed: Callable[[], int] | None = None,
        heeded: Collection[str] | None = None,
    ) -> AsyncGenerator[list[Entry], None]:
        """As the port's. ``passed``: the offset that its reader wants next, having had what is before it by ``hand``.

        Entries below it may still come, if they were read before. ``heeded``: the streams that the reader acts on; of
        new records of others alone, and of barriers, it may be told QUIET_S late, many at once.
        """
        ...

    def hurry(self, upto: int) -> None:
        """Somebody waits for what stands below offset ``upto``: nothing comes late until the tails have brought it."""
        ...

    def calm(self, is_calm: bool) -> None:
        """Whether nobody here waits for what others write (not told: somebody does). Then what follows a quiet record
        may be told CALM_S late, many at once, also to those who act on it."""
        ...


@runtime_checkable
class Copyable(Log, Protocol):
    """What every driver has beside the five verbs, for copies that keep positions. Nobody else may write meanwhile."""

    async def append_raw(self, raws: list[bytes]) -> list[int]:
        """Append canonical (or foreign) bytes as they stood elsewhere. Raises as ``append``; ValueError as below."""
        ...

    async def leave_hole(self, count: int) -> None:
        """Let the next ``count`` offsets hold nothing. Raises as ``append``; interrupted, some of them do."""
        ...

    async def begin_at(self, first: int) -> None:
        """Let a log that holds nothing begin at offset ``first``. Interrupted, call it again."""
        ...

    def check_raw(self, raw: bytes) -> None:
        """Raises ValueError if these bytes can't be written here so that they are read back alike."""
        ...
