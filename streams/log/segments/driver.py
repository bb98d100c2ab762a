"""The log port over segments: group commit (:mod:`commits`), tails on the event loop."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from pathlib import Path

from streams.log.memory import wanted
from streams.log.port import ForeignLog, Landed, LogError, LogUnavailable, canonical
from streams.log.segments import files
from streams.log.segments.commits import Commits
from streams.log.segments.reader import Cursor, first_offset
from streams.log.segments.shared import Place, SharedEnd
from streams.log.segments.wakeups import Bell
from streams.log.segments.writer import SEGMENT_BYTES, Writer
from streams.records import Entry, Record
from streams.took import Took

#: A tail that is this many records behind reads larger chunks, in a thread: the disk may be cold.
FAR_BEHIND = 4096
FAR_BEHIND_BYTES = 1024 * 1024
#: Wake-ups come by sockets; a writer killed between publishing and waking owes one, found by looking this often.
SAFETY_S = 1.0


class ForkedLog(LogError):
    """This handle was opened before a fork: its lock would exclude nobody. Open the log anew in the child."""


class _Waiting:
    """A tail at the end of the log. ``wants``: the offset that it waits for; ``known``: where that was, once."""

    def __init__(self, wants: Callable[[], int]) -> None:
        self.wants = wants
        self.known: Place | None = None
        self.waiter: asyncio.Future[None]


class SegmentsLog:
    """One process' handle on a log in a folder; it belongs to the event loop that opened it.

    Any number of processes may have one each. ``append`` of several tasks share a sync.
    """

    def __init__(self, folder: Path, shared: SharedEnd, writer: Writer) -> None:
        """Use ``open``."""
        self._folder = folder
        self._shared = shared
        self._writer = writer
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._commits = Commits(folder, shared, writer, self._landed)
        self._bell: Bell | None = None
        #: tails at the end of the log
        self._waiting: list[_Waiting] = []
        self._seen_end = 0
        #: the end of the last commit of this handle that was told
        self._told_end = 0
        self._safety: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def synced(self) -> Took:
        """How long this process' syncs took."""
        return self._writer.synced

    @classmethod
    async def open(cls, folder: str | Path, options: dict[str, str] | None = None) -> "SegmentsLog":
        """Open the log in ``folder``, made if it isn't there. Option: ``segment_bytes`` (64 MiB).

        Raises ForeignLog (a network file system, a newer format, an option that isn't one), DamagedLog,
        LogUnavailable (permissions, a full disk).
        """
        path = Path(folder).absolute()
        segment_bytes = _segment_bytes(options or {})
        shared, writer = await asyncio.to_thread(_opened, path, segment_bytes)
        return cls(path, shared, writer)

    @property
    def address(self) -> str:
        return f"segments://{self._folder}"

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def end_is_linearizable(self) -> bool:
        return True

    @property
    def one_at_a_time(self) -> bool:
        return True

    async def append(self, records: Sequence[Record]) -> list[int]:
        """See the port. Raises ForkedLog and DamagedLog too."""
        return await self.append_raw(canonical(records))

    async def append_raw(self, raws: list[bytes]) -> list[int]:
        """Append canonical bytes as they are: copies of a log keep them. Raises like ``append``."""
        self._check()
        if not raws:
            return []
        future: asyncio.Future[Sequence[int]] = self._loop.create_future()

        def landed(result: Sequence[int] | LogError) -> None:
            if future.done():
                return
            if isinstance(result, LogError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._commits.add(raws, landed)
        return list(await future)

    def hand(self, records: Sequence[Record], landed: Landed, still: bool = False) -> None:
        """See :class:`streams.log.port.Handing`."""
        self._check()
        raws = canonical(records)

        def told(result: Sequence[int] | LogError) -> None:
            landed(result if isinstance(result, LogError) else list(map(Entry, result, raws)))

        self._commits.add_now(raws, told, still)

    async def tail(
        self,
        start: int,
        streams: Collection[str] | None = None,
        passed: Callable[[], int] | None = None,
        heeded: Collection[str] | None = None,
    ) -> AsyncGenerator[list[Entry], None]:
        """See the port, and Handing: it is who writes that wakes others late. Raises ForkedLog and DamagedLog too; ends
        when the log is closed."""
        self._check()
        self._listen()
        shared = self._shared
        cursor = await asyncio.to_thread(Cursor, self._folder, shared, start)
        waiting = _Waiting(passed or (lambda: cursor.offset))
        while not self._closed:
            if self._reach() <= max(cursor.offset, waiting.wants()):
                waiting.waiter = self._loop.create_future()
                self._waiting.append(waiting)
                await waiting.waiter
                continue
            try:
                if passed is not None and waiting.known is not None:
                    cursor.pass_over(waiting.known)
                far = shared.end - cursor.offset > FAR_BEHIND
                entries = await asyncio.to_thread(cursor.read, FAR_BEHIND_BYTES) if far else cursor.read()
            except LogUnavailable:
                await asyncio.sleep(SAFETY_S)
                continue
            if streams is not None:
                entries = [entry for entry in entries if wanted(entry.raw, streams)]
            if entries:
                yield entries

    def hurry(self, upto: int) -> None:
        self._wake()

    def calm(self, is_calm: bool) -> None:
        """Nothing: who acts on quiet streams writes nearly all that is in them."""

    async def first(self) -> int:
        self._check()
        return first_offset(self._folder)

    async def end(self) -> int:
        self._check()
        if self._shared.end != self._seen_end:
            self._wake()  # who asks will wait for what is there: the bell may ring later
        return self._shared.end

    async def trim(self, before: int) -> None:
        """Removes whole segments below ``before``; the one that is written stays."""
        self._check()
        await asyncio.to_thread(self._writer_of_its_own, "trim", before)

    async def leave_hole(self, count: int) -> None:
        """Say that the next ``count`` offsets hold nothing: a copy of a log keeps its holes. Raises like ``append``."""
        self._check()
        await asyncio.to_thread(self._writer_of_its_own, "commit_hole", count)
        self._wake()

    async def begin_at(self, first: int) -> None:
        """Let an empty log begin at offset ``first``: a copy of a trimmed log. Raises ValueError if it isn't empty."""
        self._check()
        await asyncio.to_thread(self._writer_of_its_own, "begin_at", first)
        self._wake()

    def check_raw(self, raw: bytes) -> None:
        """Any bytes can stand here."""

    async def close(self) -> None:
        """Finish the appends under way and let go. Tails end; later calls raise LogUnavailable."""
        if self._closed:
            return
        self._closed = True
        await self._commits.close()
        if self._safety is not None:
            self._safety.cancel()
        if self._bell is not None:
            self._loop.remove_reader(self._bell.socket)
            self._bell.close()
        self._wake()
        del self._commits, self._shared, self._writer  # closes the files once the last read under way has ended

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedLog(
                f"{self.address} was opened by process {self._pid} and is used in its child {os.getpid()}: a lock "
                f"that was inherited excludes nobody; open the log in the child"
            )
        if self._closed:
            raise LogUnavailable(f"{self.address} is closed in this process")

    def _writer_of_its_own(self, verb: str, argument: int) -> None:
        """Run a rare verb beside the commit thread: its own lock excludes that thread as it does other processes."""
        shared, writer = _opened(self._folder, self._writer.segment_bytes)
        try:
            getattr(writer, verb)(argument)
        finally:
            shared.close()

    # --- waiting

    def _listen(self) -> None:
        if self._bell is not None:
            return
        try:
            self._bell = Bell(self._folder, self._shared)
        except OSError as error:
            raise LogUnavailable(f"{self._folder}: {error.strerror}") from error
        self._commits.bell = self._bell.name
        self._loop.add_reader(self._bell.socket, self._rung)
        self._look()

    def _rung(self) -> None:
        if self._bell is not None:
            self._bell.drain()
        self._wake()

    def _landed(self, place: Place) -> None:
        self._told_end = place.end
        for tail in self._waiting:
            if tail.wants() == place.end:
                tail.known = place
        self._wake()

    def _reach(self) -> int:
        """Up to where tails read. What this handle itself wrote last they read when it is told: till then whoever
        handed it over may have it without reading."""
        end = self._shared.end
        return self._told_end if end == self._writer.reached.end else end

    def _wake(self) -> None:
        """Tails for which there is something go on."""
        end = self._seen_end = -1 if self._closed else self._reach()
        waiting, self._waiting = self._waiting, []
        for tail in waiting:
            if not (self._closed or tail.wants() < end):
                self._waiting.append(tail)
            elif not tail.waiter.done():
                tail.waiter.set_result(None)

    def _look(self) -> None:
        if self._shared.end != self._seen_end:
            self._wake()
        self._safety = self._loop.call_later(SAFETY_S, self._look)


def _opened(folder: Path, segment_bytes: int) -> tuple[SharedEnd, Writer]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.refuse_remote(folder)
    except OSError as error:
        raise LogUnavailable(f"{folder}: {error.strerror or error}") from error
    shared = SharedEnd(folder / "end")
    try:
        writer = Writer(folder, shared, segment_bytes)
        writer.open()
    except BaseException:
        shared.close()
        raise
    return shared, writer


def _segment_bytes(options: dict[str, str]) -> int:
    for name in options:
        if name != "segment_bytes":
            raise ForeignLog(f"{name!r} is not an option of a log on segments; it has segment_bytes")
    text = options.get("segment_bytes", str(SEGMENT_BYTES))
    if not text.isascii() or not text.isdigit() or int(text) < 4096:
        raise ForeignLog(f"segment_bytes must be a number of at least 4096, not {text!r}")
    return int(text)
