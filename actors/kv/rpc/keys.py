"""etcdserverpb.KV: Range, RangeStream, Put, DeleteRange, Txn, Compact."""

import asyncio
from collections.abc import Callable, Iterator

import msgspec

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import asked, brief, json_short, large, told
from actors.kv.rpc.service import KEY_BYTES, Call, Method, Rpc
from actors.kv.v3 import errors
from actors.kv.v3 import txn as txns
from actors.kv.v3.auth import needs
from actors.kv.v3.errors import V3Error
from actors.kv.v3.ranges import Query, Ranged, ranged
from actors.kv.v3.revs import Rev
from actors.kv.v3.store import Result
from streams.events import kv3 as says

#: Keys, and bytes of them and their values, in one message of a RangeStream.
CHUNK_KEYS, CHUNK_BYTES = 1000, 256 * 1024


class Keys:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._ops_max = rpc.setting.etcd.max_txn_ops
        self._bytes_max = rpc.setting.etcd.max_request_bytes

    def methods(self) -> Iterator[Method]:
        kv = "/etcdserverpb.KV/"
        read: Callable[[bytes], object] = wire.decode_range_request
        yield Method(kv + "Range", pb.RangeRequest, pb.RangeResponse, self.range, parse=read, json=self.range_json)
        read = wire.decode_put_request
        yield Method(kv + "Put", pb.PutRequest, pb.PutResponse, self.put, parse=read, json=self.put_json)
        read = wire.decode_delete_range_request
        yield Method(kv + "DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse, self.delete, parse=read)
        yield Method(kv + "Txn", pb.TxnRequest, pb.TxnResponse, self.txn, parse=brief.read)
        yield Method(kv + "Compact", pb.CompactionRequest, pb.CompactionResponse, self.compact)
        yield Method(
            kv + "RangeStream",
            pb.RangeRequest,
            pb.RangeStreamResponse,
            self.range_stream,
            answers_many=True,
            parse=wire.decode_range_request,
        )

    def range(self, call: Call, request: wire.RangeRequest, _size: int) -> None:
        self._read(call, request, self._ranged)

    def range_json(self, call: Call, request: wire.RangeRequest, _size: int) -> None:
        self._read(call, request, self._ranged_json)

    def _read(self, call: Call, request: wire.RangeRequest, show: Callable[[int, Ranged, Query], bytes]) -> None:
        query = asked.query(request)

        def answer() -> bytes | None:
            rpc, revs = self._rpc, self._rpc.revs
            rpc.check(call, query.key, query.end)
            revision = revs.revision
            found = ranged(revs, query, revision)
            if large.is_large(found):
                rpc.run(call, large.reply(call, large.Answer(rpc.header_bytes(revision), found, query)))
                return None
            return show(revision, found, query)

        self._rpc.read(call, request.serializable, answer)

    def _ranged(self, revision: int, found: Ranged, query: Query) -> bytes:
        return self._rpc.header_bytes(revision) + told.ranged(found, query)

    def _ranged_json(self, revision: int, found: Ranged, query: Query) -> bytes:
        return json_short.ranged(self._rpc.header_json(revision), found, query)

    def put(self, call: Call, request: wire.PutRequest, size: int) -> None:
        self._order(call, request, size, self._put if request.prev_kv else self._done)

    def put_json(self, call: Call, request: wire.PutRequest, size: int) -> None:
        self._order(call, request, size, self._put_json if request.prev_kv else self._done_json)

    def _order(self, call: Call, request: wire.PutRequest, size: int, done: Callable[[Result], bytes]) -> None:
        data = asked.put(request)
        asked.sized(size, self._bytes_max)
        self._rpc.spend(size + KEY_BYTES)
        if request.prev_kv:
            self._rpc.check(call, request.key, b"")
        self._rpc.submit(call, data, size, done)

    def _done(self, result: Result) -> bytes:
        return self._rpc.header_bytes(result.revision)

    def _put(self, result: Result) -> bytes:
        return self._rpc.header_bytes(result.revision) + told.put(result.value, True)

    def _done_json(self, result: Result) -> bytes:
        return json_short.put(self._rpc.header_json(result.revision), None)

    def _put_json(self, result: Result) -> bytes:
        return json_short.put(self._rpc.header_json(result.revision), told.before(result.value))

    def delete(self, call: Call, request: wire.DeleteRangeRequest, size: int) -> None:
        data = asked.delete(request)
        asked.sized(size, self._bytes_max)
        prev_kv = request.prev_kv
        if prev_kv:
            self._rpc.check(call, request.key, request.range_end)

        def done(result: Result) -> bytes:
            return self._rpc.header_bytes(result.revision) + told.deleted(result.value, prev_kv)

        self._rpc.submit(call, data, size, done)

    def txn(self, call: Call, request: wire.TxnRequest | brief.Brief, size: int) -> None:
        if isinstance(request, brief.Brief):
            self._brief(call, request, size)
            return
        known = asked.txn(request, self._ops_max)
        rpc, data = self._rpc, known.data
        for key, end in known.shown:
            rpc.check(call, key, end)

        def response(value: txns.TxnDone, revision: int) -> bytes:
            return rpc.header_bytes(revision) + told.txn(value, request, revision)

        if known.reads_only:
            local = known.serializable and bool(request.success or request.failure)
            rpc.read(call, local, lambda: response(self._looked(call, data), rpc.revs.revision))
            return
        asked.sized(size, self._bytes_max)
        if known.cost:
            rpc.spend(known.cost)
        rpc.submit(call, data, size, lambda result: response(result.value, result.revision))

    def _brief(self, call: Call, request: brief.Brief, size: int) -> None:
        if request.operations > self._ops_max:
            raise errors.TOO_MANY_OPS
        asked.sized(size, self._bytes_max)
        if request.cost:
            self._rpc.spend(request.cost)
        self._rpc.submit(call, request.data, size, self._txn)

    def _txn(self, result: Result) -> bytes:
        return self._rpc.header_bytes(result.revision) + told.txn(result.value, None, result.revision)

    def _looked(self, call: Call, data: says.Txn) -> txns.TxnDone:
        """A transaction that only reads, outside the log."""
        for key, end, kind in needs(self._rpc.leases, data):
            self._rpc.check(call, key, end, kind)
        return txns.run(txns.Writing(self._rpc.revs, self._rpc.leases), data)

    def compact(self, call: Call, request: pb.CompactionRequest, size: int) -> None:
        self._rpc.check_root(call)
        data = says.Compact(request.revision)
        self._rpc.submit(call, data, size, lambda result: self._rpc.head(pb.CompactionResponse(), result.revision))

    # -- streams ----------------------------------------------------------------------------------------------

    def range_stream(self, call: Call, request: wire.RangeRequest, _size: int) -> None:
        query = asked.query(request)
        if query.order == 2 or (query.order and query.by):
            raise V3Error(errors.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
        if query.min_mod or query.max_mod or query.min_create or query.max_create:
            raise V3Error(errors.UNIMPLEMENTED, "RangeStream does not support revision filters")
        # a target without an order is none here
        local = request.serializable
        self._rpc.run(call, self._stream(call, local, msgspec.structs.replace(query, order=0, by=0)))

    async def _stream(self, call: Call, local: bool, query: Query) -> None:
        """What lived at the first moment, page by page as the client takes it."""
        if not local:
            await self._rpc.linearizable()
        self._rpc.check(call, query.key, query.end)
        drained = asyncio.Event()
        call.on_drained = drained.set
        for message in _pages(self._rpc, query):
            call.send(message)
            await asyncio.sleep(0)
            while call.buffered() > CHUNK_BYTES:
                drained.clear()
                await drained.wait()


def _pages(rpc: Rpc, query: Query) -> Iterator[bytes]:
    """One range at the revision of the start. Holds the revisions found, not their copies. Raises V3Error."""
    revision = rpc.revs.revision
    found = ranged(rpc.revs, query, revision)
    chunk: list[Rev] = []
    size = 0
    for rev in found.kvs:
        chunk.append(rev)
        size += rev.size
        if len(chunk) == CHUNK_KEYS or size >= CHUNK_BYTES:
            yield wire.encode_range_stream_response(told.ranged(Ranged(chunk, 0), query))
            chunk, size = [], 0
    last = rpc.header_bytes(revision) + told.ranged(Ranged(chunk, found.count, found.more), query)
    yield wire.encode_range_stream_response(last)
