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
SECONDS = {"TTL", "ttl"}
#: Leases that end at the same second may be listed either way; etcd keeps alarms in a map.
SETS = {"leases", "alarms"}


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


# -- v2 -------------------------------------------------------------------------------------------------------

#: Of v2's pages what is a cluster's own: ids, names, addresses, times, figures of the process.
_PAGES = {
    "/v2/members": ("id", "name", "peerURLs", "clientURLs"),
    "/v2/members/": ("id", "name", "peerURLs", "clientURLs"),
    "/v2/members/leader": ("id", "name", "peerURLs", "clientURLs"),
    "/v2/stats/self": ("id", "name", "leader", "startTime", "uptime", "recvAppendRequestCnt", "sendAppendRequestCnt"),
    "/v2/stats/leader": ("leader",),
    "/v2/stats/store": (),
}


def v2_page(path: str, answer: Plain) -> Plain:
    """A page without what is a cluster's own; the names of the fields stay."""
    if path == "/v2/machines":
        return {**answer, "body": bool(answer["body"])}
    if path == "/v2/stats/store" and isinstance(answer["body"], dict):
        return {**answer, "body": sorted(answer["body"])}
    return {**answer, "body": _without(answer["body"], _PAGES.get(path, ()))}


def _without(data: Any, names: tuple[str, ...]) -> Any:
    if isinstance(data, list):
        return [_without(one, names) for one in data]
    if not isinstance(data, dict):
        return data
    return {
        name: "" if name in names and not isinstance(one, dict) else _without(one, names) for name, one in data.items()
    }


def v2_watches(theirs: list[Any], ours: list[Any], watch: Any) -> tuple[list[Any], list[Any]]:
    """Where etcd's watches are lossy, or tell twice; ``watch``: one of theirs.

    - A stream that begins in the past ends, in etcd, with its first event: what else we tell isn't compared.
    - A stream at a key that is deleted is told of it twice.
    - A watch below a directory that is deleted is told of it only if there was something at its key.
    """
    theirs = [one for at, one in enumerate(theirs) if not at or one != theirs[at - 1]]
    if watch.past and watch.streams and theirs:
        ours = ours[: len(theirs)]
    if theirs != ours and ours and watch.key.startswith(ours[0]["node"]["key"] + "/"):
        above = [one for one in ours if watch.key.startswith(one["node"]["key"] + "/")]
        if not watch.streams:
            return theirs, theirs  # ours was over then
        ours = [one for one in ours if one not in above or one in theirs]
    return theirs, ours
