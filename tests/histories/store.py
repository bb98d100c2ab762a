"""The store as a dumb twin of etcd's: the newest state only, and what each request makes of it."""

from bisect import bisect_left, insort

from tests.histories.ops import (
    Compare,
    Delete,
    Deleted,
    Event,
    Kv,
    Put,
    PutDone,
    Range,
    Ranged,
    Request,
    Revoke,
    Simple,
    SimpleDone,
    Txn,
    TxnDone,
)

Done = PutDone | Deleted | Ranged | TxnDone | None


class Store:
    """``revision``: the last one made. Requests with a revision of their own are not its matter."""

    def __init__(self) -> None:
        self.revision = 1
        self.kvs: dict[bytes, Kv] = {}
        self.leases: dict[int, set[bytes]] = {}
        self._keys: list[bytes] = []

    # -- changing ---------------------------------------------------------------------------------------------

    def run(self, request: Request) -> tuple[Done, list[Event]]:
        """What a request answers and changes, all of it at the next revision. Of a revoked lease: no answer."""
        events: list[Event] = []
        if isinstance(request, Revoke):
            for key in sorted(self.leases.get(request.lease, ())):
                self._simple(Delete(key), events)
            done: Done = None
        elif isinstance(request, Txn):
            done = self._txn(request, events)
        else:
            assert isinstance(request, Simple)
            done = self._simple(request, events)
        self.revision += bool(events)
        return done, events

    def take(self, events: list[Event]) -> None:
        """The next revision, as it was told."""
        for event in events:
            self._set(event.kv)
        self.revision += 1

    def undo(self, events: list[Event]) -> None:
        """The last revision, if it changed something."""
        for event in reversed(events):
            self._set(event.prev or Kv(event.kv.key))
        self.revision -= bool(events)

    def _set(self, kv: Kv) -> None:
        old = self.kvs.pop(kv.key, None)
        if old is not None and old.lease:
            self.leases[old.lease].discard(kv.key)
        if kv.version:
            self.kvs[kv.key] = kv
            if old is None:
                insort(self._keys, kv.key)
            if kv.lease:
                self.leases.setdefault(kv.lease, set()).add(kv.key)
        elif old is not None:
            del self._keys[bisect_left(self._keys, kv.key)]

    def _change(self, kv: Kv, events: list[Event]) -> Event:
        made = Event(kv, self.kvs.get(kv.key))
        self._set(kv)
        events.append(made)
        return made

    # -- requests ---------------------------------------------------------------------------------------------

    def _simple(self, asked: Simple, events: list[Event]) -> SimpleDone:
        main = self.revision + 1
        match asked:
            case Put():
                old = self.kvs.get(asked.key)
                create, version = (old.create, old.version + 1) if old else (main, 1)
                made = self._change(Kv(asked.key, asked.value, create, main, version, asked.lease), events)
                return PutDone(made.prev if asked.prev_kv else None)
            case Delete():
                gone = self.range(asked.key, asked.end)
                for kv in gone:
                    self._change(Kv(kv.key, mod=main), events)
                return Deleted(len(gone), gone if asked.prev_kv else [])
            case Range():
                return self.ranged(asked)

    def _txn(self, txn: Txn, events: list[Event]) -> TxnDone:
        succeeded = all(map(self._holds, txn.compare))
        branch = txn.success if succeeded else txn.failure
        return TxnDone(succeeded, [self._simple(one, events) for one in branch])

    def _holds(self, compare: Compare) -> bool:
        found = self.kvs.get(compare.key)
        if found is None and compare.target == "value":
            return False
        left = getattr(found or Kv(compare.key), compare.target)
        match compare.result:
            case "=":
                return bool(left == compare.operand)
            case ">":
                return bool(left > compare.operand)
            case "<":
                return bool(left < compare.operand)
            case _:
                return bool(left != compare.operand)

    def ranged(self, asked: Range) -> Ranged:
        found = self.range(asked.key, asked.end)
        return Ranged(found, len(found))

    def range(self, key: bytes, end: bytes) -> list[Kv]:
        if not end:
            one = self.kvs.get(key)
            return [] if one is None else [one]
        return [self.kvs[name] for name in self._keys[bisect_left(self._keys, key) : bisect_left(self._keys, end)]]
