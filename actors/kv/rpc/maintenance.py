"""etcdserverpb.Maintenance and Cluster, grpc.health.v1: what the replica and its machines are."""

import asyncio
from collections.abc import Iterator
from typing import Any

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import health_pb2 as health
from actors.kv.rpc.service import Call, Method, Rpc, member_id
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.hashes import hash_kv
from actors.kv.v3.store import Result
from streams.events import kv3 as says

#: The v3 interface that is spoken here, told everywhere: Kubernetes wants 3.5.13 at least.
VERSION, CLUSTER_VERSION = "3.5.35", "3.5.0"
#: As coordinated elsewhere; said to who asks etcd's way.
_MEMBERS_CHANGE = "machines join by starting a node on the same log and are removed with `corelog machine remove`"


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
        cluster = "/etcdserverpb.Cluster/"
        yield Method(cluster + "MemberList", pb.MemberListRequest, pb.MemberListResponse, self.members)
        for name, asked, told in (
            ("MemberAdd", pb.MemberAddRequest, pb.MemberAddResponse),
            ("MemberRemove", pb.MemberRemoveRequest, pb.MemberRemoveResponse),
            ("MemberUpdate", pb.MemberUpdateRequest, pb.MemberUpdateResponse),
            ("MemberPromote", pb.MemberPromoteRequest, pb.MemberPromoteResponse),
        ):
            yield Method(cluster + name, asked, told, self.change_members)
        checked = (health.HealthCheckRequest, health.HealthCheckResponse)
        yield Method("/grpc.health.v1.Health/Check", *checked, self.check)

    # -- maintenance ------------------------------------------------------------------------------------------

    def status(self, call: Call, _request: pb.StatusRequest, _size: int) -> None:
        rpc = self._rpc
        election, offset = rpc.fold.cluster.election, max(0, rpc.shell.host.replica.offset)
        response = rpc.head(pb.StatusResponse())
        response.version, response.storageVersion = VERSION, CLUSTER_VERSION
        response.dbSize = response.dbSizeInUse = rpc.revs.size
        response.downgradeInfo.SetInParent()
        response.leader = member_id(election.holder)
        response.raftIndex = response.raftAppliedIndex = offset
        response.raftTerm = election.term
        if rpc.leaderless():
            response.errors.append(errors.NO_LEADER.message)
        for kind, member in rpc.fold.v3.alarms:
            response.errors.append(f"memberID:{member} alarm:{pb.AlarmType.Name(pb.AlarmType.ValueType(kind))} ")
        call.reply(response.SerializeToString())

    def alarm(self, call: Call, request: pb.AlarmRequest, size: int) -> None:
        rpc, kind = self._rpc, request.alarm
        rpc.check_user(call)

        def answer(alarms: list[tuple[int, int]], revision: int | None = None) -> pb.AlarmResponse:
            response = rpc.head(pb.AlarmResponse(), revision)
            for alarm, member in alarms:
                response.alarms.add(memberID=member, alarm=pb.AlarmType.ValueType(alarm))
            return response

        def done(result: Result) -> pb.AlarmResponse:
            return answer(result.value, result.revision)

        if request.action == pb.AlarmRequest.GET:
            shown = [one for one in rpc.fold.v3.alarms if kind in (pb.NONE, one[0])]
            rpc.read(call, False, lambda: answer(shown))
        elif request.action == pb.AlarmRequest.ACTIVATE and kind != pb.NONE:
            rpc.submit(call, says.Alarm(kind, request.memberID), size, done)
        elif request.action == pb.AlarmRequest.DEACTIVATE and kind != pb.NONE:
            rpc.submit(call, says.Alarm(kind, request.memberID, on=False), size, done)
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
            response = self._rpc.head(pb.HashKVResponse())
            response.compact_revision = self._rpc.revs.compacted
            response.hash_revision = upto
            response.hash = await self._hash(upto)
            return response

        self._rpc.run(call, hashed())

    async def _hash(self, revision: int) -> int:
        number = 0
        for number in hash_kv(self._rpc.revs, revision):  # noqa: B007 - the last one counts
            await asyncio.sleep(0)
        return number

    def move_leader(self, call: Call, request: pb.MoveLeaderRequest, _size: int) -> None:
        """Nobody is made the master by a third one's word: the master hands over when its machine is drained."""
        rpc = self._rpc
        rpc.check_root(call)
        holder = rpc.fold.cluster.election.holder
        if holder != rpc.setting.machine:
            raise errors.NOT_LEADER
        if request.targetID != member_id(holder):
            raise errors.BAD_LEADER_TRANSFEREE
        call.reply(rpc.head(pb.MoveLeaderResponse()).SerializeToString())

    # -- members ----------------------------------------------------------------------------------------------

    def members(self, call: Call, request: pb.MemberListRequest, _size: int) -> None:
        def answer() -> pb.MemberListResponse:
            response = self._rpc.head(pb.MemberListResponse(), 0)  # this service's headers have no revision
            for machine, member in self._rpc.fold.cluster.members.items():
                if member.control:
                    # what members have for each other is the log; where one answers stands for its peer's URL
                    urls = member.clients
                    response.members.add(ID=member_id(machine), name=member.name, peerURLs=urls, clientURLs=urls)
            return response

        self._rpc.read(call, not request.linearizable, answer)

    def change_members(self, call: Call, request: Any, _size: int) -> None:
        """Members come and go with their machines, not by this interface."""
        self._rpc.check_root(call)
        if not isinstance(request, pb.MemberAddRequest):
            members = self._rpc.fold.cluster.members
            if not any(member_id(machine) == request.ID for machine, one in members.items() if one.control):
                raise errors.MEMBER_NOT_FOUND
            if isinstance(request, pb.MemberPromoteRequest):
                raise V3Error(errors.FAILED, "etcdserver: can only promote a learner member")
        raise V3Error(errors.FAILED, f"corelog: {_MEMBERS_CHANGE}")

    # -- health -----------------------------------------------------------------------------------------------

    def check(self, call: Call, request: health.HealthCheckRequest, _size: int) -> None:
        if request.service not in ("", "etcdserverpb.KV"):
            raise V3Error(errors.NOT_FOUND, "unknown service")
        serving = health.HealthCheckResponse.NOT_SERVING if self._rpc.leaderless() else _SERVING
        call.reply(health.HealthCheckResponse(status=serving).SerializeToString())


_SERVING = health.HealthCheckResponse.SERVING
