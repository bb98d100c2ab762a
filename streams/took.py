"""How long something took, counted as Prometheus' histograms count: how often up to and with each bound."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Took:
    """``bounds``: seconds, ascending. One thread adds; who reads at the same time may miss the last one."""

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(bound, how many took no longer), the last bound is without end."""
        return list(zip((*map(str, self.bounds), "+Inf"), accumulate(self.counts), strict=True))
