"""A disk that fails, and a process that dies, at any step of a commit.

``Steps`` stands in for ``os`` in the modules that write, and for the words of the ``end`` file. It counts what they
do to the disk or to shared memory, and at one step does what it is told instead.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from streams.log.segments import files, writer
from streams.log.segments.shared import SharedEnd

STEPS = ("pwrite", "fdatasync", "fsync", "ftruncate", "posix_fallocate", "rename", "unlink")


class Killed(BaseException):
    """In the place of kill -9: nothing but ``finally`` runs after it, and those only close what a kernel would."""


class Steps:
    """Counts steps; ``fault(step number, name)`` may raise, before the step is done (or after, with ``after``)."""

    def __init__(self, fault: Callable[[int, str], None], *, after: bool = False) -> None:
        self.fault = fault
        self.after = after
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in STEPS:
            return real

        def step(*args: Any) -> Any:
            return self.take(name, lambda: real(*args))

        return step

    def take(self, name: str, real: Callable[[], Any]) -> Any:
        self.count += 1
        if not self.after:
            self.fault(self.count, name)
        result = real()
        if self.after:
            self.fault(self.count, name)
        return result

    def install(self, patch: pytest.MonkeyPatch, shared: SharedEnd | None = None) -> None:
        patch.setattr(files, "os", self)
        patch.setattr(writer, "os", self)
        if shared is not None:
            patch.setattr(shared, "_words", Words(shared._words, self))


class Words:
    """The words of the ``end`` file; each that is set is a step."""

    def __init__(self, words: memoryview, steps: Steps) -> None:
        self.words = words
        self.steps = steps

    def __getitem__(self, index: int) -> int:
        return int(self.words[index])

    def __setitem__(self, index: int, value: int) -> None:
        self.steps.take("word", lambda: self.words.__setitem__(index, value))
