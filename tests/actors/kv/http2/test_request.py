"""A request's fields, by the rules of RFC 9113 and of gRPC, without a connection."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.http2 import messages
from actors.kv.http2.connection import Methods
from actors.kv.http2.request import Malformed, read, timed, trailers, without_timeout

ECHO = b"/test.Echo/Once"
METHODS = Methods({ECHO: lambda call, raw: None})
PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", ECHO)]
PLAIN = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
Fields = list[tuple[bytes, bytes]]
names = st.sampled_from([b"grpc-timeout", b"x", b"y", b"te", b":path"])


def test_a_request_is_read() -> None:
    found = read([*PSEUDO, *PLAIN, (b"x", b"1"), (b"x", b"2"), (b"y-bin", b"AAE"), (b"content-length", b"12")], METHODS)
    assert found.unary is not None
    assert (found.path, found.http, found.refusal, found.length, found.gzip) == (ECHO, 0, None, 12, False)
    assert found.metadata[b"x"] == b"1,2"
    assert found.metadata[b"y-bin"] == b"\0\1"


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_pseudo_header_is_malformed(missing: int) -> None:
    with pytest.raises(Malformed):
        read([*PSEUDO[:missing], *PSEUDO[missing + 1 :], *PLAIN], METHODS)


@pytest.mark.parametrize(
    "fields",
    [
        [(b":path", b""), *PSEUDO[:2], *PLAIN],
        [*PSEUDO, (b":path", ECHO), *PLAIN],
        [*PSEUDO, (b":status", b"200"), *PLAIN],
        [*PSEUDO, *PLAIN, (b":authority", b"x")],
        [*PSEUDO, *PLAIN, (b"", b"x")],
        [*PSEUDO, *PLAIN, (b"X", b"x")],
        [*PSEUDO, *PLAIN, (b"x", b"a\nb")],
        [*PSEUDO, *PLAIN, (b"te", b"trailers, deflate")],
        [*PSEUDO, *PLAIN, (b"connection", b"close")],
        [*PSEUDO, *PLAIN, (b"content-length", b"1"), (b"content-length", b"2")],
        [*PSEUDO, *PLAIN, (b"content-length", b"1" * 19)],
        [*PSEUDO, *PLAIN, (b"content-length", b"-1")],
    ],
)
def test_malformed(fields: Fields) -> None:
    with pytest.raises(Malformed):
        read(fields, METHODS)


def test_one_length_twice_is_one_and_it_may_have_18_digits() -> None:
    assert read([*PSEUDO, *PLAIN, (b"content-length", b"7"), (b"content-length", b"7")], METHODS).length == 7
    assert read([*PSEUDO, *PLAIN, (b"content-length", b"9" * 18)], METHODS).length == 10**18 - 1


@pytest.mark.parametrize(
    ("kind", "http"),
    [
        (b"application/grpc", 0),
        (b"Application/gRPC+proto", 0),
        (b"application/grpc;x", 0),
        (b"application/grpc-web", 415),
        (b"application/json", 415),
        (b"", 415),
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"HEAD"])
def test_http_tells_of_another_type_or_method(kind: bytes, http: int, method: bytes) -> None:
    found = read([(b":method", method), *PSEUDO[1:], (b"content-type", kind)], METHODS)
    assert found.http == (http or (0 if method == b"POST" else 405))
    why = f'invalid gRPC request content-type "{kind.decode()}"'
    if found.http == 415:
        assert found.refusal == (messages.INVALID_ARGUMENT, why, ())
        assert found.body == (b"" if method == b"HEAD" else f"this is a gRPC port: {why}\n".encode())
    elif found.http == 405:
        said = f'Received a HEADERS frame with :method "{method.decode()}" which should be POST'
        assert found.refusal == (messages.INTERNAL, said, ())
        assert found.body == b""


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.sampled_from([b"1S", b"2S", b""])), max_size=6))
def test_the_last_timeout_is_taken_out_and_all_else_stays(fields: Fields) -> None:
    rest, timeout = without_timeout(fields)
    if timeout is None:
        assert list(rest) == fields
    else:
        at = max(at for at, (name, _) in enumerate(fields) if name == b"grpc-timeout")
        assert list(rest) == fields[:at] + fields[at + 1 :]
        assert timeout == fields[at][1]
        # a pseudo-header behind it would make the rest well-formed, which the whole isn't
        assert at + 1 == len(fields) or not fields[at + 1][0].startswith(b":")


def test_a_pseudo_header_behind_the_timeout_is_malformed_all_the_same() -> None:
    fields = [*PSEUDO[:2], (b"grpc-timeout", b"1S"), PSEUDO[2], *PLAIN]
    rest, timeout = without_timeout(fields)
    assert timeout is None
    with pytest.raises(Malformed):
        read(rest, METHODS)


def test_a_timeout_that_is_none_is_refused_as_grpc_go_does() -> None:
    good = read([*PSEUDO, *PLAIN], METHODS)
    assert timed(good, None) == (good, None)
    assert timed(good, b"1500m") == (good, 1.5)
    late, seconds = timed(good, b"x")
    assert (late.http, late.path, seconds, late.unary) == (400, ECHO, None, None)
    assert late.refusal is not None
    refused = read([(b":method", b"GET"), *PSEUDO[1:], *PLAIN], METHODS)
    assert timed(refused, b"x") == (refused, None)


@pytest.mark.parametrize(
    ("encoding", "gzip", "code"), [(b"gzip", True, None), (b"identity", False, None), (b"br", False, 12)]
)
def test_encodings(encoding: bytes, gzip: bool, code: int | None) -> None:
    found = read([*PSEUDO, *PLAIN, (b"grpc-encoding", encoding)], METHODS)
    assert found.gzip == gzip
    assert (found.refusal and found.refusal[0]) == code
    assert (found.unary is None) == (code is not None)


@settings(deadline=None)
@given(st.binary(max_size=20), st.booleans())
def test_binary_metadata_may_be_padded_or_not(value: bytes, padded: bool) -> None:
    encoded = base64.b64encode(value)
    found = read([*PSEUDO, *PLAIN, (b"x-bin", encoded if padded else encoded.rstrip(b"="))], METHODS)
    assert found.metadata[b"x-bin"] == value


def test_trailers_have_no_pseudo_header() -> None:
    trailers([(b"x", b"1")])
    for fields in ([(b":path", b"/")], [(b"X", b"1")]):
        with pytest.raises(Malformed):
            trailers(fields)


def test_no_type_is_told_as_an_empty_one() -> None:
    found = read(PSEUDO, METHODS)
    assert found.refusal == (messages.INVALID_ARGUMENT, 'invalid gRPC request content-type ""', ())
