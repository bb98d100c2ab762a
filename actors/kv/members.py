"""Of the cluster what the kv replica needs. Apart from the fold, which may be compiled."""

import msgspec

from actors.coordination import election as elections
from actors.coordination import membership as memberships
from actors.kv.v2 import auth as v2_auth


class Member(msgspec.Struct):
    """A machine as etcd's clients see it. ``clients``: the URLs where it serves them."""

    name: str = ""
    alive: bool = True
    control: bool = True
    clients: list[str] = []


class Cluster(msgspec.Struct):
    """The head of the fold's snapshot: all of its state but the stores."""

    election: elections.Election = msgspec.field(default_factory=elections.Election)
    members: dict[str, Member] = {}
    membership: memberships.Members = msgspec.UNSET
    users2: v2_auth.Kept = msgspec.UNSET

    @property
    def controls(self) -> list[str]:
        return [name for name, member in self.members.items() if member.control]
