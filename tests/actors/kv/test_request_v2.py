"""The short way of a v2 PUT beside the long one."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.kv.v2 import request
from actors.kv.v2.errors import V2Error
from actors.kv.v2.kinds import Asked, Redirect

PATHS = st.lists(st.sampled_from(["/", "//", ".", "..", "a", "_b", "é", "\udcff", "~"]), max_size=7).map(
    lambda parts: request.PREFIX + "/" + "".join(parts)
)
VALUES = st.lists(
    st.sampled_from(
        [b"a", b"v=1", b"=", b"&", b";", b"+", b"%", b"%41", b"%zz", b"\xff", b"\xc3\xa9", b" ", b"\0", b"<"]
    )
).map(b"".join)


def outcome(path: str, query: bytes, content_type: bytes, body: bytes) -> Asked | tuple[object, ...]:
    try:
        return request.asked("PUT", path, query, content_type, body)
    except V2Error as error:
        return error.code, error.cause, error.index
    except Redirect as redirect:
        return (redirect.location,)


@settings(deadline=None, max_examples=500)
@given(PATHS, st.sampled_from([b"", b"", b"ttl=5", b"value=x"]), st.sampled_from([b"value=", b"value", b""]), VALUES)
@example("/v2/keys/a", b"", b"value=", b"")
@example("/v2/keys/a", b"", b"value=", b"x" * 300)
@example("/v2/keys", b"", b"value=", b"x")
def test_a_put_means_the_same_the_short_way_and_the_long_one(
    path: str, query: bytes, name: bytes, value: bytes
) -> None:
    # a content type with a parameter is the same one, and takes the long way
    long = outcome(path, query, request.FORM + b"; charset=utf-8", name + value)
    assert outcome(path, query, request.FORM, name + value) == long
