"""All of etcd's v3 services of one replica, by path."""

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Any

from actors.kv.commands import Commands, Reads
from actors.kv.http2.request import Methods
from actors.kv.rpc.downgrade import Downgrades
from actors.kv.rpc.handlers import OF_LEARNERS, deferred, in_json, unary
from actors.kv.rpc.keys import Keys
from actors.kv.rpc.leases import Clocks, Leases
from actors.kv.rpc.maintenance import Maintenance
from actors.kv.rpc.members import Members
from actors.kv.rpc.recipes import Recipes
from actors.kv.rpc.reflection import Reflection
from actors.kv.rpc.service import Call, Method, Rpc
from actors.kv.rpc.snapshots import Snapshots
from actors.kv.rpc.users import Users
from actors.kv.rpc.watches import Watches
from actors.kv.state import KvFold
from actors.kv.v3 import errors
from actors.kv.v3.revs import Reach
from actors.setting import Setting
from actors.shell import Shell

#: Between two steps of giving memory back (a segment of the history each, about a millisecond).
SWEEP_S = 0.01
#: Memory of compacted prefixes waits, so that one pass over the history serves several of them.
PREFIXES_S = 5.0


class V3:
    """``methods`` by path; ``http2`` is them as HTTP/2 takes them. ``applied`` wants to know of each batch."""

    def __init__(
        self, shell: Shell, fold: KvFold, commands: Commands, reads: Reads, setting: Setting, clocks: Clocks
    ) -> None:
        self._rpc = Rpc(shell, fold, commands, reads, setting)
        self.watches = Watches(self._rpc)
        self._compacted: Reach = (-1, None)
        self._sweeper: asyncio.TimerHandle | None = None
        self.methods: dict[str, Method] = {}
        #: by path: who takes a request that was read already, and answers in JSON
        self.in_json: dict[str, Callable[[Call, Any, int], None]] = {}
        self.http2 = Methods(timed=setting.etcd.metrics == "extensive")
        self.rates = self._rpc.rates
        self._rpc.saw_members()
        rpc, watches = self._rpc, self.watches
        services = (
            Keys(rpc),
            watches,
            Leases(rpc, clocks),
            Maintenance(rpc),
            Downgrades(rpc),
            Members(rpc),
            Snapshots(rpc),
            Users(rpc),
            Recipes(rpc, watches),
        )
        for method in chain.from_iterable(service.methods() for service in services):
            self._add(method)
        for method in Reflection(self.methods.values()).methods():
            self._add(method)

    def _add(self, method: Method) -> None:
        path = method.path.encode()
        self.methods[method.path] = method
        if method.asks_many:
            self.http2.streaming[path] = self._streaming(method)
        else:
            self.http2.unary[path] = unary(method, self._rpc)
            if (short := in_json(method, self._rpc)) is not None:
                self.in_json[method.path] = short

    def _streaming(self, method: Method) -> Callable[[Call], None]:
        if method.path in OF_LEARNERS or method.path.startswith("/grpc."):
            return method.serve

        def serve(call: Call) -> None:
            if self._rpc.learner:
                call.finish(errors.NOT_FOR_LEARNERS.code, errors.NOT_FOR_LEARNERS.message)
            elif self._rpc.lacks_token(call):
                deferred(call, method.serve, self._rpc)
            else:
                method.serve(call)

        return serve

    @property
    def is_watched(self) -> bool:
        """Whether somebody here waits for what comes."""
        return bool(self.watches.streams or self.watches.index.count)

    def applied(self) -> None:
        self._rpc.saw_members()
        self._rpc.saw_tokens()
        self.watches.applied()
        self.rates.applied()
        revs = self._rpc.revs
        if revs.compacted != self._compacted[0]:
            self._compacted = (revs.compacted, revs.floors)
            self._sweep_soon()
        elif revs.floors is not self._compacted[1]:
            self._compacted = (revs.compacted, revs.floors)
            self._sweep_soon(PREFIXES_S)

    def close(self) -> None:
        self._rpc.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep_soon(self, wait_s: float = SWEEP_S) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(wait_s, self._sweep)

    def _sweep(self) -> None:
        """Give back memory of what was compacted, a little at a time."""
        self._sweeper = None
        if self._rpc.revs.sweep():
            self._sweep_soon()
