"""Any moment of v3's keys, by position, time or revision: from the nearest snapshot, then the tail of the log.

What compaction has taken is told as long as the log has it: a replica that folds the past forgets nothing.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from actors.kv.state import KvFold
from actors.kv.v3 import past
from actors.kv.v3.past import Made, Range, Telling
from actors.kv.v3.revs import Rev, Revs
from actors.kv.v3.store import head
from streams import snapshots
from streams.events import kv3 as says
from streams.history.at import BadInstant, Instant, entries, from_the_oldest, parse_instant, state_at
from streams.log.port import Log, LogTruncated
from streams.outcomes import Accepted
from streams.records import Position
from streams.replay import Applied, Replica

_REVISION = re.compile(r"(?:r|rev|rev:|revision )\s?(\d{1,18})")


class AtRevision(NamedTuple):
    """An instant: right after the revision was made."""

    revision: int


When = Instant | AtRevision


def nothing(_revs: Revs) -> None:
    """Who doesn't ask."""


def parse(text: str, now_ms: int) -> When:
    """``r123``, ``rev:123``, or what :func:`streams.history.at.parse_instant` takes. Raises BadInstant."""
    if match := _REVISION.fullmatch(text.strip()):
        return AtRevision(int(match[1]))
    try:
        return parse_instant(text, now_ms)
    except BadInstant as error:
        words = str(error).replace("neither a position (1234.7)", "neither a position (1234.7), a revision (r123)")
        raise BadInstant(words) from error


class View(NamedTuple):
    """The store as it was at ``revision``. ``offset``: of the last record before or at the moment; -1: not looked
    for (a snapshot from later on had the revision)."""

    revs: Revs
    revision: int
    offset: int

    def alive(self, ranges: Iterable[Range]) -> Iterator[Rev]:
        return past.alive(self.revs, ranges, self.revision)


class Mark(NamedTuple):
    """What a snapshot holds of v3's history: all between ``compacted`` and ``revision``."""

    path: Path
    offset: int
    revision: int
    compacted: int
    size_bytes: int


