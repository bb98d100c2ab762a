"""Who watches which keys, and what is told of a change: the pure half of etcd's Watch.

A watcher is a cursor (``next``) into the revisions that the store keeps. Synced ones stand in the index and get what
each batch of changes brings; the others read the history in pages until they are there. So a slow one costs itself.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from actors.kv.v3.revs import Rev, Revs

#: Changes that one page of a watcher that catches up reads, and about the bytes that it sends.
PAGE_CHANGES, PAGE_BYTES = 4096, 256 * 1024
#: As etcd, per response: its limit of a request's bytes, from which on ``fragment`` splits.
FRAGMENT_BYTES = 1536 * 1024


class Told(Protocol):
    """Who hears of a change: a watch's stream."""

    def tell(self, watcher: "Watcher", news: "News") -> None: ...


class Watcher(msgspec.Struct, eq=False, gc=True):
    """``end``: None for one key, empty for all behind. ``next``: the first revision that it wasn't told."""

    id: int
    key: bytes
    end: bytes | None
    next: int
    stream: Told
    prev_kv: bool = False
    no_put: bool = False
    no_delete: bool = False
    fragment: bool = False
    progress: bool = False
    #: whether the last interval of progress notices brought it an event
    told: bool = False
    synced: bool = False

    def covers(self, key: bytes) -> bool:
        if self.end is None:
            return key == self.key
        return self.key <= key and (not self.end or key < self.end)

    def chosen(self, found: list[Rev]) -> list[Rev] | None:
        """Of changes of keys that it covers, which it wants; None: all."""
        if self.next <= found[0].mod and not self.no_put and not self.no_delete:
            return None
        return [rev for rev in found if self.wants(rev)]

    def wants(self, rev: Rev) -> bool:
        """Of a key that it covers."""
        return not (self.no_put if rev.version else self.no_delete) and rev.mod >= self.next


class Index:
    """Synced watchers by what they watch; ranges that are prefixes are found by the prefix."""

    def __init__(self) -> None:
        self._keys: dict[bytes, dict[Watcher, None]] = {}
        self._prefixes: dict[int, dict[bytes, dict[Watcher, None]]] = {}
        self._ranges: dict[tuple[bytes, bytes], dict[Watcher, None]] = {}
        self.count = 0
        #: called when somebody comes and nobody was there
        self.on_first: Callable[[], None] = lambda: None

    def add(self, watcher: Watcher) -> None:
        self._place(watcher)[watcher] = None
        self.count += 1
        if self.count == 1:
            self.on_first()

    def remove(self, watcher: Watcher) -> None:
        place = self._place(watcher)
        del place[watcher]
        self.count -= 1
        if place:
            return
        key, end = watcher.key, watcher.end
        if end is None:
            del self._keys[key]
        elif end and end == behind(key):
            del self._prefixes[len(key)][key]
            if not self._prefixes[len(key)]:
                del self._prefixes[len(key)]
        else:
            del self._ranges[key, end]

    def _place(self, watcher: Watcher) -> dict[Watcher, None]:
        key, end = watcher.key, watcher.end
        if end is None:
            return self._keys.setdefault(key, {})
        if end and end == behind(key):
            return self._prefixes.setdefault(len(key), {}).setdefault(key, {})
        return self._ranges.setdefault((key, end), {})

    def of(self, key: bytes) -> Iterator[dict[Watcher, None]]:
        """All that cover ``key``: those who watch the same are one dictionary, and each watcher is in just one."""
        if (found := self._keys.get(key)) is not None:
            yield found
        for length, prefixes in self._prefixes.items():
            if (found := prefixes.get(key[:length])) is not None and len(key) >= length:
                yield found
        for (start, end), watchers in self._ranges.items():
            if start <= key and (not end or key < end):
                yield watchers


def behind(prefix: bytes) -> bytes:
    """The ``range_end`` of all keys that begin with ``prefix``; empty: to the end of all keys."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else b""


class Page(msgspec.Struct, gc=False):
    """``next``: the first revision after it; ``done``: there is nothing more now."""

    revs: list[Rev]
    next: int
    done: bool


def page(revs: Revs, watcher: Watcher) -> Page:
    """What a watcher that isn't synced is told next: whole revisions."""
    found: list[Rev] = []
    looked = size = last = 0
    for rev in revs.since(watcher.next):
        if (looked >= PAGE_CHANGES or size >= PAGE_BYTES) and rev.mod != last:
            return Page(found, rev.mod, False)
        looked, last = looked + 1, rev.mod
        if watcher.covers(rev.key) and watcher.wants(rev):
            found.append(rev)
            size += rev.size
    return Page(found, revs.revision + 1, True)


# -- messages -------------------------------------------------------------------------------------------------


class News:
    """What a batch of changes brought all who watch the same. ``head``: the response's header.

    ``encoded``: events by (revision, with the one before), shared by all news of a batch.
    """

    __slots__ = ("_bodies", "_plain", "_revs", "encoded", "found", "head")

    def __init__(self, revs: Revs, head: bytes, encoded: dict[tuple[int, bool], bytes]) -> None:
        self.found: list[Rev] = []
        self.head, self.encoded = head, encoded
        self._revs = revs
        self._bodies: dict[bool, bytes] = {}
        self._plain: dict[bool, bytes] = {}

    def event(self, rev: Rev, prev_kv: bool) -> bytes:
        known = self.encoded.get((id(rev), prev_kv))
        if known is None:
            known = event(rev, before(self._revs, rev) if prev_kv else None)
            self.encoded[id(rev), prev_kv] = known
        return known

    def message(self, watcher: Watcher) -> bytes:
        """The response to one who wants all of it, in one message: encoded once for all who have the same number."""
        prev_kv = watcher.prev_kv
        if not watcher.id and (known := self._plain.get(prev_kv)) is not None:
            return known
        body = self._bodies.get(prev_kv)
        if body is None:
            body = self._bodies[prev_kv] = b"".join([self.event(rev, prev_kv) for rev in self.found])
        if watcher.id:
            return self.head + b"\x10" + varint(watcher.id) + body
        made = self._plain[prev_kv] = self.head + body
        return made

    def messages(self, watcher: Watcher, found: list[Rev]) -> Iterator[bytes]:
        """The responses that tell ``found``; several if the watcher takes fragments."""
        head = self.head + (b"\x10" + varint(watcher.id) if watcher.id else b"")
        events = [self.event(rev, watcher.prev_kv) for rev in found]
        if not watcher.fragment:
            yield head + b"".join(events)
            return
        for body, more in fragments(events):
            yield head + (b"\x38\x01" if more else b"") + body


def event(rev: Rev, prev: Rev | None = None) -> bytes:
    """mvccpb.Event as field 11 of a WatchResponse."""
    if rev.version:
        inner = _field(0x12, _key_value(rev))
    else:
        inner = b"\x08\x01" + _field(0x12, _field(0x0A, rev.key) + b"\x18" + varint(rev.mod))
    if prev is not None:
        inner += _field(0x1A, _key_value(prev))
    return _field(0x5A, inner)


def before(revs: Revs, rev: Rev) -> Rev | None:
    """What ``rev`` replaced, as etcd finds it: the key at the revision before; nothing if that is compacted."""
    if rev.version == 1 or rev.mod - 1 < revs.limit_of(rev.key):
        return None
    prev = rev.prev
    while prev is not None and prev.mod == rev.mod:
        prev = prev.prev
    return prev if prev is not None and prev.version else None


def fragments(events: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Bodies for responses below the limit, one event at least in each; and whether more follow."""
    parts: list[bytes] = []
    size = 0
    for one in events:
        if parts and size + len(one) > FRAGMENT_BYTES:
            yield b"".join(parts), True
            parts, size = [], 0
        parts.append(one)
        size += len(one)
    yield b"".join(parts), False


def varint(number: int) -> bytes:
    """Unsigned, or a negative int64."""
    if 0 <= number < 0x80:
        return bytes((number,))
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(tag: int, payload: bytes) -> bytes:
    return bytes((tag,)) + varint(len(payload)) + payload


def _key_value(rev: Rev) -> bytes:
    parts = [_field(0x0A, rev.key), b"\x10", varint(rev.create), b"\x18", varint(rev.mod), b"\x20", varint(rev.version)]
    if rev.value:
        parts.append(_field(0x2A, rev.value))
    if rev.lease:
        parts += (b"\x30", varint(rev.lease))
    return b"".join(parts)


def lagging(watchers: Iterable[Watcher]) -> list[Watcher]:
    return [one for one in watchers if not one.synced]


def synced_until(watchers: Iterable[Watcher], revision: int) -> bool:
    """Whether all have been told everything up to ``revision``, and none waits for a later start."""
    return all(one.synced and one.next <= revision + 1 for one in watchers)
