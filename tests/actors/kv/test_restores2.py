"""v2's keys put back as they were: held against copies of the store, through folds, snapshots and refusals."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.kv import history
from actors.kv.state import KvFold
from actors.kv.v2 import imports, restores
from actors.kv.v2.nodes import Change, blob_of
from actors.kv.v2.store import HISTORY_EVENTS, Store
from actors.kv.v2.watch import Hub
from streams.events import kv as says
from streams.events import kv3
from streams.events import log as log_says
from streams.events.base import Data, encode, say
from streams.log.port import RECORD_BYTES_MAX
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied, Replica
from tests.folds import LOG, Writer, opened

NAMES = st.sampled_from(["/a", "/a/b", "/a/b/c", "/a/_h", "/b", "/b/a", "/ab", "/b/\udcff"])
VALUES = st.sampled_from(["", "1", "\udcfe"])
COMMANDS: st.SearchStrategy[Data] = st.one_of(
    st.builds(lambda key, value: says.Set(blob_of(key), blob_of(value)), NAMES, VALUES),
    st.builds(lambda key: says.Set(blob_of(key), directory=True), NAMES),
    st.builds(lambda key: says.Set(blob_of(key), "t", ttl_s=50), NAMES),
    st.builds(lambda key: says.Delete(blob_of(key), recursive=True), NAMES),
)
ROOTS = st.lists(st.sampled_from(["", "/a", "/b", "/a/b", "/never"]), min_size=1, max_size=2)


class Run:
    """A replica and who writes to it."""

    def __init__(self, *commands: Data) -> None:
        self.replica = Replica(KvFold())
        self.writer = Writer()
        self.say(say(log_says.LogOpened(LOG)))
        self.say(opened())
        for command in commands:
            self.say(say(command))

    def say(self, *events: object) -> list[Applied]:
        return self.replica.apply(self.writer.entry(*events))

    def one(self, data: Data) -> Accepted | Rejected:
        (applied,) = self.say(say(data))
        return applied.outcome

    @property
    def fold(self) -> KvFold:
        fold = self.replica.fold
        assert isinstance(fold, KvFold)
        return fold

    @property
    def store(self) -> Store:
        return self.fold.store


def copy(fold: KvFold) -> KvFold:
    made = KvFold()
    made.restore(fold.encode())
    return made


def shape(store: Store, roots: list[str], inside: bool = True) -> dict[str, str | None]:
    """Values by path, None for a directory; of what is at and below roots, or of all else."""
    nodes: dict[str, str | None] = {**dict.fromkeys(store.dirs), **{key: f.value for key, f in store.files.items()}}
    return {key: value for key, value in nodes.items() if any(restores.within(key, root) for root in roots) is inside}


def steps(now: Store, then: Store, roots: list[str], size: int = 1000, base: int = -1) -> list[Data]:
    pieces = restores.parts(restores.planned(now, then, roots), "i", size)
    spans = [kv3.Range(blob_of(root or "/")) for root in roots]
    begin = kv3.RestoreBegin("i", len(pieces), "", then.index, now.index if base < 0 else base, spans, v2=True)
    return [begin, *pieces, kv3.RestoreEnd("i")] if pieces else []


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMANDS, max_size=12), st.lists(COMMANDS, max_size=12), ROOTS, st.integers(1, 40))
def test_it_is_as_it_was_and_nothing_else_changed(
    before: list[Data], since: list[Data], roots: list[str], size: int
) -> None:
    run = Run(*before)
    then = copy(run.fold).store
    for command in since:
        run.one(command)
    now = copy(run.fold).store
    said: list[Change] = []
    # a file elsewhere that stands in the way stays, and it can't be
    assume(not restores.planned(now, then, roots).blocked)
    for step in (ask := steps(now, then, roots, size)):
        assert run.store.index == now.index, "nothing of it is there before its end"
        (applied,) = run.say(say(step))
        assert isinstance(applied.outcome, Accepted), applied.outcome
        said += history.made(applied)
        # a start in the middle goes on with what is there
        assert b"".join(copy(run.fold).encode()) == b"".join(run.fold.encode())
    got, was = shape(run.store, roots), shape(then, roots)
    # a parent of what came back may have gone: it is made, as any put makes it
    assert got == was
    assert shape(run.store, roots, inside=False).keys() >= shape(now, roots, inside=False).keys()
    kept = shape(run.store, roots, inside=False)
    assert {key: value for key, value in shape(now, roots, inside=False).items() if kept[key] != value} == {}
    assert [change[0] for change in said] == list(range(now.index + 1, run.store.index + 1))
    assert said == list(run.store.history)[len(run.store.history) - len(said) :]
    for key, file in now.files.items():
        same, once = run.store.files.get(key), then.files.get(key)
        ends = file.expires_ms and once is not None and not once.expires_ms
        if same is not None and same.value == file.value and not (ends and (key,) in [(one[2],) for one in said]):
            assert same == file, "what was right already wasn't touched, its TTL neither"
    assert {key for key in run.store.ttls if key not in now.ttls} == set()
    assert run.fold.v3.restoring is None
    assert not restores.planned(run.store, then, roots)
    assert bool(ask) == bool(said)


CHANGES = [
    says.Set("/a/2", "mine"),
    says.Set("/a/1", "mine"),
    says.Delete("/a/1"),
    says.Delete("/a", recursive=True),
    says.Set("/a/1", "new", ttl_s=9),
]


def begun() -> tuple[Run, list[Data]]:
    """/a/1 was "old" and is "new"; /a is to go back."""
    run = Run(says.Set("/a/1", "old"))
    then = copy(run.fold).store
    run.one(says.Set("/a/1", "new"))
    return run, steps(run.store, then, ["/a"])


@pytest.mark.parametrize("change", CHANGES, ids=repr)
def test_a_change_that_came_between_is_not_lost(change: Data) -> None:
    run, ask = begun()
    run.one(change)
    state = b"".join(run.fold.encode())
    outcomes = [run.one(step) for step in ask]
    assert [isinstance(one, Rejected) and one.code for one in outcomes] == [
        "v2-restore.changed",
        "v3-restore.not-begun",
        "v3-restore.not-begun",
    ]
    assert b"".join(run.fold.encode()) == state
    run, ask = begun()
    assert [type(run.one(step)) for step in ask[:2]] == [Accepted, Accepted]
    run.one(change)
    ended = run.one(ask[2])
    assert isinstance(ended, Rejected)
    assert ended.code == "v2-restore.changed"
    assert ended.detail["index"] == 3
    assert "was changed at index 3, after this restore was made (of index 2)" in ended.message
    assert run.fold.v3.restoring is None


def test_changes_elsewhere_do_not_matter() -> None:
    run, ask = begun()
    for change in (says.Set("/ab", "x"), says.Set("/b/a", "x"), kv3.Put("/a/1", "v3's")):
        run.one(change)
    assert [type(run.one(step)) for step in ask] == [Accepted] * 3
    assert run.store.files["/a/1"].value == "old"


def test_by_force_what_stands_in_the_way_goes() -> None:
    run = Run(says.Set("/a/b/c", "1"), says.Set("/d", directory=True), says.Set("/f", "2"))
    then = copy(run.fold).store
    for change in ("/a", "/d", "/f"):
        run.one(says.Delete(change, recursive=True))
    ask = steps(run.store, then, [""], base=0)
    # in the meantime a file stands where a directory was, and the other way round
    for put in (says.Set("/a", "file"), says.Set("/d", "file"), says.Set("/f/x", "below")):
        run.one(put)
    outcomes = [run.one(step) for step in ask]
    assert [type(one) for one in outcomes] == [Accepted] * len(ask)
    assert shape(run.store, [""]) == shape(then, [""])
    (result,) = [one.result for one in outcomes if isinstance(one, Accepted) and one.result is not None]
    assert [(change[1], change[2]) for change in result.changes] == [
        ("delete", "/d"), ("set", "/d"), ("delete", "/a"), ("set", "/a/b/c"), ("delete", "/f"), ("set", "/f"),
    ]  # fmt: skip


def test_what_is_no_longer_known_is_refused_and_force_goes_on() -> None:
    run, ask = begun()
    for number in range(HISTORY_EVENTS):
        run.one(says.Set("/other", str(number)))
    assert isinstance(run.one(ask[0]), Accepted), "all changes since are known"
    run.one(says.Set("/other", "one more"))
    refused = run.one(ask[0])
    assert isinstance(refused, Rejected)
    assert refused.code == "v2-restore.cleared"
    ended = run.one(ask[2])
    assert isinstance(ended, Rejected)
    assert ended.code == "v3-restore.not-begun"


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (kv3.RestoreBegin("x", -1, v2=True), "v3-restore.parts"),
        (kv3.RestoreBegin("x", 70_000, v2=True), "v3-restore.parts"),
        (kv3.RestoreBegin("x", 1, base=99, v2=True), "v2-restore.base"),
        (kv3.RestorePart("other", 0), "v3-restore.not-begun"),
        (kv3.RestorePart("i", 2), "v3-restore.part"),
        (kv3.RestorePart("i", 0, [("", "v")]), "v2-restore.part"),
        (kv3.RestorePart("i", 0, [("/", "v")]), "v2-restore.part"),
        (kv3.RestorePart("i", 0, [("a", "v")]), "v2-restore.part"),
        (kv3.RestorePart("i", 0, [], ["/a/../b"]), "v2-restore.part"),
        (kv3.RestorePart("i", 0, [], [], ["/a/"]), "v2-restore.part"),
        (kv3.RestoreEnd("i"), "v3-restore.incomplete"),
        (kv3.RestoreEnd("other"), "v3-restore.not-begun"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_is_refused(step: Data, code: str) -> None:
    run, _ = begun()
    run.one(kv3.RestoreBegin("i", 2, base=2, v2=True))
    refused = run.one(step)
    assert isinstance(refused, Rejected)
    assert refused.code == code


def test_keys_as_deep_and_long_as_they_came_come_back() -> None:
    """A request that makes directories is limited; one below a directory that is there isn't."""
    deep = "/a" * 128
    run = Run(says.Set(deep, directory=True), says.Set(deep + "/b", "v"), says.Set("/d/" + "x" * 20_000, "v"))
    then = copy(run.fold).store
    for key in ("/a", "/d"):
        run.one(says.Delete(key, recursive=True))
    assert all(isinstance(run.one(step), Accepted) for step in steps(run.store, then, [""]))
    assert shape(run.store, [""]) == shape(then, [""])
    then = copy(Run().fold).store
    assert all(isinstance(run.one(step), Accepted) for step in steps(run.store, then, [""]))
    assert not run.store.files


