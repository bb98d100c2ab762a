"""Maintenance.Snapshot: the store as etcd's snapshot file, piece by piece as the client takes it."""

import asyncio
import time
from collections.abc import Iterator

from actors.kv.bolt.snapshot import Writing
from actors.kv.proto import auth_pb2
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.maintenance import VERSION
from actors.kv.rpc.service import Call, Method, Rpc
from actors.kv.v3.auth import Auth

#: Bytes of one message, and of what may wait for the client.
PIECE_BYTES, AHEAD_BYTES = 32 * 1024, 1024 * 1024
#: Others get their turn after so long, and if one of them used it, the snapshot rests, for more are likely. Who puts
#: meanwhile waits no longer than for the disk then, and a million keys take ten seconds instead of four.
SLICE_S, REST_S = 0.0005, 0.003
#: A turn of the loop that took no longer served nobody else.
IDLE_TURN_S = 0.0001
Raw = tuple[bytes, bytes, bytes]


class Snapshots:
    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def methods(self) -> Iterator[Method]:
        path = "/etcdserverpb.Maintenance/Snapshot"
        yield Method(path, pb.SnapshotRequest, pb.SnapshotResponse, self.snapshot, answers_many=True)

    def snapshot(self, call: Call, _request: pb.SnapshotRequest, _size: int) -> None:
        self._rpc.check_root(call)
        self._rpc.run(call, self._stream(call))

    async def _stream(self, call: Call) -> None:
        """What is in the store at one moment, soon after the call; changes after it aren't."""
        rpc, drained = self._rpc, asyncio.Event()
        call.on_drained = drained.set
        # what is swept needs no look at each revision, which would hold up others; once around, for compactions go on
        for _ in range(len(rpc.revs.segments) + 1):
            if not rpc.revs.sweep():
                break
            await _others_turn()
        store, revision = rpc.fold.v3, rpc.revs.revision
        index = max(1, rpc.shell.host.replica.offset)
        writing = Writing(store, index, max(1, rpc.fold.cluster.election.term), auth_rows(store.auth))
        for _ in writing.plan():
            await _others_turn()
        left, turn_s = writing.size, time.perf_counter()
        for chunk in writing.chunks():
            for at in range(0, len(chunk), PIECE_BYTES):
                piece = chunk[at : at + PIECE_BYTES]
                left -= len(piece)
                message = pb.SnapshotResponse(remaining_bytes=left, blob=piece, version=VERSION)
                call.send(rpc.head(message, revision).SerializeToString())
                while call.buffered() > AHEAD_BYTES:
                    drained.clear()
                    await drained.wait()
            if time.perf_counter() - turn_s >= SLICE_S:
                await _others_turn()
                turn_s = time.perf_counter()


async def _others_turn() -> None:
    """A turn of the loop, and a rest if somebody was served in it."""
    began_s = time.perf_counter()
    await asyncio.sleep(0)
    if time.perf_counter() - began_s > IDLE_TURN_S:
        await asyncio.sleep(REST_S)


def auth_rows(auth: Auth) -> Iterator[Raw]:
    """Users and roles as they stand in etcd's buckets. Tokens aren't there."""
    yield b"auth", b"authEnabled", bytes((auth.enabled,))
    yield b"auth", b"authRevision", auth.revision.to_bytes(8, "big")
    for user in auth.users.values():
        made = auth_pb2.User(name=user.name.encode(), password=user.hash.encode(), roles=user.roles)
        made.options.no_password = not user.hash
        yield b"authUsers", made.name, made.SerializeToString()
    for name, permissions in auth.roles.items():
        role = auth_pb2.Role(name=name.encode())
        for one in permissions:
            kind = auth_pb2.Permission.Type.ValueType(one.kind)
            role.keyPermission.add(permType=kind, key=one.key, range_end=one.end)
        yield b"authRoles", role.name, role.SerializeToString()
