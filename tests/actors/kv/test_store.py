"""The kv fold: one by one or a record at once, from a snapshot or from the log, it is the same state."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.state import KvFold
from actors.kv.v2.get import change_json
from actors.kv.v2.nodes import change_of, clean
from streams import snapshots
from streams.events import cluster, encode, say
from streams.events import kv as says
from streams.events import kv3 as v3_says
from streams.events import log as log_says
from streams.events.base import Base64, Event, blob
from streams.outcomes import Accepted, Rejected
from streams.records import Entry, Record
from streams.replay import Replica

LOG = "ab" * 16
KEYS = st.sampled_from(["/", "/a", "/b", "/a/b", "/a/b/c", "/_h", "a", "//a", "/a/../b", "/a/.", "", "/é", "/\x00"])
BLOBS = st.sampled_from(["", "one", "two", "é\u2028", Base64(b"\xff\xfe")])
KEY_BLOBS = KEYS | st.sampled_from([Base64(b"/\xff"), Base64(b"/a/\xff")])
TTLS = st.sampled_from([None, None, 0, 1, 1000, 2**63])
INDICES = st.sampled_from([None, None, 0, 1, 2, 3, 2**64 - 1])
PAYLOADS = st.one_of(
    st.builds(says.Put, KEYS, st.sampled_from(["", "one", "two", "é"])),
    st.builds(says.Put, KEYS, st.sampled_from(["", "one", "two", "é"])),
    st.builds(
        says.Set,
        KEY_BLOBS,
        BLOBS,
        st.booleans(),
        TTLS,
        st.sampled_from([None, None, True, False]),
        st.none() | BLOBS,
        INDICES,
        st.booleans(),
    ),
    st.builds(says.Append, KEY_BLOBS, BLOBS, st.booleans(), TTLS),
    st.builds(says.Delete, KEY_BLOBS, st.booleans(), st.booleans(), st.none() | BLOBS, INDICES),
    st.builds(says.Expired, KEYS, st.integers(0, 5), st.sampled_from([1000, 2000, 0])),
    st.builds(
        says.TtlsCounted, st.lists(st.builds(says.Left, KEYS, st.integers(0, 5), st.just(2000), st.integers(0, 5)))
    ),
)
V3_KEYS = st.sampled_from(["a", "b", Base64(b"\xff")])
V3_PUTS = st.builds(v3_says.Put, V3_KEYS, BLOBS, st.sampled_from([0, 0, 0, 11, 99]), st.booleans(), st.booleans())
V3_PLAIN = st.builds(v3_says.Put, V3_KEYS, BLOBS)
V3_PAYLOADS = st.one_of(
    V3_PLAIN,
    V3_PLAIN,
    V3_PUTS,
    st.builds(v3_says.Delete, V3_KEYS, st.sampled_from(["", "z"])),
    st.builds(v3_says.LeaseGrant, st.just(11), st.just(60)),
    st.builds(v3_says.LeaseRevoke, st.just(11)),
    st.sampled_from([v3_says.UserAdd("root", "x"), v3_says.UserGrant("root", "root"), v3_says.AuthEnable()]),
)
EVENTS = st.builds(
    lambda data, client, sequence, term: say(data, client=client, sequence=sequence if client else 0, term=term),
    PAYLOADS | V3_PAYLOADS,
    st.sampled_from(["", "", "", "c1", "c2"]),
    st.integers(1, 4),
    st.sampled_from([0, 0, 0, 0, 7]),
)


def entries(*records: Sequence[Event]) -> list[Entry]:
    """A founded log with these records of the kv actor."""
    begin = [[say(log_says.LogOpened(id=LOG))], [say(log_says.ActorOpened(nonce="n"))]]
    out = []
    for offset, events in enumerate([*begin, *records]):
        stream = events[0].data.STREAM
        record = Record(LOG, stream, "kv@m", 1, offset + 1, 1000 * (offset > 1), encode(list(events)))
        out.append(Entry(offset, record.canonical()))
    return out


def replayed(log: list[Entry]) -> Replica:
    replica = Replica(KvFold())
    for entry in log:
        replica.apply(entry)
    return replica


def say_all(*payloads: Any) -> tuple[KvFold, list[Any]]:
    """Apply payloads in one record; the fold, and a code or the change for each."""
    replica = Replica(KvFold())
    applied: list[Any] = []
    for entry in entries([say(payload) for payload in payloads]):
        applied = replica.apply(entry)
    fold = replica.fold
    assert isinstance(fold, KvFold)
    shown = [one.outcome.code if isinstance(one.outcome, Rejected) else one.outcome.result for one in applied]
    return fold, shown


@settings(max_examples=150, deadline=None)
@given(records=st.lists(st.lists(EVENTS, min_size=1, max_size=12), max_size=4))
def test_a_record_at_once_is_one_by_one(records: list[list[Event]]) -> None:
    log = entries(*records)

    fast, slow, unseen = Replica(KvFold()), Replica(KvFold()), Replica(KvFold())
    slow._many = None
    for entry in log:
        left = [one.outcome for one in fast.apply(entry)]
        assert left == [one.outcome for one in slow.apply(entry)]
        unseen.replay(entry)
    assert fast.log == slow.log == unseen.log
    assert fast.state_hash() == slow.state_hash() == unseen.state_hash()


def test_a_plain_put_takes_its_key_off_the_lease() -> None:
    leased = [say(v3_says.LeaseGrant(11, 60)), say(v3_says.Put("a", "1", lease=11))]
    replica = replayed(entries(leased, [say(v3_says.Put("a", "2"))], [say(v3_says.LeaseRevoke(11))]))
    fold = replica.fold
    assert isinstance(fold, KvFold)
    assert fold.v3.revs.newest[b"a"].value == b"2"


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(st.lists(EVENTS, min_size=1, max_size=12), min_size=1, max_size=4),
    more=st.lists(EVENTS, min_size=1, max_size=8),
    cut=st.integers(1, 50),
)
def test_a_restored_fold_goes_on_alike(records: list[list[Event]], more: list[Event], cut: int) -> None:
    log = entries(*records, more)
    first, second = replayed(log[:-1]), Replica(KvFold())
    whole = b"".join(first.fold.encode())
    second.fold.restore(whole[at : at + cut] for at in range(0, len(whole), cut))
    second.log = replayed(log[:-1]).log
    assert b"".join(second.fold.encode()) == whole
    outcomes = [[one.outcome for one in replica.apply(log[-1])] for replica in (first, second)]
    assert outcomes[0] == outcomes[1]
    assert first.state_hash() == second.state_hash()


@settings(max_examples=100, deadline=None)
@given(records=st.lists(st.lists(EVENTS, min_size=1, max_size=20), min_size=1, max_size=4))
def test_the_tree_is_whole(records: list[list[Event]]) -> None:
    fold = replayed(entries(*records)).fold
    assert isinstance(fold, KvFold)
    store = fold.store
    assert not store.files.keys() & store.dirs.keys()
    children = list(itertools.chain.from_iterable(dir_.children for dir_ in store.dirs.values()))
    assert sorted(children) == sorted([*store.files, *(store.dirs.keys() - {""})])
    for path, dir_ in store.dirs.items():
        assert all(child.rpartition("/")[0] == path and clean(child) == child for child in dir_.children)
    with_ttl = {path for path in children if store.node(path).expires_ms}
    assert with_ttl == store.ttls.keys()
    indices = [change[0] for change in store.history]
    assert indices == list(range(store.index - len(indices) + 1, store.index + 1))


def test_set_create_update_swap_and_delete() -> None:
    fold, shown = say_all(
        says.Set("/a", "1"),
        says.Set("/a", "2"),
        says.Set("/a", "3", prev_exist=False),
        says.Set("/a", "3", prev_value="1"),
        says.Set("/a", "3", prev_value="2", prev_index=2),
        says.Set("/a", "4", prev_exist=True),
        says.Delete("/a", prev_index=3),
        says.Delete("/a", prev_value="4"),
        says.Delete("/a"),
    )
    told = [one if isinstance(one, str) else (one[0], one[1]) for one in shown]
    assert told == [
        (1, "set"),
        (2, "set"),
        "v2.105",
        "v2.101",
        (3, "compareAndSwap"),
        (4, "update"),
        "v2.101",
        (5, "compareAndDelete"),
        "v2.100",
    ]
    assert fold.store.index == 5


def test_expiry_counts_only_for_what_the_key_was() -> None:
    _, shown = say_all(
        says.Set("/a", "1", ttl_s=1),
        says.Set("/a", "", ttl_s=5, prev_exist=True, refresh=True),
        says.Expired("/a", 1, 2000),
        says.Expired("/a", 2, 6000),
        says.Expired("/a", 2, 6000),
    )
    assert [one if isinstance(one, str) else one[1] for one in shown] == [
        "set", "update", "v2.changed", "expire", "v2.changed"
    ]  # fmt: skip


def test_a_directory_ttl_set_anew_voids_the_old_expiry() -> None:
    _, shown = say_all(
        says.Set("/d", directory=True, ttl_s=1),
        says.Set("/d", ttl_s=9, prev_exist=True),
        says.Expired("/d", 1, 2000),
        says.Set("/d/x", "1"),
        says.Expired("/d", 1, 10000),
    )
    assert [one if isinstance(one, str) else one[1] for one in shown] == [
        "set",
        "update",
        "v2.changed",
        "set",
        "expire",
    ]


def test_a_ttl_shown_is_the_record_time_and_the_ttl() -> None:
    _, shown = say_all(says.Set("/a", "1", ttl_s=90))
    assert b'"expiration":"1970-01-01T00:01:31Z","ttl":90,' in change_json(shown[0])


@pytest.mark.parametrize("depth", [129, 20_000])
def test_a_key_too_deep_is_refused_and_makes_nothing(depth: int) -> None:
    fold, shown = say_all(says.Put("/a" * depth, "1"))
    assert shown == ["v2.209"]
    assert not fold.store.files
    assert list(fold.store.dirs) == [""]


def test_a_session_keeps_bytes_through_a_snapshot() -> None:
    event = say(says.Set(blob(b"/\xff"), blob(b"\xfe")), client="c", sequence=1)
    replica = replayed(entries([event], [event]))
    fold = replica.fold
    assert isinstance(fold, KvFold)
    assert fold.store.index == 1
    kept = replica.log.sessions.by_client["c"].kept[1].outcome
    assert isinstance(kept, Accepted)
    assert change_of(kept.result)[2] == "/\udcff"


def test_members_come_and_go() -> None:
    log = entries(
        [say(cluster.MachineJoined(nonce="n", boot_id="b", name="one"), subject="m1")],
        [say(says.Served(["http://127.0.0.1:2379"]))],
        [say(cluster.MachineLeft(), subject="m1")],
    )
    fold = replayed(log).fold
    assert isinstance(fold, KvFold)
    assert not fold.cluster.members["m1"].alive
    assert fold.cluster.members["m"].clients == ["http://127.0.0.1:2379"]


@settings(max_examples=30, deadline=None)
@given(records=st.lists(st.lists(EVENTS, min_size=1, max_size=8), min_size=1, max_size=3))
def test_a_snapshot_file_gives_back_state_hash_and_all(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[Event]]
) -> None:
    replica = replayed(entries(*records))
    again = snapshots.load(snapshots.write(tmp_path_factory.mktemp("snapshots"), replica), KvFold)
    assert again.state_hash() == replica.state_hash()
