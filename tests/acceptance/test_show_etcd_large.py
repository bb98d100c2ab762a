"""A range of a gigabyte: a node of its own, 1,000 keys of a megabyte each, read whole while other readers stall."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from tests.acceptance.harness import Node
from tests.actors.kv.test_large import MB, SNAPSHOT, WATCH, Reader

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

KEYS = 1000


def _kv(node: Node) -> Path:
    """``/proc`` of the node's kv actor."""
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and str(node.folder).encode() in (entry / "cmdline").read_bytes()
            if ours and (entry / "comm").read_text().startswith("corelog-kv"):
                return entry
        except OSError:
            continue
    raise AssertionError("no kv actor")


def _bytes(process: Path, name: str) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def test_a_range_of_a_gigabyte_adds_no_more_than_64_mb(make_node: Callable[..., Node]) -> None:
    node = make_node("large").start()
    with grpc.insecure_channel(f"127.0.0.1:{node.etcd}") as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString)
        for number in range(KEYS):
            put(pb.PutRequest(key=b"/g/%04d" % number, value=os.urandom(MB)), timeout=60)
    process = _kv(node)
    time.sleep(2)
    found = {}
    for path in ("/etcdserverpb.KV/Range", "/etcdserverpb.KV/RangeStream", "/v3/kv/range", SNAPSHOT, WATCH):
        (process / "clear_refs").write_text("5")  # the peak is forgotten
        before = _bytes(process, "VmRSS")
        stalled = [Reader(node.etcd, path) for _ in range(4)]
        size = Reader(node.etcd, path).read_all(KEYS * MB if path == WATCH else 2 * KEYS * MB)
        assert size >= KEYS * MB * (4 / 3 if path.startswith("/v3") else 1)
        found[path] = (_bytes(process, "VmHWM") - before) / MB
        for reader in stalled:
            reader.socket.close()
    print({path: f"{grown:.0f} MB" for path, grown in found.items()})
    assert max(found.values()) <= 64, found
