"""A request of HTTP and the way to answer it, whatever carries it: :mod:`http1`, or a stream of HTTP/2 (:mod:`pages`).

Classes of compiled modules only may inherit these.
"""

from collections.abc import Callable
from typing import Final

JSON: Final = b"Content-Type: application/json\r\n"
TEXT: Final = b"Content-Type: text/plain; charset=utf-8\r\n"


class Connection:
    """What is asked of the connection of an exchange. ``trusted``: on the unix socket."""

    def __init__(self, peer: str = "") -> None:
        self.peer = peer
        self.trusted = False
        #: of a verified certificate, which stands for a user
        self.client_cn = ""
        #: the same for v2 (etcd's gateway of v3 doesn't look at it)
        self.user_cn = ""
        #: header lines of every answer while the exchange at hand is served
        self.lines = b""
        #: at a listener of --listen-metrics-urls
        self.metrics_only = False

    @property
    def secure(self) -> bool:
        """Whether it is over TLS."""
        raise NotImplementedError

    def serves(self, exchange: "Exchange") -> bool:
        """Whether ``exchange`` isn't answered yet and its client is there."""
        raise NotImplementedError

    def unsent(self) -> int:
        """Bytes that the client doesn't take."""
        raise NotImplementedError


class Exchange:
    """A whole request and the way to answer it, once: ``respond``, or ``begin``, ``send`` and ``end``.

    ``method`` as sent; ``path`` and ``query`` undecoded; header names in lower case; exchanges may share ``headers``:
    not to be changed. ``refused``: it could not be read: (status, why). ``gone`` is called when the client left before
    it was answered; ``drained``, of an answer piece by piece, when the socket takes more again.
    """

    __slots__ = ("body", "connection", "drained", "gone", "headers", "method", "path", "query", "refused", "streams")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.method = ""
        self.path = b""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.refused: tuple[int, str] | None = None
        self.gone: Callable[[], None] | None = None
        self.drained: Callable[[], None] | None = None
        self.streams = False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer whole. ``headers``: lines with CRLF, without length and date. No-op if the client left."""
        raise NotImplementedError

    def begin(self, status: int, headers: bytes) -> None:
        """Answer piece by piece: the head goes out at once."""
        raise NotImplementedError

    def send(self, piece: bytes) -> None:
        """A piece of the answer that began."""
        raise NotImplementedError

    def end(self) -> None:
        """The end of the answer that began."""
        raise NotImplementedError
