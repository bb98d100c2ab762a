"""Clusters that have run already, emptied over their own interface, as another suite's empty store.

The revision doesn't go back: ``raised`` brings an empty one, to compare with, to where another one is.
"""

import base64
import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

#: Whom the suites make root, should one have ended with users on.
ROOTS = (("root", "rootpw"), ("root", "root"), ("root", "pwd"))
_ALL = base64.b64encode(b"\0").decode()
_KEY = base64.b64encode(b"emptied").decode()
WAIT_S = 60.0


class Refused(Exception):
    """A call that was answered with an error; says which and what it said."""


class Caller:
    """A connection to one endpoint's JSON gateway and v2 keys. Not for two threads."""

    def __init__(self, endpoint: str) -> None:
        self._at = urlsplit(endpoint)
        self._connection = http.client.HTTPConnection(self._at.hostname or "", self._at.port, timeout=WAIT_S)
        self.token = ""

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: str = "") -> tuple[int, bytes]:
        headers = {"Authorization": self.token} if self.token else {}
        self._connection.request(method, path, body or None, headers)
        with self._connection.getresponse() as answer:
            return answer.status, answer.read()

    def call(self, path: str, **fields: Any) -> dict[str, Any]:
        """The answer of a v3 call. Raises Refused."""
        status, raw = self.ask("POST", f"/v3/{path}", json.dumps(fields))
        if status != 200:
            raise Refused(f"{path} {fields}: {status} {raw[:500]!r}")
        return dict(json.loads(raw))


def emptied(endpoint: str) -> int:
    """Take out all that the cluster behind the endpoint holds; its history is compacted. The revision then."""
    with Caller(endpoint) as caller:
        _without_users(caller)
        for lease in caller.call("lease/leases").get("leases", []):
            with contextlib.suppress(Refused):  # it ended meanwhile
                caller.call("lease/revoke", ID=lease["ID"])
        caller.call("kv/deleterange", key=_ALL, range_end=_ALL)
        for alarm in caller.call("maintenance/alarm", action="GET").get("alarms", []):
            caller.call("maintenance/alarm", action="DEACTIVATE", **alarm)
        with contextlib.suppress(Refused):  # there is none, mostly
            caller.call("maintenance/downgrade", action="CANCEL")
        for member in caller.call("cluster/member/list")["members"]:
            if not member.get("name"):
                caller.call("cluster/member/remove", ID=member["ID"])
        _without_v2_keys(caller)
        return _closed(caller)


def _without_users(caller: Caller) -> None:
    if caller.call("auth/status").get("enabled"):
        for name, password in ROOTS:
            with contextlib.suppress(Refused):
                caller.token = caller.call("auth/authenticate", name=name, password=password)["token"]
                break
        caller.call("auth/disable")
        caller.token = ""
    for user in caller.call("auth/user/list").get("users", []):
        caller.call("auth/user/delete", name=user)
    for role in caller.call("auth/role/list").get("roles", []):
        caller.call("auth/role/delete", role=role)


def _without_v2_keys(caller: Caller) -> None:
    status, raw = caller.ask("GET", "/v2/keys/")
    if status != 200:
        return  # an etcd without v2
    for node in json.loads(raw)["node"].get("nodes", []):
        caller.ask("DELETE", f"/v2/keys{quote(node['key'])}?recursive=true")


def _closed(caller: Caller) -> int:
    """A put, its delete and a compaction there, so that all emptied stores at one revision hold the same."""
    caller.call("kv/put", key=_KEY)
    revision = int(caller.call("kv/deleterange", key=_KEY)["header"]["revision"])
    caller.call("kv/compaction", revision=revision, physical=True)
    return revision


def revisions(endpoint: str) -> tuple[int, int]:
    """The store's, and that of the users."""
    with Caller(endpoint) as caller:
        store = caller.call("kv/range", key=_KEY)["header"]["revision"]
        return int(store), int(caller.call("auth/status").get("authRevision", 0))


def raised(endpoint: str, like: tuple[int, int]) -> None:
    """Bring an empty cluster to the revisions of one that was emptied (``revisions`` of it)."""
    store, users = like
    now, users_now = revisions(endpoint)
    assert now + 2 <= store, f"{endpoint} is at revision {now}, beyond {store}"
    todo = iter(range(store - now - 2))
    _together(endpoint, todo)
    with Caller(endpoint) as caller:
        assert _closed(caller) == store
        _raise_users(caller, users - users_now)


def _together(endpoint: str, todo: Iterator[int], callers: int = 16) -> None:
    """A put for each of ``todo``."""
    lock = threading.Lock()

    def work() -> None:
        with Caller(endpoint) as caller:
            while True:
                with lock:
                    if next(todo, None) is None:
                        return
                caller.call("kv/put", key=_KEY)

    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _raise_users(caller: Caller, changes: int) -> None:
    """Each change of the users is one revision of theirs: a role made and deleted, with a permission for an odd one."""
    assert changes == 0 or changes > 1, "one change can't be made without leaving something"
    if changes % 2:
        caller.call("auth/role/add", name="raised")
        caller.call("auth/role/grant", name="raised", perm={"key": _KEY})
        caller.call("auth/role/delete", role="raised")
        changes -= 3
    for _ in range(changes // 2):
        caller.call("auth/role/add", name="raised")
        caller.call("auth/role/delete", role="raised")


def names(endpoint: str) -> list[str]:
    """What the members are called."""
    with Caller(endpoint) as caller:
        return [one["name"] for one in caller.call("cluster/member/list")["members"] if one.get("name")]


def named(text: str, members: Sequence[str]) -> str:
    """The text with ``<name>`` for each member's name."""
    return re.sub(rf"\b({'|'.join(map(re.escape, members))})\b", "<name>", text) if members else text
