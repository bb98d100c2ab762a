"""How often prefixes may be written: this node's buckets of tokens, by the policies in the fold.

Time is this node's, but writes are counted where they are applied, so whatever node they came by: the rate is the
cluster's. What is on its way isn't counted by the others yet; so nodes that are asked at once may let a burst more pass
each, which the next writes wait for. Deletes and revocations always pass: there are no more of them than of puts.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.policies import Policies, Policy, shown
from actors.kv.v3.revs import Revs
from streams.events import kv3 as says
from streams.events.base import unblob


class Bucket:
    """``tokens``: writes that may come now, below 0 where more came than might. ``pending``: of those let in here, what
    isn't applied yet."""

    __slots__ = ("_policy", "_seen", "_since_s", "pending", "tokens")

    def __init__(self, policy: Policy, now_s: float) -> None:
        self._policy, self._seen, self._since_s = policy, policy.puts, now_s
        self.pending = 0
        self.tokens = self.size

    @property
    def size(self) -> float:
        limits = self._policy.limits
        return limits.burst or max(1.0, limits.writes_per_s)

    def turn(self, policy: Policy, now_s: float) -> None:
        """Take in what was applied since, and what time gave."""
        if policy is not self._policy:  # removed and set again: counted anew
            self._policy, self._seen = policy, policy.puts
        size = self.size
        self.tokens -= policy.puts - self._seen
        self.tokens = min(size, self.tokens + (now_s - self._since_s) * policy.limits.writes_per_s)
        self._seen, self._since_s = policy.puts, now_s

    def room(self, writes: int) -> bool:
        """More than it holds passes when it is full."""
        return self.tokens - self.pending >= min(writes, self.size)


class Rates:
    """``refused``: requests by prefix since this process began."""

    def __init__(self, revs: Revs, now_s: Callable[[], float] = time.monotonic) -> None:
        self._revs, self._now_s = revs, now_s
        self._buckets: dict[bytes, Bucket] = {}
        self.refused: dict[bytes, int] = {}

    def applied(self) -> None:
        """To be called after each batch: what came by other nodes is counted when it came."""
        policies = self._revs.policies
        if not self._buckets or policies is None:
            return
        now_s = self._now_s()
        for policy in policies.rated:
            if (bucket := self._buckets.get(policy.prefix)) is not None:
                bucket.turn(policy, now_s)

    def admit(self, data: Any) -> Callable[[], None] | None:
        """Before ``data`` is ordered; what it returns is to be called when it is known what became of it.

        Raises V3Error, naming prefix and limit.
        """
        policies = self._revs.policies
        if policies is None or not policies.rated:
            return None
        writes = _writes(policies, data)
        if not writes:
            return None
        now_s = self._now_s()
        buckets = []
        for policy, count in writes.values():
            bucket = self._buckets.get(policy.prefix)
            if bucket is None:
                bucket = self._buckets[policy.prefix] = Bucket(policy, now_s)
            bucket.turn(policy, now_s)
            if not bucket.room(count):
                self.refused[policy.prefix] = self.refused.get(policy.prefix, 0) + 1
                raise too_often(policy)
            buckets.append((bucket, count))
        for bucket, count in buckets:
            bucket.pending += count

        def over() -> None:
            for bucket, count in buckets:
                bucket.pending -= count

        return over


def too_often(policy: Policy) -> V3Error:
    """In etcd's words, with the place behind them."""
    return V3Error(
        errors.TOO_MANY_REQUESTS.code,
        f"{errors.TOO_MANY_REQUESTS.message}: keys that begin with {shown(policy.prefix)} may be written "
        f"{policy.limits.writes_per_s:g} times a second",
    )


Writes = dict[bytes, tuple[Policy, int]]


def _writes(policies: Policies, data: Any) -> Writes:
    """How many keys with a rate are put, by prefix; of a transaction by the branch that puts more."""
    match data:
        case says.Put() | says.OpPut():
            return {one.prefix: (one, 1) for one in policies.of(unblob(data.key)) if one.limits.writes_per_s}
        case says.Txn() | says.OpTxn():
            made = _all(policies, data.success)
            for prefix, (policy, count) in _all(policies, data.failure).items():
                made[prefix] = (policy, max(count, made[prefix][1] if prefix in made else 0))
            return made
        case _:
            return {}


def _all(policies: Policies, ops: Iterable[Any]) -> Writes:
    out: Writes = {}
    for op in ops:
        for prefix, (policy, count) in _writes(policies, op).items():
            out[prefix] = (policy, count + (out[prefix][1] if prefix in out else 0))
    return out
