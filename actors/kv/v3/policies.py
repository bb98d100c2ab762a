"""What operators limit by prefix: bytes that live, the rate of writes, the age and size of the history. Pure.

All policies whose prefix a key begins with hold for it. Bytes are checked at apply, where they decide: they are part of
the fold. Rates are looked after by each node before a write is ordered (:mod:`actors.kv.rpc.rates`), by what is counted
here. The history is compacted by the master's word (:mod:`actors.kv.prefixes`). What is counted follows from the
revisions that are kept, so only the limits stand in snapshots.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.floors import OVERHEAD_BYTES, behind
from streams.events import kv3 as says
from streams.events.base import Base64, Blob, blob, unblob
from streams.outcomes import Rejected

if TYPE_CHECKING:
    from actors.kv.v3.revs import Rev, Revs

POLICIES_MAX = 10_000
#: The largest number of a limit: what every client's JSON can hold.
LIMIT_MAX = 2**53

UNKNOWN = Rejected("kv-policy.unknown", "no policy is set for this prefix")
TOO_MANY = Rejected("kv-policy.too-many", f"there are {POLICIES_MAX} policies already")
NOTHING = Rejected("kv-policy.nothing", "a policy limits something: bytes, writes a second, or the history")


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """As set; see :class:`streams.events.kv3.PolicySet`. 0: no limit."""

    prefix: Blob
    max_bytes: int = 0
    writes_per_s: float = 0.0
    burst: int = 0
    keep_age_s: int = 0
    keep_bytes: int = 0


class Policy:
    """``live_bytes``: of keys and values that live; ``history_bytes``: of what compaction would give back.

    ``mods`` and ``garbage``: for each change since the last compaction that left something behind, its revision and
    how many bytes, in order. ``puts``: since this process began; informative only.
    """

    __slots__ = ("garbage", "history_bytes", "limits", "live_bytes", "mods", "prefix", "puts")

    def __init__(self, limits: Limits) -> None:
        self.limits, self.prefix = limits, unblob(limits.prefix)
        self.live_bytes = self.history_bytes = self.puts = 0
        self.mods, self.garbage = array("q"), array("q")

    def took(self, made: "Rev", old: "Rev | None") -> None:
        """A change of one of its keys. ``old``: what it replaced."""
        left = old.size if old is not None and old.version else 0
        if made.version:
            self.live_bytes += made.size - left
            self.puts += 1
        else:
            self.live_bytes -= left
            left += made.size
        if left:
            self.history_bytes += left
            self.mods.append(made.mod)
            self.garbage.append(left)

    def drop(self, revision: int) -> tuple[list[int], list[int]]:
        """What changes up to ``revision`` left is given back: their revisions, and how many bytes each."""
        count = bisect_right(self.mods, revision)
        mods, garbage = self.mods[:count].tolist(), self.garbage[:count].tolist()
        del self.mods[:count], self.garbage[:count]
        self.history_bytes -= sum(garbage)
        return mods, garbage

    def forget(self, mods: list[int], garbage: list[int]) -> None:
        """A narrower prefix was compacted: these are given back, too; some of its own are others'."""
        if not mods:
            return
        count = bisect_right(self.mods, mods[-1])
        gone: dict[tuple[int, int], int] = {}
        for one in zip(mods, garbage, strict=True):
            gone[one] = gone.get(one, 0) + 1
        kept_mods, kept_garbage = array("q"), array("q")
        for mod, size in zip(self.mods[:count], self.garbage[:count], strict=True):
            if left := gone.get((mod, size), 0):
                gone[mod, size] = left - 1
            else:
                kept_mods.append(mod)
                kept_garbage.append(size)
        self.mods[:count], self.garbage[:count] = kept_mods, kept_garbage
        self.history_bytes -= sum(garbage)

    def count(self, revs: "Revs") -> None:
        """All that is kept of its keys: a microsecond or two for each revision."""
        found: list[tuple[int, int]] = []
        for key in revs.keys(self.prefix, behind(self.prefix), old=True):
            rev: Rev | None = revs.newest[key]
            assert rev is not None
            if rev.version:
                self.live_bytes += rev.size
            limit = revs.limit_of(key)
            while rev is not None and rev.mod > limit:
                prev = rev.prev
                left = prev.size if prev is not None and prev.version else 0
                if not rev.version:
                    left += rev.size
                if left:
                    found.append((rev.mod, left))
                rev = prev
        found.sort()
        self.mods, self.garbage = array("q", [mod for mod, _ in found]), array("q", [size for _, size in found])
        self.history_bytes = sum(self.garbage)

    def surplus(self) -> int:
        """The revision to compact so that the history is an eighth below its size; 0: it has no more than that."""
        keep = self.limits.keep_bytes
        if not keep or self.history_bytes <= keep:
            return 0
        left = self.history_bytes - keep + keep // 8
        for mod, size in zip(self.mods, self.garbage, strict=True):
            left -= size
            if left <= 0:
                return mod
        return self.mods[-1]


