"""Show: wrong input, the same to real etcd and to a node: what each answers, and that nobody else notices."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hpack
import pytest

from actors.kv.http2 import frames
from actors.kv.proto import etcd_pb2 as pb
from tests.acceptance.harness import Node, http, until
from tests.actors.kv.http2.peer import HEADERS, grpc
from tests.differential.servers import NEWEST, Client, real

pytestmark = pytest.mark.acceptance

RANGE, TXN, PUT = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Put"
PATIENCE_S = 5.0
#: Memory is back within this, and to within so much of what it was.
BACK_S, BACK_BYTES = 10.0, 48 << 20
CONTINUATION = 9
CANCEL = frames.frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4, "big"))


def fields(path: str | bytes) -> list[tuple[str | bytes, str | bytes]]:
    return [(name, path if name == ":path" else value) for name, value in HEADERS]


def opened(path: str | bytes, stream: int = 1) -> bytes:
    return frames.headers(stream, hpack.Encoder().encode(fields(path)), end=False)


def asked(path: str | bytes, message: bytes) -> bytes:
    """A message in frames as large as they may be."""
    whole, out = grpc(message), opened(path)
    for at in range(0, len(whole), frames.FRAME_BYTES_MAX):
        last = at + frames.FRAME_BYTES_MAX >= len(whole)
        piece = whole[at : at + frames.FRAME_BYTES_MAX]
        out += frames.frame(frames.DATA, frames.END_STREAM if last else 0, 1, piece)
    return out


def huge_frame() -> bytes:
    """16 MB less one byte: all that the length of a frame can say."""
    return opened(PUT) + b"\xff\xff\xff" + bytes((frames.DATA, 0)) + (1).to_bytes(4, "big") + bytes(0xFFFFFF)


def header_bomb() -> bytes:
    """One field of 4 kB in the table, and then a byte for each time it is meant: 64 MB in 16 kB."""
    block = hpack.Encoder().encode(fields(RANGE), huffman=False)
    block += b"\x40\x01b" + b"\x7f" + _rest(4000 - 127) + b"x" * 4000
    return frames.headers(1, block + b"\xbe" * 16_000, end=False)


def _rest(number: int) -> bytes:
    """What is left of an HPACK integer after its prefix."""
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes((*out, number))


def endless_headers() -> bytes:
    """Fields without an end: 8 MB of CONTINUATION."""
    block = hpack.Encoder().encode(fields(RANGE))
    head = frames.frame(frames.HEADERS, 0, 1, block)
    more = b"\x00\x01b\x7f" + _rest(4000 - 127) + b"x" * 4000
    return head + frames.frame(CONTINUATION, 0, 1, more) * 2000


def opened_and_reset() -> bytes:
    """10,000 calls that are given up at once; the one behind them is answered, or the connection is ended."""
    encoder, out = hpack.Encoder(), bytearray()
    for stream in range(1, 20_001, 2):
        out += frames.headers(stream, encoder.encode(fields(RANGE)), end=False)
        out += frames.frame(frames.RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
    return bytes(out + frames.headers(20_001, encoder.encode(fields("/a.B/C")), end=True))


def too_many_operations() -> bytes:
    put = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    return asked(TXN, pb.TxnRequest(success=[put] * 129).SerializeToString())


class Case(NamedTuple):
    """``etcd`` (one of these, by how its threads run), ``ours``: status and message of gRPC, or the code of GOAWAY, or
    that the connection was ended, or that nothing came for a while."""

    said: Callable[[], bytes]
    etcd: set[object]
    ours: object


ENDED, GOAWAY_FRAME_SIZE, ENHANCE_YOUR_CALM = "ended", ("goaway", 6), ("goaway", 11)
NO_METHOD = (12, "unknown method %EF%BF%BD%EF%BF%BD for service etcdserverpb.KV")
UNMARSHALLING = "grpc: error unmarshalling request"
LARGER = (8, "grpc: received message larger than max (2147483647 vs. 2097152)")
TOO_MANY = (3, "etcdserver: too many operations in txn request")
CASES = {
    "a frame of 16 MB": Case(huge_frame, {ENDED}, GOAWAY_FRAME_SIZE),
    "a header bomb": Case(header_bomb, {ENDED}, (8, "the headers have over 65536 bytes")),
    "headers without an end": Case(endless_headers, {"nothing"}, ENHANCE_YOUR_CALM),
    "10,000 calls opened and reset": Case(
        opened_and_reset, {(12, "unknown service a.B"), (1, "context canceled")}, ENHANCE_YOUR_CALM
    ),
    "a method that is no UTF-8": Case(lambda: asked(b"/etcdserverpb.KV/\xff\xfe", b""), {NO_METHOD}, NO_METHOD),
    "a protobuf that lies about a length": Case(
        lambda: asked(RANGE, b"\x0a\xff\xff\xff\xff\x07abc"),
        {(13, f"{UNMARSHALLING}: proto: cannot parse invalid wire-format data")},
        (13, f"{UNMARSHALLING}: Error parsing message with type 'etcdserverpb.RangeRequest': Wire format was corrupt"),
    ),
    "a message that lies about its length": Case(
        lambda: opened(RANGE) + frames.frame(frames.DATA, frames.END_STREAM, 1, b"\0\x7f\xff\xff\xff" + b"a"),
        {LARGER},
        LARGER,
    ),
    "a transaction of 129 operations": Case(too_many_operations, {TOO_MANY}, TOO_MANY),
}
JSON_CASES = {
    "base64 that is none": (b'{"key": "!!!!"}', (400, 3), (400, 3)),
    "JSON that is none": (b'{"key": ', (400, 3), (400, 3)),
    "a number for a key": (b'{"key": 7}', (400, 3), (400, 3)),
    "nested 10,000 deep": (b"[" * 10_000, (400, 3), (400, 3)),
}


def answered(port: int, said: bytes) -> object:
    """What the first call with a status, or the connection, came to."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        sender = threading.Thread(target=_send, args=(client, frames.PREFACE + frames.settings([]) + said))
        sender.start()
        try:
            return _heard(client)
        finally:
            client.close()
            sender.join()


