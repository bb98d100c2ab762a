"""Large answers to Range: the bytes are protobuf's and JSON's own, whoever reads slowly, and memory doesn't grow."""

import base64
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.http2 import frames, hpack
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire
from actors.kv.rpc import asked as queries
from actors.kv.rpc import json_form, large
from actors.kv.v3.errors import V3Error
from actors.kv.v3.ranges import Query, Ranged
from actors.kv.v3.revs import Rev
from tests.actors.kv.server import Running

MB = 1024 * 1024
values = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.integers(0, 4 * large.PIECE_BYTES), st.integers(0, 255)).map(lambda made: bytes([made[1]]) * made[0]),
)
numbers = st.one_of(st.integers(1, 300), st.integers(1, 2**63 - 1))
revisions = st.builds(
    Rev,
    key=st.binary(min_size=1, max_size=200),
    value=values,
    create=numbers,
    mod=numbers,
    version=numbers,
    lease=st.one_of(st.just(0), numbers),
    sub=st.just(0),
    prev=st.none(),
)


async def _measured(answer: large.Answer) -> large.Answer:
    await answer.measure()
    return answer


@settings(deadline=None)
@given(st.lists(revisions, max_size=12), numbers, st.integers(0, 99), st.booleans(), st.booleans(), st.integers(0, 4))
async def test_pieces_are_what_protobuf_and_json_make_of_it(
    kvs: list[Rev], revision: int, count: int, more: bool, keys_only: bool, target: int
) -> None:
    asked = pb.RangeRequest(key=b"k", keys_only=keys_only, sort_target=pb.RangeRequest.SortTarget.Name(target))
    found = Ranged(kvs, count, more)
    whole = pb.RangeResponse(header=pb.ResponseHeader(cluster_id=2**63, member_id=7, revision=revision, raft_term=2))
    for rev in kvs:
        made = whole.kvs.add(key=rev.key, create_revision=rev.create, mod_revision=rev.mod, version=rev.version)
        made.value = b"" if keys_only else rev.value
        made.lease = rev.lease if target == pb.RangeRequest.VALUE or not keys_only else 0
    whole.more, whole.count = more, count
    header = pb.RangeResponse(header=whole.header).SerializeToString()
    answer = await _measured(
        large.Answer(header, found, queries.query(etcd_wire.decode_range_request(asked.SerializeToString())))
    )
    pieces = list(answer.protobuf())
    assert b"".join(pieces) == whole.SerializeToString()
    assert answer.size == whole.ByteSize()
    texts = list(answer.json())
    assert b"".join(texts) == json_form.dumps(whole)
    # a key, and a piece that another one is put before
    assert all(len(one) <= 3 * large.PIECE_BYTES for one in (*pieces, *texts))


async def test_a_message_has_gRPCs_end() -> None:
    value = bytes(MB)
    kvs = [Rev(b"%04d" % at, value, 1, 1, 1, 0, 0, None) for at in range(2048)]
    with pytest.raises(
        V3Error, match=r"trying to send message larger than max \(2147\d{6} vs. 2147483647\)"
    ) as refused:
        await large.Answer(b"", Ranged(kvs, 2048), Query(b"0")).measure()
    assert refused.value.code == 8
    await large.Answer(b"", Ranged(kvs[:2047], 2047), Query(b"0")).measure()


