"""The embedded log: append-only segment files in a folder, shared by the processes of one machine.

A folder holds ``<offset of its first record>.seg`` files, ``end`` (the lock and the published durable end) and
``wake/`` (a socket for each process that waits for more). Modules: :mod:`frames` is the format, :mod:`shared` the
``end`` file, :mod:`files` the folder, :mod:`recovery` finds the end after a crash, :mod:`writer` appends,
:mod:`reader` reads, :mod:`wakeups` are the sockets, :mod:`driver` is the log port over all of them.
"""

from streams.log.segments.driver import ForkedLog, SegmentsLog
from streams.log.segments.frames import DamagedLog

__all__ = ["DamagedLog", "ForkedLog", "SegmentsLog"]
