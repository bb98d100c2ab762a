"""The front ends' edges: upgrades nobody takes up, clients that leave or read slowly, what a stop still answers."""

import asyncio
import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.kv import port as port_module
from actors.kv.exchange import TEXT, Exchange
from actors.kv.http1 import V3_BODY_BYTES_MAX, Http1
from actors.kv.http2.connection import Http2
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import watches
from actors.kv.rpc.watching import News
from actors.setting import Etcd
from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.records import Record
from tests.actors.kv.pki import Authority
from tests.actors.kv.server import Client, Running

PATIENCE_S = 20.0
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
GET = b"GET /v2/keys/%s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("kv")) as running:
        yield running


def until(true: Callable[[], Any], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, what
        time.sleep(0.005)


def statuses(raw: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]


class Transport:
    """Takes all that is written; ``reading`` as the connection wants it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Fed:
    """A connection of HTTP/1.1 at a server's pages, without a socket: each piece is a packet of its own."""

    def __init__(self, server: Running) -> None:
        self._server, self.transport = server, Transport()
        self.http1: Http1 = server.call(lambda: server.kv_port.http1(False, "addr:test"))
        server.call(lambda: self.http1.connection_made(self.transport))

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._server.call(partial(self.http1.data_received, piece))

    def answered(self, count: int) -> bytes:
        """All that was written when ``count`` requests have their answers, and nothing is left to be answered."""
        until(lambda: len(statuses(self.transport.written)) >= count and self._idle(), f"{count} answers")
        return self.transport.written

    def _idle(self) -> Any:
        return self._server.call(lambda: self.http1.current is None and not self.http1._waiting)

    def leave(self) -> None:
        self._server.call(lambda: self.http1.connection_lost(None))


@pytest.fixture
def fed(server: Running) -> Iterator[Fed]:
    made = Fed(server)
    yield made
    made.leave()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def post(path: str, **fields: str) -> bytes:
    body = json.dumps(fields).encode()
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)


def ask(server: Running, path: str, **fields: str) -> Any:
    client = Client(server.port)
    try:
        return json.loads(client.raw("POST", path, json.dumps(fields).encode())[2])
    finally:
        client.close()


# -- another protocol -----------------------------------------------------------------------------------------------


def wishing(key: bytes, chunked: bool) -> tuple[bytes, bytes]:
    """Head and body of a PUT of ``hello`` that asks for HTTP/2."""
    how = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 11\r\n"
    head = b"PUT /v2/keys/%s HTTP/1.1\r\nHost: x\r\n%s%s%s\r\n" % (key, FORM, how, UPGRADE)
    return head, b"5\r\nvalue\r\n6\r\n=hello\r\n0\r\n\r\n" if chunked else b"value=hello"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", ["same packet", "body later", "head in two", "byte by byte"])
def test_a_request_that_asks_for_http_2_is_served_once_as_if_it_hadnt(fed: Fed, cut: str, chunked: bool) -> None:
    key = b"wish-%d-%s" % (chunked, cut.replace(" ", "-").encode())
    head, body = wishing(key, chunked)
    whole = head + body
    pieces = {
        "same packet": [whole],
        "body later": [head, body],
        "head in two": [whole[:90], whole[90:]],
        "byte by byte": [whole[at : at + 1] for at in range(len(whole))],
    }
    fed.feed(*pieces[cut])
    assert statuses(fed.answered(1)) == [201]
    fed.feed(GET % key)
    raw = fed.answered(2)
    assert statuses(raw) == [201, 200]
    assert raw.count(b'"value":"hello"') == 2
    assert not fed.transport.closed


@pytest.mark.parametrize("chunked", [False, True])
def test_one_that_asks_for_http_2_keeps_its_place_among_pipelined_ones(fed: Fed, chunked: bool) -> None:
    key = b"between-%d" % chunked
    head, body = wishing(key, chunked)
    fed.feed(GET % key + head + body + GET % key + head + body + GET % b"nothing")
    raw = fed.answered(5)
    assert statuses(raw) == [404, 201, 200, 200, 404]
    assert raw.count(b'"node":{"key":"/%s","value":"hello"' % key) == 3


