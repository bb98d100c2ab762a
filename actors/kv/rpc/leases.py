"""etcdserverpb.Lease. Keep-alives that come within one turn of the loop are one event; of many, within more turns."""

import asyncio
import math
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from actors.kv.commands import NotSent, OutcomeUnknown
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.service import LEASE_BYTES, Call, Method, Rpc, failed, outcome, parsed
from actors.kv.v3.auth import WRITE
from actors.kv.v3.errors import V3Error
from actors.kv.v3.store import Result
from streams.events import kv3 as says
from streams.events.base import Base64, say
from streams.replay import Applied

#: Renewals in one event.
RENEWALS_MAX = 4096
#: Events of several renewals are so far apart: an event costs 300 bytes of log, a renewal in it 11. One that comes
#: alone doesn't wait, nor does a client that asks for one after the other.
APART_S = 0.02
ID_BYTES = 8


class Clocks(Protocol):
    """What is left of leases, as counted on this machine."""

    def left_s(self, lease: int) -> float: ...


Renewed = Callable[[int, int], None]  # (TTL, revision)


class Leases:
    def __init__(self, rpc: Rpc, clocks: Clocks) -> None:
        self.rpc, self._clocks = rpc, clocks
        self._renewals: dict[int, list[tuple[Call, Renewed]]] = {}
        self._principals: set[str] = set()
        self._scheduled = False
        self._shared_s = -math.inf

    def methods(self) -> Iterator[Method]:
        lease = "/etcdserverpb.Lease/"
        yield Method(lease + "LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse, self.grant)
        yield Method(lease + "LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse, self.revoke)
        yield Method(
            lease + "LeaseKeepAlive",
            pb.LeaseKeepAliveRequest,
            pb.LeaseKeepAliveResponse,
            self.keep_alive,
            asks_many=True,
            answers_many=True,
        )
        yield Method(
            lease + "LeaseTimeToLive", pb.LeaseTimeToLiveRequest, pb.LeaseTimeToLiveResponse, self.time_to_live
        )
        yield Method(lease + "LeaseLeases", pb.LeaseLeasesRequest, pb.LeaseLeasesResponse, self.all)

    def grant(self, call: Call, request: pb.LeaseGrantRequest, size: int) -> None:
        self.rpc.check_user(call)
        self.rpc.spend(LEASE_BYTES)
        lease = request.ID
        while not lease or (not request.ID and lease in self.rpc.leases.by_id):
            lease = secrets.randbits(63)

        def done(result: Result) -> pb.LeaseGrantResponse:
            made = result.value
            return self.rpc.head(pb.LeaseGrantResponse(ID=made.id, TTL=made.ttl_s), result.revision)

        self.rpc.submit(call, says.LeaseGrant(lease, request.TTL), size, done)

    def revoke(self, call: Call, request: pb.LeaseRevokeRequest, size: int) -> None:
        self.rpc.check_user(call)

        def done(result: Result) -> pb.LeaseRevokeResponse:
            return self.rpc.head(pb.LeaseRevokeResponse(), result.revision)

        self.rpc.submit(call, says.LeaseRevoke(request.ID), size, done)

    def time_to_live(self, call: Call, request: pb.LeaseTimeToLiveRequest, _size: int) -> None:
        def answer() -> pb.LeaseTimeToLiveResponse:
            self.rpc.check_user(call)
            response = self.rpc.head(pb.LeaseTimeToLiveResponse(ID=request.ID))
            found = self.rpc.leases.by_id.get(request.ID)
            if found is None:
                response.TTL = -1
            else:
                response.TTL, response.grantedTTL = int(max(0, self._clocks.left_s(found.id))), found.ttl_s
                if request.keys:
                    self.rpc.check_keys(call, found.keys)
                    response.keys.extend(sorted(found.keys))
            return response

        self.rpc.read(call, False, answer)

    def all(self, call: Call, _request: pb.LeaseLeasesRequest, _size: int) -> None:
        """Those that end first come first. For who may read all of their keys, as in etcd since 3.7."""

        def answer() -> pb.LeaseLeasesResponse:
            self.rpc.check_user(call)
            self.rpc.check_keys(call, (key for lease in self.rpc.leases.by_id.values() for key in lease.keys))
            response = self.rpc.head(pb.LeaseLeasesResponse())
            for lease in sorted(self.rpc.leases.by_id, key=self._clocks.left_s):
                response.leases.add(ID=lease)
            return response

        self.rpc.read(call, False, answer)

    # -- keep-alive -------------------------------------------------------------------------------------------

    def keep_alive(self, call: Call) -> None:
        _KeepAlive(call, self)

    def renew(self, call: Call, lease: int, told: Renewed) -> None:
        """Raises INVALID_TOKEN. ``told(TTL, revision)`` when it is applied: 0 of a lease that isn't there."""
        self._principals.add(self.rpc.principal(call))
        self._renewals.setdefault(lease, []).append((call, told))
        if not self._scheduled:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            wait_s = self._shared_s + APART_S - loop.time()
            if wait_s > 0:
                loop.call_later(wait_s, self._flush)
            else:
                loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        renewals, self._renewals = self._renewals, {}
        if len(renewals) > 1:
            self._shared_s = asyncio.get_running_loop().time()
        principals, self._principals = self._principals, set()
        principal = principals.pop() if len(principals) == 1 else f"machine:{self.rpc.setting.machine}"
        ids = list(renewals)
        for at in range(0, len(ids), RENEWALS_MAX):
            some = ids[at : at + RENEWALS_MAX]
            raw = b"".join(lease.to_bytes(ID_BYTES, "big", signed=True) for lease in some)
            waiting = {lease: renewals[lease] for lease in some}
            event = say(says.LeasesRenew(Base64(raw)), principal=principal)
            self.rpc.commands.submit(event, 200 + 11 * len(some), partial(self._renewed, waiting))

    def _renewed(
        self, waiting: dict[int, list[tuple[Call, Renewed]]], result: Applied | NotSent | OutcomeUnknown
    ) -> None:
        try:
            came_to = outcome(result)
        except V3Error as error:
            for calls in waiting.values():
                for call, _ in calls:
                    call.finish(error.code, error.message)
            return
        for lease, calls in waiting.items():
            for call, told in calls:
                try:
                    told(came_to.value.get(lease, 0), came_to.revision)
                except Exception:
                    failed(call)


class _KeepAlive:
    """One stream: an answer for each message, in their order."""

    def __init__(self, call: Call, leases: Leases) -> None:
        self._call, self._leases = call, leases
        self._pending = 0
        self._ended = False
        call.on_message, call.on_end = self._message, self._end

    def _message(self, raw: bytes) -> None:
        request = parsed(self._call, pb.LeaseKeepAliveRequest, raw)
        if request is None:
            return
        try:
            rpc = self._leases.rpc
            rpc.check_user(self._call)
            if (found := rpc.leases.by_id.get(request.ID)) is not None:
                rpc.check_keys(self._call, found.keys, WRITE)
        except V3Error as error:
            self._call.finish(error.code, error.message)
            return
        self._pending += 1
        self._leases.renew(self._call, request.ID, partial(self._told, request.ID))

    def _told(self, lease: int, ttl_s: int, revision: int) -> None:
        response = self._leases.rpc.head(pb.LeaseKeepAliveResponse(ID=lease, TTL=ttl_s), revision)
        self._pending -= 1
        self._call.send(response.SerializeToString())
        self._end_if_done()

    def _end(self) -> None:
        self._ended = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._ended and not self._pending:
            self._call.finish()
