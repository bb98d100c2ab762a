"""Of the cluster what the kv replica needs. Apart from the fold, which may be compiled."""

import msgspec
from msgspec import UNSET, UnsetType

from actors.coordination import election as elections
from actors.coordination import lives
from actors.coordination import membership as memberships
from actors.kv.v2 import auth as v2_auth
from streams.events import cluster as says
from streams.events.base import Event
from streams.kinds import ALIKE_FROM_LEVEL, Context
from streams.outcomes import DONE, Outcome, Rejected


class Member(msgspec.Struct):
    """A machine as etcd's clients see it. ``clients``: the URLs where it serves them.

    ``nonce``, ``seen_at``, ``withheld``: as the control fold knows it. Unset for a machine whose node hasn't started
    since the log is of level 3; ``withheld`` is set while it counts as alive though it isn't heard.
    """

    name: str = ""
    alive: bool = True
    control: bool = True
    clients: list[str] = []
    nonce: str | UnsetType = UNSET
    seen_at: str | UnsetType = UNSET
    withheld: bool | UnsetType = UNSET


class Cluster(msgspec.Struct):
    """The head of the fold's snapshot: all of its state but the stores."""

    election: elections.Election = msgspec.field(default_factory=elections.Election)
    members: dict[str, Member] = {}
    membership: memberships.Members = msgspec.UNSET
    users2: v2_auth.Kept = msgspec.UNSET

    @property
    def controls(self) -> list[str]:
        return [name for name, member in self.members.items() if member.control]

    def member(self, machine: str) -> Member:
        return self.members.setdefault(machine, Member())


def evolve(cluster: Cluster, event: Event, context: Context) -> Outcome:
    """Whether a machine lives, and its name.

    From level 3 on what the control fold refuses is refused here too, of each machine that has joined since.
    """
    member = cluster.members.get(event.subject)
    alike = context.log.level >= ALIKE_FROM_LEVEL
    if alike and (member is None or member.nonce is not UNSET):
        if (refused := _refused(cluster, member, event, context)) is not None:
            return refused
    elif isinstance(event.data, says.MachineRemoved) and member is not None and member.alive:
        return DONE
    match event.data:
        case says.MachineJoined():
            _join(cluster, event, event.data, str(context.position) if alike else UNSET)
        case says.MachinesWithheld() if alike:
            for name in event.data.machines:
                if (one := cluster.members.get(name)) is not None and one.alive:
                    one.withheld = True
        case _ if member is not None:
            _change(cluster, member, event, str(context.position))
        case _:
            pass
    return DONE


def _refused(cluster: Cluster, member: Member | None, event: Event, context: Context) -> Rejected | None:
    match event.data:
        case says.MachineJoined():
            if (refused := lives.speaks_for(event, context)) is not None:
                return refused
            return lives.DUPLICATE if lives.is_duplicate(member, event.data) else None
        case says.MachineSeen():
            return lives.seen(member, event, event.data, context)
        case says.MachineLeft():
            return lives.left(member, event, context)
        case says.MachineLost():
            return lives.lost(member, event, event.data)
        case says.MachinesWithheld() if not event.term:
            return lives.NOT_THE_MASTER
        case says.MachineRemoved():
            return lives.removed(member, event, member is not None and member.withheld is True)
        case _:
            return None


def _join(cluster: Cluster, event: Event, data: says.MachineJoined, seen_at: str | UnsetType) -> None:
    """``seen_at``: unset below level 3."""
    if memberships.is_removed(cluster.membership, event.subject):
        return
    cluster.membership = memberships.joined(cluster.membership, cluster.controls, event.subject, data)
    member = cluster.member(event.subject)
    member.name, member.control, member.alive = data.name, data.control, True
    if seen_at is not UNSET:
        member.nonce, member.seen_at, member.withheld = data.nonce, seen_at, UNSET


def _change(cluster: Cluster, member: Member, event: Event, at: str) -> None:
    match event.data:
        case says.MachineSeen():
            member.alive, member.withheld = True, UNSET
            if member.nonce is not UNSET:
                member.seen_at = at
        case says.MachineLeft():
            member.withheld = UNSET
            # who comes back at once is alive for the control fold, whose rules count where they are known
            member.alive = event.data.returning and member.nonce is not UNSET
        case says.MachineLost():
            member.alive, member.withheld = False, UNSET
        case says.MachineRemoved():
            del cluster.members[event.subject]
            memberships.forget(cluster.membership, event.subject)
        case _:
            pass
