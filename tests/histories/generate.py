"""Good histories, made by simulated clients of the dumb store; what is planted in them must be found."""

import heapq
import random
from collections.abc import Callable
from itertools import count
from math import inf

import msgspec

from tests.histories import ops as say
from tests.histories.ops import FIRST, Alive, Changes, Event, Op, Request, Result
from tests.histories.store import Store
from tests.histories.watches import Message, Session, Watch

KEYS = [b"k%d" % number for number in range(8)]
THINK_S, TRAVEL_S, LATE_S = 0.02, 0.01, 3.0


class Made(msgspec.Struct):
    """``ops`` by the time they were asked."""

    ops: list[Op]
    changes: Changes


class World:
    """One store, clients that ask one thing after another, and time that jumps from step to step."""

    def __init__(self, seed: int, unknown: float = 0.05) -> None:
        self.random = random.Random(seed)
        self.store = Store()
        self.ops: list[Op] = []
        self.changes: Changes = []
        self._steps: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._values = count(1)
        self._unknown = unknown
        self._due_s: dict[int, float] = {}
        self._ttl_s: dict[int, int] = {}

    def at(self, time_s: float, step: Callable[[float], None]) -> None:
        heapq.heappush(self._steps, (time_s, next(self._order), step))

    def run(self, clients: int, each: int) -> Made:
        for number in range(clients):
            self.at(self.random.random() * THINK_S, self._asker(f"c{number}", each))
        while self._steps:
            time_s, _, step = heapq.heappop(self._steps)
            step(time_s)
        return Made(sorted(self.ops, key=lambda op: op.invoked_s), self.changes)

    # -- clients ----------------------------------------------------------------------------------------------

    def _asker(self, client: str, left: int) -> Callable[[float], None]:
        def ask(invoked_s: float) -> None:
            if not left:
                return
            rng = self.random
            request = self.request()
            applied_s = invoked_s + rng.expovariate(1 / TRAVEL_S)
            returned_s = applied_s + rng.expovariate(1 / TRAVEL_S)
            if rng.random() < self._unknown:
                self.ops.append(Op(client, invoked_s, returned_s, request))
                if rng.random() < 0.5:
                    self.at(invoked_s + rng.random() * LATE_S, lambda now_s: self.apply(request, now_s) and None)
            else:
                self.at(applied_s, lambda now_s: self._answered(client, invoked_s, returned_s, request, now_s))
            self.at(returned_s + rng.expovariate(1 / THINK_S), self._asker(client, left - 1))

        return ask

    def _answered(self, client: str, invoked_s: float, returned_s: float, request: Request, now_s: float) -> None:
        result = self.apply(request, now_s)
        revision = 0 if isinstance(result, say.Refused) else self.store.revision
        self.ops.append(Op(client, invoked_s, returned_s, request, result, revision))

    def value(self) -> bytes:
        return b"v%d" % next(self._values)

    def request(self) -> Request:
        rng = self.random
        key = rng.choice(KEYS)
        roll = rng.random()
        if roll < 0.35:
            return say.Put(key, self.value(), rng.choice([0, 0, 0, *self._due_s]), rng.random() < 0.5)
        if roll < 0.45:
            return say.Delete(key, rng.choice([b"", b"", b"k3", b"l"]), rng.random() < 0.5)
        if roll < 0.65:
            return say.Range(key, rng.choice([b"", b"l"]), serializable=rng.random() < 0.1)
        if roll < 0.67 and 2 < self.store.revision < 500:
            return say.Range(b"k", b"l", revision=rng.randint(1, self.store.revision))
        if roll < 0.9:
            return self._txn(key)
        if roll < 0.93 or not self._due_s:
            return say.Grant(rng.getrandbits(62) + 1, rng.randint(2, 5))
        lease = rng.choice(list(self._due_s))
        return say.Revoke(lease) if roll < 0.94 else say.Renew(lease)

    def _txn(self, key: bytes) -> say.Txn:
        rng = self.random
        old = self.store.kvs.get(key)
        version = old.version if old else 0
        compare = rng.choice(
            [
                say.Compare(key, "version", "=", version),
                say.Compare(key, "version", ">", 2),
                say.Compare(key, "mod", "<", self.store.revision),
                say.Compare(key, "value", "=", old.value if old else b""),
            ]
        )
        first = rng.choice([say.Put(key, self.value(), prev_kv=True), say.Range(b"k", b"l")])
        other = rng.choice([say.Delete(key), say.Put(rng.choice(KEYS), self.value()), say.Range(key)])
        return say.Txn([compare], [first, say.Range(key)], [other])

    # -- the store --------------------------------------------------------------------------------------------

    def apply(self, request: Request, now_s: float) -> Result:
        match request:
            case say.Grant():
                self._due(request.lease, request.ttl_s, now_s)
                return Alive(request.ttl_s)
            case say.Renew():
                return self._renew(request.lease, now_s)
            case say.Revoke() if self._due_s.pop(request.lease, None) is None:
                return say.Refused("no such lease")
            case say.Put() if request.lease and request.lease not in self._due_s:
                return say.Refused("no such lease")
            case say.Range() if request.revision:
                return self._past(request)
            case _:
                result, events = self.store.run(request)
                if events:
                    self.changes.append(events)
                return result or say.Revoked()

    def _past(self, request: say.Range) -> Result:
        past = Store()
        for events in self.changes[: max(0, request.revision - FIRST + 1)]:
            past.take(events)
        return past.ranged(request)

    def _due(self, lease: int, ttl_s: int, now_s: float) -> None:
        self._due_s[lease], self._ttl_s[lease] = now_s + ttl_s, ttl_s
        self.at(now_s + ttl_s, lambda at_s: self._end(lease, at_s))

    def _renew(self, lease: int, now_s: float) -> Result:
        if lease not in self._due_s:
            return Alive(0)
        self._due(lease, self._ttl_s[lease], now_s)
        return Alive(self._ttl_s[lease])

    def _end(self, lease: int, now_s: float) -> None:
        if self._due_s.get(lease, inf) <= now_s:
            self.apply(say.Revoke(lease), now_s)


