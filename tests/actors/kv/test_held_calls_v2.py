"""etcd v2's calls by their edges: codes and causes as its clients read them, forms, paths, answers, who is woken."""

import json
import string
import struct
import sys
from typing import Any
from urllib.parse import quote

import pytest

from actors.kv import history
from actors.kv.state import KvFold
from actors.kv.v2.errors import MESSAGES, V2Error
from actors.kv.v2.get import change_json, get_json
from actors.kv.v2.imports import restored
from actors.kv.v2.nodes import clean
from actors.kv.v2.request import FORM, Command, Read, asked, unescape
from actors.kv.v2.store import Store
from actors.kv.v2.watch import Hub
from streams.events import kv as says
from streams.events import kv2 as users_say
from streams.events import kv3 as v3_says
from streams.events.base import Data, say
from streams.outcomes import Rejected
from tests.actors.kv.test_answers2 import NOW_MS, context, done
from tests.actors.kv.test_history import applied

#: etcd 3.4's, of ``v2error/error.go``: what clients tell errors apart by.
ERRORS = [
    (100, 404, "Key not found"),
    (101, 412, "Compare failed"),
    (102, 403, "Not a file"),
    (104, 400, "Not a directory"),
    (105, 412, "Key already exists"),
    (107, 400, "Root is read only"),
    (108, 403, "Directory not empty"),
    (110, 401, "The request requires user authentication"),
    (201, 400, "PrevValue is Required in POST form"),
    (202, 400, "The given TTL in POST form is not a number"),
    (203, 400, "The given index in POST form is not a number"),
    (209, 400, "Invalid field"),
    (210, 400, "Invalid POST form"),
    (211, 400, "Value provided on refresh"),
    (212, 400, "A TTL must be provided on refresh"),
    (300, 500, "Raft Internal Error"),
    (301, 500, "During Leader Election"),
    (400, 400, "watcher is cleared due to etcd recovery"),
    (401, 400, "The event in requested index is outdated and cleared"),
]


def test_errors_are_etcds() -> None:
    assert sorted((code, V2Error(code).status, words) for code, words in MESSAGES.items()) == ERRORS
    assert V2Error(107, "/", 7, 403).status == 403


#: A store with the file /f (index 2), the directory /d with a file in it.
THERE = (says.Set("/f", "o"), says.Set("/f", "v"), says.Set("/d/x", "v"))


@pytest.mark.parametrize(
    ("data", "code", "cause"),
    [
        (says.Put("/", "v"), 107, "/"),
        (says.Set("/", "v"), 107, "/"),
        (says.Set("/", ttl_s=5, refresh=True), 107, "/"),
        (says.Set("/", "v", prev_exist=False), 107, "/"),
        (says.Set("/", "v", prev_exist=True), 107, "/"),
        (says.Set("/", "v", prev_value="v"), 107, "/"),
        (says.Set("/", "v", prev_index=2), 107, "/"),
        (says.Delete("/", recursive=True), 107, "/"),
        (says.Set("/f", "n", prev_value="x"), 101, "[x != v]"),
        (says.Set("/f", "n", prev_index=1), 101, "[1 != 2]"),
        (says.Set("/f", "n", prev_value="x", prev_index=1), 101, "[x != v] [1 != 2]"),
        (says.Set("/f", "n", prev_value="v", prev_index=1), 101, "[1 != 2]"),
        (says.Delete("/f", prev_value="x", prev_index=2), 101, "[x != v]"),
        (says.Delete("/f", prev_value="x", prev_index=1), 101, "[x != v] [1 != 2]"),
        (says.Put("/f/g/h", "v"), 104, "/f"),
        (says.Set("/f/g", "v", prev_exist=True), 104, "/f"),
        (says.Append("/f", "v"), 104, "/f"),
        (says.Put("/d", "v"), 102, "/d"),
        (says.Set("/d", "v", prev_value="v"), 102, "/d"),
        (says.Delete("/d"), 102, "/d"),
        (says.Delete("/d", directory=True), 108, "/d"),
        (says.Set("/f", "v", prev_exist=False), 105, "/f"),
        (says.Delete("/no/way"), 100, "/no"),
    ],
)
def test_what_is_refused_says_where_and_what_was_compared(data: Data, code: int, cause: str) -> None:
    fold = KvFold()
    for one in THERE:
        done(fold, one)
    outcome = fold.evolve(say(data), context())
    assert isinstance(outcome, Rejected)
    words = {number: text for number, _, text in ERRORS}[code]
    assert (outcome.code, outcome.message) == (f"v2.{code}", words)
    assert outcome.detail == {"cause": cause, "index": 3}


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("PUT", b"prevValue=", 201),
        ("PUT", b"ttl=x", 202),
        ("PUT", b"prevIndex=x", 203),
        ("GET", b"recursive=x", 209),
        ("PUT", b"value=%zz", 210),
        ("PUT", b"refresh=true&ttl=5&value=v", 211),
        ("PUT", b"refresh=true", 212),
    ],
)
def test_a_request_that_cant_be_read_is_of_no_index(method: str, query: bytes, code: int) -> None:
    with pytest.raises(V2Error) as raised:
        asked(method, "/v2/keys/k", query, b"", b"")
    assert (raised.value.code, raised.value.index) == (code, 0)