class Traveller:
    """Looks into one log's past. ``folder``: this node's snapshots of the fold ``kv``. ``voided``: see ``state_at``."""

    def __init__(self, log: Log, folder: Path, log_id: str, voided: Mapping[int, str] | None = None) -> None:
        self._log, self._folder, self._log_id, self._voided = log, folder, log_id, voided or {}

    async def view(self, when: When | None) -> View:
        """The store at a moment (None: now). Raises BadInstant ahead of the log, LogTruncated for what isn't known."""
        if isinstance(when, AtRevision):
            return await self._at_revision(when.revision)
        replica = await self._replica(when)
        revs = _fold(replica).v3.revs
        return View(revs, revs.revision, replica.offset)

    async def _replica(self, when: Instant | None) -> Replica:
        return await state_at(
            self._log, KvFold, when, snapshots_folder=self._folder, log_id=self._log_id, voided=self._voided
        )

    # -- revisions --------------------------------------------------------------------------------------------

    async def _at_revision(self, revision: int) -> View:
        if revision < 1:
            raise BadInstant(f"r{revision}: the first revision is 1, of the empty store")
        marks = await asyncio.to_thread(self._marks)
        holding = [one for one in marks if one.compacted <= revision <= one.revision]
        # reading one is what takes the time: the smallest, and there is nothing to apply
        replica = await self._loaded(sorted(holding, key=lambda one: -one.size_bytes))
        if replica is not None:
            return View(_fold(replica).v3.revs, revision, -1)
        first = await self._log.first()
        replica = await self._loaded(one for one in marks if one.revision < revision and one.offset + 1 >= first)
        if replica is None and first == 0:
            replica = Replica(KvFold())
        if replica is None:
            oldest = f"; revisions from {max(marks[0].compacted, 1)} on are known" if marks else ""
            raise LogTruncated(f"revision {revision} was compacted, and the log of that time was trimmed{oldest}")
        return await self._walked(replica, revision)

    async def _walked(self, replica: Replica, revision: int) -> View:
        """On to the record that made the revision. It is read there before anything can forget it."""
        revs = _fold(replica).v3.revs

        def applied(batch: list[Applied]) -> None:
            if _imported(batch) and revision < revs.compacted:
                raise LogTruncated(f"revision {revision} was compacted before the store was imported")

        await self._on(replica, revision, applied)
        return View(revs, revision, replica.offset)

    async def _on(self, replica: Replica, revision: int, seen: Callable[[list[Applied]], None]) -> None:
        """Apply records until one makes the revision. Raises BadInstant: none does."""
        revs = _fold(replica).v3.revs
        replica.foreseen = dict(self._voided)
        async with aclosing(entries(self._log, replica.offset + 1, await self._log.end())) as batches:
            async for batch in batches:
                for entry in batch:
                    if revs.revision >= revision:
                        return
                    seen(replica.apply(entry))
                await asyncio.sleep(0)
        if revs.revision < revision:
            raise BadInstant(f"revision {revision} lies ahead: the store is at revision {revs.revision}")

    async def _loaded(self, marks: Iterable[Mark]) -> Replica | None:
        """The last that can be; one that is damaged, or was deleted meanwhile, is passed over."""
        for mark in reversed(list(marks)):
            try:
                return await asyncio.to_thread(snapshots.load, mark.path, KvFold)
            except (snapshots.DamagedSnapshot, FileNotFoundError):
                continue
        return None

    def _marks(self) -> list[Mark]:
        """Of the snapshots kept, oldest first; damaged ones are passed over."""
        out = []
        for path in snapshots.files(self._folder):
            try:
                found = snapshots.head_of(path)
                if found.log_id == self._log_id:
                    chunks, size = snapshots.first_chunks(path, 2), path.stat().st_size
                    of_v3 = head(chunks[1].rstrip(b"\n") if len(chunks) > 1 else b"")
                    out.append(Mark(path, found.offset, *of_v3, size))
            except (snapshots.DamagedSnapshot, ValueError, OSError):
                continue
        return out

    # -- who changed what -------------------------------------------------------------------------------------

    async def told(
        self, upto: When | None, since: int, seen: Callable[[Made], None], known: Callable[[Revs], None] = nothing
    ) -> View:
        """Show each revision made after revision ``since`` and up to a moment, in order, with who made it.

        Of a log that was trimmed it begins with the oldest snapshot that the log goes on from; raises LogTruncated
        where there is none, BadInstant for a moment ahead. ``known`` gets first what is there where it begins: nobody
        can tell who made that.
        """
        start = await self._before(since)
        known(_fold(start).v3.revs)
        telling = Telling(_fold(start).v3.revs)
        limit = upto.revision if isinstance(upto, AtRevision) else None

        def show(batch: list[Applied]) -> None:
            for made in telling.made(batch):
                if made.rev.mod > since and (limit is None or made.rev.mod <= limit):
                    seen(made)

        revs = _fold(start).v3.revs
        if isinstance(upto, AtRevision):
            lowest = max(revs.compacted, revs.floors.top if revs.floors is not None else 0)
            if upto.revision < min(revs.revision, lowest):
                raise LogTruncated(f"revision {upto.revision} was compacted, and the log of that time was trimmed")
            await self._on(start, upto.revision, show)
            return View(revs, upto.revision, start.offset)
        if (isinstance(upto, Position) and upto.offset <= start.offset) or (
            isinstance(upto, int) and upto < start.log.time_ms
        ):
            raise LogTruncated(
                f"what is kept of the log goes on from record {start.offset}, which is behind that moment"
            )
        await state_at(self._log, KvFold, upto, start=start, seen=show, voided=self._voided)
        return View(revs, revs.revision, start.offset)

    async def _before(self, revision: int) -> Replica:
        """The newest snapshot that has nothing above a revision, else the beginning of what is kept."""
        first, marks = await self._log.first(), await asyncio.to_thread(self._marks)
        replica = await self._loaded(one for one in marks if one.revision <= revision and one.offset + 1 >= first)
        if replica is not None:
            return replica
        return await from_the_oldest(self._log, KvFold, self._folder, self._log_id)


def _imported(batch: Sequence[Applied]) -> bool:
    return any(isinstance(one.event.data, says.ImportEnd) and isinstance(one.outcome, Accepted) for one in batch)


def _fold(replica: Replica) -> KvFold:
    fold = replica.fold
    assert isinstance(fold, KvFold)
    return fold
