"""What goes together, in parts that aren't too large."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def batches(items: list[T], size_of: Callable[[T], int], size_max: int) -> list[list[T]]:
    """Items in order, in lists of about ``size_max``; one that is larger is alone, and none makes one empty list."""
    if len(items) == 1:
        return [items]
    out: list[list[T]] = [[]]
    size = 0
    for item in items:
        size_of_it = size_of(item)
        if out[-1] and size + size_of_it > size_max:
            out.append([])
            size = 0
        out[-1].append(item)
        size += size_of_it
    return out
