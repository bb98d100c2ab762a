"""What calls came to, counted by method, and the bytes of all connections: for metrics."""


class Tally:
    """Of one method. ``ok`` and ``failed`` (by gRPC status): calls that were answered."""

    __slots__ = ("failed", "ok", "started")

    def __init__(self) -> None:
        self.started = self.ok = 0
        self.failed: dict[int, int] = {}

    def end(self, status: int) -> None:
        if status:
            self.failed[status] = self.failed.get(status, 0) + 1
        else:
            self.ok += 1


class Traffic:
    """Bytes on the wire, without TLS."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0
