"""Clients that others wrote, over a socket."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod

from actors.kv.http2.call import Call
from actors.kv.http2.connection import Http2, Methods
from tests import needs
from tests.actors.kv.http2.peer import ECHO, STREAM

GRPC = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def _every(call: Call) -> None:
    """Each message back twice."""

    def message(raw: bytes) -> None:
        call.send(raw)
        call.send(raw)

    call.on_message, call.on_end = message, call.finish


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    methods = Methods({ECHO.encode(): lambda call, raw: call.reply(raw)}, {STREAM.encode(): _every})
    ready, found, stop = threading.Event(), list[int](), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        open_ones: set[Any] = set()
        server = await loop.create_server(lambda: Http2(methods, open_ones, "addr:test", False), "127.0.0.1", 0)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        for one in list(open_ones):
            one.close()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def _as_is(raw: bytes) -> bytes:
    return raw


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_grpcio(port: int, compression: grpc.Compression) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", compression=compression) as channel:
        echo = channel.unary_unary(ECHO, _as_is, _as_is)
        for size in (0, 10, 70_000, 1_500_000):
            assert echo(bytes(size), timeout=10) == bytes(size)
        many = channel.stream_stream(STREAM, _as_is, _as_is)
        assert list(many(iter([b"a", b"b" * 100_000]), timeout=10)) == [b"a", b"a", b"b" * 100_000, b"b" * 100_000]
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/no.Such/Method")(b"")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


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
        many: Any = StreamStreamMethod(channel, STREAM, bytes, bytes)
        assert await many([b"1", b"2"]) == [b"1", b"1", b"2", b"2"]
    finally:
        channel.close()


def test_curl(port: int) -> None:
    curl = needs.program("curl")
    body = b"\0\0\0\0\5hello"
    command = [curl, "-sS", "--http2-prior-knowledge", "-X", "POST", *GRPC, "--data-binary", "@-"]
    url = f"http://127.0.0.1:{port}{ECHO}"
    done = subprocess.run([*command, url], input=body, capture_output=True, timeout=20, check=True)
    assert done.stdout == body


def test_h2load(port: int, tmp_path: Any) -> None:
    h2load = needs.program("h2load")
    body = tmp_path / "body"
    body.write_bytes(b"\0\0\0\1\0" + bytes(256))
    command = [h2load, "-n", "2000", "-c", "4", "-m", "16", "-d", str(body), *GRPC]
    url = f"http://127.0.0.1:{port}{ECHO}"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout
