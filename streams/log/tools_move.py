"""``corelog log move``: a log goes on at another address; positions, times, chain and states are kept.

The order of steps, of which a kill can come between any two:

1. The source is copied while it is written. Nothing has changed for anybody: the old log is in use.
2. Both are read again and compared: bytes, places, chain, the state of each fold. A difference ends the move here.
3. ``log.sealed`` is said on the source. This one record is the move: before it the old log is in use; from it on
   whatever is said there is void to every replica, so that the old one can't be used any more, and nothing is said
   on the new one yet.
4. The few records between are copied, and the states at the seal compared.
5. ``log.opened`` is said on the target, at the very offset of the seal. Nodes begin to use the target when it is
   there, and not before: so there is no instant at which both are in use.

Killed between 3 and 5 neither is, until the move is called again (by hand, or by the node: see ``node/logmove.py``);
it goes on wherever it was.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streams import snapshots as snapshot_files
from streams import voids
from streams.events import log as says
from streams.log.founding import identity
from streams.log.port import ForeignLog, Log
from streams.log.tools_copy import Sum, begin, carry
from streams.log.tools_read import open_anew, operator, said, speak, stretch
from streams.records import Entry
from streams.replay import Fold, Halt, LogState, Replica

Folds = Mapping[str, Callable[[], Fold]]

#: A move seals its source when the copy is this near to the end (or after so many rounds).
NEAR_RECORDS = 256
ROUNDS_MAX = 50


class Moved(msgspec.Struct, frozen=True):
    """The offset of ``log.sealed`` in the source and of ``log.opened`` in the target (the same one).

    ``chain`` (hex) before the seal; empty, as are the hashes, of a trimmed log of which no snapshot tells the state.
    """

    sealed_at: int
    chain: str
    state_hashes: dict[str, str]


async def move(
    source: Log,
    target: Log,
    folds: Folds | None = None,
    *,
    next_address: str = "",
    snapshots: Path | None = None,
) -> Moved:
    """Copy while the source is written, seal it, copy the rest, open the target. Interrupted, call it again.

    ``folds`` are replayed on both sides up to the seal; their state hashes must be equal. Of a log whose start was
    trimmed that takes a snapshot in the folder ``snapshots``. ``next_address`` is what ``log.sealed`` says (default:
    the target's address). Raises ForeignLog, LogUnavailable, OutcomeUnknown, Halt (by a record that no replica can
    apply; nothing was sealed).
    """
    opened = await identity(source)
    if opened is None:
        raise ForeignLog(f"{source.address} was never founded: there is nothing to move")
    next_address = next_address or target.address
    first, end = await source.first(), await source.end()
    seal = await _Seal.look(source, opened, next_address)
    known = seal.at if seal.at >= 0 else end
    here = _Side(source, first, opened, _replicas(folds or {}, first, known, opened, snapshots))
    there = _Side(target, first, opened, _replicas(folds or {}, first, known, opened, snapshots))
    if seal.at < 0:
        at = await _copied(here, there, await begin(source, target, first, end), end)
        await seal.say()
    else:
        at = -1
    goes_on = await target.end() > seal.at
    if not goes_on:
        await carry(source, target, await begin(source, target, first, seal.at) if at < 0 else at, seal.at)
    await _compare(here, there, seal.at)
    chain, hashes = here.chain, here.hashes()
    if not goes_on:
        again = says.LogOpened(
            opened.id, opened.level, opened.operator_key, previous=source.address, chain=chain, snapshot=_words(hashes)
        )
        await open_anew(target, again)
    await check_opened(target, seal.at, opened.id, source.address)
    return Moved(seal.at, chain, hashes)


async def check_opened(target: Log, at: int, log_id: str, previous: str = "") -> None:
    """Raises ForeignLog unless the target was opened at ``at`` as the log that goes on."""
    async for batch in stretch(target, at, at + 1):
        for word in said(batch[0], says.LogOpened):
            if isinstance(word, says.LogOpened) and word.id == log_id and previous in ("", word.previous):
                return
    raise ForeignLog(
        f"{target.address} has no opening of log {log_id} at {at} that follows {previous or 'the seal'}: somebody else "
        f"wrote to it. The sealed log is whole: remove what stands there and move again to the same address"
    )


async def _copied(here: "_Side", there: "_Side", at: int, end: int) -> int:
    """Copy and compare in rounds until the source's end is near; returns what is copied. Raises Halt."""
    for _ in range(ROUNDS_MAX):
        await carry(here.log, there.log, at, end)
        await _compare(here, there, end)
        if here.halts:
            raise next(iter(here.halts.values()))
        at, end = end, await here.log.end()
        if end - at <= NEAR_RECORDS:
            break
    return at


