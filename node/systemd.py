"""sd_notify(3): tells the service manager how the node is, by a datagram to $NOTIFY_SOCKET. No library needed."""

import contextlib
import os
import socket
import time


class Notifier:
    """Does nothing where no service manager listens."""

    def __init__(self, environ: "os._Environ[str]" = os.environ) -> None:
        # taken out of the environment: units and shims must not speak for the node
        self._address = environ.pop("NOTIFY_SOCKET", "")
        interval_us = environ.pop("WATCHDOG_USEC", "0")
        watched_pid = environ.pop("WATCHDOG_PID", "")
        ours = watched_pid in ("", str(os.getpid()))
        #: seconds between two signs of life; 0: nobody waits for them
        self.interval_s = int(interval_us) / 2_000_000 if ours and interval_us.isdigit() else 0.0
        self._alive_s = float("-inf")

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def status(self, words: str) -> None:
        self._send(f"STATUS={words}")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=handing over and stopping")

    def alive(self) -> None:
        """Say WATCHDOG=1 if half the interval is over."""
        if self.interval_s and time.monotonic() - self._alive_s >= self.interval_s:
            self._alive_s = time.monotonic()
            self._send("WATCHDOG=1")

    def _send(self, words: str) -> None:
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.connect(name)
            to.sendall(words.encode())
