"""The deadline of a machine's right to run fenced units: one small file that is never made longer.

The engine moves the deadline on about once a second; the watchdog and the shims read it. It is written in place,
into bytes that exist already, so that a full disk can't take a machine's fences away. Imports only ``os`` and
``time``.

    <boot id> <deadline in ms of CLOCK_BOOTTIME, 19 digits>\\n    twice: a reader that meets a half-written line
    takes the earlier of the two deadlines
"""

import os
import time

NAME = "deadline"
_LINE = 36 + 1 + 19 + 1


def now_ms() -> int:
    """The boot-time clock in milliseconds: it counts suspend and is never set."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)


def write(folder: str, boot_id: str, deadline_ms: int) -> None:
    """Publish the deadline in ``folder/deadline``."""
    line = f"{boot_id:36.36} {max(0, deadline_ms):019d}\n".encode()
    fd = os.open(f"{folder}/{NAME}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # the second line first when it moves on would still leave the earlier one standing: any order is safe
        os.pwrite(fd, line, 0)
        os.pwrite(fd, line, _LINE)
    finally:
        os.close(fd)


def read(folder: str, boot_id: str) -> int:
    """The deadline in ms of this boot's clock; 0 (passed) if there is none, or it is of another boot."""
    try:
        fd = os.open(f"{folder}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        lines = os.pread(fd, 2 * _LINE, 0).decode("ascii", "replace").splitlines()
    finally:
        os.close(fd)
    values = []
    for line in lines[:2]:
        boot, _, digits = line.partition(" ")
        values.append(int(digits) if boot == boot_id and len(digits) == 19 and digits.isdigit() else 0)
    return min(values) if len(values) == 2 else 0
