"""Our snapshot in a real etcd: with users, leases, old revisions; and beside puts that go on."""

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.kv.proto import etcd_pb2 as pb
from tests.differential import servers
from tests.differential.servers import Client


@pytest.mark.parametrize("version", ["3.5.1", "3.7"])
def test_etcd_goes_on_from_our_snapshot(tmp_path: Path, version: str) -> None:
    saved, restored = tmp_path / "snapshot.db", tmp_path / "restored"
    with servers.ours(tmp_path / "ours") as ours:
        client = ours.clients[0]
        filled(client)
        stop = threading.Event()
        noise = threading.Thread(target=lambda: _puts(ours.clients[1], stop))
        noise.start()
        try:
            save(client, ours.port, saved)
        finally:
            stop.set()
            noise.join()
        then = client.call("Range", pb.RangeRequest(key=b"k1", revision=20))
    utility = servers.program(f"etcdutl-{version}")
    subprocess.run([utility, "snapshot", "restore", saved, "--data-dir", restored], check=True, capture_output=True)
    with servers.real(f"etcd-{version}", restored) as theirs:
        other = theirs.clients[0]
        assert "code" in other.call("Range", pb.RangeRequest(key=b"k1", revision=20))  # auth is on there, too
        login(other)
        again = other.call("Range", pb.RangeRequest(key=b"k1", revision=20))
        assert again["kvs"] == then["kvs"]
        assert other.call("AuthStatus", pb.AuthStatusRequest())["authRevision"] == "4"
        assert "header" in other.call("Put", pb.PutRequest(key=b"new", value=b"1", lease=77))


def filled(client: Client) -> None:
    client.call("LeaseGrant", pb.LeaseGrantRequest(ID=77, TTL=1000))
    for number in range(50):
        client.call("Put", pb.PutRequest(key=b"k%d" % (number % 10), value=b"%d" % number, lease=77 * (number % 2)))
    client.call("DeleteRange", pb.DeleteRangeRequest(key=b"k3"))
    client.call("Compact", pb.CompactionRequest(revision=15))
    client.call("UserAdd", pb.AuthUserAddRequest(name="root", password="pw"))
    client.call("RoleAdd", pb.AuthRoleAddRequest(name="root"))
    client.call("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root"))
    client.call("AuthEnable", pb.AuthEnableRequest())
    login(client)


def login(client: Client) -> None:
    client.token(client.call("Authenticate", pb.AuthenticateRequest(name="root", password="pw"))["token"])


def save(_client: Client, port: int, path: Path) -> None:
    command: list[str | Path] = [
        servers.program("etcdctl-3.5.1"),
        "--endpoints",
        f"127.0.0.1:{port}",
        "--user",
        "root:pw",
    ]
    environment: Any = {**os.environ, "ETCDCTL_API": "3"}
    subprocess.run([*command, "snapshot", "save", path], env=environment, check=True, capture_output=True)


def _puts(client: Client, stop: threading.Event) -> None:
    login(client)
    while not stop.is_set():
        client.call("Put", pb.PutRequest(key=b"noise", value=bytes(1000)))
