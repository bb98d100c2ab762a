"""How commands reach a node: by the unix socket of its data folder, or an address and a token."""

import contextlib
import http.client
import json
import os
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlencode

from cyclopts import Parameter

#: Exit codes (docs: the command line): what went wrong, for scripts.
FALSE, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE, UNKNOWN = 1, 2, 3, 4, 5, 6
_BY_STATUS = {400: USAGE, 404: NOT_FOUND, 410: NOT_FOUND, 502: UNREACHABLE, 503: UNREACHABLE, 504: UNKNOWN}


class Failure(Exception):
    """Ends a command: the words go to stderr, the code is the process's."""

    def __init__(self, message: str, exit_code: int = 1, kind: str = "", body: Any = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.kind = kind
        self.body = body


@Parameter(name="*", group="Node and output")
@dataclass(frozen=True)
class Common:
    """Options that every command takes.

    Parameters
    ----------
    endpoint
        Where the node is: HOST:PORT, or the path of its unix socket.
    data
        Data folder of the node; its unix socket is run/corelog.sock.
    token
        Token for commands over TCP (a line of the data folder's file "token").
    output
        table, wide, json, jsonl, yaml or name.
    fields
        Columns to show, separated by commas.
    legend
        Whether to print the line of column names.
    color
        Colours: auto, always or never.
    timeout
        Seconds to wait for an answer or an outcome.
    """

    endpoint: Annotated[str | None, Parameter(env_var="CORELOG_ENDPOINT")] = None
    data: Annotated[Path | None, Parameter(env_var="CORELOG_DATA")] = None
    token: Annotated[str | None, Parameter(env_var="CORELOG_TOKEN")] = None
    output: Annotated[str, Parameter(name=["--output", "-o"])] = "table"
    fields: str = ""
    legend: bool = True
    color: str = "auto"
    timeout: float = 60.0


#: The instant that a read is of.
At = Annotated[str | None, Parameter(name="--at", help="As of a position (1234.7) or a time ('2 minutes ago').")]

#: Used as the default of each command's ``common`` parameter.
COMMON = Common()


@Parameter(name="*", group="Command")
@dataclass(frozen=True)
class Doing:
    """Options of commands that change something.

    Parameters
    ----------
    request_id
        Makes a retry harmless: the same id is applied once, on whichever node.
    dry_run
        Show the event that would be published, publish nothing.
    wait
        Wait until what was asked for has happened.
    """

    request_id: str = ""
    dry_run: bool = False
    wait: bool = True


DOING = Doing()

_GLOBAL = {"--endpoint", "--data", "--token", "--output", "-o", "--fields", "--color", "--timeout"}
_GLOBAL_FLAGS = {"--no-legend", "--legend"}


def reorder(argv: list[str]) -> list[str]:
    """Options of :class:`Common` may stand before the command too: move them behind it."""
    moved: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        word = rest[0]
        if word.partition("=")[0] in _GLOBAL:
            take = 1 if "=" in word else 2
            moved, rest = moved + rest[:take], rest[take:]
        elif word in _GLOBAL_FLAGS:
            moved, rest = [*moved, word], rest[1:]
        else:
            break
    return rest + moved


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class Client:
    """Talks to one gateway. Every method raises Failure with words and exit code."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.where = _where(common)

    def _connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        if self.where.startswith("/") or self.where.startswith("."):
            return UnixConnection(self.where, timeout_s)
        host, _, port = self.where.rpartition(":")
        if not port.isdigit():
            raise Failure(f"{self.where!r} is not an endpoint: HOST:PORT or the path of a unix socket", USAGE)
        return http.client.HTTPConnection(host.strip("[]") or "127.0.0.1", int(port), timeout=timeout_s)

    def open(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = -1,
    ) -> http.client.HTTPResponse:
        """The response, checked: a problem or an unreachable node raises Failure."""
        given = {key: str(value) for key, value in (query or {}).items() if value not in (None, "", False)}
        url = path + ("?" + urlencode(given) if given else "")
        # one request a connection: whoever reads the answer to its end has closed it
        all_headers = {"accept": "application/json", "connection": "close", **(headers or {})}
        token = self.common.token or _token_file(self.common)
        if token and not self.where.startswith(("/", ".")):
            all_headers["authorization"] = f"Bearer {token}"
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = self._connect(self.common.timeout + 2 if timeout_s == -1 else timeout_s)
        try:
            # who answers without reading the body may be gone before it is sent; the answer is there
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, url, raw, all_headers)
            response = connection.getresponse()
        except (TimeoutError, ConnectionResetError, http.client.HTTPException) as error:
            connection.close()
            code = UNREACHABLE if method == "GET" else UNKNOWN
            raise Failure(f"{self.where} gave no answer: {error!r}", code) from error
        except OSError as error:
            connection.close()
            raise Failure(
                f"no node answers at {self.where} ({error.strerror or error}); start one with `corelog up`, "
                "or say --endpoint or --data",
                UNREACHABLE,
            ) from error
        if response.status >= 400:
            raise _failure(response)
        return response

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return json.loads(self.open("GET", path, query).read())

    def command(
        self, method: str, path: str, body: Any = None, doing: Doing = DOING, query: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Publish; tells position and correlation on stderr and returns the answer."""
        headers = {"content-type": "application/json", "x-corelog-correlation": uuid.uuid4().hex[:16]}
        if doing.request_id:
            headers["idempotency-key"] = doing.request_id
        asked = {"timeout": min(self.common.timeout, 60), "dry_run": "1" if doing.dry_run else None, **(query or {})}
        answer: dict[str, Any] = json.loads(self.open(method, path, asked, body or {}, headers).read())
        if doing.dry_run:
            print(json.dumps(answer["event"], indent=2))
        else:
            note(f"position {answer['position']}  correlation {answer['correlation']}")
        return answer


def _failure(response: http.client.HTTPResponse) -> Failure:
    raw = response.read()
    try:
        body = json.loads(raw)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    detail = body.get("detail") or body.get("message") or raw.decode("utf-8", "replace")[:300] or response.reason
    if body.get("cause") and body["cause"] not in str(detail):
        detail = f"{detail}: {body['cause']}"
    if body.get("errorCode") and body.get("cause"):
        detail = f"{detail}: {body['cause']}"  # etcd's words come first, what they mean here second
    if body.get("position"):
        detail += f" (published at {body['position']}, changed nothing)"
    kind = str(body.get("type", "")).removeprefix("corelog:")
    return Failure(str(detail), _BY_STATUS.get(response.status, CONFLICT), kind, body)


def _where(common: Common) -> str:
    if common.endpoint:
        return common.endpoint.removeprefix("http://").rstrip("/")
    folders = [common.data] if common.data else [Path("data"), Path("/var/lib/corelog")]
    for folder in folders:
        sock = folder / "run" / "corelog.sock"
        if sock.exists() or common.data:
            return str(sock.absolute())
    return "127.0.0.1:7379"


def socket_path(common: Common) -> str:
    """The kv replica's own socket on this machine. Raises Failure: only the gateway's address is known."""
    where = _where(common)
    if not where.startswith(("/", ".")):
        raise Failure(f"this is done on the node's machine, by its socket: say --data FOLDER instead of {where}", USAGE)
    return str(Path(where).with_name("kv.sock"))


def _token_file(common: Common) -> str:
    path = os.environ.get("CORELOG_TOKEN_FILE") or (str(common.data / "token") if common.data else "")
    if not path:
        return ""
    try:
        return Path(path).read_text().split()[0]
    except (OSError, IndexError):
        return ""


def segment(name: str) -> str:
    """A name as one path segment of a URL."""
    return quote(name, safe="@:.-_~")


def note(text: str) -> None:
    """A message for people: stderr, so that data on stdout stays clean."""
    print(text, file=sys.stderr)


def fail(message: str, exit_code: int = 1) -> NoReturn:
    raise Failure(message, exit_code)


def sse(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, decoded."""
    for raw in response:
        if raw.startswith(b"data:"):
            yield json.loads(raw[5:])
