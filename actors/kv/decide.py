"""Pure decisions of the kv actor: which TTLs ran out, and what is left of the others.

Countdowns run on the boot-time clock of the master's machine. They start when the TTL is set (at apply), and at a new
term with what was left when it was last counted: a TTL is a minimum. Nothing is decided by wall-clock time.
"""

import heapq
from collections.abc import Iterable

import msgspec

from actors.kv.v2.nodes import blob_of
from actors.kv.v2.store import Store
from streams.events import kv as says

#: TTLs are counted on the log this often, and only those that lost so much since.
COUNT_S = 300.0
#: Keys in one event of counted TTLs, and expiries in one record.
KEYS_MAX = 500
#: Countdowns that are over may be so many more than those that run.
SPARE = 64
#: Characters of those keys: an event can't be split, and a record that is too large would be decided again for ever.
NAMES_MAX = 64 * 1024


class Countdown(msgspec.Struct, frozen=True, order=True):
    """Due at ``due_s``, boot time, if the key is then what it was."""

    due_s: float
    key: str
    modified: int
    expires_ms: int


class Countdowns:
    """The running countdowns, one a key; those whose TTL was set anew or whose key went are passed over."""

    def __init__(self) -> None:
        self._heap: list[Countdown] = []
        self._by_key: dict[str, Countdown] = {}
        self._counted_s = float("-inf")

    def restart(self, store: Store, now_s: float) -> None:
        """A new term: all begin with what was left when last counted."""
        self._heap, self._by_key = [], {}
        self._counted_s = now_s
        for key, left_ms in store.ttls.items():
            self._add(store, key, now_s + left_ms / 1000)
        heapq.heapify(self._heap)

    def touched(self, store: Store, keys: Iterable[str], now_s: float) -> None:
        """Changes at these keys were applied: (re)start those that have a TTL of their own now."""
        for key in keys:
            left_ms = store.ttls.get(key)
            node = store.find(key)
            known = self._by_key.get(key)
            if left_ms is None or node is None:
                self._by_key.pop(key, None)
            elif known is None or (known.modified, known.expires_ms) != (node.modified, node.expires_ms):
                self._add(store, key, now_s + left_ms / 1000)
                heapq.heappush(self._heap, self._heap.pop())
        if len(self._heap) > 2 * len(self._by_key) + SPARE:
            # a long TTL that is set anew all the time leaves one behind each time
            self._heap = [one for one in self._heap if self._by_key.get(one.key) is one]
            heapq.heapify(self._heap)

    def _add(self, store: Store, key: str, due_s: float) -> None:
        node = store.find(key)
        assert node is not None, key
        countdown = Countdown(due_s, key, node.modified, node.expires_ms)
        self._by_key[key] = countdown
        self._heap.append(countdown)

    def due(self, store: Store, now_s: float) -> list[says.Expired]:
        """What ran out, oldest first, at most KEYS_MAX and about NAMES_MAX; stays due until the expiry is applied."""
        ready: list[Countdown] = []
        names = 0
        while self._heap and self._heap[0].due_s <= now_s and len(ready) < KEYS_MAX and names < NAMES_MAX:
            first = heapq.heappop(self._heap)
            if self._stands(first, store):
                ready.append(first)
                names += len(first.key)
        for countdown in ready:
            heapq.heappush(self._heap, countdown)
        return [says.Expired(blob_of(one.key), one.modified, one.expires_ms) for one in ready]

    def next_s(self, store: Store) -> float | None:
        """When to look again (boot time)."""
        while self._heap and not self._stands(self._heap[0], store):
            heapq.heappop(self._heap)
        return self._heap[0].due_s if self._heap else None

    def _stands(self, one: Countdown, store: Store) -> bool:
        """Whether this is still its key's countdown, and the key what it was (it may be gone with a directory)."""
        if self._by_key.get(one.key) is not one:
            return False
        node = store.find(one.key)
        if node is not None and (node.modified, node.expires_ms) == (one.modified, one.expires_ms):
            return True
        del self._by_key[one.key]
        return False

    def counted(self, store: Store, now_s: float) -> list[says.Left]:
        """Every COUNT_S: what long TTLs have left, for a next term to go on from."""
        if now_s - self._counted_s < COUNT_S:
            return []
        out: list[says.Left] = []
        names = 0
        for key, one in self._by_key.items():
            left_ms = max(0, int((one.due_s - now_s) * 1000))
            if store.ttls.get(key, 0) - left_ms >= COUNT_S * 1000 / 2:
                out.append(says.Left(blob_of(key), one.modified, one.expires_ms, left_ms))
                names += len(key)
                if len(out) == KEYS_MAX or names >= NAMES_MAX:
                    return out
        self._counted_s = now_s
        return out
