"""Read replicas on one log with two control nodes: fresh reads, writes, watches and leases; never master, no member."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.kv.proto import etcd_pb2 as pb
from tests.acceptance.harness import free_port, until
from tests.actors.kv.test_serving import Grpc
from tests.cluster import parts

ROOT = Path(__file__).parents[2]
CONTROL, REPLICAS = ("c1", "c2"), ("r1", "r2")
#: On a machine with much else to do.
START_S, ANSWER_S = 240.0, 60.0


class Patient(Grpc):
    def ask(self, path: str, request: Any, told: Any, token: str = "") -> Any:
        call = self.channel.unary_unary(f"/etcdserverpb.{path}", type(request).SerializeToString, told.FromString)
        return call(request, timeout=ANSWER_S)


class Nodes:
    """By name: c… are control nodes, r… replicas. Each is one process."""

    def __init__(self, folder: Path, log: str) -> None:
        self.folder, self.log = folder, log
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.clients: dict[str, Patient] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str, **variables: str) -> None:
        port = self.ports.setdefault(name, free_port())
        words = ["--data", str(self.folder / name), "--etcd-listen", f"127.0.0.1:{port}", "--gateway-listen", "none"]
        words += ["--role", "replica"] if name.startswith("r") else []
        with open(self.folder / f"{name}.log", "ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "node.cli.main", "up", "--name", name, "--log", self.log, *words],
                env={**os.environ, "CORELOG_ONE_PROCESS": "true", "PYTHONPATH": str(ROOT), **variables},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.clients[name] = Patient(f"127.0.0.1:{port}")

    def at(self, name: str) -> Patient:
        return self.clients[name]

    def answers(self, name: str) -> Callable[[], bool]:
        def asked() -> bool:
            try:
                return bool(self.status(name).leader)
            except grpc.RpcError:
                return False

        return asked

    def status(self, name: str) -> Any:
        return self.at(name).ask("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)

    def members(self, name: str) -> dict[str, int]:
        listed = self.at(name).ask("Cluster/MemberList", pb.MemberListRequest(linearizable=True), pb.MemberListResponse)
        return {one.name: one.ID for one in listed.members}

    def master(self, seen_by: str) -> str:
        leader = self.status(seen_by).leader
        return next((name for name, ident in self.members(seen_by).items() if ident == leader), "")

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(30)

    def close(self) -> None:
        for client in self.clients.values():
            client.channel.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            process.wait(60)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path, parts.address(parts.brokers(1).bootstrap))
    try:
        yield made
    finally:
        made.close()


def put(nodes: Nodes, name: str, key: bytes, value: bytes) -> Any:
    """Until it is there: a node may have been killed just now."""
    until_s = time.monotonic() + START_S
    while True:
        try:
            return nodes.at(name).put(key, value)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until_s:
                raise
            time.sleep(0.1)


def fresh_everywhere(nodes: Nodes, names: tuple[str, ...], rounds: int) -> None:
    """Whoever acknowledged a put, the next linearizable read of any other one has it."""
    for number in range(rounds):
        written, value = names[number % len(names)], b"%d" % number
        put(nodes, written, b"fresh", value)
        for read in names:
            assert nodes.at(read).get(b"fresh").kvs[0].value == value, (written, read, number)


@pytest.mark.timeout(1200)
def test_replicas_read_and_write_and_never_lead(nodes: Nodes) -> None:
    for name in CONTROL:
        nodes.start(name)
    for name in CONTROL:
        until(nodes.answers(name), timeout_s=START_S)
    for name in REPLICAS:
        nodes.start(name)
    for name in REPLICAS:
        until(nodes.answers(name), timeout_s=START_S)

    # no member, no machine
    members = nodes.members("c1")
    assert set(members) == set(CONTROL)
    for name in REPLICAS:
        assert nodes.members(name) == members
        status = nodes.status(name)
        assert status.header.member_id not in members.values()
        assert (status.leader in members.values(), status.isLearner, list(status.errors)) == (True, False, [])
    fresh_everywhere(nodes, (*CONTROL, *REPLICAS), 30)
    serializable = pb.RangeRequest(key=b"fresh", serializable=True)
    assert nodes.at("r1").ask("KV/Range", serializable, pb.RangeResponse).count == 1
    _watches_and_leases(nodes)
    _hashes_agree(nodes)

    # nobody can make one the leader
    master = nodes.master("r1")
    move = pb.MoveLeaderRequest(targetID=nodes.status("r2").header.member_id)
    with pytest.raises(grpc.RpcError, match="bad leader transferee"):
        nodes.at(master).ask("Maintenance/MoveLeader", move, pb.MoveLeaderResponse)

    # the master is killed: the other control node follows it
    seen, over = set(), threading.Event()
    looking = threading.Thread(target=_look, args=(nodes, "r2", seen, over))
    looking.start()
    term = nodes.status("r2").raftTerm
    nodes.kill(master)
    (other,) = set(CONTROL) - {master}
    until(lambda: nodes.master("r2") == other, timeout_s=START_S)
    assert nodes.status("r2").raftTerm > term
    fresh_everywhere(nodes, (other, *REPLICAS), 9)

    # and then nobody does: replicas go on with what needs no master
    term = nodes.status("r2").raftTerm
    nodes.kill(other)
    time.sleep(4)
    over.set()
    looking.join()
    assert seen <= set(members.values()) | {0}
    assert nodes.status("r2").raftTerm == term
    fresh_everywhere(nodes, REPLICAS, 9)
    nodes.start(other)
    until(lambda: nodes.master("r1") == other and nodes.status("r1").raftTerm > term, timeout_s=START_S)
    fresh_everywhere(nodes, (other, *REPLICAS), 4)


def _look(nodes: Nodes, name: str, seen: set[int], over: threading.Event) -> None:
    while not over.wait(0.05):
        seen.add(nodes.status(name).leader)


def _watches_and_leases(nodes: Nodes) -> None:
    """On a replica: a watch that asks for a leader, a lease that is kept alive there and ends everywhere."""
    etcd, told = nodes.at("r1"), threading.Event()
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w"))
    kinds = (pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString)

    def asks() -> Iterator[Any]:
        yield create
        told.wait(30)

    call = etcd.channel.stream_stream("/etcdserverpb.Watch/Watch", *kinds)(asks(), metadata=[("hasleader", "true")])
    assert next(call).created
    put(nodes, "c2", b"w", b"seen")
    assert next(call).events[0].kv.value == b"seen"
    told.set()
    call.cancel()
    lease = etcd.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse).ID
    etcd.ask("KV/Put", pb.PutRequest(key=b"leased", lease=lease), pb.PutResponse)
    kinds = (pb.LeaseKeepAliveRequest.SerializeToString, pb.LeaseKeepAliveResponse.FromString)
    alive = etcd.channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive", *kinds)(
        iter([pb.LeaseKeepAliveRequest(ID=lease)])
    )
    assert next(alive).TTL == 60
    nodes.at("r2").ask("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse)
    assert nodes.at("c1").get(b"leased").count == 0


def _hashes_agree(nodes: Nodes) -> None:
    revision = nodes.at("c1").get(b"fresh").header.revision
    asked = pb.HashKVRequest(revision=revision)
    hashes = set()
    for name in (*CONTROL, *REPLICAS):
        nodes.at(name).get(b"fresh")  # so that it has all of it
        hashes.add(nodes.at(name).ask("Maintenance/HashKV", asked, pb.HashKVResponse).hash)
    assert len(hashes) == 1


@pytest.mark.timeout(900)
def test_what_can_be_no_replica_is_refused(nodes: Nodes) -> None:
    nodes.start("r1")
    assert nodes.processes["r1"].wait(START_S) == 4
    assert "a replica begins none" in nodes.said("r1")
    nodes.start("c1")
    until(nodes.answers("c1"), timeout_s=START_S)
    nodes.processes["c1"].terminate()
    nodes.processes["c1"].wait(60)
    nodes.start("c1", CORELOG_ROLE="replica")
    assert nodes.processes["c1"].wait(START_S) == 4
    assert "give the replica another one" in nodes.said("c1")
