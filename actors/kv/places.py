"""Where to listen: ``host:port``, ``http://host:port``, ``https://…``, ``unix:///path``, ``unixs:///path``. Pure."""

from typing import NamedTuple
from urllib.parse import urlsplit


class Place(NamedTuple):
    """``path``: of a unix socket; empty: ``host`` (empty: all addresses) and ``port``."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def tls(self) -> bool:
        return self.scheme in ("https", "unixs")


def parse(text: str, tls: bool = False) -> Place:
    """``tls``: what a bare host:port is served with. Raises ValueError, which says what would be right."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https" if tls else "http", text
    if scheme in ("unix", "unixs"):
        if not rest:
            raise ValueError(f"{text!r} names no socket: write {scheme}:///path/of/the/socket")
        return Place(scheme, "", 0, rest)
    if scheme not in ("http", "https"):
        raise ValueError(f"{text!r}: the scheme is http, https, unix or unixs")
    try:
        split = urlsplit(f"//{rest}")
        host, port = split.hostname, split.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no address: {error}") from error
    if port is None or (split.path not in ("", "/")) or split.query or "@" in split.netloc:
        raise ValueError(f"{text!r} is no address to listen on: write HOST:PORT or http://HOST:PORT")
    return Place(scheme, host or "", port, "")
