"""Clients that others wrote, over a socket."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod

from actors.kv.http2.connection import Limits
from tests import needs
from tests.actors.kv.http2.server import BOTH, BREAKS, COLLECT, FAILS, MANY, SILENT, UNARY, Serving

GRPC = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
ECHO = UNARY.decode()


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with Serving() as made:
        yield made


@pytest.fixture(scope="module")
def port(serving: Serving) -> int:
    return serving.port


@pytest.fixture
def channel(serving: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(serving.address, [("grpc.use_local_subchannel_pool", 1)]) as made:
        yield made


def soon(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + 5
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def _as_is(raw: bytes) -> bytes:
    return raw


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_grpcio(port: int, compression: grpc.Compression) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", compression=compression) as channel:
        echo = channel.unary_unary(ECHO, _as_is, _as_is)
        for size in (0, 10, 70_000, 1_500_000):
            assert echo(bytes(size), timeout=10) == bytes(size)
        both = channel.stream_stream(BOTH.decode(), _as_is, _as_is)
        messages = [b"a", b"", b"b" * 100_000, bytes(1_500_000)]
        assert list(both(iter(messages), timeout=10)) == messages
        collect = channel.stream_unary(COLLECT.decode(), _as_is, _as_is)
        assert collect(iter(messages), timeout=10) == b"1 0 100000 1500000"
        many = channel.unary_stream(MANY.decode(), _as_is, _as_is)
        told = list(many(b"300 20000", timeout=20))
        assert [int(message[:8]) for message in told] == list(range(299, -1, -1))
        assert {len(message) for message in told} == {20_000}


def test_grpcio_is_told_of_failures(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as told:
        channel.unary_unary(FAILS.decode())(b"9", timeout=10)
    assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert told.value.details() == "no such thing: 100 % gewiß"
    assert dict(told.value.trailing_metadata()) == {"why": "because", "raw-bin": b"\x00\x01\xff"}
    with pytest.raises(grpc.RpcError) as told:
        channel.unary_unary(BREAKS.decode())(b"", timeout=10)
    assert (told.value.code(), told.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    with pytest.raises(grpc.RpcError) as told:
        channel.unary_unary("/test.Echo/Nothing")(b"", timeout=10)
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as told:
        channel.unary_unary(ECHO)(bytes(2 * 1024 * 1024 + 1), timeout=10)
    assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told.value.details() == "grpc: received message larger than max (2097153 vs. 2097152)"


def test_grpcio_cancels_and_gives_up(serving: Serving, channel: grpc.Channel) -> None:
    echo = serving.echo
    silent = channel.unary_unary(SILENT.decode())
    with pytest.raises(grpc.RpcError) as told:
        silent(b"", timeout=0.1)
    assert told.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    soon(lambda: echo.gone.count(SILENT) == 1)
    both = channel.stream_stream(BOTH.decode())(iter(()))
    assert list(both) == []
    stuck = silent.future(b"")
    soon(lambda: len(echo.seen) > 0 and not echo.seen[-1].gone and echo.seen[-1].path == SILENT)
    assert echo.seen[-1].deadline_s is None
    stuck.cancel()
    soon(lambda: echo.gone.count(SILENT) == 2)
    soon(lambda: all(not connection.calls for connection in list(serving.connections)))


def test_grpcio_reads_slowly_and_the_server_waits(serving: Serving, channel: grpc.Channel) -> None:
    """100 MB for a client that doesn't read yet: little of it is made ahead, and all arrives."""
    told = channel.unary_stream(MANY.decode())(b"2000 50000")
    assert int(next(told)[:8]) == 1999
    time.sleep(0.3)
    call = serving.echo.seen[-1]
    assert serving.do(call.buffered) < 200_000
    assert sum(1 for _ in told) == 1999


