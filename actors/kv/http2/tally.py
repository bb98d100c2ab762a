"""What calls came to, counted by method, and the bytes of all connections: for metrics."""

import time

from streams.took import Took

#: As go-grpc-prometheus counts.
CALL_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Tally:
    """Of one method. ``ok`` and ``failed`` (by gRPC status): calls that were answered; ``took``: None, or how long."""

    __slots__ = ("failed", "ok", "started", "took")

    def __init__(self, timed: bool = False) -> None:
        self.started = self.ok = 0
        self.failed: dict[int, int] = {}
        self.took = Took(CALL_BOUNDS_S) if timed else None

    def end(self, status: int, opened_s: float) -> None:
        """A call is answered that began at ``opened_s`` of the loop's clock."""
        if self.took is not None:
            self.took.add(max(0.0, time.monotonic() - opened_s))
        if status:
            self.failed[status] = self.failed.get(status, 0) + 1
        else:
            self.ok += 1


class Traffic:
    """Bytes on the wire, without TLS."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0
