"""The past of v3's keys, held against a twin that writes down what was there at each position and revision."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv import travel
from actors.kv.state import KvFold
from actors.kv.travel import AtRevision, Traveller
from actors.kv.v3 import past
from actors.kv.v3.past import Made
from actors.kv.v3.revs import Rev
from streams.events import kv3 as says
from streams.events import log as log_says
from streams.events import say
from streams.events.base import Data, Event, blob, unblob
from streams.history.at import BadInstant, state_at
from streams.log.memory import MemoryLog
from streams.log.port import LogTruncated
from streams.outcomes import Accepted, Rejected
from streams.records import Position
from streams.replay import Halt, Replica
from streams.snapshots import write
from tests.folds import LOG, Writer, opened

ALL = [past.EVERYTHING]
Shown = tuple[bytes, int, int, int, int]


class Twin:
    """The keys, by the dumbest means: ``visible`` is copied away by whoever wants it."""

    def __init__(self) -> None:
        self.visible: dict[bytes, Shown] = {}
        self.revision, self.compacted = 1, -1
        self.leases: dict[int, int] = {}
        #: (revision, key, value or None) in order
        self.made: list[tuple[int, bytes, bytes | None]] = []

    def apply(self, data: Data, offset: int) -> None:
        done = len(self.made)
        match data:
            case says.LeaseGrant():
                self.leases.setdefault(data.id, offset)
            case says.LeaseRevoke() if data.id in self.leases:
                self._end(data.id)
            case says.LeaseExpired() if self.leases.get(data.id) == data.renewed:
                self._end(data.id)
            case says.Compact() if self.compacted < data.revision <= self.revision:
                self.compacted = data.revision
            case says.Put() if not data.lease or data.lease in self.leases:
                self._put(unblob(data.key), unblob(data.value), data.lease)
            case says.Delete():
                self._delete(unblob(data.key), unblob(data.range_end))
            case says.Txn():
                for op in data.success:
                    if isinstance(op, says.OpPut):
                        self._put(unblob(op.key), unblob(op.value), 0)
                    elif isinstance(op, says.OpDelete):
                        self._delete(unblob(op.key), unblob(op.range_end))
            case _:
                pass
        if len(self.made) > done:
            self.revision += 1

    def _put(self, key: bytes, value: bytes, lease: int) -> None:
        main = self.revision + 1
        _, create, _, version, _ = self.visible.get(key, (b"", main, 0, 0, 0))
        self.visible[key] = (value, create, main, version + 1, lease)
        self.made.append((main, key, value))

    def _delete(self, key: bytes, end: bytes) -> None:
        for name in sorted(self.visible):
            if (key <= name and (end == b"\0" or name < end)) if end else name == key:
                del self.visible[name]
                self.made.append((self.revision + 1, name, None))

    def _end(self, lease: int) -> None:
        for name in [name for name, row in sorted(self.visible.items()) if row[4] == lease]:
            self._delete(name, b"")
        del self.leases[lease]


KEYS = st.sampled_from([b"a", b"a/1", b"a/2", b"b", b"\xff", b"\xff\xff", b"\0"])
VALUES = st.sampled_from([b"", b"1", b"2", b"\xfe\0"])
ENDS = st.sampled_from([b"", b"", b"b", b"\0", b"a0"])
IDS = st.integers(7, 9)
PUTS = st.builds(lambda k, v, lease: says.Put(blob(k), blob(v), lease), KEYS, VALUES, st.just(0) | IDS)
DELETES = st.builds(lambda k, end: says.Delete(blob(k), blob(end)), KEYS, ENDS)
OPS = st.one_of(
    st.builds(lambda k, v: says.OpPut(blob(k), blob(v)), KEYS, VALUES),
    st.builds(lambda k, end: says.OpDelete(blob(k), blob(end)), KEYS, ENDS),
)
TXNS = st.builds(lambda ops: says.Txn([], ops, []), st.lists(OPS, max_size=3))
LEASES = st.one_of(
    st.builds(says.LeaseGrant, IDS, st.just(60)),
    st.builds(says.LeaseRevoke, IDS),
    st.builds(says.LeaseExpired, IDS, st.integers(2, 8)),
)
COMPACTS = st.one_of(
    st.builds(says.Compact, st.integers(1, 25)),
    st.just(says.PolicySet("a", keep_bytes=10**6)),
    st.builds(says.PrefixCompact, st.just("a"), st.integers(1, 25)),
)
RECORDS = st.lists(
    st.lists(st.one_of(PUTS, PUTS, DELETES, TXNS, LEASES, COMPACTS), min_size=1, max_size=5), min_size=1, max_size=10
)


class History:
    """A log with a record for each list of events, and what the twin saw of it."""

    def __init__(self, records: list[list[Data]]) -> None:
        self.writer, self.log, self.twin = Writer(), MemoryLog(), Twin()
        self.log.put(self.writer.entry(say(log_says.LogOpened(id=LOG)), writer="node@m").raw)
        self.log.put(self.writer.entry(opened()).raw)
        self.at: dict[Position, dict[bytes, Shown]] = {}
        self.revisions: dict[int, dict[bytes, Shown]] = {1: {}}
        for record in records:
            self.add(*(say(data, principal="user:ann") for data in record))

    def add(self, *events: Event) -> None:
        offset = self.log.put(self.writer.entry(*events).raw)
        for index, event in enumerate(events):
            self.twin.apply(event.data, offset)
            self.at[Position(offset, index)] = dict(self.twin.visible)
            self.revisions[self.twin.revision] = dict(self.twin.visible)

    async def snapshots(self, folder: Path, offsets: set[int]) -> None:
        for offset in sorted(offsets & {position.offset for position in self.at}):
            replica = await state_at(self.log, KvFold, Position(offset, 10**6))
            while replica.fold.v3.revs.sweep():  # type: ignore[attr-defined]
                pass
            write(folder, replica)


def shown(revs: Any) -> dict[bytes, Shown]:
    return {rev.key: (rev.value, rev.create, rev.mod, rev.version, rev.lease) for rev in revs}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.sets(st.integers(2, 11), max_size=3))
async def test_every_position_and_revision_is_told_as_it_was_also_when_compacted(
    records: list[list[Data]], marks: set[int]
) -> None:
    history = History(records)
    with tempfile.TemporaryDirectory() as made:
        await history.snapshots(Path(made), marks)
        traveller = Traveller(history.log, Path(made), LOG)
        for position, expected in history.at.items():
            view = await traveller.view(position)
            assert shown(view.alive(ALL)) == expected, position
        for revision, expected in history.revisions.items():
            view = await traveller.view(AtRevision(revision))
            assert shown(view.alive(ALL)) == expected, revision
            assert view.revision == revision
        with pytest.raises(BadInstant, match="lies ahead"):
            await traveller.view(AtRevision(history.twin.revision + 1))


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.sets(st.integers(2, 11), max_size=3), st.data())
async def test_each_revision_is_told_once_with_the_event_that_made_it(
    records: list[list[Data]], marks: set[int], data: Any
) -> None:
    history = History(records)
    since = data.draw(st.integers(0, history.twin.revision))
    upto = data.draw(st.integers(1, history.twin.revision))
    with tempfile.TemporaryDirectory() as made:
        await history.snapshots(Path(made), marks)
        seen: list[Made] = []
        await Traveller(history.log, Path(made), LOG).told(AtRevision(upto), since, seen.append)
    told = [(one.rev.mod, one.rev.key, one.rev.value if one.rev.version else None) for one in seen]
    assert told == [row for row in history.twin.made if since < row[0] <= upto]
    for one in seen:
        # the event at its position is the one that did it: there the key is as it made it, and not before
        after = history.at[one.applied.position]
        assert after.get(one.rev.key, (None, 0, 0))[2] in (one.rev.mod, 0)
        assert one.applied.event.principal == "user:ann"
        earlier = [at for at in history.at if at < one.applied.position]
        before = history.at[max(earlier)] if earlier else {}
        assert before == history.revisions[one.rev.mod - 1]


RANGES = st.lists(st.builds(past.prefix, st.sampled_from([b"", b"a", b"a/", b"\xff", b"b"])), min_size=1, max_size=2)


async def restored(history: History, revision: int, ranges: list[past.Range], size: int, base: int = -1) -> list[Event]:
    traveller = Traveller(history.log, Path("/nowhere"), LOG)
    then = (await traveller.view(AtRevision(revision))).alive(ranges)
    now = await traveller.view(None)
    pieces = list(past.parts(past.compared(now.alive(ranges), then), "i", size))
    spans = [says.Range(blob(start), blob(end)) for start, end in ranges]
    begin = says.RestoreBegin("i", len(pieces), "", revision, now.revision if base < 0 else base, spans)
    return [say(one) for one in (begin, *pieces, says.RestoreEnd("i"))] if pieces else []


@settings(max_examples=100, deadline=None)
@given(RECORDS, RANGES, st.integers(1, 40), st.data())
async def test_a_restore_makes_the_range_what_it_was_and_nothing_else(
    records: list[list[Data]], ranges: list[past.Range], size: int, data: Any
) -> None:
    history = History(records)
    revision = data.draw(st.integers(1, history.twin.revision))
    events = await restored(history, revision, ranges, size)
    before, then = history.twin.visible, history.revisions[revision]
    replica = await state_at(history.log, KvFold)
    revs = replica.fold.v3.revs  # type: ignore[attr-defined]
    at = revs.revision
    for event in events:
        assert revs.revision == at, "nothing of it is there before its end"
        (applied,) = replica.apply(history.writer.entry(event))
        assert isinstance(applied.outcome, Accepted), applied.outcome
        # a restart in the middle keeps what is there
        again = KvFold()
        again.restore(replica.fold.encode())
        assert b"".join(again.encode()) == b"".join(replica.fold.encode())
    assert revs.revision == at + bool(events)
    now = shown(past.alive(revs, ALL, revs.revision))
    inside = {key for key in {*before, *then} if past.concerned(key, ranges)}
    assert {key: now[key][0] for key in inside if key in now} == {key: then[key][0] for key in inside if key in then}
    for key in {*before, *now} - inside:
        assert now.get(key) == before.get(key)
    for key in inside:
        if key in now and key in before and before[key][0] == now[key][0]:
            assert now[key] == before[key], "what was right already wasn't touched"
        elif key in now:
            assert now[key][4] == 0
    assert replica.fold.v3.restoring is None  # type: ignore[attr-defined]
    leases = replica.fold.v3.leases.by_id  # type: ignore[attr-defined]
    assert {key for one in leases.values() for key in one.keys} == {key for key, row in now.items() if row[4]}


async def after(*changes: Data) -> tuple[History, Replica, list[Event]]:
    """a/1 was put twice and b once; a/ goes back to revision 2."""
    history = History([[says.Put("a/1", "old")], [says.Put("a/1", "new")], [says.Put("b", "x")]])
    events = await restored(history, 2, [past.prefix(b"a/")], 1000)
    replica = await state_at(history.log, KvFold)
    for data in changes:
        replica.apply(history.writer.entry(say(data)))
    return history, replica, events


async def test_a_change_that_came_between_is_not_lost() -> None:
    for change in (
        says.Put("a/2", "mine"),
        says.Put("a/1", "mine"),
        says.Delete("a/1"),
        says.Txn([], [says.OpPut("a/9")]),
    ):
        history, replica, events = await after(change)
        state = b"".join(replica.fold.encode())
        outcomes = [replica.apply(history.writer.entry(event))[0].outcome for event in events]
        assert [isinstance(one, Rejected) and one.code for one in outcomes] == [
            "v3-restore.changed",
            "v3-restore.not-begun",
            "v3-restore.not-begun",
        ], change
        assert b"".join(replica.fold.encode()) == state
    # one that comes when it has begun
    history, replica, events = await after()
    for event in events[:2]:
        replica.apply(history.writer.entry(event))
    replica.apply(history.writer.entry(say(says.Put("a/1", "mine"))))
    (ended,) = replica.apply(history.writer.entry(events[2]))
    assert isinstance(ended.outcome, Rejected)
    assert "a/1 was changed in revision 5" in ended.outcome.message
    assert ended.outcome.detail == {"key": "a/1", "revision": 5}
    assert replica.fold.v3.revs.newest[b"a/1"].value == b"mine"  # type: ignore[attr-defined]


async def test_changes_elsewhere_do_not_matter_and_none_does_by_force() -> None:
    history, replica, events = await after(says.Put("b", "y"), says.LeaseGrant(7, 60))
    for event in events:
        (applied,) = replica.apply(history.writer.entry(event))
        assert isinstance(applied.outcome, Accepted)
    assert replica.fold.v3.revs.newest[b"a/1"].value == b"old"  # type: ignore[attr-defined]
    history, replica, _ = await after(says.Put("a/1", "mine"))
    for event in await restored(history, 2, [past.prefix(b"a/")], 1000, base=0):
        replica.apply(history.writer.entry(event))
    assert replica.fold.v3.revs.newest[b"a/1"].value == b"old"  # type: ignore[attr-defined]


async def test_a_compaction_drops_what_has_begun() -> None:
    history, replica, events = await after()
    replica.apply(history.writer.entry(events[0]))
    replica.apply(history.writer.entry(say(says.Compact(4))))
    (applied,) = replica.apply(history.writer.entry(events[1]))
    assert isinstance(applied.outcome, Rejected)
    assert applied.outcome.code == "v3-restore.not-begun"
    # and one that is made of what was compacted can't begin
    replica.apply(history.writer.entry(say(says.Put("c", "1"))))
    replica.apply(history.writer.entry(say(says.Compact(5))))
    (applied,) = replica.apply(history.writer.entry(events[0]))
    assert isinstance(applied.outcome, Rejected)
    assert applied.outcome.code == "v3-restore.compacted"


async def test_compactions_of_a_prefix_count_where_it_is_touched() -> None:
    policy, floor = says.PolicySet("a", keep_bytes=10**6), says.PrefixCompact("a", 5)
    history, replica, events = await after(policy, says.Put("b", "y"), floor)
    (applied,) = replica.apply(history.writer.entry(events[0]))
    assert isinstance(applied.outcome, Rejected)
    assert applied.outcome.code == "v3-restore.compacted"
    # of other keys' history nothing is gone
    elsewhere = says.RestoreBegin("i", 1, base=4, ranges=[says.Range("c", "d")])
    (applied,) = replica.apply(history.writer.entry(say(elsewhere)))
    assert isinstance(applied.outcome, Accepted)


async def test_quotas_of_prefixes_hold_for_a_restore_too() -> None:
    history, replica, events = await after(says.PolicySet("a/", max_bytes=1))
    outcomes = [replica.apply(history.writer.entry(event))[0].outcome for event in events]
    assert isinstance(outcomes[2], Accepted), "old is as long as new: it gets no larger"
    history, replica, _ = await after(says.PolicySet("a/", max_bytes=1))
    part = says.RestorePart("i", 0, [("a/1", "much longer")])
    steps = (says.RestoreBegin("i", 1, base=4), part, says.RestoreEnd("i"))
    outcomes = [replica.apply(history.writer.entry(say(one)))[0].outcome for one in steps]
    assert isinstance(outcomes[2], Rejected)
    assert "may have 1 bytes" in outcomes[2].message
    assert replica.fold.v3.revs.newest[b"a/1"].value == b"new"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (says.RestoreBegin("x", -1), "v3-restore.parts"),
        (says.RestoreBegin("x", 70_000), "v3-restore.parts"),
        (says.RestoreBegin("x", 1, base=99), "v3-restore.base"),
        (says.RestorePart("other", 0), "v3-restore.not-begun"),
        (says.RestorePart("i", 2), "v3-restore.part"),
        (says.RestorePart("i", 0, [("", "v")]), "v3-restore.part"),
        (says.RestorePart("i", 0, [], [""]), "v3-restore.part"),
        (says.RestoreEnd("i"), "v3-restore.incomplete"),
        (says.RestoreEnd("other"), "v3-restore.not-begun"),
    ],
    ids=str,
)
async def test_a_step_that_can_not_be_is_refused(step: Data, code: str) -> None:
    history, replica, _ = await after()
    replica.apply(history.writer.entry(say(says.RestoreBegin("i", 2, base=4))))
    revs = replica.fold.v3.revs  # type: ignore[attr-defined]
    (applied,) = replica.apply(history.writer.entry(say(step)))
    assert isinstance(applied.outcome, Rejected)
    assert (applied.outcome.code, revs.revision) == (code, 4)


async def test_who_gives_up_drops_only_what_is_his() -> None:
    history, replica, _ = await after()
    store = replica.fold.v3  # type: ignore[attr-defined]
    replica.apply(history.writer.entry(say(says.RestoreBegin("i", 2, base=4))))
    replica.apply(history.writer.entry(say(says.RestoreBegin("x", 0))))
    assert store.restoring is not None
    replica.apply(history.writer.entry(say(says.RestoreBegin("i", 0))))
    assert store.restoring is None


async def test_alarms_hold_for_a_restore_too() -> None:
    history, replica, events = await after(says.Alarm(1, 5))
    outcomes = [replica.apply(history.writer.entry(event))[0].outcome for event in events]
    assert isinstance(outcomes[1], Rejected)
    assert "space exceeded" in outcomes[1].message
    history, replica, events = await after()
    for event in events[:2]:
        replica.apply(history.writer.entry(event))
    replica.apply(history.writer.entry(say(says.Alarm(2, 5))))
    (ended,) = replica.apply(history.writer.entry(events[2]))
    assert isinstance(ended.outcome, Rejected)
    assert "corrupt" in ended.outcome.message


# -- what isn't known ---------------------------------------------------------------------------------------------


async def test_a_trimmed_log_is_told_from_its_oldest_snapshot_and_what_is_not_known_is_said(folder: Path) -> None:
    puts = [[says.Put("k", str(number))] for number in range(2, 9)]
    history = History([*puts[:3], [says.Compact(4)], *puts[3:]])
    await history.snapshots(folder, {6, 8})
    await history.log.trim(7)
    traveller = Traveller(history.log, folder, LOG)
    for revision in range(4, 9):
        view = await traveller.view(AtRevision(revision))
        assert [rev.value for rev in view.alive(ALL)] == [b"%d" % revision]
    with pytest.raises(LogTruncated, match=r"revision 3 was compacted.*revisions from 4 on are known"):
        await traveller.view(AtRevision(3))
    with pytest.raises(LogTruncated):
        await traveller.view(Position(5))
    seen: list[Made] = []
    known: list[Rev] = []
    await traveller.told(None, 0, seen.append, lambda revs: known.extend(past.kept(revs, ALL)))
    assert [rev.mod for rev in known] == [4, 5]
    assert [one.rev.mod for one in seen] == [6, 7, 8]
    with pytest.raises(LogTruncated, match="revision 3 was compacted"):
        await traveller.told(AtRevision(3), 0, seen.append)


async def test_a_damaged_snapshot_is_passed_over(folder: Path) -> None:
    history = History([[says.Put("k", str(number))] for number in range(2, 9)])
    await history.snapshots(folder, {4, 6})
    for path, cut in zip(sorted(folder.iterdir()), (40, 600), strict=True):
        path.write_bytes(path.read_bytes()[:cut])
    traveller = Traveller(history.log, folder, LOG)
    assert [rev.value for rev in (await traveller.view(AtRevision(5))).alive(ALL)] == [b"5"]


async def test_the_nearest_snapshot_is_gone_on_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History([[says.Put("k", str(number))] for number in range(2, 50)])
    await history.snapshots(folder, {40})
    read: list[int] = []
    tail = history.log.tail
    monkeypatch.setattr(history.log, "tail", lambda start, *words: read.append(start) or tail(start, *words))
    traveller = Traveller(history.log, folder, LOG)
    await traveller.view(AtRevision(30))
    assert not [start for start in read if start < 40], "the snapshot has that revision in its history"
    await traveller.view(AtRevision(42))
    await traveller.view(Position(42))
    assert min(read) >= 40
    seen: list[Made] = []
    await traveller.told(None, 45, seen.append)
    assert min(read) >= 40
    assert [one.rev.mod for one in seen] == [46, 47, 48, 49]


# -- leases, imports, retries ---------------------------------------------------------------------------------------


async def test_what_a_lease_took_names_it_and_who_granted_it() -> None:
    history = History([])
    history.add(say(says.LeaseGrant(7, 60), principal="user:bob"), say(says.LeaseGrant(8, 60), principal="user:eve"))
    history.add(say(says.Put("a", "1", 7)), say(says.Put("b", "1", 8)))
    history.add(say(says.LeaseExpired(7, 2)))
    history.add(say(says.LeaseRevoke(8), principal="user:joe"))
    seen: list[Made] = []
    await Traveller(history.log, Path("/nowhere"), LOG).told(None, 0, seen.append)
    told = [(one.rev.key, one.action, one.lease, one.grant and one.grant.principal) for one in seen]
    assert told == [
        (b"a", "put", 7, "user:bob"),
        (b"b", "put", 8, "user:eve"),
        (b"a", "lease expired", 7, "user:bob"),
        (b"b", "lease revoked", 8, "user:eve"),
    ]
    assert seen[3].grant is not None
    assert str(seen[3].grant.position) == "2.1"


async def test_an_import_is_told_as_one_and_what_was_compacted_before_it_is_not_known() -> None:
    source = History([[says.Put("k", str(number))] for number in range(2, 9)])
    store = (await state_at(source.log, KvFold)).fold.v3  # type: ignore[attr-defined]
    store.revs.compact(5)
    lines = b"".join(store.encode()).decode()
    history = History([])
    steps = (says.ImportBegin("i", 1), says.ImportPart("i", 0, lines), says.ImportEnd("i"))
    history.add(*(say(one, principal="uid:0") for one in steps), say(says.Put("k", "9"), principal="uid:1"))
    traveller = Traveller(history.log, Path("/nowhere"), LOG)
    seen: list[Made] = []
    await traveller.told(None, 0, seen.append)
    assert [(one.rev.mod, one.action, one.applied.event.principal) for one in seen] == [
        *((revision, "import", "uid:0") for revision in range(5, 9)),
        (9, "put", "uid:1"),
    ]
    for revision in range(5, 10):
        assert [r.value for r in (await traveller.view(AtRevision(revision))).alive(ALL)] == [b"%d" % revision]
    with pytest.raises(LogTruncated, match="before the store was imported"):
        await traveller.view(AtRevision(4))


async def test_a_retry_is_no_second_change() -> None:
    history = History([])
    once = say(says.Put("k", "1"), client="c", sequence=1)
    history.add(once)
    history.log.put(history.writer.entry(once).raw)
    history.add(say(says.Put("k", "2")))
    seen: list[Made] = []
    await Traveller(history.log, Path("/nowhere"), LOG).told(None, 0, seen.append)
    assert [(one.rev.mod, str(one.applied.position)) for one in seen] == [(2, "2.0"), (3, "4.0")]


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["r12", "rev:12", "rev12", "revision 12", " r12 "])
def test_a_revision_is_an_instant(text: str) -> None:
    assert travel.parse(text, 0) == AtRevision(12)


@given(st.text(max_size=20))
def test_any_other_text_is_an_instant_or_a_bad_one(text: str) -> None:
    try:
        assert travel.parse(text, 10**12) is not None
    except BadInstant as error:
        assert "a revision (r123)" in str(error)


@given(st.binary(max_size=4), st.binary(max_size=5))
def test_a_prefix_is_the_range_of_what_begins_so(start: bytes, key: bytes) -> None:
    assert past.concerned(key, [past.prefix(start)]) == (key.startswith(start))


async def test_a_record_that_an_operator_voided_stops_no_look_into_the_past(folder: Path) -> None:
    history = History([[says.Put("k", "2")], [says.Put("k", "3")]])
    lost = history.log.put(b"CORELOG 2 of a version to come\n[]")
    history.add(say(says.Put("k", "4")))
    voided = {lost: "it can't be read"}
    for traveller in (
        Traveller(history.log, folder, LOG, voided),
        Traveller(history.log, Path("/nowhere"), LOG, voided),
    ):
        for when in (AtRevision(4), Position(lost + 1), None):
            assert [rev.value for rev in (await traveller.view(when)).alive(ALL)] == [b"4"]
        assert [rev.value for rev in (await traveller.view(Position(lost))).alive(ALL)] == [b"3"]
        seen: list[Made] = []
        await traveller.told(None, 0, seen.append)
        assert [one.rev.mod for one in seen] == [2, 3, 4]
    for when in (AtRevision(4), Position(lost + 1)):
        with pytest.raises(Halt, match=f"record {lost} has format 2"):
            await Traveller(history.log, folder, LOG).view(when)
