"""Follows ranges of keys: reads them once, then their changes, and goes on behind what it has when it was cut off.

While the store can't be reached, what is known stays as it is; that is said once, and once more when it goes on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

from node.sync.etcd import Gone, Refused, Source
from node.sync.http import Unreachable
from node.sync.keys import Known, Pair, Range, merged

#: Changes that come this close together are one: a transaction's in several ranges, or many when it catches up.
SETTLE_S, SETTLE_MAX_S = 0.005, 0.1
RETRY_MIN_S, RETRY_MAX_S = 0.1, 2.0
REFUSED_S, REFUSED_MAX_S = 5.0, 60.0

#: Ranges of which anything changed.
Changed = Callable[[frozenset[bytes] | None], None]


class Follower:
    """``known`` is what is known now. ``changed`` is called with the keys that changed; None: it was read anew.

    ``say``: a line for people.
    """

    def __init__(self, source: Source, changed: Changed, say: Callable[[str], None]) -> None:
        self.known = Known()
        self.reached = False
        self._source, self._changed, self._say = source, changed, say
        self._wanted: tuple[Range, ...] = ()
        self._at: dict[Range, int] = {}
        self._more = asyncio.Event()
        self._trouble: type[Exception] | None = None
        #: what the store said of ranges that are left out, and when they are asked for again
        self._refused, self._refused_s = "", REFUSED_S
        self._again: asyncio.TimerHandle | None = None
        self._dirty: set[bytes] = set()
        self._settling: asyncio.TimerHandle | None = None
        self._first_s = 0.0

    def want(self, ranges: Iterable[Range]) -> None:
        """Follow these too."""
        wanted = merged([*self._wanted, *ranges])
        if wanted != self._wanted:
            self._wanted = wanted
            self._more.set()

    async def fetch(self) -> None:
        """Know all that is wanted, as of now. Raises Unreachable, Refused."""
        for _ in range(5):
            self._more.clear()
            lacking = merged(self.known.lacks(self._wanted))
            if not lacking:
                return
            try:
                # what is known already is as of this revision
                revision, pairs = await self._source.fetch(lacking, self.known.revision)
            except Gone:
                self._forget()
                continue
            self._add(lacking, pairs, revision)
        if self.known.lacks(self._wanted):
            raise Unreachable("the store's history is compacted faster than it can be read")

    def _add(self, ranges: Sequence[Range], pairs: Sequence[Pair], revision: int) -> None:
        self.known.add(ranges, pairs, revision)
        self._at = {one: self._at.get(one, revision) for one in self.known.ranges}

    async def _fetch_what_may_be(self) -> None:
        """As fetch, but a range that is refused holds up no other: it is left out, and asked for again later.

        Raises Refused when there is nothing else, and what fetch raises.
        """
        try:
            await self.fetch()
        except Refused:
            for one in merged(self.known.lacks(self._wanted)):
                try:
                    revision, pairs = await self._source.fetch([one], self.known.revision)
                except Refused as this:
                    error = this
                else:
                    self._add([one], pairs, revision)
            if not self.known.ranges:
                raise
            if self._refused != str(error):
                self._refused = str(error)
                self._say(f"some keys can't be read: {error}; the files that need them stay as they are")
            if self._again is not None:
                self._again.cancel()
            self._again = asyncio.get_running_loop().call_later(self._refused_s, self._more.set)
            self._refused_s = min(2 * self._refused_s, REFUSED_MAX_S)
        else:
            if self._refused:
                self._say("all keys can be read again")
            self._refused, self._refused_s = "", REFUSED_S

    def _forget(self) -> None:
        """Begin anew; who looks at ``known`` meanwhile sees what it was."""
        self.known, self._at = Known(), {}

    async def run(self) -> None:
        """For ever."""
        wait_s = RETRY_MIN_S
        while True:
            try:
                if self.known.lacks(self._wanted):
                    before = self.known.ranges
                    await self._fetch_what_may_be()
                    if self.known.ranges != before:
                        self._settled(None)
                if self.known.ranges:
                    await self._watch()
                else:
                    await self._more.wait()
            except Gone:
                self._forget()
            except Unreachable as error:
                if self.reached:
                    wait_s = RETRY_MIN_S
                self._lost(error, f"the log can't be reached: {error}; all stays as it is")
                wait_s = await self._pause(wait_s, RETRY_MAX_S)
            except Refused as error:
                self._lost(error, f"the keys can't be read: {error}; all stays as it is")
                if len(self._at) > 1:
                    self._forget()  # one of them was refused in mid-watch: see which
                wait_s = await self._pause(max(wait_s, REFUSED_S), REFUSED_S)

    async def _watch(self) -> None:
        """Until more is wanted. Raises Gone, Unreachable, Refused."""
        watching = asyncio.ensure_future(self._source.watch(dict(self._at), self._told, self._begun))
        more = asyncio.ensure_future(self._more.wait())
        try:
            await asyncio.wait([watching, more], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            for task in (watching, more):
                task.cancel()
            await asyncio.gather(watching, more, return_exceptions=True)
            self._more.clear()

    async def _pause(self, wait_s: float, most_s: float) -> float:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._more.wait(), wait_s)
        self._more.clear()
        return min(2 * wait_s, most_s)

    def _lost(self, error: Exception, words: str) -> None:
        """Told once, however often it is tried again; another kind of trouble is told too."""
        self.reached = False
        kind = Refused if isinstance(error, Refused) else Unreachable
        if self._trouble is not kind:
            self._trouble = kind
            self._say(words)

    def _begun(self) -> None:
        self.reached = True
        if self._trouble is not None:
            self._trouble = None
            self._say(f"the log is reached again; going on behind revision {self.known.revision}")

    def _told(self, one: Range, changes: Sequence[Pair], revision: int) -> None:
        if one not in self._at:
            return
        self._at[one] = revision
        self.known.apply(changes, revision)
        self._dirty.update(pair.key for pair in changes)
        loop = asyncio.get_running_loop()
        if self._settling is None:
            self._first_s = loop.time()
        else:
            self._settling.cancel()
        at = min(loop.time() + SETTLE_S, self._first_s + SETTLE_MAX_S)
        self._settling = loop.call_at(at, self._settle)

    def _settle(self) -> None:
        self._settled(frozenset(self._dirty))

    def _settled(self, changed: frozenset[bytes] | None) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._dirty.clear()
        self._changed(changed)