def test_one_that_asks_for_http_2_waits_behind_one_that_isnt_answered(server: Running, fed: Fed) -> None:
    head, body = wishing(b"patient", False)
    fed.feed(GET % b"awaited?wait=true", head, body, GET % b"patient")
    client = Client(server.port)
    assert client.ask("GET", "/patient")[0] == 404
    client.ask("PUT", "/awaited", "value=1")
    assert statuses(fed.answered(3)) == [200, 201, 200]
    client.close()


def test_a_json_call_that_asks_for_http_2_has_its_body(fed: Fed, server: Running) -> None:
    plain = post("/v3/kv/put", key=b64(b"wished"), value=b64(b"hello"))
    fed.feed(plain.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"\r\n", 1))
    assert statuses(fed.answered(1)) == [200]
    assert ask(server, "/v3/kv/range", key=b64(b"wished"))["kvs"][0]["value"] == b64(b"hello")


def test_what_else_is_said_of_the_connection_counts_where_http_2_is_asked_for(fed: Fed) -> None:
    head, body = wishing(b"closing", False)
    fed.feed(head.replace(b"Connection: ", b"Connection: close, ") + body)
    assert statuses(fed.answered(1)) == [201]
    assert fed.transport.closed


def test_continue_is_said_once_to_one_that_asks_for_http_2(fed: Fed) -> None:
    head, body = wishing(b"continuing", False)
    fed.feed(head.replace(UPGRADE, UPGRADE + b"Expect: 100-continue\r\n"))
    assert statuses(fed.transport.written) == [100]
    fed.feed(body)
    assert statuses(fed.answered(2)) == [100, 201]