def test_a_file_elsewhere_that_stands_in_the_way_is_told_and_stays() -> None:
    run = Run(says.Set("/a/b", "1"))
    then = copy(run.fold).store
    run.one(says.Delete("/a", recursive=True))
    run.one(says.Set("/a", "precious"))
    assert restores.planned(run.store, then, ["/a/b"]).blocked == ["/a"]
    plan = restores.planned(run.store, then, ["/a"])
    assert (plan.blocked, plan.deletes, plan.before) == ([], ["/a"], {"/a": "precious"})


def test_what_is_to_end_now_and_was_not_then_is_put_again() -> None:
    run = Run(says.Set("/a", "1"), says.Set("/b", "1", ttl_s=9))
    then = copy(run.fold).store
    run.one(says.Set("/a", "1", ttl_s=9))
    run.one(says.Set("/b", "1"))
    assert restores.planned(run.store, then, [""]).puts == [("/a", "1")]
    assert [type(run.one(step)) for step in steps(run.store, then, [""])] == [Accepted] * 3
    assert run.store.ttls == {}


def test_one_that_a_client_numbered_leaves_plain_data_in_its_session() -> None:
    run = Run(says.Set("/a", blob_of("\udcff")))
    then = copy(run.fold).store
    run.one(says.Delete("/a"))
    *first, end = steps(run.store, then, [""])
    for step in first:
        run.one(step)
    said = say(end, client="c", sequence=1)
    (once,), (again,) = run.say(said), run.say(said)
    assert [change[1:3] for change in history.made(once)] == [("set", "/a")]
    assert history.made(again) == ()
    assert run.replica.state_hash()


