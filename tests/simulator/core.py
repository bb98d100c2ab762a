"""Virtual time: an event heap and one seeded source of chance."""

import heapq
import random
from collections.abc import Callable
from typing import Any

#: A run takes some ten thousand steps; one that takes so many stands still.
STEPS_MAX = 300_000


class Violation(AssertionError):
    """A property that must hold did not. The message names the property, the instant and who was involved."""


class Time:
    """Calls, in order of virtual time; calls of one instant in the order in which they were asked for."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.steps = 0

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, call, arguments))

    def after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, call, *arguments)

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call, arguments = heapq.heappop(heap)
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise Violation(f"time goes on: {self.steps} steps by {self.now:.6f} s, at last {call} {arguments}")
            call(*arguments)
        self.now = until


class Clock:
    """A machine's boot-time clock: it drifts, goes on while processes are stopped, and starts anew at a reboot."""

    def __init__(self, rate: float, boot_s: float) -> None:
        self.rate = rate
        self._zero = -boot_s / rate

    def read(self, true_s: float) -> float:
        return (true_s - self._zero) * self.rate

    def true(self, boot_s: float) -> float:
        """The true instant at which the clock shows ``boot_s``."""
        return boot_s / self.rate + self._zero

    def reboot(self, true_s: float) -> None:
        self._zero = true_s - 3.0 / self.rate
