"""The v2 store: a tree of files and directories, one index, the last 1000 changes. Pure: time comes with the event.

The verbs over it are functions, a file per family: ``put``, ``delete``, ``get``, ``watch``. Only they change it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.nodes import (
    DEPTH_MAX,
    KEY_CHARACTERS_MAX,
    Change,
    Dir,
    File,
    Node,
    blob_of,
    change_of,
    plain_change,
    text_in,
)
from streams.events.base import Blob

#: Changes kept for watchers that ask for an index of the past; older ones answer 401.
HISTORY_EVENTS = 1000
#: About so many characters of names and values stand in one line of a snapshot.
LINE_BYTES = 65536
#: No key (those begin with a slash): what happened beside them.
BESIDE = "2"
#: A TTL in seconds from here on would end after the year 2262: permanent, as in etcd.
TTL_S_MAX = 7_000_000_000


class Store:
    """``files`` and ``dirs`` by path (the root is ``""``): a put of a file that is there is one look-up, not a walk.

    ``ttls``: what each node with a TTL had left (ms) when its TTL was set or last counted, by path.
    """

    def __init__(self) -> None:
        self.index = 0
        self.files: dict[str, File] = {}
        self.dirs: dict[str, Dir] = {"": Dir({}, 0, 0)}
        self.history: deque[Change] = deque(maxlen=HISTORY_EVENTS)
        self.ttls: dict[str, int] = {}

    # -- finding ----------------------------------------------------------------------------------------------

    def find(self, key: str) -> Node | None:
        """The node at a clean key, or None."""
        return self.files.get(key) or self.dirs.get(key)

    def node(self, key: str) -> Node:
        """The node at a clean key. Raises 100 (the first element that is missing) or 104 (a file on the path)."""
        found = self.files.get(key) or self.dirs.get(key)
        if found is not None:
            return found
        path = ""
        for name in key.split("/")[1:]:
            path = f"{path}/{name}"
            if path in self.files:
                raise V2Error(errors.NOT_DIR, path, self.index)
            if path not in self.dirs:
                raise V2Error(errors.KEY_NOT_FOUND, path, self.index)
        raise AssertionError(key)

    def parent(self, key: str) -> Dir:
        """The directory that a clean key is in; made, with its parents, if it isn't there.

        Raises 104 when a file is on the path, before anything is made.
        """
        head = key.rpartition("/")[0]
        found = self.dirs.get(head)
        if found is not None:
            return found
        if head.count("/") >= DEPTH_MAX or len(key) > KEY_CHARACTERS_MAX:
            cause = f"the key has over {DEPTH_MAX} elements or {KEY_CHARACTERS_MAX} characters"
            raise V2Error(errors.INVALID_FIELD, cause, self.index)
        return self.directory(head)

    def directory(self, key: str) -> Dir:
        """The directory at a clean key; made, with its parents, if it isn't there. Raises 104, then nothing is made."""
        path, at = "", self.dirs[""]
        for part in key.split("/")[1:]:
            path = f"{path}/{part}"
            if path in self.files:
                raise V2Error(errors.NOT_DIR, path, self.index)
            below = self.dirs.get(path)
            if below is None:
                at.children[path] = None
                below = self.dirs[path] = Dir({}, self.index + 1, self.index + 1)
            at = below
        return at

    # -- changing (called by the verbs) -----------------------------------------------------------------------

    def keep_ttl(self, key: str, ttl_s: int | None) -> None:
        """Note or forget that the node at ``key`` has a TTL."""
        if ttl_s is None:
            self.ttls.pop(key, None)
        else:
            self.ttls[key] = ttl_s * 1000

    def took(self, change: Change) -> Change:
        """The change happened: count the index, keep it in the history."""
        self.index = change[0]
        self.history.append(change)
        return change

    def skip(self, steps: int, time_ms: int) -> None:
        """Indices that something beside the keys took: no watcher sees them, but they are in the history's number."""
        for _ in range(steps):
            self.took((self.index + 1, "update", BESIDE, None, None, time_ms, True))

    def remove(self, key: str) -> None:
        """Take out the node at ``key`` with all below it."""
        del self.dirs[key.rpartition("/")[0]].children[key]
        pending = [key]
        while pending:
            path = pending.pop()
            if self.ttls:
                self.ttls.pop(path, None)
            if self.files.pop(path, None) is None:
                pending += self.dirs.pop(path).children

    # -- snapshots --------------------------------------------------------------------------------------------

    def encode(self, form: Callable[[str], Blob] = blob_of) -> Iterator[bytes]:
        """Lines of JSON: a head, the changes, then directories (parents first), each followed by its files.

        form: of files' values; a state has the one that is alike everywhere.
        """
        yield _line({"index": self.index})
        for change in self.history:
            yield _line({"change": plain_change(change)})
        for path, dir_ in self.dirs.items():
            yield _line({"dir": [blob_of(path), dir_.created, dir_.modified, *self._ttl(path, dir_)]})
            rows: list[object] = []
            size = 0
            for child in dir_.children:
                if (node := self.files.get(child)) is not None:
                    assert node.value is not None
                    name = blob_of(child[len(path) + 1 :])
                    rows.append([name, form(node.value), node.created, node.modified, *self._ttl(child, node)])
                    size += 64 + len(node.value)
                    if size >= LINE_BYTES:
                        yield _line({"files": rows})
                        rows, size = [], 0
            if rows:
                yield _line({"files": rows})

    def _ttl(self, path: str, node: Node) -> list[int]:
        return [node.expires_ms, self.ttls[path]] if node.expires_ms else []

    def restore(self, lines: Iterable[bytes]) -> None:
        """The inverse of :meth:`encode`, into an empty store. Raises ValueError on anything else."""
        path, at = "", self.dirs[""]
        for line in lines:
            row = _rows.decode(line)
            if row.files is not None:
                for name, value, created, modified, *ttl in row.files:
                    child = f"{path}/{text_in(name)}"
                    at.children[child] = None
                    # equal indices share one object: 32 bytes a key
                    created = modified if created == modified else created
                    self.files[child] = File(text_in(value), created, modified, ttl[0] if ttl else 0)
                    if ttl:
                        self.ttls[child] = ttl[1]
            elif row.dir is not None:
                path, created, modified, *ttl = row.dir
                path = text_in(path)
                at = self._restore_dir(path, created, modified, ttl)
            elif row.change is not None:
                self.history.append(change_of(row.change))
            else:
                self.index = row.index

    def _restore_dir(self, path: str, created: int, modified: int, ttl: list[int]) -> Dir:
        if not path:
            return self.dirs[""]
        self.dirs[path.rpartition("/")[0]].children[path] = None
        made = self.dirs[path] = Dir({}, created, modified, ttl[0] if ttl else 0)
        if ttl:
            self.ttls[path] = ttl[1]
        return made


class _Row(msgspec.Struct, gc=False):
    """One line of a snapshot: exactly one of these."""

    index: int = 0
    change: list[Any] | None = None
    dir: list[Any] | None = None
    files: list[list[Any]] | None = None


_rows = msgspec.json.Decoder(_Row)


def _line(data: object) -> bytes:
    return msgspec.json.encode(data) + b"\n"