def test_a_value_begins_with_whatever_it_begins_with() -> None:
    for character in set(string.printable) - set("%+&;"):
        for value in (character, character + "x"):
            found = asked("PUT", "/v2/keys/k", b"", FORM, b"value=" + value.encode())
            assert found == Command(says.Put("/k", value))
            long = asked("PUT", "/v2/keys/k", b"", FORM, b"value=" + quote(value, safe="").encode())
            assert long == found


def test_a_number_is_digits_and_nothing_else() -> None:
    for character in set(string.printable) - set(string.digits):
        for text in (character + "5", "0" + character + "5", "5" + character, "5" + character + "5"):
            for method, name, code in (("PUT", "ttl", 202), ("PUT", "prevIndex", 203), ("GET", "waitIndex", 203)):
                with pytest.raises(V2Error) as raised:
                    asked(method, "/v2/keys/k", f"{name}={quote(text, safe='')}".encode(), b"", b"")
                assert raised.value.code == code


def test_a_plus_is_a_space_in_forms_and_itself_in_paths() -> None:
    assert unescape(b"/v2/keys/a+b%20c%2Bd", False) == "/v2/keys/a+b c+d"
    assert unescape(b"a+b%20c%2Bd") == "a b c+d"
    assert asked("GET", unescape(b"/v2/keys/a+b", False), b"", b"", b"") == Read("/a+b")


@pytest.mark.parametrize(
    ("key", "tidy"),
    [
        ("/a/b/../c", "/a/c"),
        ("/a/b/c/../d", "/a/b/d"),
        ("/a/b/../../c", "/c"),
        ("/a/..", ""),
        ("/../../a", "/a"),
        ("/", ""),
        ("", ""),
        ("/a/", "/a"),
        ("a//./b", "/a/b"),
        ("/..a/.b", "/..a/.b"),
    ],
)
def test_two_dots_take_back_one_element(key: str, tidy: str) -> None:
    assert clean(key) == tidy


def test_each_character_that_go_escapes_is_escaped_wherever_it_is_alone() -> None:
    fold = KvFold()
    for character, shown in {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "'", "é<": "é\\u003c"}.items():
        key = f"/{character}"
        change = done(fold, says.Set(key, f"a{character}b"))
        for body in (get_json(fold.store, key, False, False, NOW_MS), change_json(change)):
            assert f'"key":"/{shown}","value":"a{shown}b"' in body.decode()
            assert json.loads(body)["node"]["value"] == f"a{character}b"


@pytest.mark.parametrize("value", ["", "v"])
@pytest.mark.parametrize("exists", [None, True])
def test_a_refresh_keeps_the_value_though_it_is_empty(value: str, exists: bool | None) -> None:
    fold = KvFold()
    done(fold, says.Set("/k", value, ttl_s=5))
    done(fold, says.Set("/k", ttl_s=9, prev_exist=exists, refresh=True))
    found = json.loads(get_json(fold.store, "/k", False, False, NOW_MS))["node"]
    assert (found["value"], found["ttl"]) == (value, 9)