def test_connect_is_refused_with_one_answer(fed: Fed) -> None:
    fed.feed(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert statuses(fed.answered(1)) == [400]


# -- watches --------------------------------------------------------------------------------------------------------


class Watch:
    """A gRPC Watch of ``a`` whose client says more when it was told that its watch was created."""

    def __init__(self, server: Running, start: int = 0, then: Sequence[bytes] = ()) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        call = self._channel.stream_stream("/etcdserverpb.Watch/Watch", lambda raw: raw, pb.WatchResponse.FromString)
        create = pb.WatchCreateRequest(key=b"a", start_revision=start, progress_notify=True)
        said = [pb.WatchRequest(create_request=create).SerializeToString(), *then]
        self.answers = call(iter(said), timeout=PATIENCE_S)

    def status(self) -> grpc.StatusCode:
        """How it ended, when it has."""
        with contextlib.suppress(grpc.RpcError):
            for _ in self.answers:
                pass
        code: grpc.StatusCode = self.answers.code()
        return code

    def close(self) -> None:
        self.answers.cancel()
        self._channel.close()


def watched(server: Running) -> tuple[int, int]:
    """Streams, and watchers that are told of what is applied."""
    all_ = server.kv_port.v3.watches
    found: tuple[int, int] = server.call(lambda: (len(all_.streams), all_.index.count))
    return found


def test_a_watch_whose_client_sends_no_message_ends_and_is_forgotten(server: Running) -> None:
    until(lambda: watched(server) == (0, 0), "nobody watches")
    for _ in range(3):
        watch = Watch(server, then=[b"\xff\xff\xff"])
        assert watch.status() == grpc.StatusCode.INTERNAL
        assert watched(server) == (0, 0)
        watch.close()


def broken(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("owner", "part", "start"),
    [
        (News, "message", 0),
        (watches.Stream, "_read_page", 1),
        (watches.Stream, "_create", 0),
        (watches.Stream, "_free_id", 0),
    ],
)
def test_a_watch_that_fails_ends_and_is_forgotten(
    server: Running, monkeypatch: pytest.MonkeyPatch, owner: type, part: str, start: int
) -> None:
    """What is told of now, what is read of the past, and what the client says."""
    until(lambda: watched(server) == (0, 0), "nobody watches")
    ask(server, "/v3/kv/put", key=b64(b"a"))
    monkeypatch.setattr(owner, part, broken)
    watch = Watch(server, start)
    if owner is News:
        assert next(watch.answers).created
        ask(server, "/v3/kv/put", key=b64(b"a"))
    assert watch.status() == grpc.StatusCode.INTERNAL
    assert watched(server) == (0, 0)
    watch.close()


# -- clients that leave ---------------------------------------------------------------------------------------------


def queued(server: Running, name: bytes) -> int:
    """Who holds it, and who waits for it."""
    found = ask(server, "/v3/kv/range", key=b64(name + b"/"), range_end=b64(name + b"0"))
    return int(found.get("count", 0))


def asking(server: Running, path: str, **fields: str) -> tuple[socket.socket, Http1]:
    """A client that waits for its answer, and the server's side of it."""
    known = server.call(lambda: set(server.kv_port._open_ones))
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
    client.sendall(post(path, **fields))

    def waits() -> list[Any]:
        new = server.call(lambda: set(server.kv_port._open_ones)) - known
        return [one for one in new if isinstance(one, Http1) and one.current is not None]

    until(waits, f"{path} is asked")
    return client, waits()[0]


@pytest.mark.parametrize("how", ["closes", "ends its sending"])
def test_who_leaves_while_it_waits_for_a_lock_doesnt_get_it(server: Running, how: str) -> None:
    name = b"lock that one %s" % how.encode()
    held = ask(server, "/v3/lock/lock", name=b64(name))
    leaver, _ = asking(server, "/v3/lock/lock", name=b64(name))
    until(lambda: queued(server, name) == 2, "the second waits")
    leaver.close() if how == "closes" else leaver.shutdown(socket.SHUT_WR)
    until(lambda: queued(server, name) == 1, "the second has left the queue")
    third, _ = asking(server, "/v3/lock/lock", name=b64(name))
    until(lambda: queued(server, name) == 2, "the third waits")
    ask(server, "/v3/lock/unlock", key=held["key"])
    assert statuses(third.recv(65536)) == [200]
    leaver.close()
    third.close()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v3/lock/lock", {"name": b64(b"taken")}),
        ("/v3/election/campaign", {"name": b64(b"taken"), "value": b64(b"v")}),
        ("/v3/election/observe", {"name": b64(b"nobody's")}),
    ],
)
def test_connections_of_those_who_left_while_they_waited_are_over(
    server: Running, path: str, fields: dict[str, str]
) -> None:
    if not queued(server, b"taken"):
        ask(server, "/v3/lock/lock", name=b64(b"taken"))
    client, connection = asking(server, path, **fields)
    standing = 1 if path.endswith("observe") else 2
    until(lambda: queued(server, b"taken") == standing, "it waits")
    client.close()
    until(lambda: server.call(lambda: connection not in server.kv_port._open_ones), "its connection is over")
    until(lambda: queued(server, b"taken") == 1, "it has left the queue")


# -- large answers --------------------------------------------------------------------------------------------------

LARGE = b"GET /v2/keys/large?recursive=true HTTP/1.1\r\nHost: x\r\n\r\n"
VALUE = "x" * 1_000_000
VALUES = 14


@pytest.fixture(scope="module")
def large(server: Running) -> Running:
    """With VALUES below /large."""
    client = Client(server.port)
    for number in range(VALUES):
        assert client.ask("PUT", f"/large/{number}", f"value={VALUE}")[0] == 201
    client.close()
    return server


