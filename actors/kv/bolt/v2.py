"""A v2 data folder, as ``etcdctl backup`` (v2) or a stopped etcd ≤ 3.4 leaves it: the store at a raft snapshot, and
the requests that were committed after it.

``member/snap/TERM-INDEX.snap``: snappb.Snapshot (crc 1, CRC-32C of data; data 2) → raftpb.Snapshot (data 1, metadata
2: index 2, term 3) → the store as JSON. ``member/wal``: :mod:`actors.kv.bolt.wal`; an entry is an etcdserverpb.Request
or stands in an InternalRaftRequest (field 2); v3's requests and raft's empty entries are left out.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from crc32c import crc32c

from actors.kv.bolt import wal
from actors.kv.bolt.errors import FolderError, MessageError
from actors.kv.bolt.messages import fields, raw, signed, unsigned

#: Where users' keys are in etcd's tree; beside it, under ``/0``, it keeps members and the version.
KEYS = "/1"
#: Go's zero time: a node that stays.
FOREVER = "0001-01-01T00:00:00Z"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_SNAP = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.snap")
#: Time in nanoseconds is an int64 in etcd; an index is of more bits there, but none comes so far.
_INT64, INDEX_END = 1 << 63, 1 << 62
#: raftpb.ConfChange's types.
_ADD, _REMOVE, _UPDATE, _ADD_LEARNER = range(4)
_METHODS = (b"GET", b"QGET", b"HEAD", b"PUT", b"POST", b"DELETE", b"SYNC")


class Node(NamedTuple):
    """A file or directory (``value`` None). ``path``: with its first part, :data:`KEYS`; ``expires_ns``: since 1970,
    None: never."""

    path: str
    value: str | None
    created: int
    modified: int
    expires_ns: int | None


class Request(msgspec.Struct, frozen=True, gc=False):
    """``index``: in raft; ``path``: as in :class:`Node`; ``prev_exist``: None if not asked; ``expires_ns``: since
    1970, 0: never; ``time_ns``: of a SYNC, when everything that had expired by then goes. ``steps``: of MEMBER, how
    many of v2's indices a change of the members took; nothing else of it is kept."""

    index: int
    method: str
    path: str
    value: str
    dir: bool
    prev_value: str
    prev_index: int
    prev_exist: bool | None
    expires_ns: int
    recursive: bool
    time_ns: int
    refresh: bool | None
    steps: int = 0


class Backup(msgspec.Struct, frozen=True):
    """``raft_index``: of the snapshot, 0 if there is none; ``index``: v2's at the snapshot; ``nodes``: parents before
    their children, without the root; ``requests``: in order."""

    raft_index: int
    index: int
    nodes: list[Node]
    requests: list[Request]


_Index = Annotated[int, msgspec.Meta(ge=0, lt=INDEX_END)]


class _Node(msgspec.Struct, rename="pascal"):
    path: str
    created_index: _Index
    modified_index: _Index
    expire_time: str = FOREVER
    value: str = ""
    children: dict[str, "_Node"] | None = None


class _Store(msgspec.Struct, rename="pascal"):
    root: _Node
    current_index: _Index


_stores = msgspec.json.Decoder(_Store)


def read(folder: Path) -> Backup:
    """The newest snapshot that the log knows, and what follows it. etcd writes a snapshot first and its mark into the
    log after, so the newest one may not be known. A broken snapshot is an error though an older one may be there: who
    takes the broken file away gets the older one. Raises FolderError, OSError."""
    member = folder / "member"
    if not (member / "wal").is_dir():
        raise FolderError("member/wal", 0, f"isn't in {folder.name}: not a data folder of etcd")
    snaps = sorted(path for path in (member / "snap").glob("*.snap") if _SNAP.fullmatch(path.name))
    unmarked: wal.Unmarked | None = None
    while True:
        raft_index, index, nodes = _snapshot(snaps.pop()) if snaps else (0, 0, [])
        try:
            entries = wal.committed(member / "wal", raft_index)
            break
        except wal.Unmarked as error:
            unmarked = unmarked or error
            if not snaps:
                raise unmarked from None
    members = _Members(nodes)
    found = [_request(entry) if entry.type == wal.NORMAL else members.change(entry) for entry in entries if entry.data]
    return Backup(raft_index, index, nodes, [one for one in found if one is not None])


# -- the snapshot ---------------------------------------------------------------------------------------------


def _snapshot(path: Path) -> tuple[int, int, list[Node]]:
    """Raft's index, v2's, and the nodes."""
    content = path.read_bytes()
    try:
        outer = dict(fields(content))
        inner = raw(outer.get(2, b""))
        if crc32c(inner) != unsigned(outer.get(1, 0)):
            raise FolderError(path.name, 0, "a wrong CRC")
        of_raft = dict(fields(inner))
        raft_index = unsigned(dict(fields(raw(of_raft.get(2, b"")))).get(2, 0))
        store = _stores.decode(raw(of_raft.get(1, b"")))
        nodes = list(_nodes(store.root))
    except (MessageError, msgspec.MsgspecError, RecursionError) as error:
        raise FolderError(path.name, 0, str(error)) from None
    return raft_index, store.current_index, nodes