class Policies:
    """By prefix, in order; never empty. ``rated``, ``kept``: those that limit writes, or the history."""

    def __init__(self, policies: dict[bytes, Policy]) -> None:
        self.by_prefix = policies
        groups: dict[int, dict[bytes, Policy]] = {}
        for prefix, policy in policies.items():
            groups.setdefault(len(prefix), {})[prefix] = policy
        self._groups = list(groups.items())
        self.rated = [one for one in policies.values() if one.limits.writes_per_s]
        self.kept = [one for one in policies.values() if one.limits.keep_age_s or one.limits.keep_bytes]
        self._quotas = any(one.limits.max_bytes for one in policies.values())

    def of(self, key: bytes) -> list[Policy]:
        """Those that hold for a key."""
        out: list[Policy] = []
        for length, group in self._groups:
            found = group.get(key[:length])
            if found is not None:
                out.append(found)
        return out

    def took(self, made: "Rev", old: "Rev | None") -> None:
        for policy in self.of(made.key):
            policy.took(made, old)

    def compacted(self, revision: int) -> None:
        """All keys were."""
        for policy in self.by_prefix.values():
            policy.drop(revision)

    def compacted_prefix(self, prefix: bytes, revision: int) -> tuple[list[int], list[int]]:
        """The keys of a policy were: what is given back, as :meth:`Policy.drop`."""
        mods, garbage = self.by_prefix[prefix].drop(revision)
        for other, policy in self.by_prefix.items():
            if len(other) > len(prefix) and other.startswith(prefix):
                policy.drop(revision)
            elif len(other) < len(prefix) and prefix.startswith(other):
                policy.forget(mods, garbage)
        return mods, garbage

    # -- bytes ------------------------------------------------------------------------------------------------

    def check_put(self, key: bytes, size: int, old: "Rev | None") -> None:
        """Before a put of ``size`` bytes in all over ``old``. Raises V3Error, naming prefix and limit."""
        if self._quotas:
            self._check({key: size - (old.size if old is not None and old.version else 0)})

    def fits(self, revs: "Revs", key: bytes, value: bytes) -> bool:
        """Whether :meth:`check_put` would let it pass, for who has a short way then."""
        size, old = len(key) + len(value) + OVERHEAD_BYTES, revs.newest.get(key)
        if old is not None and old.version:
            size -= old.size
        if size <= 0:
            return True
        return all(not 0 < one.limits.max_bytes < one.live_bytes + size for one in self.of(key))

    def check_txn(self, revs: "Revs", ops: Iterable[says.Op]) -> None:
        """Before a transaction that takes ``ops``, by what they come to together. Raises V3Error."""
        taken = list(ops)
        if self._quotas and any(isinstance(op, says.OpPut) for op in taken):
            before, after = _sizes(revs, taken)
            self._check({key: size - before[key] for key, size in after.items()})

    def _check(self, more: dict[bytes, int]) -> None:
        """``more``: bytes by key. What makes a prefix no larger passes, also where it is too large already."""
        total: dict[bytes, int] = {}
        for key, size in more.items():
            for policy in self.of(key):
                if policy.limits.max_bytes:
                    total[policy.prefix] = total.get(policy.prefix, 0) + size
        for prefix, size in total.items():
            policy = self.by_prefix[prefix]
            if size > 0 and policy.live_bytes + size > policy.limits.max_bytes:
                raise over_quota(policy, size)


