"""The servers that are compared, each with three clients."""

import contextlib
import os
import queue
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from actors.kv.proto import election_pb2 as election
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import lock_pb2 as lock
from actors.kv.rpc.json_form import plain
from actors.kv.v3 import errors
from actors.setting import Etcd
from tests import needs
from tests.actors.kv.server import Running

CLIENTS = 3
UNAVAILABLE = 14
#: The least: real ones would take most of the time.
BCRYPT_COST = 4
CACHE = Path(os.environ.get("CORELOG_CACHE", Path.home() / ".cache" / "corelog")) / "etcd"
NEWEST, OLDER = "etcd-3.7", "etcd-3.5.1"
LOWER = {NEWEST: "3.6", OLDER: "3.4"}
_OPTIONS = [("grpc.max_send_message_length", 8 << 20), ("grpc.max_receive_message_length", 64 << 20)]
#: While the version is none, and while it is the lowest that there can be.
NO_VERSION_YET = (
    "etcdserver: cluster version not found during downgrade",
    errors.INVALID_DOWNGRADE_TARGET.message,
)
_SERVICES = {
    method.name: (f"/{service.full_name}/{method.name}", method.input_type.full_name, method.output_type.full_name)
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
NAMES = frozenset(_SERVICES)
Plain = dict[str, Any]


def program(name: str) -> Path:
    """A real etcd; made by ``deploy/etcd/build``."""
    found = CACHE / name
    if not found.exists():
        needs.missing(f"{name} (deploy/etcd/build)")
    return found


def _kind(full_name: str) -> Any:
    return getattr(pb, full_name.rpartition(".")[2])


def count_fields(message: Any, into: Counter[str]) -> None:
    for field, value in message.ListFields():
        into[field.full_name] += 1
        if field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                count_fields(one, into)


class Client:
    """One connection, and one watch stream when it is asked for."""

    def __init__(self, address: str) -> None:
        # channels share connections unless told not to
        self._channel = grpc.insecure_channel(address, [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        self._calls: dict[str, Any] = {}
        self._metadata: list[tuple[str, str]] = []
        self.watch: WatchStream | None = None
        #: the version that the server's cluster may be made
        self.lower = "3.4"
        #: fields that were set in requests
        self.fields: Counter[str] = Counter()

    def token(self, token: str) -> None:
        self._metadata = [("token", token)] if token else []

    def call(self, name: str, request: Any) -> Plain:
        """The answer as plain data, or its status and message."""
        path, _, answer = _SERVICES[name]
        count_fields(request, self.fields)
        if name not in self._calls:
            self._calls[name] = self._channel.unary_unary(
                path, type(request).SerializeToString, _kind(answer).FromString
            )
        try:
            return plain(self._calls[name](request, metadata=self._metadata, timeout=10))
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "message": error.details()}

    def keep_alive(self, lease: int) -> Plain:
        path, _, answer = _SERVICES["LeaseKeepAlive"]
        ask = self._channel.stream_stream(path, pb.LeaseKeepAliveRequest.SerializeToString, _kind(answer).FromString)
        request = pb.LeaseKeepAliveRequest(ID=lease)
        count_fields(request, self.fields)
        try:
            (told,) = ask(iter([request]), metadata=self._metadata, timeout=10)
            return plain(told)
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "message": error.details()}

    def lock(self, name: bytes, lease: int) -> Plain:
        """Of a lock that is free. The key ends with the lease, which may be of the server's choice."""
        return self._recipe("/v3lockpb.Lock/Lock", lock.LockRequest(name=name, lease=lease), lock.LockResponse)

    def campaign(self, name: bytes, lease: int) -> Plain:
        """Of an election without a leader."""
        request = election.CampaignRequest(name=name, lease=lease, value=b"me")
        return self._recipe("/v3electionpb.Election/Campaign", request, election.CampaignResponse)

    def _recipe(self, path: str, request: Any, answer: Any) -> Plain:
        ask = self._channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
        try:
            return plain(ask(request, metadata=self._metadata, timeout=10))
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "message": error.details()}

    def range_stream(self, request: pb.RangeRequest) -> Plain:
        """The chunks, merged."""
        path, _, answer = _SERVICES["RangeStream"]
        merged = pb.RangeResponse()
        count_fields(request, self.fields)
        ask = self._channel.unary_stream(path, pb.RangeRequest.SerializeToString, _kind(answer).FromString)
        try:
            for one in ask(request, metadata=self._metadata, timeout=10):
                merged.MergeFrom(one.range_response)
            return plain(merged)
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "message": error.details()}

    def watches(self) -> "WatchStream":
        if self.watch is None:
            path, _, answer = _SERVICES["Watch"]
            ask = self._channel.stream_stream(path, pb.WatchRequest.SerializeToString, _kind(answer).FromString)
            self.watch = WatchStream(ask, self._metadata, self.fields)
        return self.watch

    def forget_watches(self) -> None:
        if self.watch is not None:
            self.watch.end()
            self.watch = None

    def close(self) -> None:
        self.forget_watches()
        self._channel.close()


