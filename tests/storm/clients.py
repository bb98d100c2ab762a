"""Clients that ask one thing after another of whatever node answers, and write down what they asked and were told."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from itertools import count
from typing import Any

import grpc
import grpc.aio
from grpc._cython.cygrpc import ExecuteBatchError

from actors.kv.proto import etcd_pb2 as pb
from tests.histories import ops as say
from tests.histories.ops import Op, Request, Result
from tests.storm import wire

KEYS = [b"s/%02d" % number for number in range(24)]
ALL, ALL_END = b"s/", b"s0"
LEASED, LEASED_END = b"l/", b"l0"
BIG_BYTES = 20_000
#: How long a client keeps off a node that failed it.
AVOID_S = 1.0
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_SURE = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}
_WRONG = {grpc.StatusCode.INTERNAL, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNIMPLEMENTED}

#: What grpcio says by itself when it writes on a stream that has just ended (grpc/grpc#36066): no answer of a node's.
_GRPCIOS_OWN = "Internal error from Core"


class Notes:
    """What all clients did. ``wrong``: answers that no fault excuses."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.failures: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.left: list[int] = []
        #: the newest revision that anybody was told
        self.revision = 1


class Channel:
    """One connection to a node."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self.avoid_until_s = 0.0
        self._calls: dict[str, Any] = {}

    def unary(self, path: str, answer: Any) -> Any:
        if path not in self._calls:
            self._calls[path] = self.channel.unary_unary(
                f"/etcdserverpb.{path}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=answer.FromString,
            )
        return self._calls[path]

    def stream(self, path: str, answer: Any) -> Any:
        return self.channel.stream_stream(
            f"/etcdserverpb.{path}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.FromString,
        )


class Client:
    def __init__(self, name: str, addresses: list[str], seed: int, notes: Notes, stop: asyncio.Event) -> None:
        self.name, self.notes = name, notes
        self.random = random.Random(f"{seed}/{name}")
        self.channels = [Channel(address) for address in addresses]
        self._stop = stop
        self._values = count(1)

    async def close(self) -> None:
        for one in self.channels:
            await one.channel.close()

    # -- asking -----------------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Op:
        """Written down; never raises for what a fault may bring."""
        channel = self._channel()
        timeout_s = self.random.choice([1.0, 3.0, 9.0])
        invoked_s = time.monotonic()
        try:
            result, revision = await self._asked(channel, request, timeout_s)
        except grpc.aio.AioRpcError as error:
            result, revision = self._failed(channel, request, error), 0
        except Ended:
            channel.avoid_until_s = time.monotonic() + AVOID_S
            result, revision = None, 0
        op = Op(self.name, invoked_s, time.monotonic(), request, result, revision)
        self.notes.ops.append(op)
        self.notes.revision = max(self.notes.revision, revision)
        return op

    def _channel(self) -> Channel:
        now_s = time.monotonic()
        good = [one for one in self.channels if one.avoid_until_s < now_s]
        return self.random.choice(good or self.channels)

    def _failed(self, channel: Channel, request: Request, error: grpc.aio.AioRpcError) -> Result | None:
        code, words = error.code(), f"{error.code().name}: {error.details()}"
        self.notes.failures[words[:100]] += 1
        wrong = code in _WRONG and error.details() != _GRPCIOS_OWN
        if wrong and not (isinstance(request, say.Range) and request.serializable):
            self.notes.wrong.append(f"{self.name}, {time.monotonic():.3f}: {request} was answered {words}")
        if code in _SURE:
            return say.Refused(words)
        channel.avoid_until_s = time.monotonic() + AVOID_S
        return None

    async def _asked(self, channel: Channel, request: Request, timeout_s: float) -> tuple[Result, int]:
        match request:
            case say.Put():
                told = await channel.unary("KV/Put", pb.PutResponse)(wire.put(request), timeout=timeout_s)
                return wire.put_done(told), told.header.revision
            case say.Delete():
                ask = channel.unary("KV/DeleteRange", pb.DeleteRangeResponse)
                told = await ask(wire.delete(request), timeout=timeout_s)
                return wire.deleted(told), told.header.revision
            case say.Range():
                told = await channel.unary("KV/Range", pb.RangeResponse)(wire.range_(request), timeout=timeout_s)
                return wire.ranged(told), told.header.revision
            case say.Txn():
                told = await channel.unary("KV/Txn", pb.TxnResponse)(wire.txn(request), timeout=timeout_s)
                return wire.txn_done(told), told.header.revision
            case say.Grant():
                ask = channel.unary("Lease/LeaseGrant", pb.LeaseGrantResponse)
                told = await ask(pb.LeaseGrantRequest(ID=request.lease, TTL=request.ttl_s), timeout=timeout_s)
                return say.Alive(told.TTL), told.header.revision
            case say.Revoke():
                ask = channel.unary("Lease/LeaseRevoke", pb.LeaseRevokeResponse)
                told = await ask(pb.LeaseRevokeRequest(ID=request.lease), timeout=timeout_s)
                return say.Revoked(), told.header.revision
            case say.Renew():
                return await self._renewed(channel, request, timeout_s)

    async def _renewed(self, channel: Channel, request: say.Renew, timeout_s: float) -> tuple[Result, int]:
        call = channel.stream("Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)(timeout=timeout_s)
        await said(call, pb.LeaseKeepAliveRequest(ID=request.lease))
        told = await call.read()
        if told is grpc.aio.EOF:
            raise Ended
        # a stream that ended since then: grpcio raises its own word (grpc/grpc#36066), and the answer is here already
        with contextlib.suppress(ExecuteBatchError):
            await call.done_writing()
        call.cancel()
        return say.Alive(told.TTL), told.header.revision

    # -- what they do -----------------------------------------------------------------------------------------

    async def work(self, rest_s: float) -> None:
        while not self._stop.is_set():
            op = await self.ask(self.request())
            if isinstance(op.request, say.Range) and op.request.key in KEYS and isinstance(op.result, say.Ranged):
                await self.ask(self._exchange(op.request.key, op.result))
            await asyncio.sleep(rest_s * self.random.random() * 2)

    def value(self) -> bytes:
        made = f"{self.name}-{next(self._values)}".encode()
        return made + b"." * BIG_BYTES if self.random.random() < 0.005 else made

    def request(self) -> Request:
        rng = self.random
        key, roll = rng.choice(KEYS), rng.random()
        if roll < 0.35:
            return say.Put(key, self.value(), prev_kv=rng.random() < 0.5)
        if roll < 0.42:
            return say.Delete(key, rng.choice([b"", b"", ALL_END, key + b"~"]), prev_kv=rng.random() < 0.5)
        if roll < 0.5:
            return say.Range(key, serializable=rng.random() < 0.2)
        if roll < 0.65:
            return say.Range(ALL, ALL_END, serializable=rng.random() < 0.2)
        if roll < 0.68:
            return say.Range(ALL, ALL_END, revision=rng.randint(max(1, self.notes.revision - 500), self.notes.revision))
        return self._txn(key)

    def _exchange(self, key: bytes, read: say.Ranged) -> say.Txn:
        """Compare and set, by what was just read."""
        mod = read.kvs[0].mod if read.kvs else 0
        return say.Txn(
            [say.Compare(key, "mod", "=", mod)], [say.Put(key, self.value(), prev_kv=True)], [say.Range(key)]
        )

    def _txn(self, key: bytes) -> say.Txn:
        rng, other = self.random, self.random.choice([one for one in KEYS if one != key])
        compare = rng.choice(
            [
                [],
                [say.Compare(key, "version", ">", 2)],
                [say.Compare(key, "create", "!=", 0), say.Compare(other, "version", "<", 5)],
                [say.Compare(key, "value", "<", b"c5")],
                [say.Compare(key, "lease", "=", 0)],
            ]
        )
        success: list[say.Simple] = [say.Put(key, self.value(), prev_kv=True), say.Range(ALL, ALL_END)]
        if rng.random() < 0.5:
            success += [say.Put(other, self.value())]
        if rng.random() < 0.2:
            success = [say.Range(ALL, ALL_END), say.Delete(other, prev_kv=True), say.Put(key, self.value())]
        failure: list[say.Simple] = [say.Range(key), say.Range(other)]
        if rng.random() < 0.3:
            failure = [say.Put(other, self.value()), say.Range(key)]
        if rng.random() < 0.2:
            success = [say.Range(key), say.Range(other)]
        return say.Txn(compare, success, failure)

    async def hold_leases(self) -> None:
        """One after another: granted, given keys, renewed for a while, and then left or revoked."""
        rng = self.random
        while not self._stop.is_set():
            lease, ttl_s = rng.getrandbits(62) + 1, rng.randint(2, 6)
            granted = await self.ask(say.Grant(lease, ttl_s))
            if not isinstance(granted.result, say.Alive):
                continue
            for number in range(rng.randint(0, 3)):
                await self.ask(say.Put(b"l/%x/%d" % (lease, number), self.value(), lease))
            until_s, alive = time.monotonic() + rng.choice([0, 5, 20]) * rng.random(), True
            while alive and time.monotonic() < until_s and not self._stop.is_set():
                await asyncio.sleep(ttl_s * rng.uniform(0.1, 0.5))
                alive = (await self.ask(say.Renew(lease))).result != say.Alive(0)
            if rng.random() < 0.3:
                await self.ask(say.Revoke(lease))
            else:
                self.notes.left.append(lease)
            await asyncio.sleep(0.5)


class Ended(Exception):
    """The stream has ended, before it told anything more."""


async def said(call: Any, message: Any) -> None:
    """Raises Ended: of a stream that has just ended grpcio says so in words of its own (grpc/grpc#36066)."""
    try:
        await call.write(message)
    except (asyncio.InvalidStateError, ExecuteBatchError) as error:
        raise Ended from error
