"""Stream ``cluster``: the election and the machines."""

from streams.events.base import Data, event


@event("master.claimed.v1", "cluster")
class Claim(Data, frozen=True):
    """Accepted if both expectations match at its offset: term += 1, the writer's machine holds it.

    ``sent_ms``: boot-time clock of the writer's machine at sending; ``nonce``: of its node's start. Both are for
    the processes of that machine alone.
    """

    expect_term: int
    expect_renew_seq: int
    sent_ms: int = 0
    nonce: str = ""


@event("master.renewed.v1", "cluster")
class Renew(Data, frozen=True):
    """Only from the holder in its term (envelope ``term``).

    ``offset``/``chain``: where its last accepted claim or renewal stands and the chain hash there, compared at apply.
    ``sent_ms`` is the holder's boot-time clock at sending; only processes of its own machine may use it.
    """

    seq: int
    sent_ms: int
    offset: int = -1
    chain: str = ""


@event("master.resigned.v1", "cluster")
class Resign(Data, frozen=True):
    """Hands over at once (envelope ``term``); ``to`` names the machine that should claim without waiting."""

    reason: str = ""
    to: str = ""


@event("master.asked.v1", "cluster", command=True)
class MasterAsked(Data, frozen=True):
    """An operator asks the master to hand over to the machine in subject; it does if that machine can take over."""


@event("machine.joined.v1", "cluster")
class MachineJoined(Data, frozen=True):
    """Subject: machine id. Said at each start of a node; a second live node with the same id is refused.

    ``nonce`` is new at each start of the node. A machine that is alive can be replaced only by who names its nonce
    as ``previous``: a restart knows it from its data folder. ``sent_ms``: as in ``machine.seen``.
    """

    nonce: str
    boot_id: str
    name: str = ""
    version: str = ""
    level: int = 1
    gateway: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    metadata: dict[str, str] = {}
    control: bool = True
    previous: str = ""
    sent_ms: int = 0
    #: peer URLs as told by its settings: by them a member that was added finds its machine
    peers: list[str] = []


@event("machine.seen.v1", "cluster")
class MachineSeen(Data, frozen=True):
    """A machine's own renewal (subject), batched once a second; extends its life and the right to its fences.

    ``sent_ms``: its boot-time clock at sending, for the processes of that machine alone.
    """

    sent_ms: int
    nonce: str = ""


@event("machine.left.v1", "cluster")
class MachineLeft(Data, frozen=True):
    """An orderly stop; its units may be moved at once unless ``returning`` (restart of the node, units run on)."""

    returning: bool = False


@event("machine.lost.v1", "cluster")
class MachineLost(Data, frozen=True):
    """The master (term): not seen for the TTL of live log. Void if it was seen after ``last_seen`` (position)."""

    last_seen: str
    ttl_ms: int


@event("machine.withheld.v1", "cluster")
class MachinesWithheld(Data, frozen=True):
    """The master (term): more than a quarter (and two) vanished within one TTL; nothing is moved."""

    machines: list[str]
    reason: str


@event("machine.removed.v1", "cluster", command=True)
class MachineRemoved(Data, frozen=True):
    """An operator removes a lost machine for good (its id may join again later as a new one)."""


@event("machine.labelled.v1", "cluster", command=True)
class MachineLabelled(Data, frozen=True):
    """Sets (or with null removes) metadata of the machine in subject."""

    metadata: dict[str, str | None]


@event("machine.drained.v1", "cluster", command=True)
class MachineDrain(Data, frozen=True):
    """``drain`` true: no unit may be placed here and those here are moved; false: back to normal."""

    drain: bool = True


@event("member.added.v1", "cluster", command=True)
class MemberAdd(Data, frozen=True):
    """etcd's MemberAdd: a member that isn't there yet; the machine that joins with one of ``peers`` becomes it."""

    peers: list[str]
    learner: bool = False


@event("member.removed.v1", "cluster", command=True)
class MemberRemove(Data, frozen=True):
    """etcd's MemberRemove; its machine's node ends, and never joins again. ``id``: as etcd's clients see it."""

    id: int


@event("member.updated.v1", "cluster", command=True)
class MemberUpdate(Data, frozen=True):
    """etcd's MemberUpdate: other peer URLs."""

    id: int
    peers: list[str]


@event("member.promoted.v1", "cluster", command=True)
class MemberPromote(Data, frozen=True):
    """etcd's MemberPromote: a learner becomes a voting member."""

    id: int