def _sizes(revs: "Revs", ops: list[says.Op]) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Bytes of each key that operations write, before and after them; 0 where it doesn't live."""
    before: dict[bytes, int] = {}
    after: dict[bytes, int] = {}

    def touch(key: bytes) -> int:
        if key not in after:
            old = revs.newest.get(key)
            before[key] = after[key] = old.size if old is not None and old.version else 0
        return after[key]

    for op in ops:
        if isinstance(op, says.OpPut):
            key = unblob(op.key)
            plain = len(key) + OVERHEAD_BYTES
            was = touch(key)
            after[key] = (was or plain) if op.ignore_value else plain + len(unblob(op.value))
        elif isinstance(op, says.OpDelete):
            key, end = unblob(op.key), unblob(op.range_end)
            for name in [*revs.keys(key, end, old=False)] if end else [key]:
                touch(name)
                after[name] = 0
            if end:
                for name in after:
                    if key <= name and (end == b"\0" or name < end):
                        after[name] = 0
    return before, after


def over_quota(policy: Policy, more: int) -> V3Error:
    """In etcd's words, with the place behind them."""
    return V3Error(
        errors.NO_SPACE.code,
        f"{errors.NO_SPACE.message}: keys that begin with {shown(policy.prefix)} may have "
        f"{policy.limits.max_bytes} bytes, have {policy.live_bytes}, and {more} more were asked for",
    )


def shown(prefix: bytes) -> str:
    """For people: quoted, what isn't text by its bytes."""
    text = blob(prefix)
    return f"base64 {msgspec.json.encode(text).decode()}" if isinstance(text, Base64) else f'"{text}"'


# -- changes --------------------------------------------------------------------------------------------------


def change(revs: "Revs", data: "says.PolicySet | says.PolicyRemove | says.PrefixCompact") -> Rejected | None:
    """Apply an event about policies; why it has no effect. Raises V3Error."""
    known = revs.policies.by_prefix if revs.policies is not None else {}
    prefix = unblob(data.prefix)
    if isinstance(data, says.PolicySet):
        return _set(revs, known, prefix, data)
    if prefix not in known:
        return UNKNOWN
    if isinstance(data, says.PrefixCompact):
        revs.compact_prefix(prefix, data.revision)
        return None
    left = {one: policy for one, policy in known.items() if one != prefix}
    revs.policies = Policies(left) if left else None
    return None


def _set(revs: "Revs", known: dict[bytes, Policy], prefix: bytes, data: says.PolicySet) -> Rejected | None:
    if wrong := _wrong(data):
        return Rejected("kv-policy.bad", wrong)
    limits = Limits(blob(prefix), data.max_bytes, data.writes_per_s, data.burst, data.keep_age_s, data.keep_bytes)
    if limits == Limits(limits.prefix, burst=data.burst):
        return NOTHING
    policy = known.get(prefix)
    if policy is None:
        if len(known) >= POLICIES_MAX:
            return TOO_MANY
        policy = Policy(limits)
        policy.count(revs)
    policy.limits = limits
    revs.policies = Policies(dict(sorted({**known, prefix: policy}.items())))
    return None


def _wrong(data: says.PolicySet) -> str:
    """What a limit can't be; empty: they can."""
    for name in ("max_bytes", "writes_per_s", "burst", "keep_age_s", "keep_bytes"):
        value = getattr(data, name)
        if not 0 <= value <= LIMIT_MAX:
            return f"{name} is {value}; from 0 (no limit) to {LIMIT_MAX} can be"
    return "burst is given without writes_per_s" if data.burst and not data.writes_per_s else ""


def encoded(policies: Policies | None) -> list[Limits]:
    return [] if policies is None else [policy.limits for policy in policies.by_prefix.values()]


def restored(limits: list[Limits], revs: "Revs") -> Policies | None:
    """Counted anew over what the store has."""
    made = {}
    for one in limits:
        policy = Policy(one)
        policy.count(revs)
        made[policy.prefix] = policy
    return Policies(made) if made else None
