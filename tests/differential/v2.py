"""Runs v2 sequences on real etcd 3.4 and on ours: statuses, headers, bodies and watches' events are compared."""

import contextlib
import itertools
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.differential import masks, v2_servers
from tests.differential.running import Differ
from tests.differential.v2_servers import Answer, Server, Watch, basic
from tests.differential.v2_steps import USERS

#: Watches that settled aren't looked at longer than this; expiries may take etcd half a second more than their TTL.
SETTLE_S, EXPIRY_S = 3.0, 8.0
#: No sequence begins at so small an index.
SMALL = v2_servers.HISTORY_EVENTS // 2
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: A message names the user, the role, or the pattern.
_NAMES = re.compile(r"\b(root|alice|bob|_x|x|other|guest|none|r|s)\b(?=( |$|\.|:))|/s\d+\S*|/\*")
_ORDERED = re.compile(r"(?<=/)\d{20}")
_INDEX = re.compile(r"Index=(\d{4,})")
_PAIR = re.compile(r"\[(\d+)( != |/)(\d+)\]")


class Pairs:
    """The two servers, started anew when they parted. ``errors``: what was met: codes of keys, words of pages;
    ``fields``: parameters that were sent, by method, and ``fields`` of auth's JSON; ``steps``: by kind."""

    def __init__(self, folder: Path) -> None:
        self.errors: Counter[str] = Counter()
        self.fields: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        self._folder = folder
        self._runs, self._tops = itertools.count(), itertools.count()
        self._stack: contextlib.ExitStack | None = None
        self._servers: list[Server] = []
        self._pool = ThreadPoolExecutor(2)
        self._dirty = False

    def __enter__(self) -> "Pairs":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._pool.shutdown()

    def _start(self) -> None:
        folder = self._folder / f"v2-{next(self._runs)}"
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            self._servers = [enter(v2_servers.real(folder / "etcd")), enter(v2_servers.ours(folder / "ours"))]
            self._stack = stack.pop_all()

    def _stop(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()

    def run(self, sequence: list[Any]) -> None:
        """Raises Differ."""
        if self._stack is None:
            self._start()
        try:
            self._run(sequence)
        except Differ:
            self.forget()
            raise
        except BaseException:
            self._stop()
            raise

    def forget(self) -> None:
        """They parted: what comes next begins anew."""
        self._stop()

    # -- one sequence -----------------------------------------------------------------------------------------

    def _run(self, sequence: list[Any]) -> None:
        top = f"/s{next(self._tops)}"
        for server in self._servers:
            server.base = server.index()
        try:
            for at, step in enumerate(sequence):
                self.steps[step[0]] += 1
                _STEPS[step[0]](self, f"step {at}: {step}", top, *step[1:])
            self._watches()
        finally:
            for server in self._servers:
                server.forget_watches()
        if self._dirty and not self._without_users():
            self._stop()
        else:
            self._both(lambda server: server.ask(0, "DELETE", f"/v2/keys{top}?recursive=true", None, {}))

    def _without_users(self) -> bool:
        """Whether auth could be ended; then users and roles are, too."""
        self._dirty = False
        for server in self._servers:
            for password in ("pw", "no"):
                server.ask(0, "DELETE", "/v2/auth/enable", None, basic("root", password))
            if json.loads(server.ask(0, "GET", "/v2/auth/enable", None, {})[2])["enabled"]:
                return False
            for what in ("users", "roles"):
                for name in ("root", "alice", "bob", "nobody", "_x", "x", "guest", "r", "s", "none"):
                    server.ask(0, "DELETE", f"/v2/auth/{what}/{name}", None, {})
        return True

    def _both(self, what: Any) -> list[Any]:
        return list(self._pool.map(what, self._servers))

    def _compare(self, where: str, told: list[Any]) -> None:
        theirs, ours = told
        if isinstance(theirs, dict) and isinstance(body := theirs.get("body"), dict):
            if "errorCode" in body:
                self.errors[str(body["errorCode"])] += 1
            elif "message" in body:
                self.errors[_NAMES.sub("NAME", body["message"])] += 1
        if not masks.same(theirs, ours):
            raise Differ(f"{where}\n  etcd:    {theirs}\n  corelog: {ours}")

    # -- steps ------------------------------------------------------------------------------------------------

    def keys(
        self, where: str, top: str, client: int, method: str, key: str, fields: Any, in_query: bool, odd: str, who: Any
    ) -> None:
        self.fields.update(f"{method} {name}" for name in fields)
        in_query = in_query or method not in ("PUT", "POST")

        def ask(server: Server) -> Any:
            form = urlencode(_based(fields, server.base), errors="surrogateescape")
            query = "&".join(part for part in (form if in_query else "", odd) if part)
            path = "/v2/keys" + quote(key.replace("@", top)) + (f"?{query}" if query else "")
            body = None if in_query else form.encode()
            headers = {**({} if in_query else FORM), **_credentials(who)}
            ordered = method == "GET" and fields.get("sorted") in ("true", "1")
            return told(server.ask(client, method, path, body, headers), server.base, top, ordered)

        self._compare(where, self._both(ask))

    def watch(self, where: str, top: str, _client: int, key: str, fields: Any, who: Any) -> None:
        self.fields.update(f"GET {name}" for name in fields)

        def ask(server: Server) -> Any:
            path = "/v2/keys" + quote(key.replace("@", top)) + "?" + urlencode(_based(fields, server.base))
            watch = Watch(server.port, path, _credentials(who))
            watch.key, watch.streams = key.replace("@", top), "stream" in fields  # type: ignore[attr-defined]
            watch.past = isinstance(fields.get("waitIndex"), int)  # type: ignore[attr-defined]
            server.watches.append(watch)
            return told(watch.answer, server.base, top, False)

        self._compare(where, self._both(ask))

    def page(self, where: str, top: str, client: int, method: str, path: str, body: str, kind: str, who: Any) -> None:
        self.fields.update([f"{method} {path}"])
        headers = {**_credentials(who), **({"Content-Type": kind} if kind else {})}
        given = body.encode() if method in ("POST", "PUT") else None

        def ask(server: Server) -> Any:
            answer = told(server.ask(client, method, path, given, headers), server.base, top, False)
            return masks.v2_page(path, answer)

        self._compare(where, self._both(ask))

    def auth(self, where: str, top: str, client: int, method: str, path: str, body: Any, who: Any) -> None:
        self._dirty = True
        if isinstance(body, dict):
            self.fields.update(f"{path.partition('/')[0]} {name}" for name in body)
        given = None if body is None else json.dumps(body).replace("@", top).encode()
        headers = _credentials(who)

        def ask(server: Server) -> Any:
            return told(server.ask(client, method, f"/v2/auth/{path}", given, headers), server.base, top, False)

        self._compare(where, self._both(ask))

    def gone(self, where: str, top: str, client: int, key: str) -> None:
        """Until the key's TTL is over, on both."""

        def wait(server: Server) -> Any:
            until = time.monotonic() + EXPIRY_S
            while time.monotonic() < until:
                answer = server.ask(client, "GET", "/v2/keys" + key.replace("@", top), None, {})
                if answer[0] == 404:
                    return told(answer, server.base, top, False)
                time.sleep(0.05)
            return "it didn't expire"

        self._compare(where, self._both(wait))

    # -- watches ----------------------------------------------------------------------------------------------

    def _watches(self) -> None:
        """All watches must have told the same; the servers may take their time."""
        etcd, ours = self._servers
        for number, (one, other) in enumerate(zip(etcd.watches, ours.watches, strict=True)):
            until = time.monotonic() + SETTLE_S
            while True:
                both = masks.v2_watches(*(_events(one, etcd.base), _events(other, ours.base)), one)
                if masks.same(*both) or time.monotonic() > until:
                    break
                time.sleep(0.01)
            self._compare(f"watch {number} of {one.key}: ", list(both))  # type: ignore[attr-defined]


_STEPS = {"Keys": Pairs.keys, "Watch": Pairs.watch, "Page": Pairs.page, "Auth": Pairs.auth, "Gone": Pairs.gone}


def _credentials(who: tuple[str, str]) -> dict[str, str]:
    assert who in USERS
    return basic(*who) if who[0] else {}


def _based(fields: dict[str, Any], base: int) -> dict[str, Any]:
    """An index that is a number is meant from the sequence's start; but 0 is 0."""
    return {name: base + value if isinstance(value, int) and value else value for name, value in fields.items()}


def _events(watch: Watch, base: int) -> list[Any]:
    return [relative(event, base, False) for event in list(watch.events)]


def told(answer: Answer, base: int, top: str, ordered: bool) -> dict[str, Any]:
    """What is compared of an answer."""
    status, headers, content = answer
    index = headers.get("x-etcd-index")
    made: dict[str, Any] = {
        "status": status,
        "type": headers.get("content-type"),
        "index": None if index is None else max(int(index) - base, -1),
        "raft": sorted(name for name in headers if name.startswith("x-raft")),
        "cluster": "x-etcd-cluster-id" in headers,
        "allow": headers.get("allow"),
        "location": _shifted(headers.get("location", ""), base),
    }
    try:
        made["body"] = relative(json.loads(content), base, ordered)
    except ValueError:
        made["body"] = _shifted(content.decode("utf-8", "replace"), base)
    return made


def _shifted(url: str, base: int) -> str:
    return _INDEX.sub(lambda found: f"Index=+{int(found[1]) - base}", url)


def relative(data: Any, base: int, ordered: bool) -> Any:
    """Indices are counted from ``base``; listings that weren't asked to be sorted are, by key."""
    if isinstance(data, list):
        made = [relative(one, base, ordered) for one in data]
        named = all(isinstance(one, dict) and "key" in one for one in made)
        return made if ordered or not named else sorted(made, key=lambda one: str(one["key"]))
    if not isinstance(data, dict):
        return data
    out: dict[str, Any] = {}
    for name, value in data.items():
        if name in ("modifiedIndex", "createdIndex", "index"):
            out[name] = value - base if value else 0
        elif name == "key":
            out[name] = _ORDERED.sub(lambda found: f"+{int(found[0]) - base}", value)
        elif name == "cause":
            text = _PAIR.sub(lambda found: _pair(found, base), value)
            out[name] = _ORDERED.sub(lambda found: f"+{int(found[0]) - base}", text)
        elif name == "expiration":
            out[name] = True  # "ttl" beside it is compared
        else:
            out[name] = relative(value, base, ordered)
    return out


def _pair(found: re.Match[str], base: int) -> str:
    """Two indices of a cause; one that was sent as it is, is not of this run and small."""
    first, second = (int(found[at]) - (base if int(found[at]) > SMALL else 0) for at in (1, 3))
    return f"[{int(found[1]) - base if found[2] == '/' else first}{found[2]}{second}]"
