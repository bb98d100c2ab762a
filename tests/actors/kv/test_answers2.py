"""v2's changes and answers as they are, word for word, and how they are counted: a walk through the verbs."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.state import KvFold
from actors.kv.v2 import errors
from actors.kv.v2.get import change_json, created, escape, expiration, get_json
from actors.kv.v2.nodes import DEPTH_MAX, KEY_CHARACTERS_MAX
from streams.events import kv as says
from streams.events import kv3 as v3_says
from streams.events.base import Base64, Data, say
from streams.outcomes import Accepted, Rejected
from streams.records import Record
from streams.replay import Context, LogState, Position

NOW_MS = 1_700_000_000_000


def context(time_ms: int = NOW_MS) -> Context:
    return Context(Position(3), Record("ab" * 16, "kv", "kv@m", 1, 1, time_ms, b"", 3), LogState())


def done(fold: KvFold, data: Data) -> Any:
    """The change, or the code of what was refused."""
    outcome = fold.evolve(say(data), context())
    assert isinstance(outcome, Accepted | Rejected)
    return outcome.result if isinstance(outcome, Accepted) else outcome.code


WALK: list[tuple[Data, str, bool]] = [
    (
        says.Set("/a", "1"),
        '{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}',
        True,
    ),
    (
        says.Put("/a", "<2>&\u2028\u2029"),
        '{"action":"set","node":{"key":"/a","value":"\\u003c2\\u003e\\u0026\\u2028\\u2029","modifiedIndex":2,'
        '"createdIndex":2},"prevNode":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}',
        False,
    ),
    (
        says.Set("/a", "3", prev_exist=True, ttl_s=5),
        '{"action":"update","node":{"key":"/a","value":"3","expiration":"2023-11-14T22:13:25Z","ttl":5,'
        '"modifiedIndex":3,"createdIndex":2},"prevNode":{"key":"/a","value":"\\u003c2\\u003e\\u0026\\u2028\\u2029",'
        '"modifiedIndex":2,"createdIndex":2}}',
        False,
    ),
    (
        says.Set("/a", "4", prev_value="3"),
        '{"action":"compareAndSwap","node":{"key":"/a","value":"4","modifiedIndex":4,"createdIndex":2},'
        '"prevNode":{"key":"/a","value":"3","expiration":"2023-11-14T22:13:25Z","ttl":5,"modifiedIndex":3,'
        '"createdIndex":2}}',
        False,
    ),
    (
        says.Delete("/a", prev_value="4"),
        '{"action":"compareAndDelete","node":{"key":"/a","modifiedIndex":5,"createdIndex":2},'
        '"prevNode":{"key":"/a","value":"4","modifiedIndex":4,"createdIndex":2}}',
        False,
    ),
    (
        says.Set("/d", "", True, prev_exist=False),
        '{"action":"create","node":{"key":"/d","dir":true,"modifiedIndex":6,"createdIndex":6}}',
        True,
    ),
    (
        says.Append("/d", "x"),
        '{"action":"create","node":{"key":"/d/00000000000000000007","value":"x","modifiedIndex":7,"createdIndex":7}}',
        True,
    ),
    (
        says.Delete("/d", True),
        '{"action":"delete","node":{"key":"/d","dir":true,"modifiedIndex":8,"createdIndex":6},'
        '"prevNode":{"key":"/d","dir":true,"modifiedIndex":6,"createdIndex":6}}',
        False,
    ),
]


def test_each_verb_is_told_as_in_etcd() -> None:
    fold = KvFold()
    for data, body, made in WALK:
        change = done(fold, data)
        assert change_json(change).decode() == body + "\n"
        assert created(change) == made
        short = change_json(change, no_value=True).decode()
        said = json.loads(body)["action"]
        assert short == (f'{{"action":"{said}"}}\n' if "elete" not in said else body + "\n")


def test_what_failed_is_counted_by_its_verb() -> None:
    fold = KvFold()
    for data in (
        says.Set("/f", "v"), says.Put("/f/g", "v"), says.Set("/f/g", "v"), says.Set("/f", "v", prev_exist=False),
        says.Set("/x", "v", prev_exist=True), says.Set("/x", "v", prev_value="o"), says.Set("/x", "v", prev_index=7),
        says.Set("/f", "v", prev_exist=False, prev_value="o"), says.Append("/f", "v"), says.Delete("/x"),
        says.Delete("/x", prev_value="o"), says.Delete("/x", prev_index=7),
    ):  # fmt: skip
        done(fold, data)
    assert fold.counts == {
        "set": 1,
        "setFail": 2,
        "createFail": 3,
        "updateFail": 1,
        "compareAndSwapFail": 2,
        "deleteFail": 1,
        "compareAndDeleteFail": 2,
    }


@pytest.mark.parametrize(("plain", "slow"), [(3, 0), (3, 2), (0, 4)])
def test_puts_of_a_record_are_counted_whichever_way_they_took(plain: int, slow: int) -> None:
    fold = KvFold()
    events = [say(says.Put(f"/k{at}", "v")) for at in range(plain)]
    events += [say(says.Set(f"/s{at}", "v", ttl_s=9)) for at in range(slow)]
    events += [say(v3_says.Put("k", "v")), say(v3_says.Txn()), say(v3_says.Put("k", "v", lease=9))]  # are v3's
    fold.evolve_many(events, context().record, LogState(), lambda event, at: fold.evolve(event, context()), True)
    assert fold.counts == {"set": plain + slow}


TREE = [says.Set(key, "v") for key in ("/b", "/a/y", "/a/x/deep", "/_hidden", "/a/_hidden", Base64(b"/\xff"))]
X = '{"key":"/a/x","dir":true%s,"modifiedIndex":3,"createdIndex":3}'
DEEP = ',"nodes":[{"key":"/a/x/deep","value":"v","modifiedIndex":3,"createdIndex":3}]'
Y = '{"key":"/a/y","value":"v","modifiedIndex":2,"createdIndex":2}'


@pytest.mark.parametrize(
    ("recursive", "ordered", "nodes"),
    [
        (False, False, [Y, X % ""]),
        (False, True, [X % "", Y]),
        (True, True, [X % DEEP, Y]),
        (True, False, [Y, X % DEEP]),
    ],
)
def test_listings(recursive: bool, ordered: bool, nodes: list[str]) -> None:
    fold = KvFold()
    for data in TREE:
        done(fold, data)
    body = get_json(fold.store, "/a", recursive, ordered, NOW_MS).decode()
    head = '{"action":"get","node":{"key":"/a","dir":true,"nodes":['
    assert body == head + ",".join(nodes) + '],"modifiedIndex":2,"createdIndex":2}}\n'
    root = json.loads(get_json(fold.store, "", recursive, True, NOW_MS).decode("utf-8", "replace"))["node"]
    assert root.keys() == {"dir", "nodes"}
    assert [one["key"] for one in root["nodes"]] == ["/a", "/b", "/\ufffd"]
    assert ("nodes" in root["nodes"][0]) == recursive
    hidden = get_json(fold.store, "/_hidden", recursive, ordered, NOW_MS).decode()
    assert '"key":"/_hidden","value":"v"' in hidden


@settings(deadline=None)
@given(st.integers(1, 4_000_000_000_000), st.integers(0, 4_000_000_000_000))
def test_a_ttl_is_in_whole_seconds_rounded_up_and_none_when_over(expires_ms: int, now_ms: int) -> None:
    said = json.loads(b"{" + expiration(expires_ms, now_ms)[1:] + b"}")
    left_s = -(-(expires_ms - now_ms) // 1000)
    assert said.get("ttl") == (left_s if left_s > 0 else None)
    assert said["expiration"].endswith("Z")
    fraction = said["expiration"][19:-1]
    assert not fraction.endswith("0")
    assert float("0" + (fraction or ".0")) == expires_ms % 1000 / 1000


def test_no_ttl_no_expiration() -> None:
    assert expiration(0, 5) == b""


@settings(deadline=None)
@given(st.text())
def test_what_is_escaped_reads_the_same(text: str) -> None:
    body = json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
    safe = escape(body)
    assert json.loads(safe.decode("utf-8", "surrogatepass")) == text
    assert not any(one in safe for one in (b"<", b">", b"&", "\u2028".encode(), "\u2029".encode()))


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("/a" * DEPTH_MAX, None),
        ("/a" * (DEPTH_MAX + 1), f"v2.{errors.INVALID_FIELD}"),
        ("/" + "a" * (KEY_CHARACTERS_MAX - 3) + "/b", None),
        ("/" + "a" * (KEY_CHARACTERS_MAX - 2) + "/b", f"v2.{errors.INVALID_FIELD}"),
    ],
)
def test_keys_are_as_deep_and_long_as_they_may_be(key: str, code: str | None) -> None:
    came = done(KvFold(), says.Set(key, "v"))
    assert came == code if code else not isinstance(came, str)
