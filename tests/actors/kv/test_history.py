"""What is told of changes: no more and no less than what makes the keys."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv import history
from actors.kv.state import KvFold
from streams.events import kv as says
from streams.events import say
from streams.events.base import Event
from streams.replay import Applied, Replica
from tests.actors.kv.test_store import EVENTS, entries


def applied(*records: list[Event]) -> tuple[KvFold, list[Applied]]:
    replica = Replica(KvFold())
    seen = [one for entry in entries(*records) for one in replica.apply(entry)]
    fold = replica.fold
    assert isinstance(fold, KvFold)
    return fold, seen


def rows(seen: list[Applied], key: str, recursive: bool = False) -> list[dict[str, Any]]:
    made = [(one, change) for one in seen for change in history.made(one)]
    return [history.row(*pair) for pair in made if history.concerns(pair[1], key, recursive)]


@settings(max_examples=150, deadline=None)
@given(records=st.lists(st.lists(EVENTS, min_size=1, max_size=12), min_size=1, max_size=4))
def test_the_changes_alone_make_the_files_that_there_are(records: list[list[Event]]) -> None:
    fold, seen = applied(*records)
    files: dict[str, str] = {}
    for made in (change for one in seen for change in history.made(one)):
        assert history.concerns(made, "", recursive=True)
        _, action, key, node, *_ = made
        gone = [
            name
            for name in files
            if name == key or (action in ("delete", "expire") and f"{key}/" == name[: len(key) + 1])
        ]
        for name in gone:
            assert history.concerns(made, name, recursive=False)
            del files[name]
        if node is not None and node.value is not None:
            files[key] = node.value
    assert files == {name: file.value for name, file in fold.store.files.items()}


def test_a_retry_is_no_second_change() -> None:
    put = say(says.Append("/a/q", "one"), client="c", sequence=1)
    fold, seen = applied([put], [say(says.Delete("/a", recursive=True))], [put])
    told = [made[1] for one in seen for made in history.made(one)]
    assert told == ["create", "delete"]
    assert fold.store.files == {}


def test_a_change_is_told_with_what_was_there_before_and_who_made_it() -> None:
    _, seen = applied(
        [say(says.Put("/a/b", "one"), principal="uid:0", correlation="c"), say(says.Set("/a/b", "no", prev_value="x"))],
        [say(says.Set("/a/b", "two"), principal="addr:10.0.0.1")],
        [say(says.Put("/a/c", "other"))],
        [say(says.Delete("/a", recursive=True), principal="uid:7")],
    )
    told = [
        (row["position"], row["action"], row["previous"], row["value"], row["principal"]) for row in rows(seen, "/a/b")
    ]
    assert told == [
        ("2.0", "set", None, "one", "uid:0"),
        ("3.0", "set", "one", "two", "addr:10.0.0.1"),
        ("5.0", "delete", None, None, "uid:7"),  # of the directory, which took it along
    ]
    assert rows(seen, "/a/b")[0]["correlation"] == "c"
    assert [row["key"] for row in rows(seen, "/a", recursive=True)] == ["/a/b", "/a/b", "/a/c", "/a"]
    assert [row["key"] for row in rows(seen, "/a")] == ["/a"]
    assert rows(seen, "/ab") == []


def test_an_expiry_is_the_masters_and_a_refresh_is_called_so() -> None:
    _, seen = applied(
        [say(says.Set("/k", "v", ttl_s=5))],
        [say(says.Set("/k", ttl_s=9, prev_exist=True, refresh=True))],
    )
    assert [(row["action"], row["value"]) for row in rows(seen, "/k")] == [("set", "v"), ("refresh", "v")]
