"""The v3 store: revisions, leases and alarms, and what each event does to them. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from actors.kv.v3 import errors, imports, restores, txn
from actors.kv.v3 import policies as policing
from actors.kv.v3.auth import Auth, check_event
from actors.kv.v3.errors import V3Error
from actors.kv.v3.floors import Floors
from actors.kv.v3.kinds import Result as Result
from actors.kv.v3.leases import Lease, Leases
from actors.kv.v3.lines import Line, Row
from actors.kv.v3.revs import OVERHEAD_BYTES, Rev, Revs
from streams.events import kv3 as says
from streams.events.base import Blob, Event, blob, unblob
from streams.kinds import ALIKE_FROM_LEVEL
from streams.outcomes import DONE, Accepted, Outcome, Rejected

# a constant is sooner there than an import, compiled
_RESULT: Final = Result
_ACCEPTED: Final = Accepted
VOID_EXPIRY = Rejected("v3.changed", "the lease was renewed, or is gone, before this expiry")
#: Kinds of alarms, and the commands that a corrupt store refuses.
NOSPACE, CORRUPT = 1, 2
_OF_KEYS = (says.Put, says.Delete, says.Txn, says.Compact, says.LeaseGrant, says.LeaseRevoke, says.RestoreEnd)
#: About so many bytes of keys and values stand in one line of a snapshot.
LINE_BYTES = 65536


_lines = msgspec.json.Decoder(Line)
#: What every line of this store begins with, in a snapshot that has v2's lines, too.
LINE = b'{"v3":'


class Store:
    """``alarms``: (kind, member), in the order they were raised."""

    def __init__(self) -> None:
        self.revs = Revs()
        self.leases = Leases()
        self.alarms: dict[tuple[int, int], None] = {}
        self.auth = Auth()
        self.staged: imports.Staged | None = None
        self.restoring: restores.Staged | None = None
        #: the version that the cluster is to get
        self.downgrade = ""

    def evolve(self, event: Event, offset: int, level: int = ALIKE_FROM_LEVEL) -> Outcome:
        """Apply an event of this family, from the record at ``offset``. level: the log's."""
        try:
            if self.alarms:
                self._check_alarms(event.data, level)
            if self.auth.enabled and not event.term:  # the master's own word needs no user
                check_event(self.auth, self.leases, event.data, event.principal)
            value = self._evolved(event.data, offset, level)
        except V3Error as error:
            return error.rejected
        if self.staged is not None and level >= ALIKE_FROM_LEVEL:
            self._forget_staged(event.data)
        if isinstance(value, Accepted | Rejected):
            return value
        # what a session keeps goes into snapshots: plain data there
        return Accepted(self.revs.revision if event.client else Result(self.revs.revision, value))

    def _evolved(self, data: Any, offset: int, level: int) -> Any:
        match data:
            case says.Put():
                return self.put(data)
            case says.Delete():
                return self._written(lambda w: w.delete(unblob(data.key), unblob(data.range_end)))
            case says.Txn():
                return self._txn(data)
            case says.LeasesRenew():
                return self.leases.renew(data, offset)
            case says.LeaseGrant():
                return self.leases.grant(data, offset)
            case says.LeaseRevoke():
                return self._revoked(self.leases.known(data.id))
            case says.LeaseExpired():
                found = self.leases.by_id.get(data.id)
                return VOID_EXPIRY if found is None or found.renewed != data.renewed else self._revoked(found)
            case says.LeasesCounted():
                self.leases.count(data, offset)
            case says.Compact():
                self.revs.compact(data.revision)
                self.restoring = None
                return None
            case says.Alarm():
                return self._alarm(data)
            case says.Downgrade():
                if data.version and self.downgrade:
                    raise errors.DOWNGRADE_IN_PROCESS
                self.downgrade = data.version
                return None
            case says.ImportBegin() | says.ImportPart() | says.ImportEnd():
                return imports.change(self, data, level)
            case says.RestoreBegin() | says.RestorePart() | says.RestoreEnd():
                return restores.change(self, data)
            case says.PolicySet() | says.PolicyRemove() | says.PrefixCompact():
                return policing.change(self.revs, data)
            case _:
                self.auth.change(data)
                return None
        return DONE

    def _forget_staged(self, data: Any) -> None:
        """An import that can't end any more, or was left behind, would be in every snapshot for ever. Compactions come
        to all who write much."""
        assert self.staged is not None
        if isinstance(data, says.Compact) or not (self.staged.v2 is True or self.empty):
            self.staged = None

    def _check_alarms(self, data: Any, level: int) -> None:
        """As etcd: full, nothing is added; corrupt, nothing is done to the keys. Raises NO_SPACE, CORRUPT."""
        kinds = {kind for kind, _ in self.alarms}
        if CORRUPT in kinds and isinstance(data, _OF_KEYS):
            raise errors.CORRUPT
        if CORRUPT in kinds and isinstance(data, says.LeaseExpired) and level >= ALIKE_FROM_LEVEL:
            raise errors.CORRUPT
        if NOSPACE in kinds and _adds(data):
            raise errors.NO_SPACE

    def put(self, data: says.Put) -> Rev:
        """Raises V3Error."""
        writing = txn.Writing(self.revs, self.leases)
        key, value, lease = txn.resolved(writing, data)
        if self.revs.policies is not None:
            size = len(key) + len(value) + OVERHEAD_BYTES
            self.revs.policies.check_put(key, size, self.revs.newest.get(key))
        made = writing.put(key, value, lease)
        writing.finish()
        return made

    def plain_put(self, data: says.Put) -> Result:
        """The short way of a put without lease and conditions, which no user has to be asked for."""
        revs, key = self.revs, unblob(data.key)
        old = revs.newest.get(key)
        if old is not None and (lease := old.lease):
            self.leases.detach(lease, key)
        main = revs.revision + 1
        made = revs.put_over(old, key, unblob(data.value), 0, main, 0)
        revs.revision = main
        return _RESULT(main, made)

    def plain_txn(self, data: says.Txn) -> Outcome:
        """The short way of a transaction without a session, which no user and no alarm has to be asked for."""
        try:
            done = self._txn(data)
        except V3Error as error:
            return error.rejected
        return _ACCEPTED(_RESULT(self.revs.revision, done))

    def _txn(self, data: says.Txn) -> txn.TxnDone:
        done = txn.flat(self.revs, self.leases, data)
        return self._written(lambda w: txn.run(w, data)) if done is None else done

    def _written(self, change: Any) -> Any:
        writing = txn.Writing(self.revs, self.leases)
        value = change(writing)
        writing.finish()
        return value

    def _revoked(self, lease: Lease) -> list[Rev]:
        """Its keys, by name, deleted in one revision; then itself."""
        writing = txn.Writing(self.revs, self.leases)
        gone = [writing.delete(key, b"").tombstones for key in sorted(lease.keys)]
        writing.finish()
        del self.leases.by_id[lease.id]
        return [rev for tombstones in gone for rev in tombstones]

    def _alarm(self, said: says.Alarm) -> list[tuple[int, int]]:
        """The alarms that changed."""
        if said.on:
            self.alarms[said.kind, said.member] = None
            return [(said.kind, said.member)]
        everybody = not said.member and not said.exact
        off = [one for one in self.alarms if one[0] == said.kind and (everybody or said.member == one[1])]
        for one in off:
            del self.alarms[one]
        return off

    # -- snapshots --------------------------------------------------------------------------------------------

    @property
    def untouched(self) -> bool:
        return self.empty and self.staged is None and self.restoring is None and self.revs.policies is None

    @property
    def empty(self) -> bool:
        """Nothing ever happened to its keys, leases, alarms and users."""
        revs = self.revs.revision == 1 and self.revs.compacted < 0
        return revs and not (self.leases.by_id or self.alarms or self.downgrade) and self.auth.untouched

    def encode(self, form: Callable[[bytes], Blob] = blob) -> Iterator[bytes]:
        """Lines of JSON, each beginning with :data:`LINE`; none of a store that nothing happened to.

        form: of keys and values; a state has the one that is alike everywhere.
        """
        if self.untouched:
            return
        revs = self.revs
        leases = [(one.id, one.ttl_s, one.renewed, one.left_ms) for one in self.leases.by_id.values()]
        head = Line(1, revs.revision, revs.compacted, leases, list(self.alarms), auth=self.auth.encode())
        head.downgrade = self.downgrade
        head.policies = policing.encoded(revs.policies)
        head.floors = [(blob(prefix), floor) for prefix, floor in revs.floors or ()]
        yield _encoded(head)
        rows: list[Row] = []
        size = 0
        if (staged := self.staged) is not None:
            yield _encoded(Line(1, staged=imports.Staged(staged.id, staged.parts, v2=staged.v2)))
            for number, lines in staged.lines.items():
                yield _encoded(Line(1, staged=imports.Staged(staged.id, staged.parts, {number: lines})))
        for piece in restores.lines(self.restoring):
            yield _encoded(Line(1, restoring=piece))
        for rev in revs.retained():
            rows.append((form(rev.key), form(rev.value), rev.create, rev.mod, rev.version, rev.lease, rev.sub))
            size += rev.size
            if size >= LINE_BYTES:
                yield _encoded(Line(1, revs=rows))
                rows, size = [], 0
        if rows:
            yield _encoded(Line(1, revs=rows))

    def restore(self, lines: Iterable[bytes]) -> None:
        """The inverse of :meth:`encode`, into an empty store. Raises ValueError on anything else."""
        head: Line | None = None
        revs = self.revs
        limits, revs.policies = policing.encoded(revs.policies), None  # of a store that is imported into
        for line in lines:
            row = _lines.decode(line)
            if head is None:
                head = row
                self.leases.by_id = {one[0]: Lease(*one, {}) for one in row.leases}
                self.alarms = dict.fromkeys(row.alarms)
                self.auth.restore(row.auth)
                if row.floors:
                    revs.floors = Floors({unblob(prefix): floor for prefix, floor in row.floors})
                self.downgrade = row.downgrade
            if row.staged is not None:
                self.staged = self.staged or imports.Staged(row.staged.id, row.staged.parts, v2=row.staged.v2)
                self.staged.lines |= row.staged.lines
            if row.restoring is not None:
                self.restoring = restores.joined(self.restoring, row.restoring)
            for key, value, create, mod, version, lease, sub in row.revs:
                revs.relink(Rev(unblob(key), unblob(value), create, mod, version, lease, sub, None))
        if head is not None:
            revs.relinked(head.revision, head.compacted)
            limits = head.policies or limits
            self._attach_all()
        revs.policies = policing.restored(limits, revs)

    def _attach_all(self) -> None:
        """The keys of leases are not in the snapshot: they follow from the newest revisions."""
        newest = self.revs.newest
        for key in self.revs.live:
            if lease := newest[key].lease:
                if lease not in self.leases.by_id:
                    raise ValueError(f"the key {key!r} is on the lease {lease}, which isn't there")
                self.leases.attach(lease, key)


def head(line: bytes) -> tuple[int, int]:
    """Revision, and the compaction that reached furthest, that the first line of a snapshot of the store tells;
    (1, -1) of a store that nothing happened to. Raises ValueError."""
    if not line.startswith(LINE):
        return 1, -1
    row = _lines.decode(line)
    return row.revision, max([row.compacted, *(floor for _, floor in row.floors)])


def _adds(data: Any) -> bool:
    match data:
        case says.Put() | says.LeaseGrant() | says.OpPut():
            return True
        case says.RestorePart():
            return bool(data.puts)
        case says.Txn() | says.OpTxn():
            return any(_adds(op) for op in (*data.success, *data.failure))
        case _:
            return False


def _encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
