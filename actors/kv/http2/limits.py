"""What one connection may cost, and the counters that end floods. Pure: the time is told."""

from dataclasses import dataclass

#: Names etcd's limit of a received message: 1.5 MiB of request and 512 KiB around it.
MESSAGE_BYTES_MAX = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. The keep-alive is etcd's."""

    message_bytes: int = MESSAGE_BYTES_MAX
    #: names and values of a request; as HTTP/1.1's head here. etcd's clients send a token, a few KiB at most
    header_bytes: int = 64 * 1024
    #: concurrent calls; 2**31-1 isn't announced, as etcd doesn't
    calls: int = 2**31 - 1
    #: what we let the client send ahead: a call's is more than a whole message, so unary ones need no update
    call_window: int = 4 * 1024 * 1024
    connection_window: int = 16 * 1024 * 1024
    #: parts of messages of all calls that aren't whole yet
    partial_bytes: int = 64 * 1024 * 1024
    #: unsent bytes of all calls from which on new calls are refused (REFUSED_STREAM), and the client may send no more
    #: than the connection's window until it reads
    unsent_bytes: int = 64 * 1024 * 1024
    #: unsent answers to control frames from which on nothing is read until the client reads
    control_bytes: int = 64 * 1024
    #: the first SETTINGS, and the rest of a begun header block, must come within this
    head_s: float = 30.0
    #: a client that reads nothing for this long while we have to write is cut off
    stall_s: float = 300.0
    ping_after_s: float = 2 * 3600.0
    ping_wait_s: float = 20.0
    #: clients' pings: this apart with calls open, and two hours without; two strikes are free
    client_ping_s: float = 5.0
    client_ping_idle_s: float = 2 * 3600.0
    ping_strikes: int = 2
    #: how long drain() waits for the client's answer to its ping
    drain_s: float = 5.0


class Bucket:
    """Lets ``burst`` at once and ``per_s`` on the average."""

    __slots__ = ("_burst", "_left", "_per_s", "_then")

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = self._left = burst
        self._per_s = per_s
        self._then = 0.0

    def take(self, now: float, earned: int = 0) -> bool:
        """Whether one more is allowed. ``earned``: what is owed to what we did ourselves since the last time."""
        self._left = min(self._burst, self._left + (now - self._then) * self._per_s + earned) - 1
        self._then = now
        return self._left >= 0


class Floods:
    """The buckets of one connection, by what a client could send without end and without sense."""

    __slots__ = ("junk", "resets", "settings", "updates")

    def __init__(self) -> None:
        #: calls that were reset soon after they were opened, and resets that we were made to send
        self.resets = Bucket(1000, 100)
        self.settings = Bucket(100, 10)
        #: PRIORITY, unknown frames, DATA without data, answers to nothing
        self.junk = Bucket(1000, 100)
        self.updates = Bucket(10_000, 2000)


#: Calls reset before this age count as rapid resets.
RAPID_S = 1.0
#: CONTINUATION frames of one block.
CONTINUATIONS_MAX = 128