class WatchStream:
    """What came, per watch: events as one flat list, and all that isn't an event."""

    def __init__(self, ask: Any, metadata: list[tuple[str, str]], fields: Counter[str]) -> None:
        self._fields = fields
        self.events: dict[int, list[Plain]] = {}
        self.controls: dict[int, list[Plain]] = {}
        self.progress: list[int] = []
        self.ended: Plain | None = None
        self._requests: queue.Queue[pb.WatchRequest | None] = queue.Queue()
        self._answers = ask(iter(self._requests.get, None), metadata=metadata)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def say(self, request: pb.WatchRequest) -> None:
        count_fields(request, self._fields)
        self._requests.put(request)

    def create(self, request: pb.WatchCreateRequest) -> None:
        """Waits for the answer, so that what comes next is after it."""
        before = self._controls()
        self.say(pb.WatchRequest(create_request=request))
        self.until(lambda: self._controls() > before or self.ended is not None)

    def ask_progress(self) -> Plain:
        """The revision told when all watches of the stream have caught up."""
        before = len(self.progress)
        self.say(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        self.until(lambda: len(self.progress) > before or self.ended is not None)
        return {"progress": self.progress[-1] if self.progress else None, "ended": self.ended}

    def _controls(self) -> int:
        return sum(map(len, self.controls.values()))

    def until(self, what: Any, timeout_s: float = 5.0) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(what, timeout_s))

    def end(self) -> None:
        self._requests.put(None)
        self._answers.cancel()
        self._thread.join(5)

    def _read(self) -> None:
        try:
            for answer in self._answers:
                with self._changed:
                    self._take(answer)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            with self._changed:
                self.ended = {"code": error.code().value[0], "message": error.details()}
                self._changed.notify_all()

    def _take(self, answer: pb.WatchResponse) -> None:
        if answer.events:
            self.events.setdefault(answer.watch_id, []).extend(plain(one) for one in answer.events)
        elif answer.created or answer.canceled:
            told = plain(answer)
            told.pop("header")
            self.controls.setdefault(answer.watch_id, []).append(told)
        elif not answer.fragment:
            self.progress.append(answer.header.revision)


class Server:
    """``name`` in reports; ``clients`` are connected."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.port = name, int(address.rpartition(":")[2])
        self.clients = [Client(address) for _ in range(CLIENTS)]

    def close(self) -> None:
        for client in self.clients:
            client.close()


@contextlib.contextmanager
def real(name: str, folder: Path) -> Iterator[Server]:
    """A node of real etcd."""
    client, peer = _free(), _free()
    url, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    flags = [f"--data-dir={folder}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
    flags += [f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"]
    flags += [
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
        "--log-level=error",
        f"--bcrypt-cost={BCRYPT_COST}",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
    process = subprocess.Popen(
        [program(name), *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = Server(name, f"127.0.0.1:{client}")
    for one in server.clients:
        one.lower = LOWER[name]
    try:
        _wait(server)
        yield server
    finally:
        server.close()
        process.kill()
        process.wait()


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[Server]:
    with Running(folder, etcd=Etcd(bcrypt_cost=BCRYPT_COST)) as running:
        server = Server("corelog", f"127.0.0.1:{running.port}")
        try:
            _wait(server)
            yield server
        finally:
            server.close()


def _wait(server: Server) -> None:
    for client in server.clients:
        for _ in range(200):
            if client.call("Range", pb.RangeRequest(key=b"a")).get("code") != UNAVAILABLE:
                break  # it answers, if only that it wants a token
            time.sleep(0.05)
        else:
            raise AssertionError(f"{server.name} doesn't answer")
    # a new cluster of etcd's agrees on a version first
    first = server.clients[0]
    lower = pb.DowngradeRequest(version=first.lower)
    for _ in range(1200):
        if first.call("Downgrade", lower).get("message") not in NO_VERSION_YET:
            return  # it says yes, or that it wants a token
        time.sleep(0.05)
    raise AssertionError(f"{server.name} has no version")


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