def history(seed: int, clients: int = 5, each: int = 100, unknown: float = 0.05) -> Made:
    return World(seed, unknown).run(clients, each)


def watch(changes: Changes, seed: int, prev_kv: bool = True, cut: float = 0.1, name: str = "w") -> Watch:
    """Told everything of the keys k2 to k7 from revision 5 on, in batches, with progress notices and new streams."""
    rng = random.Random(seed)
    behind, now_s = 5, 0.0
    sessions, messages = [], list[Message]()
    pending: list[Event] = []
    for revision, events in enumerate(changes, FIRST):
        if revision < behind:
            continue
        now_s += 0.01
        pending += [one if prev_kv else Event(one.kv) for one in events if b"k2" <= one.kv.key < b"k8"]
        if rng.random() < 0.4 and pending:
            messages.append(Message(now_s, revision, pending))
            behind, pending = pending[-1].kv.mod + 1, []
        if rng.random() < 0.1 and not pending:
            messages.append(Message(now_s, revision))
            behind = max(behind, revision + 1)
        if rng.random() < cut and not pending:
            sessions.append(Session(_behind(sessions), messages))
            messages = []
    if pending:
        messages.append(Message(now_s, len(changes) + 1, pending))
    return Watch(name, b"k2", b"k8", prev_kv, [*sessions, Session(_behind(sessions), messages)])


def _behind(sessions: list[Session]) -> int:
    """From where a client goes on after its streams."""
    behind = sessions[-1].start if sessions else 5
    for message in sessions[-1].messages if sessions else []:
        behind = max(behind, (message.events[-1].kv.mod if message.events else message.revision) + 1)
    return behind