def test_nothing_left_to_do_is_done_at_the_index_that_there_is() -> None:
    run, ask = begun()
    run.one(says.Set("/a/2", "x"))
    then = copy(Run().fold).store
    ask = steps(run.store, then, [""], base=0)
    run.one(says.Delete("/a", recursive=True))
    ended = [run.one(step) for step in ask][-1]
    assert isinstance(ended, Accepted)
    assert ended.result == restores.Restored(4, ())


def test_directories_are_no_part_of_v3s() -> None:
    run = Run(kv3.Put("k", "v"))
    run.one(kv3.RestoreBegin("i", 1, base=2))
    refused = run.one(kv3.RestorePart("i", 0, [], [], ["/d"]))
    assert isinstance(refused, Rejected)
    assert refused.code == "v3-restore.part"


def test_who_gives_it_up_leaves_nothing() -> None:
    run, ask = begun()
    run.one(ask[0])
    run.one(kv3.RestoreBegin("other", 0))
    assert run.fold.v3.restoring is not None
    run.one(kv3.RestoreBegin("i", 0))
    assert run.fold.v3.restoring is None


def test_watchers_see_each_change_and_history_says_what_it_was() -> None:
    run, ask = begun()
    hub, seen = Hub(lambda: run.store), []
    hub.watch("/a", True, True, 0, seen.append)
    rows: list[dict[str, Any]] = []
    for step in ask:
        applied = run.say(say(step, principal="uid:0"))
        changes, _ = history.told(applied)
        hub.applied(changes)
        rows += [history.row(one, change) for one in applied for change in history.made(one)]
    assert len(seen) == 1
    assert b'"key":"/a/1","value":"old","modifiedIndex":3,"createdIndex":3' in seen[0]
    ((action, key, value, previous, index, principal),) = [
        tuple(row[name] for name in ("action", "key", "value", "previous", "index", "principal")) for row in rows
    ]
    assert (action, key, value, previous, index, principal) == ("restore set", "/a/1", "old", "new", 3, "uid:0")


