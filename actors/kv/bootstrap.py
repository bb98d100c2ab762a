"""A new cluster of several members answers clients when most of those named for it serve, as etcd's does.

Who asks the first member at once would be told of a cluster that has no other members, and could lose it again.
"""

from collections.abc import Sequence

from actors.kv.members import Cluster


def is_new(names: Sequence[str], machine: str, cluster: Cluster) -> bool:
    """Whether others are to be waited for: ``names`` has several, and this machine never served clients before."""
    known = cluster.members.get(machine)
    return len(names) > 1 and not (known is not None and known.clients)


def missing(names: Sequence[str], cluster: Cluster) -> list[str]:
    """Who of the named doesn't serve yet; none if most of them do."""
    serving = {member.name for member in cluster.members.values() if member.clients}
    found = [name for name in names if name not in serving]
    return found if len(names) - len(found) <= len(names) // 2 else []
