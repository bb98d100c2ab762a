"""The same bytes on a socket to a real etcd and to us: what is answered is the same."""

import socket
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest

from actors.kv.http2 import frames
from actors.kv.http2.connection import Methods
from tests import needs
from tests.actors.kv.http2.peer import HEADERS, grpc
from tests.actors.kv.http2.server import Serving
from tests.actors.kv.v3.etcd import Etcd

RANGE, WATCH = "/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch"
PING = frames.frame(frames.PING, 0, 0, b"01234567")
A_KEY = b"\n\1a"


def opened(path: str, *more: tuple[str, str], stream: int = 1) -> bytes:
    fields = [(name, path if name == ":path" else value) for name, value in HEADERS]
    return frames.headers(stream, hpack.Encoder().encode([*fields, *more]), end=False)


def asked(path: str, message: bytes, *more: tuple[str, str]) -> bytes:
    return opened(path, *more) + frames.frame(frames.DATA, frames.END_STREAM, 1, message)


def answered(port: int, said: bytes) -> list[object]:
    """Statuses, PING's answers and GOAWAY, until the call's or the connection's end."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(frames.PREFACE + frames.settings([]) + said)
        reader, heard, decoder = client.makefile("rb"), list[object](), hpack.Decoder()
        while len(head := reader.read(9)) == 9:
            payload = reader.read(int.from_bytes(head[:3], "big"))
            kind, flags = head[3], head[4]
            if kind == frames.HEADERS:
                fields = dict(decoder.decode(payload))
                heard += [(key, fields[key]) for key in (":status", "grpc-status", "grpc-message") if fields.get(key)]
                if flags & frames.END_STREAM:
                    break
            elif kind == frames.PING and flags:
                heard.append(payload)
            elif kind == frames.GOAWAY:
                heard.append(payload)
                break
        reader.close()
    return heard


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    needs.program("etcd")
    folder: Path = tmp_path_factory.mktemp("etcd")
    methods = Methods({RANGE.encode(): lambda call, raw: call.reply(raw)}, {WATCH.encode(): lambda call: None})
    with Etcd(folder) as etcd, Serving(methods=methods) as serving:
        yield etcd._connection.port, serving.port


@pytest.mark.parametrize(
    "said",
    [
        asked(RANGE, grpc(A_KEY)),
        asked("/a.B/C", grpc(b"")),
        asked("/etcdserverpb.KV/Rage", grpc(b"")),
        asked(RANGE, grpc(b"", 1), ("grpc-encoding", "snappy")),
        asked(RANGE, grpc(A_KEY, 1)),
        asked(RANGE, grpc(A_KEY, 7)),
        asked(RANGE, grpc(A_KEY)[:-1]),
        asked(RANGE, (2 * 1024 * 1024 + 1).to_bytes(5, "big")),
        PING * 6,
        opened(WATCH) + PING * 6,
        frames.frame(frames.PING, 0, 0, bytes(8)) * 4,
    ],
    ids=["range", "no service", "no method", "snappy", "not packed", "flag", "cut", "large", "pings", "busy", "4"],
)
def test_etcd_answers_the_same(ports: tuple[int, int], said: bytes) -> None:
    theirs, ours = (answered(port, said) for port in ports)
    assert ours == theirs
    assert ours
