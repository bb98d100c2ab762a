"""The index of watchers beside looking at each one; pages; messages beside protobuf's own encoding."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import kv_pb2
from actors.kv.rpc import told, watching
from actors.kv.rpc.watching import Index, Watcher
from actors.kv.v3.revs import Rev, Revs

key = st.one_of(st.sampled_from([b"a", b"a/b", b"a/c", b"b", b"\xff", b"\xff\xff"]), st.binary(min_size=1, max_size=4))
end = st.one_of(st.none(), st.just(b""), key)


class Nobody:
    def tell(self, *_: Any) -> None:
        raise AssertionError


def watcher(number: int, start: bytes, stop: bytes | None) -> Watcher:
    return Watcher(number, start, stop, 1, Nobody())


def prefixed(start: bytes, stop: bytes | None, prefix: bool) -> bytes | None:
    return watching.behind(start) if prefix else stop


@given(st.lists(st.tuples(key, end, st.booleans()), max_size=12), st.lists(key, max_size=8), st.data())
def test_the_index_finds_just_who_watches(ranges: Any, keys: list[bytes], data: st.DataObject) -> None:
    index, watchers = Index(), []
    for number, (start, stop, prefix) in enumerate(ranges):
        watchers.append(watcher(number, start, prefixed(start, stop, prefix)))
        index.add(watchers[-1])
    for gone in data.draw(st.lists(st.sampled_from(watchers), unique_by=id)) if watchers else []:
        index.remove(gone)
        watchers.remove(gone)
    assert index.count == len(watchers)
    for one in keys:
        assert sorted(found.id for same in index.of(one) for found in same) == [w.id for w in watchers if w.covers(one)]
    for left in watchers:
        index.remove(left)
    assert (index._keys, index._prefixes, index._ranges) == ({}, {}, {})


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_behind_a_prefix(prefix: bytes, other: bytes) -> None:
    stop = watching.behind(prefix)
    assert (prefix <= other and (not stop or other < stop)) == other.startswith(prefix)


def test_a_page_never_splits_a_revision(monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "PAGE_CHANGES", 3)
    revs = Revs()
    for main in range(2, 12):
        for sub in range(main % 4 + 1):
            revs.put(b"k%d" % sub, b"v", 0, main, sub)
        revs.revision = main
    reader, seen = watcher(0, b"k", b""), list[tuple[int, int]]()
    reader.next = 1
    while True:
        page = watching.page(revs, reader)
        assert {rev.mod for rev in page.revs}.isdisjoint(mod for mod, _ in seen)
        seen += [(rev.mod, rev.sub) for rev in page.revs]
        reader.next = page.next
        if page.done:
            break
    assert seen == [(main, sub) for main in range(2, 12) for sub in range(main % 4 + 1)]


number = st.integers(0, 2**63 - 1)


@given(key, st.binary(max_size=300), number, number, st.integers(0, 2**40), st.integers(-(2**63), 2**63 - 1))
def test_events_are_encoded_as_protobuf_does(
    name: bytes, value: bytes, create: int, mod: int, version: int, lease: int
) -> None:
    rev = Rev(name, value, create, mod, version, lease, 0, None)
    prev = Rev(name, value, 1, 2, 3, 0, 0, None)
    for before in (None, prev):
        (event,) = pb.WatchResponse.FromString(watching.event(rev, before)).events
        assert event.HasField("prev_kv") == (before is not None)
        made = pb.WatchResponse().events.add()
        if version:
            told.into(rev, made.kv)
        else:
            made.type, made.kv.key, made.kv.mod_revision = kv_pb2.Event.DELETE, name, mod
        if before is not None:
            told.into(before, made.prev_kv)
        assert event == made


def test_fragments_stay_below_the_limit_and_lose_nothing() -> None:
    events = [b"x" * size for size in (10, watching.FRAGMENT_BYTES - 5, 10, watching.FRAGMENT_BYTES + 7, 3)]
    bodies = list(watching.fragments(events))
    assert b"".join(body for body, _ in bodies) == b"".join(events)
    assert [more for _, more in bodies] == [True] * (len(bodies) - 1) + [False]
    assert all(len(body) <= watching.FRAGMENT_BYTES or body == events[3] for body, _ in bodies)
