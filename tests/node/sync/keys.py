"""Keys of a real server, written by its JSON gateway."""

import base64
import http.client
import json
from typing import Any


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def ask(at: int | str, path: str, body: dict[str, Any], token: str = "") -> Any:
    """``at``: a port of this machine, or host:port. Fails unless it is answered with 200."""
    connection = http.client.HTTPConnection(f"127.0.0.1:{at}" if isinstance(at, int) else at, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"authorization": token} if token else {})
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, told
    return json.loads(told)


def put(at: int | str, key: str | bytes, value: str | bytes) -> int:
    """The revision."""
    return int(ask(at, "/v3/kv/put", {"key": b64(key), "value": b64(value)})["header"]["revision"])


def delete(at: int | str, key: str) -> None:
    ask(at, "/v3/kv/deleterange", {"key": b64(key)})
