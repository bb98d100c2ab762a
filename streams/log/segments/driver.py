"""The log port over segments: group commit in a thread, tails on the event loop.

Appends of one turn of the loop go to the thread together, and the thread takes all that has come meanwhile: one
write and one sync for all of them. A slow disk stops the thread, never the loop.
"""

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path

from streams.log.memory import wanted
from streams.log.port import ForeignLog, LogError, LogUnavailable, OutcomeUnknown, canonical
from streams.log.segments import files
from streams.log.segments.reader import Cursor, first_offset
from streams.log.segments.shared import SharedEnd
from streams.log.segments.wakeups import Bell, Ringer
from streams.log.segments.writer import SEGMENT_BYTES, Writer
from streams.records import Entry, Record

#: One commit writes about this much at most.
COMMIT_BYTES = 4 * 1024 * 1024
#: A tail that is this many records behind reads larger chunks, in a thread: the disk may be cold.
FAR_BEHIND = 4096
FAR_BEHIND_BYTES = 1024 * 1024
#: Wake-ups come by sockets; a writer killed between publishing and waking owes one, found by looking this often.
SAFETY_S = 1.0
#: Records of these streams are many, and who waits for them is in the process that writes them: the other ones are
#: woken for them this late, so that they read a dozen at once. Five processes woken by each put cost more than it.
QUIET, QUIET_S = frozenset({"kv"}), 0.01

_Request = tuple[list[bytes], "asyncio.Future[int]"]


class ForkedLog(LogError):
    """This handle was opened before a fork: its lock would exclude nobody. Open the log anew in the child."""


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
        self._pending: list[_Request] = []
        #: the last commit was of one append alone and nothing has come since: the next one needn't wait for company
        self._is_lone = False
        self._queue: queue.SimpleQueue[list[_Request] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None
        self._more = asyncio.Event()
        self._seen_end = 0
        self._safety: asyncio.TimerHandle | None = None
        self._closed = False

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

    async def append(self, records: Sequence[Record]) -> list[int]:
        """See the port. Raises ForkedLog and DamagedLog too."""
        return await self.append_raw(canonical(records))

    async def append_raw(self, raws: list[bytes]) -> list[int]:
        """Append canonical bytes as they are: copies of a log keep them. Raises like ``append``."""
        self._check()
        if not raws:
            return []
        future: asyncio.Future[int] = self._loop.create_future()
        self._pending.append((raws, future))
        if self._is_lone and self._thread is not None:
            self._flush()
        elif len(self._pending) == 1:
            # not now but after the tasks that run in this turn: their appends share the sync
            self._loop.call_soon(self._flush)
        first = await future
        return list(range(first, first + len(raws)))

    async def tail(self, start: int, streams: Collection[str] | None = None) -> AsyncGenerator[list[Entry], None]:
        """See the port. Raises ForkedLog and DamagedLog too; ends when the log is closed."""
        self._check()
        self._listen()
        shared = self._shared
        cursor = await asyncio.to_thread(Cursor, self._folder, shared, start)
        while not self._closed:
            more = self._more
            lag = shared.end - cursor.offset
            if lag > 0:
                try:
                    entries = (
                        await asyncio.to_thread(cursor.read, FAR_BEHIND_BYTES) if lag > FAR_BEHIND else cursor.read()
                    )
                except LogUnavailable:
                    await asyncio.sleep(SAFETY_S)
                    continue
                if streams is not None:
                    entries = [entry for entry in entries if wanted(entry.raw, streams)]
                if entries:
                    yield entries
            else:
                await more.wait()

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
        self._flush()
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
        if self._safety is not None:
            self._safety.cancel()
        if self._bell is not None:
            self._loop.remove_reader(self._bell.socket)
            self._bell.close()
        self._wake()
        del self._shared, self._writer  # closes the files once the last read under way has ended

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

    # --- group commit

    def _flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        self._is_lone = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._commit_forever, name="segments-commit", daemon=True)
            self._thread.start()
        self._queue.put(pending)

    def _commit_forever(self) -> None:
        ringer: Ringer | None = None
        open_for_more = True
        owed_s: float | None = None  # when others must be woken for what was written quietly

        def ring() -> None:
            nonlocal ringer, owed_s
            owed_s = None
            with contextlib.suppress(OSError):  # they look by themselves after SAFETY_S
                ringer = ringer or Ringer(self._folder, self._shared)
                ringer.ring(self._bell.name if self._bell else "")

        while open_for_more:
            try:
                requests = self._queue.get(timeout=None if owed_s is None else max(0.0, owed_s - time.monotonic()))
            except queue.Empty:
                ring()
                continue
            if requests is None:
                break
            while not self._queue.empty():
                more = self._queue.get_nowait()
                if more is None:
                    open_for_more = False
                    break
                requests += more
            for batch in _batches(requests):
                raws = [raw for raws, _ in batch for raw in raws]
                result = self._commit(raws)
                with contextlib.suppress(RuntimeError):  # the loop was closed, nobody waits
                    self._loop.call_soon_threadsafe(self._landed, batch, result)
                if not isinstance(result, int):
                    continue
                if owed_s is None and all(wanted(raw, QUIET) for raw in raws):
                    owed_s = time.monotonic() + QUIET_S
                elif owed_s is None or time.monotonic() >= owed_s or not all(wanted(raw, QUIET) for raw in raws):
                    ring()
        if owed_s is not None:
            ring()
        if ringer is not None:
            ringer.close()

    def _commit(self, raws: list[bytes]) -> int | LogError:
        try:
            return self._writer.commit(raws)
        except LogError as error:
            return error
        except Exception as error:  # a bug must not leave callers waiting for ever
            return OutcomeUnknown(f"{self.address}: {type(error).__name__}: {error}")

    def _landed(self, batch: list[_Request], result: int | LogError) -> None:
        self._is_lone = len(batch) == 1 and not self._pending
        if isinstance(result, int):
            at = result
            for raws, future in batch:
                if not future.done():
                    future.set_result(at)
                at += len(raws)
            self._wake()
        else:
            for _, future in batch:
                if not future.done():
                    future.set_exception(result)

    # --- waiting

    def _listen(self) -> None:
        if self._bell is not None:
            return
        try:
            self._bell = Bell(self._folder, self._shared)
        except OSError as error:
            raise LogUnavailable(f"{self._folder}: {error.strerror}") from error
        self._loop.add_reader(self._bell.socket, self._rung)
        self._look()

    def _rung(self) -> None:
        if self._bell is not None:
            self._bell.drain()
        self._wake()

    def _wake(self) -> None:
        self._seen_end = -1 if self._closed else self._shared.end
        more, self._more = self._more, asyncio.Event()
        more.set()

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


def _batches(requests: list[_Request]) -> list[list[_Request]]:
    """Requests in order, in batches of about COMMIT_BYTES."""
    out: list[list[_Request]] = [[]]
    size = 0
    for request in requests:
        size_of_it = sum(map(len, request[0]))
        if out[-1] and size + size_of_it > COMMIT_BYTES:
            out.append([])
            size = 0
        out[-1].append(request)
        size += size_of_it
    return out