def test_a_plan_says_what_had_a_ttl_and_what_is_there_now() -> None:
    run = Run(says.Set("/a", "old", ttl_s=9), says.Set("/d/x", "1"), says.Set("/e", directory=True))
    then = copy(run.fold).store
    run.one(says.Set("/a", "new"))
    run.one(says.Delete("/d", recursive=True))
    run.one(says.Delete("/e", directory=True))
    run.one(says.Set("/n/x", "2"))
    plan = restores.planned(run.store, then, [""])
    assert plan == (["/n"], ["/e"], [("/a", "old"), ("/d/x", "1")], {"/n": None, "/a": "new"}, 1, [])
    assert not restores.planned(run.store, run.store, [""])


def test_a_put_behind_an_imports_end_in_the_same_record_is_kept() -> None:
    """Who applies a record holds on to the store's tables."""
    other = Run(says.Set("/a/b", "1"))
    lines = b"".join(imports.lines(other.store, other.fold.cluster.users2)).decode()
    run = Run(kv3.ImportBegin("i", 1, v2=True), kv3.ImportPart("i", 0, lines))
    run.say(*map(say, (kv3.ImportEnd("i"), says.Put("/a/c", "2"), says.Put("/k", "3"))))
    assert shape(run.store, [""]) == {"": None, "/a": None, "/a/b": "1", "/a/c": "2", "/k": "3"}
    assert shape(copy(run.fold).store, [""]) == shape(run.store, [""])


def test_a_large_value_comes_back_in_a_record_also_where_its_text_has_escapes() -> None:
    run = Run(says.Set("/k", "\1" * 1_000_000))
    [part] = restores.parts(restores.planned(Store(), run.store, [""]), "i")
    assert len(encode([say(part)])) < RECORD_BYTES_MAX
    other = Run()
    other.say(*map(say, (kv3.RestoreBegin("i", 1, v2=True), part, kv3.RestoreEnd("i"))))
    assert other.store.files["/k"].value == "\1" * 1_000_000
