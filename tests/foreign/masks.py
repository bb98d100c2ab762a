"""What two clusters may print differently, taken out of etcdctl's output: the one closed list of it."""

import re
from collections.abc import Callable

_NUMBERED = (
    "cluster_id member_id raft_term raft_index leader raftTerm raftIndex raftAppliedIndex dbSize dbSizeInUse ttl"
)
_FIELDS = "ClusterID MemberID RaftTerm RaftIndex Leader DbSize DbSizeInUse RaftAppliedIndex TTL"

#: In this order; each names what it hides.
_MASKS: list[tuple[str, str]] = [
    # addresses: the clusters' own, and those of the client's end
    (r"(https?://)?\b(127\.0\.0\.1|localhost):\d+", "<address>"),
    (r"\bclient-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "client-<id>"),
    # ids: of members, clusters, leases; in json they are decimal numbers
    (r"\b[0-9a-f]{13,16}\b", "<id>"),
    (r"\"(ID|id|lease|memberID)\":\d{10,}", r'"\1":<id>'),
    (r"\"(ID|MemberID|Lease)\" : \d{10,}", r'"\1" : <id>'),
    (r"\b\d{17,20}\b", "<id>"),
    # terms, raft's indices, sizes, remaining times
    (rf"\"({'|'.join(_NUMBERED.split())})\":-?\d+", r'"\1":<n>'),
    (rf"\"({'|'.join(_FIELDS.split())})\" : -?\d+", r'"\1" : <n>'),
    (r"\bTTL: [1-9]\d*", "TTL: <n>"),
    (r"remaining\(\d+s\)", "remaining(<n>s)"),
    (r"\b\d+(\.\d+)? [kMG]?B\b", "<size>"),
    # versions of the server
    (r"\b\d+\.\d+\.\d+(-[\w.]+)?\b", "<version>"),
    # times and durations
    (r"\"ts\":\"?[^\",]+\"?", '"ts":<time>'),
    (r"\b\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?", "<time>"),
    (r"\b\d+\.\d+(ns|µs|ms|s)\b", "<took>"),
    (r"(took\W{1,5})\d+(\.\d+)?((ns|µs|ms|s)\b)?", r"\1<took>"),
    (r"0x[0-9a-f]{6,}", "<pointer>"),
    (r" +", " "),
    (r"-{3,}", "---"),
    (r"─{3,}", "───"),
]
_COMPILED = [(re.compile(pattern), instead) for pattern, instead in _MASKS]
_STATUS = re.compile(r"\b[0-9a-f]{6,8}\b|\b\d+\b%?")
_INDEX = re.compile(r"((?:Index: |Index\":))(\d+)|(\[)(\d+)(?=\])")
_UNEQUAL = re.compile(r"\[\d+ != \d+\]")


def masked(text: str, addresses: dict[str, str], *, status: bool = False) -> str:
    """The text without what is a cluster's own. ``status``: an endpoint's, whose figures are all its own."""
    for address, name in addresses.items():
        text = text.replace(address, name)
    for pattern, instead in _COMPILED:
        text = pattern.sub(instead, text)
    return _STATUS.sub("<n>", text) if status else text


def unordered(text: str) -> str:
    """The lines, and a cluster's members in one, sorted: what etcd prints in the order of a map or of ids."""
    cluster = re.compile(r"(?<=INITIAL_CLUSTER=\")[^\"]*")
    text = cluster.sub(lambda found: ",".join(sorted(found[0].split(","))), text)
    return "\n".join(sorted(text.splitlines()))


def rebased(text: str, first: int) -> str:
    """v2's indices, which start where the cluster's own entries ended, counted from there."""

    def shifted(found: re.Match[str]) -> str:
        number = int(found[2] or found[4])
        return f"{found[1] or found[3]}+{number - first}" if number else found[0]

    return _INDEX.sub(shifted, text)


def unequal(text: str) -> str:
    """A failed comparison of indices, whose causes show them bare."""
    return _UNEQUAL.sub("[<n> != <n>]", text)


def message(data: bytes) -> str:
    """A protobuf response as text, without its first field: the header with the ids and terms."""
    parts, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        start = at
        at = _SKIP[tag & 7](data, at)
        if tag >> 3 != 1:
            parts.append(f"{tag >> 3}:{data[start:at].hex()}")
    return " ".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def _skip_bytes(data: bytes, at: int) -> int:
    length, at = _varint(data, at)
    return at + length


_SKIP: dict[int, Callable[[bytes, int], int]] = {
    0: lambda data, at: _varint(data, at)[1],
    1: lambda data, at: at + 8,
    2: _skip_bytes,
    5: lambda data, at: at + 4,
}