def gone(fold: KvFold, how: str) -> Any:
    """The directory /d goes away."""
    if how == "delete":
        return done(fold, says.Delete("/d", recursive=True))
    there = fold.store.dirs["/d"]
    return done(fold, says.Expired("/d", there.modified, there.expires_ms))


@pytest.mark.parametrize("how", ["delete", "expire"])
def test_a_directory_that_goes_wakes_all_who_wait_in_it_with_one_body(how: str) -> None:
    fold, hub = KvFold(), Hub(lambda: fold.store)
    done(fold, says.Set("/d", directory=True, ttl_s=5))
    done(fold, says.Set("/d/a/b", "v"))
    came: dict[str, list[bytes]] = {}
    for key in ("", "/d", "/d/a", "/d/a/b", "/d/none", "/da"):
        hub.watch(key, key == "", False, 0, came.setdefault(key, []).append)
    change = gone(fold, how)
    hub.applied([change])
    assert {key for key, bodies in came.items() if bodies} == {"", "/d", "/d/a", "/d/a/b", "/d/none"}
    bodies = [body for told in came.values() for body in told]
    assert json.loads(bodies[0])["action"] == how
    assert all(body is bodies[0] for body in bodies)  # written once, however many wait
    late: list[bytes] = []
    hub.watch("/d/a", False, False, change[0], late.append)
    assert late == [bodies[0]]


def test_of_what_was_applied_v2s_changes_are_told_and_what_may_be_about_leases() -> None:
    grant = v3_says.LeaseGrant(7, 60)
    _, seen = applied(
        [say(says.Put("/a", "1")), say(v3_says.Put("k", "v")), say(grant)],
        [say(says.Put("/a/b", "refused")), say(says.Append("/q", "2")), say(v3_says.Txn())],
    )
    changes, leases = history.told(seen)
    assert [(change[1], change[2]) for change in changes] == [
        ("set", "/a"),
        ("create", "/q/00000000000000000002"),
    ]
    assert grant in leases
    assert not {v3_says.Put, v3_says.Txn, says.Put} & {type(data) for data in leases}
    assert history.told([]) == ([], [])


def without_history(store: Store) -> list[bytes]:
    return [b"{}\n", *(line for line in store.encode() if not line.startswith(b'{"change"'))]


def test_what_happened_beside_the_keys_is_kept_as_members_of_other_versions_keep_it() -> None:
    fold = KvFold()
    done(fold, says.Put("/a", "1"))
    index = fold.store.index
    done(fold, users_say.UserAdd("root", "h"))
    kept = [line for line in fold.store.encode() if b'"2"' in line]
    assert kept[-1] == b'{"change":[%d,"update","2",null,null,%d,true]}\n' % (fold.store.index, NOW_MS)
    assert len(kept) == fold.store.index - index
    # and so the history of a store that came without one
    store, _ = restored(without_history(fold.store))
    _, change, *_ = store.encode()
    assert change == b'{"change":[%d,"update","2",null,null,0,true]}\n' % fold.store.index
    with pytest.raises(V2Error) as raised:
        Hub(lambda: store).watch("", True, False, 1, lambda body: None)
    assert raised.value.code == 401


def test_a_file_takes_its_four_fields_of_memory_and_nothing_for_the_collector() -> None:
    fold = KvFold()
    done(fold, says.Put("/k", "v"))
    assert sys.getsizeof(fold.store.files["/k"]) == object.__basicsize__ + 4 * struct.calcsize("P")


@pytest.mark.parametrize(("texts", "value"), [("1 t T true TRUE True", True), ("0 f F false FALSE False", False)])
def test_flags_are_spelt_as_gos_parser_takes_them(texts: str, value: bool) -> None:
    for text in texts.split():
        assert asked("GET", "/v2/keys/k", b"recursive=" + text.encode(), b"", b"") == Read("/k", recursive=value)
    for wrong in ("yes", "TrUe", "tRUE", "F!", "2", "no"):
        with pytest.raises(V2Error) as error:
            asked("GET", "/v2/keys/k", b"recursive=" + wrong.encode(), b"", b"")
        assert error.value.code == 209