def slow_reader(server: Running, *, asks: int) -> tuple[socket.socket, Http1]:
    """It has asked so often and read nothing when the server can write no more."""
    client = socket.socket()
    client.settimeout(PATIENCE_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.connect(("127.0.0.1", server.port))
    name = client.getsockname()
    client.sendall(LARGE * asks)

    def mine() -> list[Any]:
        open_ones = [one for one in server.kv_port._open_ones if isinstance(one, Http1)]
        return [one for one in open_ones if one._transport.get_extra_info("peername") == name and one._stalled_since]

    until(lambda: server.call(mine), "the server waits for the client to read")
    return client, server.call(mine)[0]


def read_values(file: Any) -> list[str]:
    """Of the next answer."""
    assert file.readline() == b"HTTP/1.1 200 OK\r\n"
    length = 0
    while (line := file.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    nodes = json.loads(file.read(length))["node"]["nodes"]
    return [node["value"] for node in nodes]


def test_an_answer_of_over_8_mib_is_whole_also_for_a_slow_reader(large: Running) -> None:
    client, _ = slow_reader(large, asks=1)
    with client, client.makefile("rb") as file:
        assert read_values(file) == [VALUE] * VALUES


def test_large_answers_to_pipelined_requests_wait_for_those_before(large: Running) -> None:
    client, connection = slow_reader(large, asks=2)
    with client, client.makefile("rb") as file:
        assert large.call(connection.unsent) < VALUES * len(VALUE)
        assert [read_values(file) for _ in range(2)] == [[VALUE] * VALUES] * 2


async def test_what_is_asked_behind_an_answer_that_isnt_taken_waits_until_it_is() -> None:
    """A request whose head came before, too."""

    def serve(exchange: Exchange) -> None:
        exchange.respond(200, TEXT, b"ok")

    connection, transport = Http1(serve, set()), Transport()
    connection.connection_made(transport)
    for request in (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"):
        for _ in range(2):
            connection.data_received(request)
            connection.pause_writing()
            before = transport.written
            connection.data_received(request)
            assert transport.written == before
            connection.resume_writing()
            assert len(statuses(transport.written)) == len(statuses(before)) + 1


async def test_a_client_that_ended_its_sending_gets_all_its_answers_as_it_takes_them() -> None:
    seen: list[Exchange] = []
    connection, transport = Http1(seen.append, set()), Transport()
    connection.connection_made(transport)
    connection.data_received(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    assert connection.eof_received()
    connection.pause_writing()
    seen[0].respond(200, TEXT, b"ok")
    assert not transport.closed
    connection.resume_writing()
    seen[1].respond(200, TEXT, b"ok")
    assert statuses(transport.written) == [200, 200]
    assert transport.closed


# -- certificates ---------------------------------------------------------------------------------------------------


def version(server: Running, ca: Authority, pair: tuple[str, str, int]) -> bytes:
    """The first bytes of an answer to who shows this certificate; none: it is refused."""
    context = ssl.create_default_context(cafile=str(ca.file))
    context.load_cert_chain(*pair[:2])
    try:
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return tls.recv(12)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_a_certificate_revoked_while_the_server_runs_is_refused_from_then_on(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    cert, key, _ = ca.sign("server")
    good, bad = ca.sign("good"), ca.sign("bad")
    etcd = Etcd(
        cert_file=cert,
        key_file=key,
        trusted_ca_file=str(ca.file),
        client_cert_auth=True,
        client_crl_file=ca.revoke(12345),
    )
    with Running(tmp_path / "n", etcd=etcd, at="https://127.0.0.1:0") as server:
        assert [version(server, ca, one) for one in (good, bad)] == [b"HTTP/1.1 200"] * 2
        ca.revoke(bad[2])
        assert [version(server, ca, one) for one in (bad, good)] == [b"", b"HTTP/1.1 200"]


# -- the end --------------------------------------------------------------------------------------------------------


class GatedLog(MemoryLog):
    """While ``open`` isn't set, appends don't come to an end."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, records: Sequence[Record]) -> list[int]:
        await self.open.wait()
        return await super().append(records)


async def gated() -> Log:
    return GatedLog()


@contextlib.contextmanager
def on_their_way(server: Running) -> Iterator[tuple[Any, list[socket.socket]]]:
    """A put by gRPC, and by HTTP/1.1 one of v2 and an unlocking, that the log has got and doesn't answer."""
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
    put = channel.unary_unary("/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString)
    put(pb.PutRequest(key=b"a"), timeout=PATIENCE_S)
    server.call(server.log.open.clear)
    commands = server.kv_port.commands
    one = put.future(pb.PutRequest(key=b"a"), timeout=2 * PATIENCE_S)
    until(lambda: server.call(lambda: sum(len(batch.waiting) for batch in commands._under_way)) == 1, "gRPC's put")
    requests = [
        b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\n%sContent-Length: 7\r\n\r\nvalue=1" % FORM,
        post("/v3/lock/unlock", key=b64(b"a")),
    ]
    with contextlib.ExitStack() as sockets:
        clients = [
            sockets.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
            for _ in requests
        ]
        for client, request in zip(clients, requests, strict=True):
            client.sendall(request)
        until(lambda: server.call(lambda: commands.pending) == 3, "the others")
        # what waits for the next record is refused at a stop: all are to be under way
        server.call(lambda: commands._send(2))
        try:
            yield one, clients
        finally:
            server.call(server.log.open.set)
            channel.close()


def test_what_is_on_its_way_to_the_log_is_answered_when_the_port_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_module, "LAST_S", PATIENCE_S)
    with Running(tmp_path, gated) as server, on_their_way(server) as (put, clients):
        port = server.kv_port
        closing = asyncio.run_coroutine_threadsafe(port.close(), server.loop)
        until(lambda: server.call(lambda: port._closed), "the port closes")
        assert server.call(lambda: [one.draining > 0 for one in port._open_ones if isinstance(one, Http2)]) == [True]
        server.call(server.log.open.set)
        assert put.result().header.revision == 3
        assert [statuses(client.recv(65536)) for client in clients] == [[201], [200]]
        closing.result(PATIENCE_S)
        assert server.call(lambda: not port.commands.pending)


def test_a_port_whose_log_never_answers_closes_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "LAST_S", 0.05)
    with Running(tmp_path, gated) as server, on_their_way(server) as (put, clients):
        asyncio.run_coroutine_threadsafe(server.kv_port.close(), server.loop).result(PATIENCE_S)
        assert put.code() == grpc.StatusCode.UNAVAILABLE
        for client in clients:
            with contextlib.suppress(ConnectionError):
                assert not {200, 201} & set(statuses(client.recv(65536)))


def test_a_port_that_closes_takes_no_more_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "LAST_S", PATIENCE_S)
    with Running(tmp_path, gated) as server, on_their_way(server) as (put, clients):
        port = server.kv_port
        late = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        late.connect()
        until(lambda: len(server.call(lambda: list(port._open_ones))) == len(clients) + 2, "all are there")
        closing = asyncio.run_coroutine_threadsafe(port.close(), server.loop)
        until(lambda: server.call(lambda: port._closed), "the port closes")
        late.request("PUT", "/v2/keys/late", "value=1")
        assert late.getresponse().status == 503
        late.close()
        server.call(server.log.open.set)
        put.result()
        closing.result(PATIENCE_S)
        assert server.fold.store.find("/late") is None


def test_upgrades_in_one_packet_are_served_one_after_the_other(fed: Fed) -> None:
    one = b"GET /version HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    fed.feed(one * 2000)
    assert statuses(fed.answered(2000)) == [200] * 2000


# -- requests that wait ---------------------------------------------------------------------------------------------


def test_requests_that_wait_are_bounded_by_their_bytes(server: Running, fed: Fed) -> None:
    body = bytes(1024 * 1024)
    request = b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    fed.feed(GET % b"long-awaited?wait=true")
    sent = 0
    while fed.transport.reading and sent < 20:
        fed.feed(request)
        sent += 1
    assert sent == V3_BODY_BYTES_MAX // len(body) + 1
    client = Client(server.port)
    client.ask("PUT", "/long-awaited", "value=1")
    client.close()
    assert statuses(fed.answered(1 + sent)) == [200] + [400] * sent
    assert fed.transport.reading
    assert fed.http1._waiting_bytes == 0


# -- heads ----------------------------------------------------------------------------------------------------------

EXPECTS = b"PUT /v2/keys/%s HTTP/1.1\r\nHost: x\r\n" + FORM + b"Content-Length: 7\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_isnt_said_in_the_midst_of_another_answer(server: Running, fed: Fed) -> None:
    fed.feed(GET % b"expected?wait=true&stream=true")
    fed.feed(EXPECTS % b"behind")
    assert statuses(fed.transport.written) == [200]
    client = Client(server.port)
    client.ask("PUT", "/expected", "value=1")
    until(lambda: b'"value":"1"' in fed.transport.written, "the watcher is told")
    assert statuses(fed.transport.written) == [200]
    client.close()


def test_continue_isnt_said_before_the_answer_to_one_that_waits(server: Running, fed: Fed) -> None:
    fed.feed(GET % b"expected-once?wait=true", EXPECTS % b"behind-once", b"value=1")
    client = Client(server.port)
    client.ask("PUT", "/expected-once", "value=1")
    client.close()
    assert statuses(fed.answered(2)) == [200, 201]


def test_continue_isnt_said_before_the_answer_to_one_of_the_same_packet(fed: Fed) -> None:
    fed.feed(GET % b"nothing" + EXPECTS % b"behind-it", b"value=1")
    assert statuses(fed.answered(2)) == [404, 201]


def test_continue_is_said_when_nothing_is_before(fed: Fed) -> None:
    fed.feed(EXPECTS % b"first")
    assert fed.transport.written == CONTINUE
    fed.feed(b"value=1")
    fed.answered(2)
    fed.feed(EXPECTS % b"second", b"value=1")
    assert statuses(fed.answered(4)) == [100, 201, 100, 201]


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/version", b"/version", b"", b"said"),
        (b"http://named/version", b"/version", b"", b"named"),
        (b"HTTPS://named:1/v2/keys/a?wait=true", b"/v2/keys/a", b"wait=true", b"named:1"),
        (b"http://named", b"/", b"", b"named"),
        (b"http://named?a=b", b"/", b"a=b", b"named"),
    ],
)
async def test_an_absolute_target_is_its_path_and_its_authority_the_host(
    target: bytes, path: bytes, query: bytes, host: bytes
) -> None:
    seen: list[Exchange] = []
    connection = Http1(seen.append, set())
    connection.connection_made(Transport())
    connection.data_received(b"GET %s HTTP/1.1\r\nHost: said\r\n\r\n" % target)
    assert [(one.path, one.query, one.headers[b"host"], one.refused) for one in seen] == [(path, query, host, None)]


def test_an_absolute_target_is_served(fed: Fed) -> None:
    fed.feed(b"GET http://x/version HTTP/1.1\r\nHost: x\r\n\r\n")
    raw = fed.answered(1)
    assert statuses(raw) == [200]
    assert b"etcdserver" in raw


def test_hosts_that_arent_allowed_arent_by_an_absolute_target_either(tmp_path: Path) -> None:
    with Running(tmp_path, etcd=Etcd(host_whitelist=["known.example"])) as server:
        fed = Fed(server)
        for named, said in ((b"known", b"rebound"), (b"rebound", b"known")):
            fed.feed(b"GET http://%s.example/version HTTP/1.1\r\nHost: %s.example\r\n\r\n" % (named, said))
        assert statuses(fed.answered(2)) == [200, 403]
        fed.leave()


async def test_an_empty_line_between_requests_begins_none() -> None:
    def serve(exchange: Exchange) -> None:
        exchange.respond(200, TEXT, b"ok")

    connection = Http1(serve, set())
    connection.connection_made(Transport())
    request = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
    for _ in range(2):
        connection.data_received(request)
        connection.data_received(b"\r\n")
        assert connection.reading_since == 0
        assert not connection.overdue(time.monotonic() + 1e6)
    connection.data_received(request[:10])
    assert connection.reading_since > 0
    assert connection.overdue(time.monotonic() + 1e6)
    connection.data_received(request[10:])
    assert connection.reading_since == 0


DIGITS = b"1" * 5000


@pytest.mark.parametrize("body", [b"[%s]" % DIGITS, b'{"create_request":{"start_revision":%s}}' % DIGITS])
def test_a_number_of_5000_digits_is_no_json_to_a_streaming_call(
    fed: Fed, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    fed.feed(head % len(body) + body)
    assert statuses(fed.answered(1)) == [400]
    assert not fed.transport.closed
    assert not caplog.records


def test_nothing_that_a_number_does_is_fatal_to_its_connection(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(server.port)
    assert client.raw("POST", "/v3/watch", b"[%s]" % DIGITS)[0] == 400
    assert client.raw("GET", "/version")[0] == 200
    client.close()
    assert not caplog.records
