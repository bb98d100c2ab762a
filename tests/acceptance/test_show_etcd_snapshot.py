"""Show 4 of etcd's interface: a snapshot of etcd's comes in whole, and ours goes out to etcd 3.4, 3.5 and 3.7."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from tests.acceptance.harness import Node, until
from tests.actors.kv.bolt.real import Served, restored, restorer, run, tool
from tests.actors.kv.test_serving import Grpc

pytestmark = pytest.mark.acceptance
KEYS, OPS = 100_000, 100


def fill(etcd: Grpc) -> None:
    """100,000 keys, some overwritten and some deleted, leases, users who may do this and that."""
    for lease in (11, 12):
        etcd.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=3600), pb.LeaseGrantResponse)
    for start in range(0, KEYS, OPS):
        txn = pb.TxnRequest()
        for number in range(start, start + OPS):
            put = txn.success.add().request_put
            put.key, put.value, put.lease = b"k%06d" % number, b"value %d" % number, 11 if number % 1000 == 0 else 0
        etcd.ask("KV/Txn", txn, pb.TxnResponse)
    for number in range(0, KEYS, 500):
        etcd.put(b"k%06d" % number, b"again")
    ask = pb.DeleteRangeRequest(key=b"k05", range_end=b"k051")
    middle = etcd.ask("KV/DeleteRange", ask, pb.DeleteRangeResponse).header.revision
    etcd.put(b"k050001", b"back")
    compact = pb.CompactionRequest(revision=middle - 50, physical=True)
    etcd.ask("KV/Compact", compact, pb.CompactionResponse)
    users(etcd)


def users(etcd: Grpc) -> None:
    for user, password in (("root", "r"), ("ann", "a")):
        etcd.ask("Auth/UserAdd", pb.AuthUserAddRequest(name=user, password=password), pb.AuthUserAddResponse)
    for role in ("root", "reads"):
        etcd.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name=role), pb.AuthRoleAddResponse)
    grant = pb.AuthRoleGrantPermissionRequest(name="reads")
    grant.perm.key, grant.perm.range_end = b"k", b"l"
    etcd.ask("Auth/RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse)
    for user, role in (("root", "root"), ("ann", "reads")):
        etcd.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role), pb.AuthUserGrantRoleResponse)
    etcd.ask("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)


def token(etcd: Grpc, user: str, password: str) -> str:
    ask = pb.AuthenticateRequest(name=user, password=password)
    return str(etcd.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token)


def everything(etcd: Grpc, root: str, revision: int = 0) -> list[tuple[Any, ...]]:
    """All keys as they are, or were."""
    found: list[tuple[Any, ...]] = []
    start = b"\0"
    while True:
        ask = pb.RangeRequest(key=start, range_end=b"\0", limit=5000, revision=revision)
        page = etcd.ask("KV/Range", ask, pb.RangeResponse, root)
        found += [(k.key, k.value, k.version, k.create_revision, k.mod_revision, k.lease) for k in page.kvs]
        if not page.more:
            return found
        start = page.kvs[-1].key + b"\0"
        revision = revision or page.header.revision


def number(etcd: Grpc, root: str, revision: int) -> tuple[int, int]:
    told = etcd.ask("Maintenance/HashKV", pb.HashKVRequest(revision=revision), pb.HashKVResponse, root)
    return told.hash, told.compact_revision


def test_in_from_etcd_and_out_to_every_line_of_it(tmp_path: Path) -> None:
    with Served("3.5.1", tmp_path / "etcd") as real:
        etcd = Grpc(real.url.removeprefix("http://"))
        fill(etcd)
        root = token(etcd, "root", "r")
        expected = everything(etcd, root)
        revision = etcd.get(b"k000000", root).header.revision
        hashed = number(etcd, root, revision)
        saved = tmp_path / "saved"
        run(tool("etcdctl-3.5.1"), "--endpoints", real.url, "--user", "root:r", "snapshot", "save", str(saved))
        etcd.channel.close()
    assert len(expected) > 90_000

    node = Node(tmp_path / "node").start()
    try:
        told = node.run("kv", "import", str(saved)).out
        assert f"{len(expected)} keys, revision {revision}, 2 leases, 2 users (auth is on)" in told
        ours = Grpc(f"127.0.0.1:{node.etcd}")
        root = token(ours, "root", "r")
        assert everything(ours, root) == expected
        assert everything(ours, root, revision - 20) != expected
        assert number(ours, root, revision) == hashed
        ann = token(ours, "ann", "a")
        with pytest.raises(grpc.RpcError, match="permission denied"):
            ours.put(b"k1", b"v", ann)
        assert node.run("kv", "import", str(saved), code=4).code == 4
        ours.put(b"ours", b"new", root)
        # after a restart, too
        ours.channel.close()
        node.stop()
        node.start()
        ours = Grpc(f"127.0.0.1:{node.etcd}")
        root = until(lambda: token(ours, "root", "r"))
        now = everything(ours, root)
        assert [row for row in now if row[0] != b"ours"] == expected
        old = everything(ours, root, revision - 20)
        hashed = number(ours, root, revision + 1)
        out = tmp_path / "out"
        node.run("kv", "export", str(out))
        ours.channel.close()
    finally:
        node.stop()
    for version in ("3.4", "3.5.1", "3.7"):
        goes_on(version, out, tmp_path / version, (now, old, hashed, revision))


def goes_on(version: str, out: Path, folder: Path, told: tuple[Any, ...]) -> None:
    """An etcd of ``version`` restored from ``out`` has all of it, and takes more."""
    now, old, hashed, revision = told
    status = json.loads(run(restorer(version), "snapshot", "status", out, "-w", "json"))
    assert status["revision"] == revision + 1
    folder.mkdir()
    with Served(version, folder / "data", restored(version, out, folder / "data")) as real:
        etcd = Grpc(real.url.removeprefix("http://"))
        root = token(etcd, "root", "r")
        assert everything(etcd, root) == now
        assert everything(etcd, root, revision - 20) == old
        assert number(etcd, root, revision + 1)[0] == hashed[0]
        with pytest.raises(grpc.RpcError, match="permission denied"):
            etcd.put(b"k1", b"v", token(etcd, "ann", "a"))
        assert etcd.put(b"more", b"v", root).header.revision == revision + 2
        etcd.channel.close()