def test_grpcio_asks_for_much_at_once_and_is_served_in_turn() -> None:
    with (
        Serving(Limits(calls=5)) as serving,
        grpc.insecure_channel(serving.address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        echo = channel.unary_unary(ECHO)
        asked = [echo.future(b"%d" % number, timeout=20) for number in range(500)]
        assert [one.result() for one in asked] == [b"%d" % number for number in range(500)]


def test_grpcio_goes_elsewhere_after_a_drain(serving: Serving, channel: grpc.Channel) -> None:
    echo = channel.unary_unary(ECHO)
    assert echo(b"1", timeout=5) == b"1"
    for connection in list(serving.connections):
        serving.do(connection.drain)
    for number in range(20):
        assert echo(b"%d" % number, timeout=5) == b"%d" % number


def test_grpcio_that_pings_too_often_is_told() -> None:
    eager = [("grpc.keepalive_time_ms", 100), ("grpc.keepalive_timeout_ms", 5000),
             ("grpc.http2.max_pings_without_data", 0), ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
    with Serving() as serving, grpc.insecure_channel(serving.address, eager) as channel:
        with pytest.raises(grpc.RpcError) as told:
            channel.unary_unary(SILENT.decode())(b"", timeout=10)
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "too_many_pings" in (told.value.details() or "")


async def test_grpclib(port: int) -> None:
    class Codec:
        __content_subtype__ = "proto"

        def encode(self, message: Any, message_type: Any) -> Any:
            return message

        decode = encode

    channel = Channel("127.0.0.1", port, codec=Codec())  # type: ignore[arg-type]
    try:
        echo: Any = UnaryUnaryMethod(channel, ECHO, bytes, bytes)
        assert await echo(b"x" * 200_000) == b"x" * 200_000
        many: Any = StreamStreamMethod(channel, BOTH.decode(), bytes, bytes)
        assert await asyncio.wait_for(many([b"1", b"2"]), 10) == [b"1", b"2"]
    finally:
        channel.close()


def test_curl(port: int) -> None:
    curl = needs.program("curl")
    body = b"\0\0\0\0\5hello"
    command = [curl, "-sS", "--http2-prior-knowledge", "-X", "POST", *GRPC, "--data-binary", "@-"]
    url = f"http://127.0.0.1:{port}{ECHO}"
    done = subprocess.run([*command, url], input=body, capture_output=True, timeout=20, check=True)
    assert done.stdout == body


def test_curl_that_speaks_no_grpc_is_told_so(port: int) -> None:
    curl = needs.program("curl")
    command = [curl, "-sS", "--http2-prior-knowledge", "-w", "%{http_code}", "-d", "x" * 100_000]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, timeout=20, check=True)
    assert b"this is a gRPC port: invalid gRPC request content-type" in done.stdout
    assert done.stdout.endswith(b"415")


H2LOAD: dict[str, list[str]] = {"plain": [], "windows": ["-w", "10", "-W", "10"], "no table": ["--header-table-size=0"]}


@pytest.mark.parametrize("more", H2LOAD.values(), ids=H2LOAD)
def test_h2load(port: int, tmp_path: Path, more: list[str]) -> None:
    h2load = needs.program("h2load")
    body = tmp_path / "body"
    body.write_bytes(b"\0\0\0\x01\0" + bytes(256))
    command = [h2load, "-n", "2000", "-c", "4", "-m", "16", "-d", str(body), *more, *GRPC]
    url = f"http://127.0.0.1:{port}{ECHO}"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout


@pytest.mark.parametrize("more", [[], ["--no-dep", "--window-bits=8"], ["--header-table-size=0"], ["--continuation"]])
def test_nghttp(port: int, tmp_path: Path, more: list[str]) -> None:
    nghttp = needs.program("nghttp")
    body = tmp_path / "body"
    body.write_bytes((100_000).to_bytes(5, "big") + bytes(100_000))
    command = [nghttp, "-d", str(body), "-H", ":method: POST", *more, *GRPC]
    url = f"http://127.0.0.1:{port}{ECHO}"
    done = subprocess.run([*command, url], capture_output=True, timeout=20, check=True)
    assert done.stdout == body.read_bytes()
