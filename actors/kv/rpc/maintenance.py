"""etcdserverpb.Maintenance, grpc.health.v1: what the replica is."""

import asyncio
from collections.abc import Iterator

from actors.coordination import membership
from actors.kv.commands import TIMEOUT_S
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import health_pb2 as health
from actors.kv.rpc.service import Call, Method, Rpc, void
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.hashes import hash_kv
from actors.kv.v3.store import Result
from streams.events import kv3 as says
from streams.events.base import say
from streams.events.cluster import MasterAsked

#: The v3 interface that is spoken here, told everywhere: Kubernetes wants 3.5.13 at least.
VERSION, CLUSTER_VERSION = "3.5.35", "3.5.0"
#: What an empty store is said to take, as etcd's file does: etcdctl 3.7 divides by it.
EMPTY_BYTES = 20_480
#: How often a transfer looks whether the other one holds the term.
LOOK_S = 0.02


class Maintenance:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def methods(self) -> Iterator[Method]:
        here = "/etcdserverpb.Maintenance/"
        yield Method(here + "Alarm", pb.AlarmRequest, pb.AlarmResponse, self.alarm)
        yield Method(here + "Status", pb.StatusRequest, pb.StatusResponse, self.status)
        yield Method(here + "Defragment", pb.DefragmentRequest, pb.DefragmentResponse, self.defragment)
        yield Method(here + "Hash", pb.HashRequest, pb.HashResponse, self.hash)
        yield Method(here + "HashKV", pb.HashKVRequest, pb.HashKVResponse, self.hash_kv)
        yield Method(here + "MoveLeader", pb.MoveLeaderRequest, pb.MoveLeaderResponse, self.move_leader)
        checked = (health.HealthCheckRequest, health.HealthCheckResponse)
        yield Method("/grpc.health.v1.Health/Check", *checked, self.check)

    # -- maintenance ------------------------------------------------------------------------------------------

    def status(self, call: Call, _request: pb.StatusRequest, _size: int) -> None:
        rpc = self._rpc
        if not call.connection.trusted:
            rpc.check_user(call)
        election, offset = rpc.fold.cluster.election, max(0, rpc.shell.host.replica.offset)
        response = rpc.head(pb.StatusResponse())
        response.version, response.storageVersion = VERSION, CLUSTER_VERSION
        response.dbSize = response.dbSizeInUse = EMPTY_BYTES + rpc.revs.size
        response.dbSizeQuota = rpc.quota_bytes
        response.downgradeInfo.enabled = bool(rpc.fold.v3.downgrade)
        response.downgradeInfo.targetVersion = rpc.fold.v3.downgrade
        response.leader = rpc.member(election.holder)
        response.isLearner = rpc.learner
        response.raftIndex = response.raftAppliedIndex = offset
        response.raftTerm = election.term
        if rpc.leaderless():
            response.errors.append(errors.NO_LEADER.message)
        for kind, member in rpc.fold.v3.alarms:
            name = next((name for name, number in pb.AlarmType.items() if number == kind), str(kind))
            response.errors.append(f"memberID:{member} alarm:{name} ")
        call.reply(response.SerializeToString())

    def alarm(self, call: Call, request: pb.AlarmRequest, size: int) -> None:
        rpc, kind = self._rpc, request.alarm
        if request.action == pb.AlarmRequest.GET:
            rpc.check_user(call)
        else:
            rpc.check_root(call)

        def answer(alarms: list[tuple[int, int]], revision: int | None = None) -> pb.AlarmResponse:
            response = rpc.head(pb.AlarmResponse(), revision)
            for alarm, member in alarms:
                response.alarms.add(memberID=member, alarm=pb.AlarmType.ValueType(alarm))
            return response

        def done(result: Result) -> pb.AlarmResponse:
            return answer(result.value, result.revision)

        if request.action == pb.AlarmRequest.GET:
            rpc.read(call, False, lambda: answer([one for one in rpc.fold.v3.alarms if kind in (pb.NONE, one[0])]))
        elif request.action == pb.AlarmRequest.ACTIVATE and kind != pb.NONE:
            rpc.submit(call, says.Alarm(kind, request.memberID), size, done)
        elif request.action == pb.AlarmRequest.DEACTIVATE and kind != pb.NONE:
            rpc.submit(call, says.Alarm(kind, request.memberID, on=False, exact=True), size, done)
        else:
            call.reply(answer([]).SerializeToString())

    def defragment(self, call: Call, _request: pb.DefragmentRequest, _size: int) -> None:
        """Memory of what was compacted comes back by itself, in steps; this only asks to be quick about it."""
        self._rpc.check_root(call)

        async def swept() -> pb.DefragmentResponse:
            while self._rpc.revs.sweep():
                await asyncio.sleep(0)
            return pb.DefragmentResponse()  # without a header, as etcd's

        self._rpc.run(call, swept())

    def hash(self, call: Call, _request: pb.HashRequest, _size: int) -> None:
        self._rpc.check_root(call)

        async def hashed() -> pb.HashResponse:
            return self._rpc.head(pb.HashResponse(hash=await self._hash(0)))

        self._rpc.run(call, hashed())

    def hash_kv(self, call: Call, request: pb.HashKVRequest, _size: int) -> None:
        self._rpc.check_root(call)

        async def hashed() -> pb.HashKVResponse:
            upto = request.revision or self._rpc.revs.revision
            number = await self._hash(upto)
            response = self._rpc.head(pb.HashKVResponse(hash=number, hash_revision=upto))
            response.compact_revision = self._rpc.revs.compacted
            return response

        self._rpc.run(call, hashed())

    async def _hash(self, revision: int) -> int:
        number = 0
        for number in hash_kv(self._rpc.revs, revision):  # noqa: B007 - the last one counts
            await asyncio.sleep(0)
        return number

    def move_leader(self, call: Call, request: pb.MoveLeaderRequest, _size: int) -> None:
        """The master resigns in favour of the member named; answered when that one holds the term."""
        rpc = self._rpc
        rpc.check_root(call)
        cluster = rpc.fold.cluster
        if cluster.election.holder != rpc.setting.machine:
            raise errors.NOT_LEADER
        members = [name for name in cluster.controls if membership.votes(cluster.membership, name)]
        alive = [name for name in members if cluster.members[name].alive]
        target = next((machine for machine in alive if rpc.member(machine) == request.targetID), "")
        if not target:
            raise errors.BAD_LEADER_TRANSFEREE
        rpc.run(call, self._moved(call, target))

    async def _moved(self, call: Call, target: str) -> pb.MoveLeaderResponse:
        rpc = self._rpc
        if target != rpc.setting.machine:
            event = say(MasterAsked(), subject=target, principal=rpc.principal(call))
            rpc.commands.submit(event, 200, void)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + TIMEOUT_S
        while rpc.fold.cluster.election.holder != target:
            if loop.time() > until_s:
                raise errors.TRANSFER_TIMEOUT
            await asyncio.sleep(LOOK_S)
        return rpc.head(pb.MoveLeaderResponse())

    # -- health -----------------------------------------------------------------------------------------------

    def check(self, call: Call, request: health.HealthCheckRequest, _size: int) -> None:
        if request.service not in ("", "etcdserverpb.KV"):
            raise V3Error(errors.NOT_FOUND, "unknown service")
        serving = health.HealthCheckResponse.NOT_SERVING if self._rpc.leaderless() else _SERVING
        call.reply(health.HealthCheckResponse(status=serving).SerializeToString())


_SERVING = health.HealthCheckResponse.SERVING
