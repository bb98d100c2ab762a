"""How long leases still live, on the boot-time clock of this machine. Pure.

Countdowns begin when a grant, renewal or count is applied here, so a lease never ends early by a slow log; at a new
term the master begins with what was left when it was last counted. Only the master's word (an event) ends a lease.
"""

import heapq
from collections.abc import Iterable

from actors.kv.v3.leases import Leases
from streams.events import kv3 as says

#: Leases are counted on the log this often, and only those that lost so much since: etcd's checkpoint interval.
COUNT_S = 300.0
#: Expiries in one record, and leases in one count.
LEASES_MAX = 500


class LeaseClocks:
    """A renewal costs one entry of a dict: a lease's entry in the heap is moved when it comes up."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._due_s: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self._counted_s = float("-inf")

    def restart(self, now_s: float) -> None:
        """A new term, or the end of replay."""
        self._counted_s = now_s
        self._due_s = {lease.id: now_s + lease.left_ms / 1000 for lease in self._leases.by_id.values()}
        self._heap = [(due_s, lease) for lease, due_s in self._due_s.items()]
        heapq.heapify(self._heap)

    def touched(self, ids: Iterable[int], now_s: float) -> None:
        """Events about these leases were applied."""
        by_id, due_s = self._leases.by_id, self._due_s
        for lease in ids:
            found = by_id.get(lease)
            if found is None:
                due_s.pop(lease, None)
                continue
            known_s, ends_s = due_s.get(lease), now_s + found.left_ms / 1000
            if known_s is None or ends_s < known_s:
                heapq.heappush(self._heap, (ends_s, lease))
            due_s[lease] = ends_s

    def due_s(self, lease: int) -> float:
        """When it ends (boot time); of an unknown one: now and always."""
        return self._due_s.get(lease, float("-inf"))

    def due(self, now_s: float) -> list[says.LeaseExpired]:
        """What ran out, at most LEASES_MAX; stays due until the expiry is applied."""
        ready: dict[int, float] = {}
        while (first := self._first()) is not None and first[0] <= now_s and len(ready) < LEASES_MAX:
            heapq.heappop(self._heap)
            ready[first[1]] = first[0]
        for lease, due_s in ready.items():
            heapq.heappush(self._heap, (due_s, lease))
        return [says.LeaseExpired(lease, self._leases.by_id[lease].renewed) for lease in ready]

    def next_s(self) -> float | None:
        """When to look again (boot time)."""
        first = self._first()
        return None if first is None else first[0]

    def _first(self) -> tuple[float, int] | None:
        """The top of the heap, once it is true."""
        heap = self._heap
        while heap:
            due_s, lease = heap[0]
            true_s = self._due_s.get(lease)
            if true_s is None or true_s < due_s:
                # gone, or there is an entry that comes up earlier
                heapq.heappop(heap)
            elif true_s > due_s:
                heapq.heapreplace(heap, (true_s, lease))
            else:
                return heap[0]
        return None

    def counted(self, now_s: float) -> says.LeasesCounted | None:
        """Every COUNT_S: what long leases have left."""
        if now_s - self._counted_s < COUNT_S:
            return None
        left: list[says.LeaseLeft] = []
        for lease in self._leases.by_id.values():
            left_ms = max(0, int((self.due_s(lease.id) - now_s) * 1000))
            if lease.left_ms - left_ms >= COUNT_S * 1000 / 2:
                left.append(says.LeaseLeft(lease.id, lease.renewed, left_ms))
                if len(left) == LEASES_MAX:
                    return says.LeasesCounted(left)
        self._counted_s = now_s
        return says.LeasesCounted(left) if left else None
