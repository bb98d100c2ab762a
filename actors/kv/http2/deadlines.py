"""Deadlines of a connection's calls, in coarse buckets: adding and removing one costs no timer.

A deadline is met up to STEP_S late; the client sees its own anyway.
"""

import heapq
from typing import Generic, TypeVar

STEP_S = 1 / 64
#: Deadlines further away share buckets of a second.
FAR_S = 16.0
#: Timeouts over this are none.
NEVER_S = 30 * 24 * 3600.0

#: Buckets without items that may be kept, beside as many as there are items.
_EMPTY_MAX = 256

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """Seconds throughout, of any clock that doesn't jump."""

    def __init__(self) -> None:
        self._items = 0
        self._buckets: dict[float, set[Item]] = {}
        self._order: list[float] = []

    def add(self, item: Item, deadline_s: float, now: float) -> float:
        """Returns the bucket's time, for ``discard``."""
        step = STEP_S if deadline_s - now < FAR_S else 1.0
        when = (deadline_s // step + 1) * step
        bucket = self._buckets.get(when)
        if bucket is None:
            if len(self._buckets) > 2 * self._items + _EMPTY_MAX:
                self._forget_empty()
            bucket = self._buckets[when] = set()
            heapq.heappush(self._order, when)
        bucket.add(item)
        self._items += 1
        return when

    def discard(self, item: Item, when: float) -> None:
        bucket = self._buckets.get(when)
        if bucket is not None and item in bucket:
            bucket.remove(item)
            self._items -= 1

    def due(self, now: float) -> list[Item]:
        """Take out what is over."""
        over: list[Item] = []
        while self._order and self._order[0] <= now:
            over += self._buckets.pop(heapq.heappop(self._order))
        self._items -= len(over)
        return over

    def next(self) -> float | None:
        return self._order[0] if self._order else None

    def _forget_empty(self) -> None:
        """A client could name a new far deadline with each call."""
        self._buckets = {when: bucket for when, bucket in self._buckets.items() if bucket}
        self._order = sorted(self._buckets)
