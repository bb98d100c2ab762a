"""A real etcd beside the store, spoken to over its JSON gateway; and the store, spoken to in the same words."""

import base64
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from actors.kv.v3.errors import V3Error
from actors.kv.v3.hashes import hash_kv, varint
from actors.kv.v3.ranges import Query, Ranged, ranged
from actors.kv.v3.revs import Rev
from actors.kv.v3.store import Result, Store
from actors.kv.v3.txn import Deleted, TxnDone
from streams.events import kv3 as says
from streams.events.base import Data, decode, encode, say, unblob
from streams.outcomes import Rejected
from tests import needs

Json = dict[str, Any]


class Etcd:
    """``with Etcd(folder) as etcd``: one node of Debian's etcd; ``call`` answers the body."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "Etcd":
        client, peer = _free(), _free()
        url, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        flags = [f"--data-dir={self.folder}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
        flags += [f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"]
        flags += [f"--initial-cluster=default={peers}", "--unsafe-no-fsync"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        self._process = subprocess.Popen(
            [needs.program("etcd"), *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        #: HashKV has no path of its own at 3.4's gateway
        self._channel = grpc.insecure_channel(f"127.0.0.1:{client}")
        self._hash_kv = self._channel.unary_unary("/etcdserverpb.Maintenance/HashKV")
        self._connection = http.client.HTTPConnection("127.0.0.1", client, timeout=10)
        for _ in range(200):
            try:
                if "header" in self.call("/v3/kv/range", {"key": "YQ=="}):
                    return self
            except (OSError, http.client.HTTPException):
                self._connection.close()
            time.sleep(0.05)
        raise AssertionError("etcd doesn't answer")

    def __exit__(self, *_error: object) -> None:
        self._connection.close()
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def call(self, path: str, body: Json) -> Json:
        self._connection.request("POST", path, json.dumps(body))
        found: Json = json.loads(self._connection.getresponse().read())
        return found

    def hash(self, revision: int) -> Json:
        try:
            answer = self._hash_kv(b"\x08" + varint(revision))
        except grpc.RpcError as error:
            return {"error": error.details(), "code": error.code().value[0]}
        return {"hash": dict(_fields(answer)).get(2, 0)}


class Ours:
    """The store, each command through the log's own encoding; answers shaped as the gateway's."""

    def __init__(self) -> None:
        self.store = Store()
        self.offset = 0

    def say(self, data: Data) -> Json:
        self.offset += 1
        (event,) = decode("kv", encode([say(data)]))
        outcome = self.store.evolve(event, self.offset)  # type: ignore[arg-type]
        if isinstance(outcome, Rejected):
            return {"error": outcome.message, "code": int(outcome.code[3:])}
        assert isinstance(outcome.result, Result)
        return _shown(outcome.result.value) | {"revision": outcome.result.revision}

    def range(self, asked: Query) -> Json:
        try:
            found = ranged(self.store.revs, asked, self.store.revs.revision)
        except V3Error as error:
            return {"error": error.message, "code": error.code}
        return _shown(found, asked.keys_only) | {"revision": self.store.revs.revision}

    def hash(self, revision: int) -> Json:
        try:
            *_, number = hash_kv(self.store.revs, revision)
        except V3Error as error:
            return {"error": error.message, "code": error.code}
        return {"hash": number}


def _shown(value: Any, keys_only: bool = False) -> Json:
    match value:
        case Rev():
            return {"put": True}
        case Deleted():
            return {"prevs": [kv(one.prev) for one in value.tombstones if one.prev]}
        case Ranged():
            return {
                "kvs": [kv(one, keys_only or value.keys_only) for one in value.kvs],
                "count": value.count,
                "more": value.more,
            }
        case TxnDone():
            return {"succeeded": value.succeeded, "responses": [_shown(one) for one in value.results]}
        case _:
            return {}


def kv(rev: Rev, keys_only: bool = False) -> tuple[bytes, bytes, int, int, int, int]:
    return rev.key, b"" if keys_only else rev.value, rev.create, rev.mod, rev.version, rev.lease


def theirs(answer: Json) -> Json:
    """etcd's answer in the shape of :func:`_shown`."""
    if "code" in answer:
        return {"error": answer["message"], "code": answer["code"]}
    return _theirs(answer) | {"revision": int(answer["header"]["revision"])}


