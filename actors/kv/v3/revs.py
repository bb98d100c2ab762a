"""The multi-version store: every revision of every key since the compaction, in memory. Pure.

The model is etcd's mvcc package (revision = main and sub; a delete leaves a tombstone; compaction keeps what lived at
its revision). Shape: ``newest`` has each key's last revision, older ones hang on it by ``prev``; ``segments`` has all
in the order they were made, which is what watches, hashes and snapshots read.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from sortedcontainers import SortedList

from actors.kv.v3 import errors
from actors.kv.v3.floors import Floors
from actors.kv.v3.kinds import OVERHEAD_BYTES as OVERHEAD_BYTES
from actors.kv.v3.kinds import Rev as Rev
from actors.kv.v3.policies import Policies

#: Revisions in one segment of the history.
SEGMENT: Final = 1024
#: ``range_end`` that means "and all keys behind".
ALL_BEHIND = b"\0"


_REV: Final = Rev
#: Compactions: of all keys, and of prefixes.
Reach = tuple[int, "Floors | None"]


class Segment:
    """``first``: main revision of its first; ``garbage``: bytes superseded by all changes before this segment."""

    __slots__ = ("first", "garbage", "revs")

    def __init__(self, first: int, garbage: int) -> None:
        self.first, self.garbage = first, garbage
        self.revs: list[Rev] = []


class Revs:
    """``revision``: the last one made; ``compacted``: the revision of the last compaction, or -1; ``size``: bytes
    that a quota counts, which compaction gives back at once although memory follows later (:meth:`sweep`).

    ``floors``: prefixes that were compacted further; ``policies``: what is limited by prefix. None: there are none."""

    def __init__(self) -> None:
        #: changes since this process began; informative only
        self.puts = self.deletes = 0
        self.revision = 1
        self.compacted = -1
        self.size = 0
        self.newest: dict[bytes, Rev] = {}
        #: keys that live now, and keys whose newest revision is a tombstone
        self.live: SortedList[bytes] = SortedList()
        self.dead: SortedList[bytes] = SortedList()
        self.segments: list[Segment] = [Segment(0, 0)]
        self.floors: Floors | None = None
        self.policies: Policies | None = None
        #: bytes superseded by all changes so far (but what prefixes gave back), and by those up to the compaction
        self._garbage = 0
        self._given_back = 0
        #: the compactions (of all keys, of prefixes) that sweeping reached, those it is to reach, where it goes on
        self._swept: Reach = (-1, None)
        self._sweeping: Reach | None = None
        self._at = 0

    # -- changing ---------------------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int, main: int, sub: int) -> Rev:
        """The key at revision (main, sub). The caller counts :attr:`revision`."""
        return self.put_over(self.newest.get(key), key, value, lease, main, sub)

    def put_over(self, old: Rev | None, key: bytes, value: bytes, lease: int, main: int, sub: int) -> Rev:
        """The same, for who knows the key's newest already."""
        garbage = 0
        if old is None:
            made = _REV(key, value, main, main, 1, lease, sub, None)
            self.live.add(key)
        else:
            key, version = old.key, old.version
            if version:
                made = _REV(key, value, old.create, main, version + 1, lease, sub, old)
                garbage = len(key) + len(old.value) + OVERHEAD_BYTES
            else:
                made = _REV(key, value, main, main, 1, lease, sub, old)
                self.dead.remove(key)
                self.live.add(key)
        self.puts += 1
        self._take(made, key, len(key) + len(value) + OVERHEAD_BYTES, main, garbage)
        if self.policies is not None:
            self.policies.took(made, old)
        return made

    def delete(self, old: Rev, main: int, sub: int) -> Rev:
        """A tombstone over ``old``, the key's newest, which lives."""
        key = old.key
        made = _REV(key, b"", 0, main, 0, 0, sub, old)
        self.live.remove(key)
        self.dead.add(key)
        self.deletes += 1
        size = len(key) + OVERHEAD_BYTES
        self._take(made, key, size, main, old.size + size)
        if self.policies is not None:
            self.policies.took(made, old)
        return made

    def _take(self, made: Rev, key: bytes, size: int, mod: int, garbage: int) -> None:
        """``size``: bytes of ``made``; ``garbage``: bytes that it supersedes, and its own if it is a tombstone."""
        self.newest[key] = made
        self.size += size
        last = self.segments[-1].revs
        # a main revision is never split over two segments: a search for it finds one
        if len(last) >= SEGMENT and last[-1].mod != mod:
            opened = Segment(mod, self._garbage)
            self.segments.append(opened)
            last = opened.revs
        last.append(made)
        self._garbage += garbage

    def compact(self, revision: int) -> None:
        """Raises COMPACTED or FUTURE_REV, as etcd."""
        if revision <= self.compacted:
            raise errors.COMPACTED
        if revision > self.revision:
            raise errors.FUTURE_REV
        self._give_back(revision)

    def _give_back(self, revision: int) -> None:
        garbage = self._garbage_at(revision)
        self.size -= garbage - self._given_back
        self.compacted, self._given_back = revision, garbage
        if self.floors is not None:
            self.floors = self.floors.above(revision)
        if self.policies is not None:
            self.policies.compacted(revision)

    def compact_prefix(self, prefix: bytes, revision: int) -> None:
        """Of a prefix with a policy. Raises COMPACTED, FUTURE_REV."""
        assert self.policies is not None
        floors = self.floors or Floors({})
        if revision <= max(self.compacted, floors.below(prefix)):
            raise errors.COMPACTED
        if revision > self.revision:
            raise errors.FUTURE_REV
        self._take_back(*self.policies.compacted_prefix(prefix, revision))
        self.floors = floors.raised(prefix, revision)

    def _take_back(self, mods: list[int], garbage: list[int]) -> None:
        """Changes at ``mods`` left so many bytes, which no later compaction gives back again."""
        at = gone = 0
        for index in range(self._segment(mods[0]) + 1 if mods else len(self.segments), len(self.segments)):
            segment = self.segments[index]
            while at < len(mods) and mods[at] < segment.first:
                gone += garbage[at]
                at += 1
            segment.garbage -= gone
        total = sum(garbage)
        self.size -= total
        self._garbage -= total

    def _garbage_at(self, revision: int) -> int:
        """Bytes superseded by changes up to ``revision``, which is above the compaction."""
        segment = self.segments[self._segment(revision)]
        # below the compaction the links that tell may be cut already; what was given back there is known
        total = segment.garbage if segment.first > self.compacted else self._given_back
        floors = self.floors
        for rev in segment.revs:
            if rev.mod > revision:
                break
            if rev.mod <= self.compacted or (floors is not None and rev.mod <= floors.of(rev.key)):
                continue
            if rev.prev is not None and rev.prev.version:
                total += rev.prev.size
            if not rev.version:
                total += rev.size
        return total

    # -- reading ----------------------------------------------------------------------------------------------

    def limit(self, key: bytes, end: bytes) -> int:
        """Below this revision a range can't be read. ``end``: as a range's."""
        return self.compacted if self.floors is None else max(self.compacted, self.floors.over(key, end))

    def limit_of(self, key: bytes) -> int:
        """The same of one key."""
        return self.compacted if self.floors is None else max(self.compacted, self.floors.of(key))

    def at(self, key: bytes, revision: int) -> Rev | None:
        """The key as it was at a main revision; None where it didn't live."""
        found = self.newest.get(key)
        while found is not None and found.mod > revision:
            found = found.prev
        return found if found is not None and found.version else None

    def keys(self, key: bytes, end: bytes, old: bool) -> Iterator[bytes]:
        """Keys from ``key`` (before ``end``, or all behind with ``\\0``), sorted; with ``old`` dead ones, too."""
        above = None if end == ALL_BEHIND else end
        living = self.live.irange(key, above, (True, False))
        if not old or not self.dead:
            return iter(living)
        return _merged(living, self.dead.irange(key, above, (True, False)))

    def count(self, key: bytes, end: bytes) -> int:
        """How many keys of a range live now."""
        last = len(self.live) if end == ALL_BEHIND else self.live.bisect_left(end)
        return max(0, int(last) - int(self.live.bisect_left(key)))

    def since(self, revision: int) -> Iterator[Rev]:
        """All that was made at and after a main revision, in order. Below the compaction: what is left."""
        first = self._segment(revision)
        before = bisect_left(self.segments[first].revs, revision, key=_mod)
        for index in range(first, len(self.segments)):
            yield from islice(self.segments[index].revs, before if index == first else 0, None)

    def _segment(self, revision: int) -> int:
        """Index of the segment in which ``revision`` is or would be."""
        return max(0, bisect_right(self.segments, revision, key=_first) - 1)

    # -- forgetting -------------------------------------------------------------------------------------------

    def sweep(self, segments: int = 1) -> bool:
        """Free memory of what compaction made void, some segments at a time; whether there is more to do.

        No answer depends on how far it came: readers go by :attr:`compacted`.
        """
        if self._sweeping is None:
            if self._swept == (self.compacted, self.floors):
                return False
            self._sweeping, self._at = (self.compacted, self.floors), 0
        compacted, floors = self._sweeping
        top = compacted if floors is None else max(compacted, floors.top)
        while segments > 0:
            segments -= 1
            if self._at == len(self.segments) or self.segments[self._at].first > top:
                self._swept, self._sweeping = self._sweeping, None
                return self._swept != (self.compacted, self.floors)
            self._sweep_one(self.segments[self._at], compacted, floors)
        return True

    def _sweep_one(self, segment: Segment, compacted: int, floors: Floors | None) -> None:
        limit = compacted
        kept: list[Rev] = []
        for rev in segment.revs:
            if floors is not None:
                limit = max(compacted, floors.of(rev.key))
            if rev.mod > limit:
                kept.append(rev)
                continue
            if self._lives(rev, limit):
                kept.append(rev)
            # no look at another revision goes on below its limit: the link may go at once
            rev.prev = None
            if not rev.version and rev.mod < limit and self.newest.get(rev.key) is rev:
                del self.newest[rev.key]
                self.dead.remove(rev.key)
        segment.revs = kept
        if segment is self.segments[-1]:
            self._at += 1  # changes go on being taken into it while sweeping pauses
            return
        before = self.segments[self._at - 1] if self._at else None
        if not kept:
            del self.segments[self._at]
        elif before is not None and len(before.revs) + len(kept) <= SEGMENT:
            # a new one for both: who reads the old ones meets each revision once
            joined = Segment(before.first, before.garbage)
            joined.revs = before.revs + kept
            self.segments[self._at - 1 : self._at + 1] = [joined]
        else:
            self._at += 1

    def _lives(self, rev: Rev, limit: int) -> bool:
        """Whether a revision at or below ``limit`` is its key's last one there; of tombstones only one just there."""
        if not rev.version and rev.mod < limit:
            return False
        found = self.newest.get(rev.key)
        while found is not None and found.mod > limit:
            found = found.prev
        return found is rev

    @property
    def swept(self) -> int:
        """What was made up to this revision may be gone: sweeping took it, or it came with another store."""
        return self._swept[0]

    @property
    def _is_swept(self) -> bool:
        return self._sweeping is None and self._swept == (self.compacted, self.floors)

    def retained(self) -> Iterator[Rev]:
        """All revisions that the compaction left, in order, however far sweeping came."""
        if self._is_swept:
            # nothing else is there: a million of them in some milliseconds
            return chain.from_iterable([segment.revs for segment in self.segments])
        return self._kept()

    def retained_lists(self) -> list[list[Rev]]:
        """The same as lists that stay as they are while the store goes on.

        When all is swept this touches no revision: a list is replaced, never shortened, and only the last one grows.
        """
        if self._is_swept:
            return [*(segment.revs for segment in self.segments[:-1]), self.segments[-1].revs.copy()]
        return [list(self._kept())]

    def _kept(self) -> Iterator[Rev]:
        for segment in self.segments:
            for rev in segment.revs:
                if self.keeps(rev):
                    yield rev

    def keeps(self, rev: Rev) -> bool:
        """Whether a revision that is there is to be seen."""
        limit = self.limit_of(rev.key)
        return rev.mod > limit or self._lives(rev, limit)

    def relink(self, rev: Rev) -> None:
        """Restore: take a revision as it was, in order. Policies are counted when all are there."""
        old = self.newest.get(rev.key)
        rev.prev = old
        if old is not None:
            rev.key = old.key
            (self.live if old.version else self.dead).remove(rev.key)
        (self.live if rev.version else self.dead).add(rev.key)
        garbage = old.size if old is not None and old.version else 0
        self._take(rev, rev.key, rev.size, rev.mod, garbage if rev.version else garbage + rev.size)
        if self.floors is not None and not rev.version and rev.mod <= self.floors.of(rev.key):
            # a tombstone that is kept because it is just at the floor: given back already
            self.size -= rev.size
            self._garbage -= rev.size

    def relinked(self, revision: int, compacted: int) -> None:
        """Restore: all are there."""
        self.revision = revision
        if compacted >= 0:
            self._give_back(compacted)
        self._swept = (compacted, self.floors)


def _first(segment: Segment) -> int:
    return segment.first


def _mod(rev: Rev) -> int:
    return rev.mod


def _merged(left: Iterator[bytes], right: Iterator[bytes]) -> Iterator[bytes]:
    """Two sorted sequences without common keys, as one."""
    return heapq.merge(left, right)
