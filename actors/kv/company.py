"""Waiting for company: who was just answered often comes again at once, and shares the next record then.

A record costs far more than what is in it: on segments the disk's sync, on Kafka a dozen requests between brokers and
readers. So a small one waits a little for those whom the last one answered, and ever less often for those who stay
away. Time is the caller's; nothing here reads a clock.
"""

from collections.abc import Iterable

#: Records that go without waiting after a wait in vain: the first time, and at most.
ALONE_MIN, ALONE_MAX = 16, 1024


class Company:
    """Whoever comes and is answered is named by a number (a connection's id; 0: nobody who could come again)."""

    def __init__(self) -> None:
        #: whom the last record answered and who haven't come again, and when it did
        self._awaited: set[int] = set()
        self._answered_s = 0.0
        self._waits = False
        #: records that don't wait any more, and how many it will be after the next time in vain
        self._hasty, self.haste = 0, ALONE_MIN

    def came(self, who: int) -> None:
        self._awaited.discard(who)

    def answered(self, whom: Iterable[int], now_s: float) -> None:
        """A record was; what was awaited before isn't any more."""
        self._awaited = {who for who in whom if who}
        self._answered_s = now_s

    def lacks_s(self, now_s: float, patience_s: float) -> float:
        """How long a record that could be sent now should wait yet. ``patience_s``: since they were answered."""
        if not self._awaited:
            if self._waits:
                self._waits, self.haste = False, ALONE_MIN
            return 0.0
        if self._hasty:
            self._hasty -= 1
            return 0.0
        left_s = self._answered_s + patience_s - now_s
        waited, self._waits = self._waits, left_s > 0
        if waited and not self._waits:  # in vain
            self._hasty, self.haste = self.haste, min(2 * self.haste, ALONE_MAX)
        return max(left_s, 0.0)

    @property
    def is_hasty(self) -> bool:
        return self._hasty > 0
