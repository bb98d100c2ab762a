"""What a template may take of this process, seconds of the CPU and memory: whoever may write a key may write one.

Both are the kernel's limits, for a template has many ways to take much: a width, a filter, a list in a list.
"""

import mmap
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from node.sync.render import TOO_MUCH_MEMORY, RenderError

RENDER_S = 5.0
#: Beside what the process has already. A text of 64 MiB is there several times while it is made.
ROOM_BYTES = 512 << 20
#: An exception may come where Python can only report it, as in the end of an object: the next one follows.
_AGAIN_S = 0.25
#: Given free before the limits are taken back, which needs memory too.
_SPARE_BYTES = 4 << 20

T = TypeVar("T")


class _Over(BaseException):
    """The time is over. No Exception: jinja swallows those while it works out constants."""


def within(template: str, work: Callable[[], T], limit_s: float = RENDER_S, room_bytes: int = ROOM_BYTES) -> T:
    """What ``work`` returns, in the main thread. Raises RenderError when it takes more, and what it raises."""
    try:
        return _within(work, limit_s, room_bytes)
    except _Over:
        raise RenderError(template, 0, f"it was not rendered in {limit_s:g} s") from None
    except MemoryError as error:
        raise RenderError(template, 0, TOO_MUCH_MEMORY) from error


def _within(work: Callable[[], T], limit_s: float, room_bytes: int) -> T:
    def over(*_: Any) -> NoReturn:
        raise _Over

    memory = resource.getrlimit(resource.RLIMIT_AS)
    spare = mmap.mmap(-1, _SPARE_BYTES)
    before = signal.signal(signal.SIGVTALRM, over)

    def end() -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        spare.close()
        resource.setrlimit(resource.RLIMIT_AS, memory)

    try:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_lowest(_size_bytes() + room_bytes, *memory), memory[1]))
            signal.setitimer(signal.ITIMER_VIRTUAL, limit_s, _AGAIN_S)
            return work()
        finally:
            end()
    finally:
        end()  # the alarm, or a lack of memory, may have broken off the first one
        signal.signal(signal.SIGVTALRM, before)


def _lowest(*limits_bytes: int) -> int:
    return min(limit for limit in limits_bytes if limit != resource.RLIM_INFINITY)


def _size_bytes() -> int:
    """Of this process's address space."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
