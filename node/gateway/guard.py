"""Whether etcd's users are asked for, v3's or v2's: then reading what keys hold needs a principal here as well."""

from pathlib import Path
from typing import Protocol

import httpx2

TIMEOUT_S = 5.0


class Guard(Protocol):
    async def closed(self) -> bool: ...


class Users:
    """Implements :class:`Guard`: asks this node's kv replica by its socket. One that doesn't answer: closed."""

    def __init__(self, kv_socket: Path) -> None:
        self._kv_socket = kv_socket

    async def closed(self) -> bool:
        # no certificates are read for a unix socket
        transport = httpx2.AsyncHTTPTransport(uds=str(self._kv_socket), verify=False)
        try:
            async with httpx2.AsyncClient(transport=transport, base_url="http://kv", timeout=TIMEOUT_S) as client:
                answers = await client.post("/v3/auth/status", content=b"{}"), await client.get("/v2/auth/enable")
            return any(answer.status_code != 200 or bool(answer.json().get("enabled")) for answer in answers)
        except (httpx2.HTTPError, ValueError):
            return True
