"""What may differ between etcd and us: all of it, with the reasons. docs/etcd.md says the same to users."""

from typing import Any

Plain = dict[str, Any]

#: Fields of any header: ids are random in etcd; terms count elections, ours and theirs.
HEADER = ("cluster_id", "member_id", "raft_term")
#: Tokens are random; a snapshot's size and a Status's sizes are those of bbolt's pages in etcd.
FIELDS = {
    "token",
    "dbSize",
    "dbSizeInUse",
    "dbSizeQuota",
    "raftIndex",
    "raftAppliedIndex",
    "raftTerm",
    "leader",
    "version",
    "storageVersion",
    "downgradeInfo",
    "memberID",
}
#: What is left of a TTL is counted in whole seconds, and the calls aren't at the same moment.
SECONDS = {"TTL"}
#: Leases that end at the same second may be listed either way.
SETS = {"leases"}


def masked(answer: Any) -> Any:
    """``answer`` without what may differ."""
    if isinstance(answer, list):
        return [masked(one) for one in answer]
    if not isinstance(answer, dict):
        return answer
    out: Plain = {}
    for name, value in answer.items():
        if name == "header":
            out[name] = {key: one for key, one in value.items() if key not in HEADER}
        elif name in SETS:
            out[name] = sorted(map(str, value))
        elif name not in FIELDS:
            out[name] = masked(value)
    return out


def same(theirs: Any, ours: Any) -> bool:
    """Of masked answers."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return theirs.keys() == ours.keys() and all(_field(name, theirs[name], ours[name]) for name in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(same, theirs, ours))
    return bool(theirs == ours)


def _field(name: str, theirs: Any, ours: Any) -> bool:
    if name in SECONDS:
        return abs(int(theirs) - int(ours)) <= 1
    return same(theirs, ours)
