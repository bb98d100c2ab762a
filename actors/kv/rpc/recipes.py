"""v3lockpb.Lock and v3electionpb.Election: what etcd's client library does with keys and leases, done at the server.

A name's queue is the keys ``name/<lease in hex>`` in the order of their creation; the first is the owner (the model is
etcd's client/v3/concurrency, of which clients of both kinds may stand in one queue).
"""

import asyncio
import secrets
from collections.abc import Coroutine, Iterator
from typing import Any

from actors.kv.proto import election_pb2 as election
from actors.kv.proto import lock_pb2 as lock
from actors.kv.rpc import told, watching
from actors.kv.rpc.service import Call, Method, Rpc
from actors.kv.rpc.watches import Watches
from actors.kv.rpc.watching import Watcher
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.revs import Rev
from actors.kv.v3.store import Result
from streams.events import kv3 as says
from streams.events.base import carried

#: TTL of a lease that nobody brought.
SESSION_TTL_S = 60
SESSION_EXPIRED = V3Error(errors.UNKNOWN, "mutex: session is expired")
NOT_LEADER = V3Error(errors.UNKNOWN, "election: not leader")
NO_LEADER = V3Error(errors.UNKNOWN, "election: no leader")
NO_KEY_OF_LEADER = V3Error(errors.UNKNOWN, '"leader" field must be provided')