# -- served -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Ten keys ``/m/`` of a megabyte each; and ``/g/``, a thousand that share their megabyte."""
    with Running(tmp_path_factory.mktemp("kv")) as running:

        def fill() -> None:
            revs = running.fold.v3.revs
            one = bytes(range(256)) * (MB // 256)
            for number in range(10):
                revs.revision += 1
                revs.put(b"/m/%04d" % number, bytes([number]) * MB, 0, revs.revision, 0)
            for number in range(1000):
                revs.revision += 1
                revs.put(b"/g/%04d" % number, one, 0, revs.revision, 0)

        running.call(fill)
        yield running


def prefix(letter: str, **more: Any) -> pb.RangeRequest:
    return pb.RangeRequest(key=f"/{letter}/".encode(), range_end=f"/{letter}0".encode(), **more)


@pytest.mark.parametrize("serializable", [False, True])
@pytest.mark.parametrize("gzip", [False, True])
def test_grpc_gets_ten_megabytes_whole(server: Running, serializable: bool, gzip: bool) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
        ask = channel.unary_unary(
            "/etcdserverpb.KV/Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString
        )
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        answer = ask(prefix("m", serializable=serializable), timeout=60, compression=compression)
    assert [(kv.key, kv.value) for kv in answer.kvs] == [(b"/m/%04d" % n, bytes([n]) * MB) for n in range(10)]
    assert answer.count == 10
    assert answer.header.revision == server.fold.v3.revs.revision


def test_json_gets_ten_megabytes_whole_and_the_connection_goes_on(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    ask = json.dumps({"key": base64.b64encode(b"/m/").decode(), "range_end": base64.b64encode(b"/m0").decode()})
    for _ in range(2):
        connection.request("POST", "/v3/kv/range", ask)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("transfer-encoding") == "chunked"
        found = json.loads(answer.read())
        assert [base64.b64decode(kv["value"]) for kv in found["kvs"]] == [bytes([n]) * MB for n in range(10)]
        assert found["count"] == "10"
    connection.close()


SNAPSHOT, WATCH = "/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.Watch/Watch"


def asked(path: str) -> bytes:
    """For the gigabyte."""
    if path == SNAPSHOT:
        return b""
    if path == WATCH:
        range_ = prefix("g")
        create = pb.WatchCreateRequest(key=range_.key, range_end=range_.range_end, start_revision=1)
        return pb.WatchRequest(create_request=create).SerializeToString()
    if not path.startswith("/v3"):
        return prefix("g").SerializeToString()
    names = {name: base64.b64encode(value).decode() for name, value in (("key", b"/g/"), ("range_end", b"/g0"))}
    return json.dumps(names).encode()


class Reader:
    """Asks ``path`` for the gigabyte on a raw socket, and reads when it is told to. gRPC's frames are looked at."""

    def __init__(self, port: int, path: str) -> None:
        self._json = path.startswith("/v3")
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw = asked(path)
        if self._json:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(raw)}\r\n\r\n"
            self.socket.sendall(head.encode() + raw)
            return
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x")]
        fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        end = 0 if path == WATCH else frames.END_STREAM
        self.socket.sendall(
            frames.PREFACE
            + frames.settings([(frames.SET_INITIAL_WINDOW, 2**31 - 1)])
            + frames.window_update(0, 2**31 - 1 - 65535)
            + frames.headers(1, hpack.encode(fields), end=False)
            + frames.frame(frames.DATA, end, 1, struct.pack(">BI", 0, len(raw)) + raw)
        )

    def read_all(self, enough: int) -> int:
        """Bytes of messages (gRPC) or of the body (JSON), until the end; a watch has none, and ``enough`` is enough."""
        buffer, size = bytearray(1 << 20), 0
        rest = b""
        while size < enough and (got := self.socket.recv_into(buffer)):
            data = rest + buffer[:got]
            if self._json:
                size += got
                rest = data[-5:]
                continue
            at = 0
            while len(data) - at >= 9:
                length, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
                if len(data) - at < 9 + length:
                    break
                flags, stream = data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
                at += 9 + length
                size += length if kind == frames.DATA else 0
                if kind == frames.HEADERS and flags & frames.END_STREAM and stream == 1:
                    self.socket.close()
                    return size
            rest = data[at:]
        self.socket.close()
        return size


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    "path", ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/RangeStream", "/v3/kv/range", SNAPSHOT, WATCH]
)
def test_a_gigabyte_adds_no_more_than_64_mb_also_when_its_readers_stall(server: Running, path: str) -> None:
    before = rss_bytes()
    stalled = [Reader(server.port, path) for _ in range(8)]
    peak, over = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, rss_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        time.sleep(1)
        size = Reader(server.port, path).read_all(1000 * MB if path == WATCH else 2000 * MB)
    finally:
        over.set()
        looking.join()
    assert size >= 1000 * MB * (4 / 3 if path.startswith("/v3") else 1)
    assert peak - before < 64 * MB, f"{(peak - before) / MB:.0f} MB"
    for reader in stalled:
        reader.socket.close()
