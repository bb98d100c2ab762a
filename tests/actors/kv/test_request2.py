"""What a request on v2's keys asks, by etcd 3.4's rules: a field after the other, the first bad one is told."""

from typing import Any

import pytest

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.request import Command, Read, Redirect, Watch, asked, let, recursive
from streams.events import kv as says
from streams.events.base import Base64

FORM = b"application/x-www-form-urlencoded"


def ask(method: str, query: bytes = b"", body: bytes = b"", path: str = "/v2/keys/k", kind: bytes = FORM) -> Any:
    return asked(method, path, query, kind, body)


@pytest.mark.parametrize(
    ("method", "query", "body", "found"),
    [
        ("PUT", b"", b"value=v", Command(says.Put("/k", "v"))),
        ("PUT", b"value=v", b"", Command(says.Put("/k", "v"))),
        ("PUT", b"value=query", b"value=body", Command(says.Put("/k", "body"))),
        ("PUT", b"", b"value=%C3%A9", Command(says.Set("/k", "é"))),
        ("PUT", b"", b"value=%FF", Command(says.Set("/k", Base64(b"\xff")))),
        ("PUT", b"", b"", Command(says.Set("/k", ""))),
        ("PUT", b"dir=true", b"ttl=7", Command(says.Set("/k", "", True, 7))),
        ("PUT", b"ttl=", b"value=v", Command(says.Set("/k", "v"))),
        ("PUT", b"prevExist=false", b"value=v", Command(says.Set("/k", "v", False, None, False))),
        ("PUT", b"prevExist=true&ttl=3&refresh=1", b"", Command(says.Set("/k", "", False, 3, True, refresh=True))),
        ("PUT", b"prevValue=o&prevIndex=3", b"value=v", Command(says.Set("/k", "v", False, None, None, "o", 3))),
        ("PUT", b"prevIndex=0", b"value=v", Command(says.Set("/k", "v"))),
        ("PUT", b"prevIndex=007", b"value=v", Command(says.Set("/k", "v", False, None, None, None, 7))),
        ("PUT", b"prevIndex=000", b"value=v", Command(says.Set("/k", "v"))),
        ("PUT", b"prevIndex=18446744073709551615", b"", Command(says.Set("/k", prev_index=2**64 - 1))),
        ("PUT", b"noValueOnSuccess=true", b"value=v", Command(says.Set("/k", "v"), True)),
        ("POST", b"", b"value=v", Command(says.Append("/k", "v"))),
        ("POST", b"dir=1", b"ttl=9", Command(says.Append("/k", "", True, 9))),
        ("DELETE", b"", b"", Command(says.Delete("/k"))),
        ("DELETE", b"recursive=true&dir=T", b"", Command(says.Delete("/k", True, True))),
        ("DELETE", b"prevValue=o", b"", Command(says.Delete("/k", prev_value="o"))),
        ("DELETE", b"prevIndex=3", b"", Command(says.Delete("/k", prev_index=3))),
        ("DELETE", b"", b"recursive=true", Command(says.Delete("/k"))),
        ("GET", b"", b"", Read("/k", False, False, None)),
        ("HEAD", b"", b"", Read("/k", False, False, None)),
        ("GET", b"recursive=true&sorted=true&quorum=false", b"", Read("/k", True, True, False)),
        ("GET", b"", b"wait=true", Read("/k", False, False, None)),
        ("GET", b"wait=true", b"", Watch("/k", False, False, 0, None)),
        ("GET", b"wait=1&waitIndex=7&recursive=t&stream=TRUE", b"", Watch("/k", True, True, 7, None)),
        ("GET", b"wait=true&quorum=false", b"", Watch("/k", False, False, 0, False)),
        ("GET", b"wait=true&quorum=true", b"", Read("/k", False, False, True)),
    ],
)  # fmt: skip
def test_what_is_asked(method: str, query: bytes, body: bytes, found: object) -> None:
    assert ask(method, query, body) == found


def bad(name: str, code: int = errors.INVALID_FIELD) -> tuple[int, str]:
    return code, f'invalid value for "{name}"'