class Recipes:
    def __init__(self, rpc: Rpc, watches: Watches) -> None:
        self._rpc, self._watches = rpc, watches

    def methods(self) -> Iterator[Method]:
        yield Method("/v3lockpb.Lock/Lock", lock.LockRequest, lock.LockResponse, self._served(self._lock), waits=True)
        yield Method("/v3lockpb.Lock/Unlock", lock.UnlockRequest, lock.UnlockResponse, self._served(self._unlock))
        here = "/v3electionpb.Election/"
        asked, answered = election.CampaignRequest, election.CampaignResponse
        yield Method(here + "Campaign", asked, answered, self._served(self._campaign), waits=True)
        yield Method(
            here + "Proclaim", election.ProclaimRequest, election.ProclaimResponse, self._served(self._proclaim)
        )
        yield Method(here + "Leader", election.LeaderRequest, election.LeaderResponse, self._served(self._leader))
        yield Method(here + "Resign", election.ResignRequest, election.ResignResponse, self._served(self._resign))
        observed = (election.LeaderRequest, election.LeaderResponse)
        yield Method(here + "Observe", *observed, self._served(self._observe), answers_many=True)

    def _served(self, work: Any) -> Any:
        return lambda call, request, _size: self._rpc.run(call, _told_by_a_client(work(call, request)))

    # -- locks ------------------------------------------------------------------------------------------------

    async def _lock(self, call: Call, request: lock.LockRequest) -> lock.LockResponse:
        queue = request.name + b"/"
        self._readable(call, request.name)
        key, made = await self._stand_in(call, queue, request.lease, b"")
        try:
            await self._ahead_gone(queue, made.create)
        except asyncio.CancelledError:
            # nobody waits any more; what the log does of it isn't waited for either
            self._leave(call, key)
            raise
        if self._rpc.revs.at(key, self._rpc.revs.revision) is None:
            raise SESSION_EXPIRED
        return self._rpc.head(lock.LockResponse(key=key))

    async def _unlock(self, call: Call, request: lock.UnlockRequest) -> lock.UnlockResponse:
        if not request.key:
            raise errors.EMPTY_KEY
        result = await self._say(call, says.Delete(carried(request.key)))
        return self._rpc.head(lock.UnlockResponse(), result.revision)

    # -- elections --------------------------------------------------------------------------------------------

    async def _campaign(self, call: Call, request: election.CampaignRequest) -> election.CampaignResponse:
        queue = request.name + b"/"
        key, made = await self._stand_in(call, queue, request.lease, request.value)
        self._readable(call, request.name)
        leader = election.LeaderKey(name=request.name, key=key, rev=made.create, lease=made.lease)
        try:
            if made.value != request.value:
                await self._write(call, leader, request.value)
            await self._ahead_gone(queue, made.create)
        except asyncio.CancelledError:
            self._leave(call, key)
            raise
        return self._rpc.head(election.CampaignResponse(leader=leader))

    async def _proclaim(self, call: Call, request: election.ProclaimRequest) -> election.ProclaimResponse:
        result = await self._write(call, _leader_of(request), request.value)
        return self._rpc.head(election.ProclaimResponse(), result.revision)

    async def _write(self, call: Call, leader: election.LeaderKey, value: bytes) -> Result:
        """Raises NOT_LEADER: the key isn't the one that was campaigned with."""
        if not leader.key:
            raise errors.EMPTY_KEY
        lease = await self._session(call, leader.lease)
        put = says.OpPut(carried(leader.key), carried(value), lease)
        result = await self._say(call, says.Txn([_is(leader.key, leader.rev)], [put]))
        if not result.value.succeeded:
            raise NOT_LEADER
        return result

    async def _leader(self, call: Call, request: election.LeaderRequest) -> election.LeaderResponse:
        await self._rpc.linearizable()
        self._readable(call, request.name)
        first = self._first(request.name + b"/")
        if first is None:
            raise NO_LEADER
        return self._told(first)

    async def _resign(self, call: Call, request: election.ResignRequest) -> election.ResignResponse:
        leader = _leader_of(request)
        if not leader.key:
            raise errors.EMPTY_KEY
        delete = says.OpDelete(carried(leader.key))
        result = await self._say(call, says.Txn([_is(leader.key, leader.rev)], [delete]))
        return self._rpc.head(election.ResignResponse(), result.revision)

    async def _observe(self, call: Call, request: election.LeaderRequest) -> None:
        """Each leader, and each of its proclamations, until the client leaves. Those in between may be missed."""
        await self._rpc.linearizable()
        self._readable(call, request.name)
        queue, shown = request.name + b"/", 0
        while True:
            first = self._first(queue)
            if first is not None and first.mod != shown:
                shown = first.mod
                call.send(self._told(first).SerializeToString())
            await self._change(queue)

    def _readable(self, call: Call, name: bytes) -> None:
        """Raises V3Error."""
        self._rpc.check(call, name + b"/", watching.behind(name + b"/"))

    def _told(self, first: Rev) -> election.LeaderResponse:
        response = self._rpc.head(election.LeaderResponse())
        told.into(first, response.kv)
        return response

    # -- queues -----------------------------------------------------------------------------------------------

    async def _stand_in(self, call: Call, queue: bytes, lease: int, value: bytes) -> tuple[bytes, Rev]:
        """The key in the queue, which may have stood there before, and what it is. Raises V3Error."""
        lease = await self._session(call, lease)
        key = queue + b"%x" % lease
        put = says.OpPut(carried(key), carried(value), lease)
        result = await self._say(call, says.Txn([_is(key, 0)], [put], [says.OpRange(carried(key))]))
        (done,) = result.value.results
        return key, done if result.value.succeeded else done.kvs[0]

    async def _session(self, call: Call, lease: int) -> int:
        """The lease of who asks, a new one if it has none. Raises V3Error."""
        if lease:
            return lease
        self._rpc.check_user(call)
        granted = await self._say(call, says.LeaseGrant(secrets.randbits(62) + 1, SESSION_TTL_S))
        made: int = granted.value.id
        return made

    async def _ahead_gone(self, queue: bytes, created: int) -> None:
        """Wait until nobody stands ahead of who came at ``created``."""
        while True:
            ahead = [rev for rev in self._standing(queue) if rev.create < created]
            if not ahead:
                return
            await self._change(max(ahead, key=lambda rev: rev.create).key, one=True)

    def _standing(self, queue: bytes) -> Iterator[Rev]:
        revs = self._rpc.revs
        return (revs.newest[key] for key in revs.keys(queue, watching.behind(queue), old=False))

    def _first(self, queue: bytes) -> Rev | None:
        return min(self._standing(queue), key=lambda rev: rev.create, default=None)

    async def _change(self, key: bytes, one: bool = False) -> None:
        """Wait for a change at ``key``, or of those that begin with it."""
        self._watches.applied()
        waiter = _Waiter()
        watcher = Watcher(0, key, None if one else watching.behind(key), self._rpc.revs.revision + 1, waiter)
        self._watches.index.add(watcher)
        try:
            await waiter.told
        finally:
            self._watches.index.remove(watcher)

    async def _say(self, call: Call, data: Any) -> Result:
        return await self._rpc.command(call, data, 1000)

    def _leave(self, call: Call, key: bytes) -> None:
        self._rpc.tell(call, says.Delete(carried(key)))


async def _told_by_a_client(work: Coroutine[Any, Any, Any]) -> Any:
    """What ``work`` gives. In etcd a client within the server does it, of whose errors only the words are told."""
    try:
        return await work
    except V3Error as error:
        raise V3Error(errors.UNKNOWN, error.message) from None


def _leader_of(request: election.ProclaimRequest | election.ResignRequest) -> election.LeaderKey:
    """Raises NO_KEY_OF_LEADER."""
    if not request.HasField("leader"):
        raise NO_KEY_OF_LEADER
    return request.leader


class _Waiter:
    """Stands for a stream in the index, and hears of one change."""

    def __init__(self) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(self, *_: object) -> None:
        if not self.told.done():
            self.told.set_result(None)


def _is(key: bytes, created: int) -> says.Compare:
    return says.Compare(carried(key), target=1, result=0, operand=created)
