"""What a watcher is told: each change once, what was there before if it asked for that, in pages and fragments."""

from collections.abc import Sequence
from typing import Any

import pytest

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import watching
from actors.kv.rpc.watching import FRAGMENT_BYTES, News, Watcher
from actors.kv.v3.revs import Rev, Revs


class Nobody:
    def tell(self, *_: Any) -> None:
        raise AssertionError


def watcher(number: int = 0, following: int = 1, **more: bool) -> Watcher:
    return Watcher(number, b"k", b"", following, Nobody(), **more)


def written() -> Revs:
    """Of one key: two puts, a delete, a put, and a delete and a put at once."""
    revs = Revs()
    for main, sub, value in ((2, 0, b"1"), (3, 0, b"2"), (4, 0, None), (5, 0, b"3"), (6, 0, None), (6, 1, b"4")):
        if value is None:
            revs.delete(revs.newest[b"k"], main, sub)
        else:
            revs.put(b"k", value, 0, main, sub)
        revs.revision = main
    return revs


#: The value that each of these replaced: a put that makes the key, or makes it anew, none.
REPLACED = [b"", b"1", b"2", b"", b"3", b""]


@pytest.mark.parametrize(("compacted", "replaced"), [(-1, REPLACED), (3, [b"", b"", *REPLACED[2:]])])
def test_who_asks_is_shown_what_a_change_replaced_unless_it_is_compacted(compacted: int, replaced: list[bytes]) -> None:
    revs = written()
    found = list(revs.since(1))
    if compacted > 0:
        revs.compact(compacted)
    header = wire.encode_response_header(7, 8, 6, 9)
    news = News(revs, b"\x0a" + bytes((len(header),)) + header, {})
    news.found = found
    for number, prev_kv in ((0, True), (0, False), (5, False), (5, True), (300, True), (300, False), (0, True)):
        one = watcher(number, prev_kv=prev_kv)
        raws = [news.message(one), *news.messages(one, found)]
        told, again = map(pb.WatchResponse.FromString, raws)
        assert told == again
        assert (told.watch_id, told.header.cluster_id, told.header.revision) == (number, 7, 6)
        assert [(event.kv.mod_revision, event.kv.value) for event in told.events] == [
            (rev.mod, rev.value) for rev in found
        ]
        assert [event.prev_kv.value for event in told.events] == (replaced if prev_kv else [b""] * len(found))
        assert [event.HasField("prev_kv") for event in told.events] == [prev_kv and bool(value) for value in replaced]


def test_who_reads_the_history_gets_full_pages_and_misses_nothing_that_is_made_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "PAGE_CHANGES", 3)
    revs, reader, pages = Revs(), watcher(), list[list[int]]()
    for last in (8, 9, 10):
        for main in range(revs.revision + 1, last + 1):
            revs.put(b"k", b"v", 0, main, 0)
        revs.revision = last
        done = False
        while not done:
            page = watching.page(revs, reader)
            reader.next, done = page.next, page.done
            pages.append([rev.mod for rev in page.revs])
    assert pages == [[2, 3, 4], [5, 6, 7], [8], [9], [10]]


@pytest.mark.parametrize(
    ("sizes", "bodies"),
    [
        ([FRAGMENT_BYTES - 5, 5], [2]),
        ([FRAGMENT_BYTES - 5, 6], [1, 1]),
        ([FRAGMENT_BYTES, FRAGMENT_BYTES - 5, 5, FRAGMENT_BYTES + 1, 1], [1, 2, 1, 1]),
    ],
)
def test_a_fragment_is_filled_up_to_the_limit(sizes: Sequence[int], bodies: Sequence[int]) -> None:
    rest, filled = list(sizes), []
    for count in bodies:
        filled.append(sum(rest[:count]))
        del rest[:count]
    found = list(watching.fragments(bytes(size) for size in sizes))
    assert [len(body) for body, _ in found] == filled
    assert [more for _, more in found] == [True] * (len(filled) - 1) + [False]


def test_a_new_watcher_reads_the_history_before_progress_is_told_of_it() -> None:
    one = watcher(following=6)
    assert watching.lagging([one]) == [one]
    assert not watching.synced_until([one], 9)
    one.synced = True
    assert watching.lagging([one]) == []
    assert [watching.synced_until([one], revision) for revision in (4, 5, 6)] == [False, True, True]
    assert not watching.synced_until([one, watcher()], 6)


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a\xff", b"b"), (b"a\xfe", b"a\xff"), (b"", b""), (b"\xff\xff", b"")]
)
def test_a_prefix_ends_where_no_key_begins_with_it_any_more(prefix: bytes, end: bytes) -> None:
    assert watching.behind(prefix) == end


def test_who_wants_puts_or_deletes_alone_is_told_of_those() -> None:
    found: list[Rev] = list(written().since(1))
    puts, deletes = watcher(no_delete=True), watcher(no_put=True)
    assert [rev.mod for rev in puts.chosen(found) or ()] == [2, 3, 5, 6]
    assert [rev.mod for rev in deletes.chosen(found) or ()] == [4, 6]
