"""Part 2 of etcd's interface: who broke the configuration, when, and back to before, after etcd itself has forgotten.

Two users write; one of them breaks things; the history is compacted. All is still told, and put right again.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from tests.acceptance.harness import Node, until
from tests.actors.kv.test_serving import Grpc

pytestmark = pytest.mark.acceptance


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "node").start()
    yield made
    made.stop()


def users(etcd: Grpc, *names: str) -> dict[str, str]:
    """Users who may write below app/; their tokens."""
    etcd.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name="root"), pb.AuthRoleAddResponse)
    etcd.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name="app"), pb.AuthRoleAddResponse)
    grant = pb.AuthRoleGrantPermissionRequest(name="app")
    grant.perm.permType, grant.perm.key, grant.perm.range_end = 2, b"app/", b"app0"
    etcd.ask("Auth/RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse)
    for name, role in (("root", "root"), *((name, "app") for name in names)):
        etcd.ask("Auth/UserAdd", pb.AuthUserAddRequest(name=name, password=name), pb.AuthUserAddResponse)
        etcd.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=name, role=role), pb.AuthUserGrantRoleResponse)
    etcd.ask("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)
    return {name: login(etcd, name) for name in ("root", *names)}


def login(etcd: Grpc, name: str) -> str:
    ask = pb.AuthenticateRequest(name=name, password=name)
    return str(etcd.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token)


def txn(etcd: Grpc, token: str, puts: dict[bytes, bytes], deletes: list[bytes]) -> int:
    ask = pb.TxnRequest()
    for key, value in puts.items():
        ask.success.add().request_put.MergeFrom(pb.PutRequest(key=key, value=value))
    for key in deletes:
        ask.success.add().request_delete_range.key = key
    return int(etcd.ask("KV/Txn", ask, pb.TxnResponse, token).header.revision)


def test_who_broke_it_when_and_back(node: Node) -> None:
    etcd = Grpc(f"127.0.0.1:{node.etcd}")
    token = users(etcd, "ann", "bob")
    # ann sets the service up; one of its keys lives by a lease
    etcd.put(b"app/db/host", b"db1", token["ann"])
    etcd.put(b"app/db/port", b"5432", token["ann"])
    lease = pb.LeaseGrantRequest(ID=0x7A, TTL=2)
    etcd.ask("Lease/LeaseGrant", lease, pb.LeaseGrantResponse, token["ann"])
    ask = pb.PutRequest(key=b"app/leader", value=b"n1", lease=0x7A)
    good = etcd.ask("KV/Put", ask, pb.PutResponse, token["ann"]).header.revision
    good_s = time.time()
    until(lambda: etcd.get(b"app/leader", token["ann"]).count == 0, says="the lease's end")
    # bob breaks it in one transaction, and root compacts
    broken = txn(etcd, token["bob"], {b"app/db/host": b"localhost", b"app/debug": b"1"}, [b"app/db/port"])
    ask_compact = pb.CompactionRequest(revision=broken, physical=True)
    etcd.ask("KV/Compact", ask_compact, pb.CompactionResponse, token["root"])
    old = pb.RangeRequest(key=b"app/", range_end=b"app0", revision=good)
    with pytest.raises(grpc.RpcError, match="required revision has been compacted"):
        etcd.ask("KV/Range", old, pb.RangeResponse, token["ann"])

    # what was there: by revision, by time
    for at in (f"r{good}", f"@{good_s:.3f}"):
        rows = node.run("kv", "get", "app/", "--prefix", "--at", at, "-o", "json").json
        assert {row["key"]: row["value"] for row in rows} == {
            "app/db/host": "db1",
            "app/db/port": "5432",
            "app/leader": "n1",
        }
    # who did it
    blamed = {row["key"]: row for row in node.run("kv", "blame", "app/", "--deleted", "-o", "json").json}
    assert {key: (row["action"], row["principal"]) for key, row in blamed.items()} == {
        "app/db/host": ("txn put", "user:bob"),
        "app/db/port": ("txn delete", "user:bob"),
        "app/debug": ("txn put", "user:bob"),
        "app/leader": ("lease expired", ""),
    }
    assert blamed["app/leader"]["lease_by"] == "user:ann"
    assert blamed["app/db/host"]["source"] == "addr:127.0.0.1"
    assert "lease 000000000000007a, granted by user:ann" in node.run("kv", "history", "app/leader").out
    hosts = node.run("kv", "history", "app/db/host", "-o", "json").json
    assert [(row["value"], row["principal"]) for row in hosts] == [("db1", "user:ann"), ("localhost", "user:bob")]
    assert all(row["position"] for row in hosts)
    # what differs
    differs = node.run("kv", "diff", f"r{good}..", "app/", "-o", "json", code=1).json
    assert [(one["op"], one["key"]) for one in differs] == [
        ("change", "app/db/host"),
        ("remove", "app/db/port"),
        ("add", "app/debug"),
        ("remove", "app/leader"),
    ]
    # back: seen first, refused when bob goes on meanwhile, then done in one revision
    plan = node.run("kv", "restore", "app/db/", "app/debug", "--at", f"r{good}", "--dry-run", "-o", "json").json
    assert (plan["puts"], plan["deletes"]) == (2, 1)
    etcd.put(b"app/db/host", b"127.0.0.1", token["bob"])
    base = str(plan["base"])
    refused = node.run("kv", "restore", "app/db/", "app/debug", "--at", f"r{good}", "--if-revision", base, code=4)
    assert "app/db/host was changed" in refused.err
    assert etcd.get(b"app/db/host", token["ann"]).kvs[0].value == b"127.0.0.1"
    node.run("kv", "restore", "app/db/", "app/debug", "--at", f"r{good}")
    assert values(etcd, token["ann"]) == {b"app/db/host": b"db1", b"app/db/port": b"5432"}
    assert node.run("kv", "diff", f"r{good}..", "app/db/").out == ""
    # with the leader, whose lease is over
    last = node.run("kv", "restore", "--at", f"r{good}")
    assert "leases don't come back" in last.err
    assert etcd.get(b"app/leader", token["ann"]).kvs[0].lease == 0
    etcd.channel.close()

    # the same after a snapshot and a restart
    node.run("log", "snapshot")
    node.stop()
    node.start()
    assert node.run("kv", "get", "app/db/host", "--at", f"r{broken}").out == "localhost\n"
    assert node.run("kv", "get", "app/db/host").out == "db1\n"
    again = node.run("kv", "history", "app/db/host", "-o", "json").json
    assert [row["value"] for row in again] == ["db1", "localhost", "127.0.0.1", "db1"]
    assert again[-1]["action"] == "restore put"


def values(etcd: Grpc, token: str) -> dict[Any, Any]:
    found = etcd.ask("KV/Range", pb.RangeRequest(key=b"app/", range_end=b"app0"), pb.RangeResponse, token)
    return {kv.key: kv.value for kv in found.kvs}
