"""The port by raw sockets: HTTP/1.1's edges, and that what one connection does hurts no other."""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.kv import http1
from actors.kv.port import HTTP2_PREFACE
from actors.kv.v2.errors import V2Error
from actors.kv.v2.request import Command, Read, Redirect, Watch, asked, form, unescape
from tests.actors.kv.server import Client, Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("kv")) as running:
        yield running


def send(server: Running, *pieces: bytes, pause_s: float = 0.0, half_close: bool = True) -> bytes:
    """All that comes back until the server closes (the client ends its sending first)."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        out = b""
        while got := connection.recv(65536):
            out += got
        return out


def statuses(raw: bytes) -> list[int]:
    return [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:]]


def put(key: str, value: str, more: str = "") -> bytes:
    body = f"value={value}"
    return (
        f"PUT /v2/keys{key} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    raw = send(server, b"".join(put(f"/pipe/{n}", str(n)) for n in range(200)) + b"GET /version HTTP/1.1\r\n\r\n")
    assert statuses(raw) == [201] * 200 + [200]
    values = [json.loads(line)["node"]["value"] for line in raw.split(b"\n") if line.startswith(b'{"action"')]
    assert values == [str(n) for n in range(200)]


def test_a_chunked_body_is_a_body(server: Running) -> None:
    head = b"PUT /v2/keys/chunked HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    raw = send(server, head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nval\r\n5\r\nue=ab\r\n0\r\n\r\n")
    assert b'"value":"ab"' in raw


def test_head_has_the_length_and_no_body(server: Running) -> None:
    send(server, put("/head", "abc"))
    got, head = (send(server, method + b" /v2/keys/head HTTP/1.1\r\n\r\n") for method in (b"GET", b"HEAD"))
    assert head.endswith(b"\r\n\r\n")
    length = next(line for line in got.split(b"\r\n") if line.startswith(b"Content-Length"))
    assert length in head


def test_http_1_0_is_answered_and_closed(server: Running) -> None:
    raw = send(server, b"GET /version HTTP/1.0\r\n\r\n", half_close=False)
    assert statuses(raw) == [200]
    assert b"Connection: close" in raw


@pytest.mark.parametrize("how", [b"Content-Length: 10000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_ten_megabytes_are_refused_and_change_nothing(server: Running, how: bytes) -> None:
    head = b"PUT /v2/keys/big HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n" + how
    body = b"value=" + bytes(10_000_000)
    if b"chunked" in how:
        body = b"".join(
            b"100000\r\n" + body[at : at + 0x100000].ljust(0x100000) + b"\r\n" for at in range(0, len(body), 0x100000)
        )
    raw = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head + body)
        try:
            while got := connection.recv(65536):
                raw += got
        except ConnectionError:
            pass
    assert statuses(raw) == [413]
    assert b"2097152 at most" in raw or b"over 2097152" in raw
    assert statuses(send(server, b"GET /v2/keys/big HTTP/1.1\r\n\r\n")) == [404]


def test_a_value_that_is_six_times_as_long_in_JSON_is_taken(server: Running) -> None:
    body = b"value=" + b"%01" * 699_000
    head = b"PUT /v2/keys/big HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    raw = send(server, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert statuses(raw) == [201]
    assert server.fold.store.files["/big"].value == "\1" * 699_000
    assert statuses(send(server, put("/big", "1"))) == [200]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /v2/keys/%zz HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2/keys HTTP/9.9\r\n\r\n", 400),
        (b"GET /v2/keys HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v2/keys HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /v2/keys HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000, 431),
        (b"PATCH /v2/keys/a HTTP/1.1\r\n\r\n", 405),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /v2/keysx HTTP/1.1\r\n\r\n", 404),
        (b"GET /internal/hash HTTP/1.1\r\n\r\n", 404),
        (b"POST /version HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /v2/keys//a HTTP/1.1\r\n\r\n", 301),
        (b"POST /v2/keys/a HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\r\nContent-Length: 0\r\n\r\n", 403),
        (b"PUT /v2/keys/a HTTP/1.1\r\nX-Corelog-Client: c\r\nX-Corelog-Sequence: x\r\nContent-Length: 0\r\n\r\n", 400),
        (b"PUT /v2/keys/a HTTP/1.1\r\nContent-Type: multipart/form-data\r\nContent-Length: 1\r\n\r\nx", 400),
    ],
)
def test_what_is_wrong_gets_its_status(server: Running, raw: bytes, status: int) -> None:
    assert statuses(send(server, raw)) == [status]


def test_a_redirect_can_carry_no_header(server: Running) -> None:
    raw = send(server, b"GET /v2/keys//a%0d%0aSet-Cookie:%20x HTTP/1.1\r\n\r\n")
    assert b"\r\nSet-Cookie" not in raw


def test_http2_is_known_by_its_first_bytes(server: Running) -> None:
    settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    raw = send(server, HTTP2_PREFACE[:10], HTTP2_PREFACE[10:] + settings, pause_s=0.02)
    assert raw[3] == 4  # SETTINGS


def test_a_slow_request_ends_with_408_alone(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "REQUEST_S_MAX", 0.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"PUT /v2/keys/slow HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        time.sleep(0.1)
        server.call(server.kv_port._sweep)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert statuses(send(server, b"GET /version HTTP/1.1\r\n\r\n")) == [200]


def test_expect_100_is_answered(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(put("/expect", "1", "Expect: 100-continue\r\n").partition(b"value=")[0])
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"value=1")
        assert connection.recv(1000).startswith(b"HTTP/1.1 201")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    noise=st.binary(max_size=40),
    at=st.integers(0, 1500),
)
def test_any_bytes_cut_anywhere_hurt_no_other(server: Running, cuts: list[int], noise: bytes, at: int) -> None:
    whole = put("/fuzz/a", "1") + b"GET /v2/keys/fuzz?recursive=true HTTP/1.1\r\n\r\n" + put("/fuzz/b", "2") * 3
    whole = whole[:at] + noise + whole[at:]
    marks = sorted({0, *[min(cut, len(whole)) for cut in cuts], len(whole)})
    raw = send(server, *[whole[a:b] for a, b in itertools.pairwise(marks)])
    assert all(status in (200, 201, 301, 400, 403, 404, 405, 408, 413, 431) for status in statuses(raw))
    assert statuses(send(server, b"GET /version HTTP/1.1\r\n\r\n")) == [200]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_how_it_is_cut_changes_nothing(server: Running, cuts: list[int]) -> None:
    whole = put("/cut/a", "x" * 50) + put("/cut/b", "y", "X-More: z\r\n") + b"GET /v2/keys/cut/a HTTP/1.1\r\n\r\n"
    marks = sorted({0, *[min(cut, len(whole)) for cut in cuts], len(whole)})
    raw = send(server, *[whole[a:b] for a, b in itertools.pairwise(marks)])
    assert statuses(raw)[2] == 200
    assert b"x" * 50 in raw


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    path=st.text(max_size=30),
    query=st.binary(max_size=60),
    kind=st.sampled_from([b"application/x-www-form-urlencoded", b"", b"text/plain; a=b"]),
    body=st.binary(max_size=60) | st.from_regex(rb"(ttl|value|wait|prevIndex)=[0-9a-z%]{0,25}", fullmatch=True),
)
def test_any_form_is_asked_something_or_a_typed_error(
    method: str, path: str, query: bytes, kind: bytes, body: bytes
) -> None:
    with contextlib.suppress(V2Error, Redirect):
        assert isinstance(asked(method, "/v2/keys/" + path, query, kind, body), Command | Read | Watch)


@given(st.dictionaries(st.text(), st.text(), max_size=5))
def test_a_form_is_read_as_it_was_written(fields: dict[str, str]) -> None:
    from urllib.parse import urlencode

    out: dict[str, str] = {}
    form(urlencode(fields).encode(), out)
    assert out == {name: value for name, value in fields.items() if name or value} | (
        {"": fields[""]} if "" in fields else {}
    )
    assert unescape(b"a%2Bb+c") == "a+b c"


def test_idempotent_retries(server: Running) -> None:
    client = Client(server.port)
    key = {"Idempotency-Key": "k-1"}
    first = client.ask("POST", "/once", "value=1", key)
    again = client.ask("POST", "/once", "value=1", key)
    assert first[2] == again[2]
    assert client.ask("POST", "/once", "value=2", key)[0] == 409
    forgotten = {"X-Corelog-Client": "c", "X-Corelog-Sequence": "5", "X-Corelog-Floor": "5"}
    assert client.ask("POST", "/once", "value=3", forgotten)[0] == 410, "a session begins with 1"
    numbered = {"X-Corelog-Client": "c", "X-Corelog-Sequence": "1", "X-Corelog-Floor": "0"}
    assert client.ask("POST", "/once", "value=3", numbered)[2] == client.ask("POST", "/once", "value=3", numbered)[2]
    below = {"X-Corelog-Client": "c", "X-Corelog-Sequence": "4", "X-Corelog-Floor": "9"}
    assert client.ask("POST", "/once", "value=4", below)[0] == 410
    assert len(client.ask("GET", "/once")[2]["node"]["nodes"]) == 2
    client.close()


@pytest.mark.parametrize("size", [5, 1023, 1025, 100_000])
def test_a_retry_is_answered_as_it_was_the_first_time_but_for_a_long_value_that_was_there_before(
    server: Running, size: int
) -> None:
    client, long = Client(server.port), "é" * size
    client.ask("DELETE", "/long")
    client.ask("PUT", "/long", f"value={long}")
    asked = [
        ("PUT", "/long", f"value=x{long}"),
        ("PUT", "/long", f"value={long}&ttl=100"),
        ("PUT", "/long", f"value=x{long}&prevExist=true"),
        ("POST", "/queue", f"value={long}"),
        ("PUT", "/long", "ttl=100&refresh=true&prevExist=true"),
        ("DELETE", "/long", ""),
    ]
    for number, (method, key, body) in enumerate(asked):
        header = {"Idempotency-Key": f"{size}-{number}"}
        status, _, first = client.ask(method, key, body, header)
        client.ask("PUT", "/between", "value=1")
        status_again, _, again = client.ask(method, key, body, header)
        assert status_again == status < 300, first
        if size > 1024:
            if before := first.get("prevNode"):
                del before["value"]
            if "refresh" in body:
                del first["node"]["value"]
        assert again == first
    client.close()


def test_the_socket_names_principals_and_positions(server: Running) -> None:
    path = Path(server.folder) / "run" / "kv.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(put("/sock", "1", "X-Corelog-Principal: token:ops\r\nX-Corelog-Correlation: c-1\r\n"))
        assert b"X-Corelog-Position: " in connection.recv(4096)
        connection.sendall(b"GET /internal/hash HTTP/1.1\r\n\r\n")
        assert b"state_hash" in connection.recv(4096)
    last = server.log.entries[-1].raw
    assert b'"principal":"token:ops","correlation":"c-1"' in last
    assert b"X-Corelog-Position" not in send(server, put("/sock", "2", "X-Corelog-Principal: token:ops\r\n"))
    assert b'"principal":"addr:127.0.0.1"' in server.log.entries[-1].raw


def test_many_connections_at_once_lose_nothing(server: Running) -> None:
    def write(worker: int) -> None:
        client = Client(server.port)
        for n in range(50):
            assert client.ask("POST", "/many", f"value={worker}-{n}")[0] == 201
        client.close()

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    client = Client(server.port)
    values = [node["value"] for node in client.ask("GET", "/many?sorted=true")[2]["node"]["nodes"]]
    client.close()
    assert len(values) == len(set(values)) == 800
    for worker in range(16):
        mine = [value for value in values if value.startswith(f"{worker}-")]
        assert mine == [f"{worker}-{n}" for n in range(50)]


def test_the_small_pages(server: Running) -> None:
    client = Client(server.port)
    pages = {path: client.raw("GET", path) for path in ("/version", "/health", "/v2/machines", "/v2/members")}
    assert {status for status, _, _ in pages.values()} == {200}
    assert json.loads(pages["/health"][2]) == {"health": "true", "reason": ""}
    assert pages["/v2/machines"][2].decode() == f"http://127.0.0.1:{server.port}"
    [member] = json.loads(pages["/v2/members"][2])["members"]
    assert member["clientURLs"] == [f"http://127.0.0.1:{server.port}"]
    assert json.loads(client.raw("GET", "/v2/members/leader")[2]) == member
    assert client.raw("POST", "/v2/members", b"{}")[0] == 415
    assert json.loads(client.raw("GET", "/v2/stats/self")[2])["state"] == "StateLeader"
    assert json.loads(client.raw("GET", "/v2/stats/leader")[2])["leader"] == member["id"]
    before = json.loads(client.raw("GET", "/v2/stats/store")[2])["createSuccess"]
    client.ask("POST", "/stats", "value=1")
    assert json.loads(client.raw("GET", "/v2/stats/store")[2])["createSuccess"] == before + 1
    client.close()


def test_members_are_added_changed_and_removed(server: Running) -> None:
    client = Client(server.port)
    kind = {"Content-Type": "application/json"}

    def ask(method: str, rest: str = "", body: bytes = b"") -> tuple[int, Any]:
        status, _, content = client.raw(method, "/v2/members" + rest, body, kind)
        return status, json.loads(content) if content else {}

    status, added = ask("POST", "", b'{"peerURLs":["http://10.0.0.9:2380"]}')
    assert (status, added["name"], added["clientURLs"]) == (201, "", [])
    assert added["id"] in [one["id"] for one in ask("GET")[1]["members"]]
    assert ask("POST", "", b'{"peerURLs":["http://10.0.0.9:2380"]}')[0] == 409
    assert ask("POST", "", b'{"peerURLs":["nonsense"]}')[0] == 400
    assert ask("POST", "", b"{")[0] == 400
    assert ask("PUT", f"/{added['id']}", b'{"peerURLs":["http://10.0.0.9:2390"]}')[0] == 204
    assert ask("PUT", "/zz", b"{}") == (404, {"message": "No such member: zz"})
    assert ask("DELETE", f"/{added['id']}")[0] == 204
    assert ask("DELETE", f"/{added['id']}") == (410, {"message": f"Member permanently removed: {added['id']}"})
    assert ask("DELETE", "/abc")[0] == 404
    client.close()