@pytest.mark.parametrize(
    ("method", "query", "error"),
    [
        ("PUT", b"prevIndex=x", bad("prevIndex", errors.INDEX_NAN)),
        ("PUT", b"prevIndex=", bad("prevIndex", errors.INDEX_NAN)),
        ("PUT", b"prevIndex=-1", bad("prevIndex", errors.INDEX_NAN)),
        ("PUT", b"prevIndex=18446744073709551616", bad("prevIndex", errors.INDEX_NAN)),
        ("PUT", b"prevIndex=%C2%B2", bad("prevIndex", errors.INDEX_NAN)),
        ("PUT", b"prevIndex=x&waitIndex=x", bad("prevIndex", errors.INDEX_NAN)),
        ("GET", b"waitIndex=x&recursive=x", bad("waitIndex", errors.INDEX_NAN)),
        ("GET", b"recursive=x&sorted=x", bad("recursive")),
        ("GET", b"sorted=tRUE&wait=x", bad("sorted")),
        ("GET", b"wait=&dir=x", bad("wait")),
        ("GET", b"dir=2&quorum=x", bad("dir")),
        ("GET", b"quorum=x&stream=x", bad("quorum")),
        ("GET", b"stream=x", bad("stream")),
        ("PUT", b"wait=true&prevValue=", (errors.INVALID_FIELD, '"wait" can only be used with GET requests')),
        ("HEAD", b"wait=true", (errors.INVALID_FIELD, '"wait" can only be used with GET requests')),
        ("PUT", b"prevValue=&noValueOnSuccess=x", (errors.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')),
        ("PUT", b"noValueOnSuccess=x&ttl=x", bad("noValueOnSuccess")),
        ("PUT", b"ttl=x&prevExist=x", bad("ttl", errors.TTL_NAN)),
        ("PUT", b"prevExist=x&refresh=x", (errors.INVALID_FIELD, "invalid value for prevExist")),
        ("PUT", b"refresh=x", (errors.INVALID_FIELD, "invalid value for refresh")),
        ("PUT", b"refresh=true&value=v", (errors.REFRESH_VALUE, "A value was provided on a refresh")),
        ("PUT", b"refresh=true", (errors.REFRESH_TTL_REQUIRED, "No TTL value set")),
        ("GET", b"a;b=1", (errors.INVALID_FORM, "invalid semicolon separator in query")),
    ],
)
def test_the_first_bad_field_is_told(method: str, query: bytes, error: tuple[int, str]) -> None:
    with pytest.raises(V2Error) as raised:
        ask(method, query)
    assert (raised.value.code, raised.value.cause) == error


@pytest.mark.parametrize("kind", [FORM, b"Application/X-WWW-Form-urlencoded; charset=utf-8", b" " + FORM + b" ;x"])
def test_a_body_is_read_if_it_is_a_form(kind: bytes) -> None:
    assert ask("PUT", body=b"value=v", kind=kind) == Command(says.Put("/k", "v"))


def test_other_bodies_are_not_read_and_a_multipart_form_is_refused() -> None:
    assert ask("PUT", body=b"value=v", kind=b"text/plain") == Command(says.Set("/k", ""))
    for method in ("PUT", "POST"):
        with pytest.raises(V2Error) as raised:
            ask(method, body=b"value=v", kind=b"Multipart/form-data; boundary=x")
        why = "multipart forms are not read; send application/x-www-form-urlencoded"
        assert (raised.value.code, raised.value.cause) == (errors.INVALID_FORM, why)
    assert ask("DELETE", body=b"x", kind=b"multipart/form-data") == Command(says.Delete("/k"))


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/v2/keys//a", b"", "/v2/keys/a"),
        ("/v2/keys/a/../b/", b"", "/v2/keys/b/"),
        ("/v2/keys/a/./é", b"recursive=true&x=%20", "/v2/keys/a/%C3%A9?recursive=true&x=%20"),
    ],
)
def test_a_path_that_isnt_clean_is_elsewhere(path: str, query: bytes, location: str) -> None:
    with pytest.raises(Redirect) as raised:
        ask("GET", query, path=path)
    assert raised.value.args[0] == location


@pytest.mark.parametrize(
    ("path", "key"), [("/v2/keys", ""), ("/v2/keys/", ""), ("/v2/keys/a/", "/a"), ("/v2/keys/é", "/é")]
)
def test_clean_paths(path: str, key: str) -> None:
    assert ask("GET", path=path) == Read(key, False, False, None)
    assert ask("PUT", b"dir=true", path=path) == Command(says.Set(key or "/", "", True))
    assert ask("DELETE", path=path) == Command(says.Delete(key or "/"))


def test_a_plain_put_of_the_root_or_of_what_is_no_ascii() -> None:
    assert ask("PUT", body=b"value=v", path="/v2/keys/") == Command(says.Put("", "v"))
    assert ask("PUT", body=b"value=v", path="/v2/keys/é") == Command(says.Set("/é", "v"))


@pytest.mark.parametrize(
    ("method", "query", "body", "found"),
    [
        ("GET", b"recursive=true", b"", True),
        ("GET", b"recursive=false", b"", False),
        ("GET", b"", b"recursive=true", False),
        ("DELETE", b"", b"recursive=true", False),
        ("PUT", b"", b"recursive=true", True),
        ("POST", b"recursive=true", b"recursive=false", False),
        ("PUT", b"x=1", b"", False),
    ],
)
def test_whether_it_is_recursive(method: str, query: bytes, body: bytes, found: bool) -> None:
    assert recursive(method, query, {b"content-type": FORM}, body) == found


def test_who_was_let_through_says_at_which_revision() -> None:
    assert let(says.Put("/k", "v"), 7) == says.Set("/k", "v", auth=7)
    assert let(says.Put("", "v"), 7) == says.Set("/", "v", auth=7)
    assert let(says.Delete("/k", True), 7) == says.Delete("/k", True, auth=7)
