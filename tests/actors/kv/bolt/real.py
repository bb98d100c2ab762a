"""Real etcds and their tools, of several versions: Debian's 3.4, and what deploy/etcd/build made."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc

from actors.kv.bolt.messages import fields
from actors.kv.v3.hashes import varint
from tests import needs

Json = dict[str, Any]


def tool(name: str) -> str:
    """The path of a program out of deploy/etcd/build."""
    cache = (
        os.environ.get("CORELOG_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelog"
    )
    path = Path(cache) / "etcd" / name
    if not path.exists():
        needs.missing(f"{name} is not there; run deploy/etcd/build")
    return str(path)


def server(version: str) -> str:
    return needs.program("etcd") if version == "3.4" else tool(f"etcd-{version}")


def restorer(version: str) -> str:
    """The program that has ``snapshot restore`` and ``status``."""
    return needs.program("etcdctl") if version == "3.4" else tool(f"etcdutl-{version}")


def run(*command: str | Path, **environment: str) -> str:
    """What a program prints; it has to succeed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
    done = subprocess.run(
        command, env={**clean, "ETCDCTL_API": "3", **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def restored(version: str, snapshot: Path, folder: Path, *flags: str) -> str:
    """A data folder from a snapshot; the URL for peers that it was made with."""
    peers = f"http://127.0.0.1:{free()}"
    of_peers = [f"--initial-cluster=default={peers}", f"--initial-advertise-peer-urls={peers}"]
    run(restorer(version), "snapshot", "restore", snapshot, f"--data-dir={folder}", *of_peers, *flags)
    return peers


class Served:
    """``with Served(version, folder) as etcd``: one node. ``url``: where clients find it."""

    def __init__(self, version: str, folder: Path, peers: str = "", *flags: str) -> None:
        self.url = f"http://127.0.0.1:{free()}"
        peers = peers or f"http://127.0.0.1:{free()}"
        of_clients = [f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}"]
        of_peers = [f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"]
        of_peers += [f"--initial-cluster=default={peers}", f"--data-dir={folder}", "--unsafe-no-fsync"]
        self._command = [server(version), *of_clients, *of_peers, *flags]
        self._channel = grpc.insecure_channel(self.url.removeprefix("http://"))

    def __enter__(self) -> "Served":
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        self._process = subprocess.Popen(self._command, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.grpc("KV/Range", b"\n\x01a")
                return self
            except grpc.RpcError as error:
                # with users it refuses, and is there
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    return self
                time.sleep(0.05)
        self.__exit__()
        raise AssertionError(f"etcd doesn't answer, or ended: {self._process.returncode}")

    def __exit__(self, *_error: object) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def ctl(self, *words: str | Path) -> str:
        return run("etcdctl", f"--endpoints={self.url}", *words)

    def ctl_json(self, *words: str) -> Any:
        return json.loads(self.ctl(*words, "--write-out=json"))

    def grpc(self, name: str, message: bytes) -> bytes:
        call = self._channel.unary_unary(f"/etcdserverpb.{name}")
        answer: bytes = call(message, timeout=5)
        return answer

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        of_lease = b"\x18" + varint(lease) if lease else b""
        self.grpc("KV/Put", b"\n" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value + of_lease)

    def delete(self, key: bytes, end: bytes = b"") -> None:
        self.grpc("KV/DeleteRange", b"\n" + varint(len(key)) + key + b"\x12" + varint(len(end)) + end)

    def hash_kv(self, revision: int = 0) -> int:
        answer = dict(fields(self.grpc("Maintenance/HashKV", b"\x08" + varint(revision))))
        return int(answer.get(2, 0))  # type: ignore[arg-type]