def _nodes(root: _Node) -> Iterator[Node]:
    pending = [("/", root)]
    while pending:
        path, node = pending.pop()
        if node.path != path:
            raise MessageError(f"the node at {path!r} is said to be {node.path!r}")
        if node is not root:
            value = None if node.children is not None else node.value
            expires_ns = _nanoseconds(node.expire_time)
            yield Node(node.path, value, node.created_index, node.modified_index, expires_ns)
        # a stack: the last one that is put on it comes first
        below = sorted((node.children or {}).items(), reverse=True)
        pending += [(_below(path, name), child) for name, child in below]


def _below(path: str, name: str) -> str:
    """etcd finds a node by the names on its way; what isn't to be found so would stop whoever deletes it."""
    if "/" in name or name in ("", ".", ".."):
        raise MessageError(f"a node below {path!r} is named {name!r}")
    return f"{path.removesuffix('/')}/{name}"


def _nanoseconds(time: str) -> int | None:
    """Of Go's JSON for a time, since 1970. Raises MessageError."""
    if time == FOREVER:
        return None
    parts = _TIME.fullmatch(time)
    try:
        if parts is None:
            raise ValueError("not RFC 3339")
        whole = datetime.fromisoformat(parts[1] + parts[3].replace("Z", "+00:00"))
        expires_ns = int(whole.timestamp()) * 1_000_000_000 + int((parts[2] or "0").ljust(9, "0"))
        if not -_INT64 <= expires_ns < _INT64:
            raise ValueError("its nanoseconds since 1970 are no int64")
        return expires_ns
    except ValueError as error:
        raise MessageError(f"the time {time!r}: {error}") from None


# -- requests -------------------------------------------------------------------------------------------------


def _request(entry: wal.Entry) -> Request | None:
    """What an entry asks for, if that is v2's."""
    try:
        found = dict(fields(entry.data))
        if found.get(2) in _METHODS:
            return _decoded(entry.index, entry.data)
        inner = found.get(2)
        return None if inner is None else _decoded(entry.index, raw(inner))
    except MessageError as error:
        raise FolderError(entry.file, entry.offset, f"entry {entry.index}: {error}") from None


class _Members:
    """Who is a member, and who was removed: a change that etcd refused takes no index."""

    def __init__(self, nodes: list[Node]) -> None:
        self.known, self.removed = (_ids(nodes, folder) for folder in ("members", "removed_members"))

    def change(self, entry: wal.Entry) -> Request | None:
        """raftpb.ConfChange: Type 2, NodeID 3. None: the entry is of another kind."""
        if entry.type != 1:
            return None
        try:
            found = dict(fields(entry.data))
            steps = self._steps(unsigned(found.get(2, 0)), unsigned(found.get(3, 0)))
        except MessageError as error:
            raise FolderError(entry.file, entry.offset, f"entry {entry.index}: {error}") from None
        return Request(entry.index, "MEMBER", "", "", False, "", 0, None, 0, False, 0, None, steps)

    def _steps(self, kind: int, member: int) -> int:
        """Indices of v2 that the change takes: a removed member stands among the removed, too."""
        if kind in (_ADD, _ADD_LEARNER):
            if member in self.known | self.removed:
                return 0
            self.known.add(member)
            return 1
        if member not in self.known:
            return 0
        if kind == _REMOVE:
            self.known.remove(member)
            self.removed.add(member)
        return 2 if kind == _REMOVE else 1


def _ids(nodes: list[Node], folder: str) -> set[int]:
    names = re.compile(f"/0/{folder}/([0-9a-f]{{1,16}})")
    return {int(found[1], 16) for node in nodes if (found := names.fullmatch(node.path))}


def _decoded(index: int, content: bytes) -> Request:
    """etcdserverpb.Request: ID 1, Method 2, Path 3, Val 4, Dir 5, PrevValue 6, PrevIndex 7, PrevExist 8, Expiration 9,
    Wait 10, Since 11, Recursive 12, Sorted 13, Quorum 14, Time 15, Stream 16, Refresh 17."""
    found = dict(fields(content))
    if found.get(2) not in _METHODS:
        raise MessageError(f"the method {found.get(2)!r}")
    # etcd takes any bytes for a key and its value
    texts = {at: raw(found.get(at, b"")).decode("utf-8", "surrogateescape") for at in (2, 3, 4, 6)}
    exist, refresh = (bool(unsigned(found[at])) if at in found else None for at in (8, 17))
    return Request(
        index=index,
        method=texts[2],
        path=texts[3],
        value=texts[4],
        dir=bool(unsigned(found.get(5, 0))),
        prev_value=texts[6],
        prev_index=unsigned(found.get(7, 0)),
        prev_exist=exist,
        expires_ns=signed(found.get(9, 0)),
        recursive=bool(unsigned(found.get(12, 0))),
        time_ns=signed(found.get(15, 0)),
        refresh=refresh,
    )