def _theirs(answer: Json) -> Json:
    if "responses" in answer or "succeeded" in answer:
        inner = [next(iter(one.items())) for one in answer.get("responses", [])]
        return {"succeeded": answer.get("succeeded", False), "responses": [_op(name, one) for name, one in inner]}
    return {}


def _op(name: str, answer: Json) -> Json:
    match name:
        case "response_put":
            return {"put": True}
        case "response_delete_range":
            return {"prevs": _kvs(answer.get("prev_kvs", []))}
        case "response_range":
            return their_range(answer)
        case _:
            return {"succeeded": False, "responses": []} | _theirs(answer)


def their_range(answer: Json) -> Json:
    return {
        "kvs": _kvs(answer.get("kvs", [])),
        "count": int(answer.get("count", 0)),
        "more": answer.get("more", False),
    }


def _kvs(kvs: list[Json]) -> list[tuple[bytes, bytes, int, int, int, int]]:
    numbers = ("create_revision", "mod_revision", "version", "lease")
    return [(_raw(one["key"]), _raw(one.get("value", "")), *(int(one.get(name, 0)) for name in numbers)) for one in kvs]  # type: ignore[misc]


def _raw(text: str) -> bytes:
    return base64.b64decode(text)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compare_json(one: says.Compare) -> Json:
    target = ("VERSION", "CREATE", "MOD", "VALUE", "LEASE")[one.target]
    field = ("version", "create_revision", "mod_revision", "value", "lease")[one.target]
    operand = b64(unblob(one.operand)) if one.target == 3 else str(one.operand)  # type: ignore[arg-type]
    result = ("EQUAL", "GREATER", "LESS", "NOT_EQUAL")[one.result]
    ends = {"range_end": b64(unblob(one.range_end))} if one.range_end else {}
    return {"key": b64(unblob(one.key)), "target": target, "result": result, field: operand} | ends


def op_json(op: says.Op) -> Json:
    match op:
        case says.OpPut():
            return {"request_put": put_json(op)}
        case says.OpDelete():
            ends = {"range_end": b64(unblob(op.range_end))} if op.range_end else {}
            return {"request_delete_range": {"key": b64(unblob(op.key)), "prev_kv": True} | ends}
        case says.OpRange():
            names = {"key": b64(unblob(op.key)), "range_end": b64(unblob(op.range_end))}
            orders = {"sort_order": op.order, "sort_target": op.by, "keys_only": op.keys_only}
            filters = {"min_mod_revision": op.min_mod, "max_mod_revision": op.max_mod, "count_only": op.count_only}
            made = {"min_create_revision": op.min_create, "max_create_revision": op.max_create}
            return {"request_range": names | orders | filters | made | {"limit": op.limit, "revision": op.revision}}
        case _:
            return {"request_txn": txn_json(op)}


def put_json(op: says.OpPut | says.Put) -> Json:
    plain = {"key": b64(unblob(op.key)), "value": b64(unblob(op.value)), "lease": str(op.lease)}
    return plain | {"ignore_value": op.ignore_value, "ignore_lease": op.ignore_lease}


def txn_json(txn: says.OpTxn | says.Txn) -> Json:
    return {
        "compare": [compare_json(one) for one in txn.compare],
        "success": [op_json(one) for one in txn.success],
        "failure": [op_json(one) for one in txn.failure],
    }


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and contents of a protobuf message's fields."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        number, at = _number(message, at)
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + number]
            at += number
        else:
            yield tag >> 3, number


def _number(message: bytes, at: int) -> tuple[int, int]:
    out = shift = 0
    while message[at] > 127:
        out |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return out | message[at] << shift, at + 1
