"""When the history is compacted by itself, as ``--auto-compaction-mode`` and ``-retention`` ask. Pure: time is told.

Source: etcd's ``etcdserver/api/v3compactor``. periodic: revisions are noted ten times in a period (an hour at most),
and what was current a whole period ago is the revision to compact. revision: every five minutes, all but the newest.
"""

from collections import deque

NOTES, HOUR_S, REVISION_EVERY_S = 10, 3600.0, 300.0


class AutoCompactor:
    """``retention``: seconds (periodic) or revisions; 0: never."""

    def __init__(self, mode: str, retention: float) -> None:
        self._periodic, self._retention = mode == "periodic", retention
        self._every_s = min(retention, HOUR_S) / NOTES if self._periodic else REVISION_EVERY_S
        self._notes: deque[tuple[float, int]] = deque()
        self._next_s = 0.0
        self._compacted_s = 0.0

    def restart(self, now_s: float) -> None:
        """A new master begins to count anew."""
        self._notes.clear()
        self._next_s = now_s + self._every_s
        self._compacted_s = now_s

    def next_s(self) -> float | None:
        return self._next_s if self._retention else None

    def due(self, now_s: float, revision: int, compacted: int) -> int | None:
        """The revision to compact now."""
        if not self._retention or now_s < self._next_s:
            return None
        self._next_s = now_s + self._every_s
        if not self._periodic:
            target = revision - int(self._retention)
            return target if target > max(compacted, 0) else None
        self._notes.append((now_s, revision))
        target = 0
        while self._notes and now_s - self._notes[0][0] >= self._retention - self._every_s / 2:
            target = self._notes.popleft()[1]
        if target <= max(compacted, 0) or now_s - self._compacted_s < min(self._retention, HOUR_S) * 0.95:
            return None
        self._compacted_s = now_s
        return target