def _send(client: socket.socket, said: bytes) -> None:
    with contextlib.suppress(OSError):  # the other side had enough
        client.sendall(said)


def _heard(client: socket.socket) -> object:
    decoder = hpack.Decoder()
    try:
        with client.makefile("rb") as reader:
            while len(head := reader.read(9)) == 9:
                payload = reader.read(int.from_bytes(head[:3], "big"))
                if head[3] == frames.HEADERS:
                    found = {_text(name): _text(value) for name, value in decoder.decode(payload)}
                    if "grpc-status" in found:
                        return int(found["grpc-status"]), found.get("grpc-message", "")
                elif head[3] == frames.GOAWAY:
                    return "goaway", int.from_bytes(payload[4:8], "big")
                elif head[3] == frames.RST_STREAM:
                    return "reset", int.from_bytes(payload, "big")
    except ConnectionError:
        pass
    except TimeoutError:
        return "nothing"
    return "ended"


def _text(raw: str | bytes) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


class Bystander:
    """Another client, who puts and reads all the while. ``failed``: what it was refused."""

    def __init__(self, port: int) -> None:
        self._client = Client(f"127.0.0.1:{port}")
        self.failed: list[object] = []
        self.done = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for name, request in (
                ("Put", pb.PutRequest(key=b"bystander", value=b"%d" % self.done)),
                ("Range", pb.RangeRequest(key=b"bystander")),
            ):
                answer = self._client.call(name, request)
                if "code" in answer:
                    self.failed.append(answer)
            self.done += 1

    def __enter__(self) -> "Bystander":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with real(NEWEST, tmp_path_factory.mktemp("etcd")) as server:
        yield server.port


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("ours") / "data", "--engine", "docker=none").start()
    yield node
    node.stop()


def resident_bytes(node: Node) -> int:
    """Of all processes of the node."""
    assert node.process is not None
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[2]) == node.process.pid:  # its process group
            total += int(words[21]) * 4096
    return total


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_as_written_beside_etcd_and_nobody_else_notices(name: str, etcd: int, ours: Node) -> None:
    case = CASES[name]
    said = case.said()
    with Bystander(ours.etcd) as bystander:
        time.sleep(0.3)
        before = resident_bytes(ours)
        assert answered(etcd, said) in case.etcd
        assert answered(ours.etcd, said) == case.ours
        until_s = time.monotonic() + BACK_S
        while (now := resident_bytes(ours)) > before + BACK_BYTES:
            assert time.monotonic() < until_s, f"{before} bytes before, {now} after {BACK_S} s"
            time.sleep(0.1)
        until(lambda: bystander.done > 10, says="ten rounds of the other client")
    assert bystander.failed == []


@pytest.mark.parametrize("name", JSON_CASES)
def test_json_is_answered_as_written_beside_etcd(name: str, etcd: int, ours: Node) -> None:
    body, theirs, expected = JSON_CASES[name]
    told = []
    for port in (etcd, ours.etcd):
        status, raw = http(f"http://127.0.0.1:{port}/v3/kv/range", "POST", body)
        told.append((status, json.loads(raw).get("code")))
    assert told == [theirs, expected]
