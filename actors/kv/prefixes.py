"""Which prefixes' histories are to be compacted now, as their policies ask. Pure: time is told.

By age as etcd's periodic compaction (:mod:`actors.kv.autocompact`): what was current a whole age ago, by this machine's
clock; a new master begins to count anew, so an age is a minimum. By size from what the fold counts, looked at now and
then: one pass over memory should serve many revisions.
"""

from actors.kv.autocompact import AutoCompactor
from actors.kv.v3.policies import Policy
from actors.kv.v3.revs import Revs
from streams.events import kv3 as says

#: How often sizes are looked at.
SIZES_S = 10.0


class PrefixCompactor:
    """The master's. ``restart`` at each term."""

    def __init__(self) -> None:
        self._ages: dict[bytes, tuple[int, AutoCompactor]] = {}
        self._next_s = 0.0

    def restart(self, now_s: float) -> None:
        self._ages.clear()
        self._next_s = now_s

    def due(self, revs: Revs, now_s: float) -> list[says.PrefixCompact]:
        """What to say now."""
        if revs.policies is None or not revs.policies.kept:
            return []
        sizes = now_s >= self._next_s
        if sizes:
            self._next_s = now_s + SIZES_S
        aged = {policy.prefix for policy in revs.policies.kept if policy.limits.keep_age_s}
        self._ages = {prefix: known for prefix, known in self._ages.items() if prefix in aged}
        out = []
        for policy in revs.policies.kept:
            revision = policy.surplus() if sizes else 0
            if policy.limits.keep_age_s:
                revision = max(revision, self._aged(policy, revs, now_s))
            if revision and revision > revs.limit_of(policy.prefix):
                out.append(says.PrefixCompact(policy.limits.prefix, revision))
        return out

    def _aged(self, policy: Policy, revs: Revs, now_s: float) -> int:
        age_s = policy.limits.keep_age_s
        known = self._ages.get(policy.prefix)
        if known is None or known[0] != age_s:
            known = self._ages[policy.prefix] = (age_s, AutoCompactor("periodic", age_s))
            known[1].restart(now_s)
        found = known[1].due(now_s, revs.revision, revs.limit_of(policy.prefix))
        # nothing of it would be given back: no need to say so on the log
        return found if found is not None and policy.mods and policy.mods[0] <= found else 0

    def next_s(self, revs: Revs) -> float | None:
        """When to ask again."""
        if revs.policies is None or not revs.policies.kept:
            return None
        ages = [one for _, compactor in self._ages.values() if (one := compactor.next_s()) is not None]
        return min([self._next_s, *ages])
