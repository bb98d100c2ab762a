"""Who asks: by the unix socket's peer (``uid:N``) or a token (``token:NAME``).

Commands need either, reads neither; but reads of keys and of the log do where etcd's users are asked for (``guard``).

A unit runs as root, so a command on loopback without a token is refused too. Host and Origin are checked, so that
a page in a browser can't reach a gateway by a name that it controls (DNS rebinding) or by a form.
"""

import hmac
import ipaddress
from pathlib import Path

from starlette.requests import HTTPConnection

from .problem import Problem


class Access:
    """``tokens_file``: lines ``TOKEN [name]``, mode 0600, read again at each use. ``names``: other names of ours."""

    def __init__(self, tokens_file: Path, names: frozenset[str]) -> None:
        self._tokens_file = tokens_file
        self._names = names

    def check_host(self, request: HTTPConnection) -> None:
        """Raises Problem 421 for a Host that isn't ours, 403 for an Origin that isn't the Host."""
        if peer(request).startswith("uid:"):
            return
        host = request.headers.get("host", "")
        name = _hostname(host)
        if not (name in self._names or name == "localhost" or _is_address(name)):
            raise Problem(421, "wrong-host", f"host {name!r} isn't a name of this gateway; use its address")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Problem(403, "wrong-origin", f"origin {origin!r} may not use this gateway")

    def principal(self, request: HTTPConnection, *, command: bool) -> str:
        """``uid:N``, ``token:NAME`` or, on reads, ``addr:IP``. Raises Problem 401 or 403."""
        who = peer(request)
        if who.startswith("uid:"):
            return who
        given = request.headers.get("authorization", "")
        if given:
            scheme, _, token = given.partition(" ")
            name = self._token_name(token.strip()) if scheme.lower() == "bearer" else None
            if name is None:
                raise Problem(401, "bad-token", "this token is not in the gateway's token file")
            return f"token:{name}"
        if command:
            raise needed("commands")
        return who

    def _token_name(self, token: str) -> str | None:
        try:
            lines = self._tokens_file.read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            known, _, name = line.strip().partition(" ")
            if known and hmac.compare_digest(known.encode(), token.encode()):
                return name.strip() or "default"
        return None


def needed(what: str) -> Problem:
    """``what``, in the plural, is for who comes by the socket or with a token."""
    return Problem(
        401,
        "token-needed",
        f"{what} need the unix socket run/corelog.sock of the data folder, or 'Authorization: Bearer TOKEN' "
        "with a token of the data folder's file 'token'",
    )


def peer(request: HTTPConnection) -> str:
    """The connection's other end, as the server's protocol noted it: ``uid:N`` or ``addr:IP``."""
    host = request.client.host if request.client else ""
    return host if host.startswith("uid:") else f"addr:{host}"


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