class _Seal:
    """The source's seal as every replica sees it (a seal by an incarnation that is over would have no effect)."""

    def __init__(self, source: Log, opened: says.LogOpened, next_address: str, state: Replica) -> None:
        self._source, self._opened, self._next = source, opened, next_address
        self._replica = state

    @classmethod
    async def look(cls, source: Log, opened: says.LogOpened, next_address: str) -> "_Seal":
        # its id is known before its founding record is read: in a trimmed log there may be none
        known = LogState(log_id=opened.id, level=opened.level, operator_key=opened.operator_key)
        seal = cls(source, opened, next_address, Replica(_Bare(), known))
        await seal._read(await source.first())
        return seal

    @property
    def at(self) -> int:
        """Its offset; -1 as long as there is none."""
        return self._replica.log.sealed_at

    async def say(self) -> None:
        """Seal the source; another one's seal to the same address will do. Raises ForeignLog if it has no effect."""
        known = self._replica.log.writers.get(operator())
        # a clock that was set back must not make it void
        above = known.incarnation if known else 0
        await speak(self._source, self._opened.id, says.LogSealed(self._next), above=above)
        await self._read(self._replica.offset + 1)
        if self.at < 0:
            raise ForeignLog(f"{self._source.address} took the seal, and it has no effect; try again")

    async def _read(self, start: int) -> None:
        replica, opened = self._replica, self._opened
        replica.foreseen = await voids.foreseen(self._source, start, opened.id, opened.operator_key)
        async for batch in stretch(self._source, start, await self._source.end()):
            for entry in batch:
                if self.at < 0:
                    replica.replay(entry)
        if self.at >= 0 and replica.log.sealed_next != self._next:
            raise ForeignLog(f"{self._source.address} was sealed at {self.at}; it goes on at {replica.log.sealed_next}")


class _Bare:
    """A fold of nothing: what every fold shares is enough to see the seal."""

    name = "log"
    streams: frozenset[str] = frozenset()

    def evolve(self, event: Any, context: Any) -> Any:
        raise AssertionError("it has no stream")

    def guard(self, event: Any, context: Any) -> None:
        return None

    def encode(self) -> Any:
        return iter(())

    def restore(self, chunks: Any) -> None:
        return None


class _Side:
    """One of the two logs, read as far as it was compared."""

    def __init__(self, log: Log, first: int, opened: says.LogOpened, replicas: dict[str, Replica]) -> None:
        self.log = log
        self.halts: dict[str, Halt] = {}
        self.sum = Sum()
        self._at = self._first = first
        self._opened = opened
        self._replicas = replicas

    async def read(self, end: int) -> None:
        foreseen = await voids.foreseen(self.log, self._at, self._opened.id, self._opened.operator_key)
        for replica in self._replicas.values():
            replica.foreseen |= foreseen
        async for batch in stretch(self.log, self._at, end):
            for entry in batch:
                self.sum.add(entry)
                for name, replica in self._replicas.items():
                    if name not in self.halts:
                        self._replay(name, replica, entry)
        self._at = max(self._at, end)

    def _replay(self, name: str, replica: Replica, entry: Entry) -> None:
        try:
            if replica.resume and entry.offset == replica.offset:
                replica.confirm(entry)
            elif entry.offset > replica.offset:
                replica.replay(entry)
        except Halt as halt:
            self.halts[name] = halt

    @property
    def chain(self) -> str:
        """The chain of the log (hex), as replicas have it; empty if it can't be known."""
        for name, replica in self._replicas.items():
            if name not in self.halts:
                return replica.log.chain.hex()
        return self.sum.chain.hex() if self._first == 0 else ""

    def hashes(self) -> dict[str, str]:
        """The state hash of each fold; where it halts, if it does (its replica halts there on any log)."""
        return {
            name: f"halted-at-{self.halts[name].position}" if name in self.halts else replica.state_hash()
            for name, replica in self._replicas.items()
        }


async def _compare(here: _Side, there: _Side, end: int) -> None:
    """Read both up to ``end``. Raises ForeignLog if they differ."""
    await here.read(end)
    await there.read(end)
    if here.sum != there.sum:
        raise ForeignLog(
            f"{there.log.address} holds other records than {here.log.address}: somebody else wrote to it; "
            f"remove what stands there, or move into an empty one"
        )
    mine, theirs = here.hashes(), there.hashes()
    for name, state in mine.items():
        if theirs[name] != state:
            raise ForeignLog(f"the state of {name} at {end} differs in {there.log.address}; the source is still whole")


def _replicas(folds: Folds, first: int, end: int, opened: says.LogOpened, snapshots: Path | None) -> dict[str, Replica]:
    """A replica of each fold: from nothing, or, of a trimmed log, from the newest snapshot that it still holds."""
    if first == 0:
        return {name: Replica(make()) for name, make in folds.items()}
    made = {}
    for name, make in folds.items() if snapshots is not None else ():
        replica = snapshot_files.restore(snapshots / name, make, opened.id, at_most=end - 1)  # type: ignore[operator]
        if replica.resume and replica.offset >= first:
            made[name] = replica
    return made


def _words(hashes: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(hashes.items()))
