"""Members of the cluster as etcd's clients change them. Both folds see it, as the election. Pure.

Machines that run control actors are members by joining. ``member add`` tells of one that is to come: it has an id, and
the first machine that joins with one of its peer URLs becomes it. Removed ones never return. Source of the rules and
their words: etcd's ``server/etcdserver/api/membership``.

As long as nobody changed members, and no machine told of peer URLs, they follow from the machines: then the state is
UNSET, and nothing of it stands in a fold's snapshot.
"""

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import UnsetType

from streams.events import cluster as says
from streams.events.base import Event
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.replay import Context

ID_DIGITS = 16


def _refused(code: int, words: str) -> Rejected:
    """As etcd's clients are told it: gRPC's status, etcd's words."""
    return Rejected(f"v3.{code}", f"etcdserver: {words}")


NOT_FOUND = _refused(5, "member not found")
PEERS_EXIST = _refused(9, "Peer URLs already exists")
BAD_PEERS = _refused(3, "given member URLs are invalid")
TOO_MANY_LEARNERS = _refused(9, "too many learner members in cluster")
NOT_LEARNER = _refused(9, "can only promote a learner member")
LEARNER_NOT_READY = _refused(9, "can only promote a learner member which is in sync with leader")
NOT_ENOUGH_STARTED = _refused(9, "re-configuration failed due to not enough started members")


class One(msgspec.Struct):
    """``machine``: empty until it has joined."""

    id: int
    peers: list[str] = []
    learner: bool = False
    machine: str = ""


class Membership(msgspec.Struct):
    """``members`` by id (in texts, as JSON's keys are). ``removed``: ids and machines that may not return."""

    members: dict[str, One] = {}
    removed: dict[str, str] = {}

    def of(self, machine: str) -> One | None:
        return next((one for one in self.members.values() if one.machine == machine), None)

    def is_removed(self, machine: str) -> bool:
        return machine in self.removed.values()


#: What a fold keeps.
Members = Membership | UnsetType


def full(members: Members, machines: Iterable[str]) -> Membership:
    """``machines``: those with control actors, in the order they came."""
    if isinstance(members, Membership):
        return members
    return Membership({str(plain_id(machine)): One(plain_id(machine), machine=machine) for machine in machines})


def id_of(members: Members, machine: str) -> int:
    """As etcd's clients see it; 0 of no machine."""
    known = members.of(machine) if isinstance(members, Membership) else None
    return known.id if known else plain_id(machine)


def is_learner(members: Members, machine: str) -> bool:
    known = members.of(machine) if isinstance(members, Membership) else None
    return known is not None and known.learner


def is_removed(members: Members, machine: str) -> bool:
    return isinstance(members, Membership) and members.is_removed(machine)


def votes(members: Members, machine: str) -> bool:
    """Whether it may stand for election."""
    return not is_learner(members, machine) and not is_removed(members, machine)


def plain_id(machine: str) -> int:
    """Of a machine that nobody added before it came."""
    if not machine:
        return 0
    try:
        return int(machine[:ID_DIGITS], 16)
    except ValueError:  # no id that a node made; it must not stop who reads it
        return int.from_bytes(hashlib.sha256(machine.encode()).digest()[:8])


def evolve(members: Members, machines: Iterable[str], event: Event, context: Context) -> tuple[Outcome, Members] | None:
    """The outcome, and what the fold keeps from now on. None: the event isn't about members."""
    data = event.data
    if not isinstance(data, says.MemberAdd | says.MemberRemove | says.MemberUpdate | says.MemberPromote):
        return None
    known = full(members, machines)
    match data:
        case says.MemberAdd():
            outcome = _add(known, data, context)
        case says.MemberRemove():
            outcome = _remove(known, data)
        case says.MemberUpdate():
            outcome = _update(known, data)
        case _:
            outcome = _promote(known, data)
    return outcome, members if isinstance(outcome, Rejected) else known


def joined(members: Members, machines: Iterable[str], machine: str, data: says.MachineJoined) -> Members:
    """A machine of the log has joined: it is a member from now on, one that was added or a new one."""
    if not data.control or is_removed(members, machine) or (isinstance(members, UnsetType) and not data.peers):
        return members
    all_of_them = full(members, machines)
    known = all_of_them.of(machine)
    if known is None:
        coming = (one for one in all_of_them.members.values() if not one.machine and set(one.peers) & set(data.peers))
        known = next(coming, None)
        if known is None:
            known = One(plain_id(machine))
            all_of_them.members[str(known.id)] = known
        known.machine = machine
    if data.peers:
        known.peers = list(data.peers)
    return all_of_them


def forget(members: Members, machine: str) -> None:
    """An operator removed a machine that is lost; another start of it would be a new member."""
    known = members.of(machine) if isinstance(members, Membership) else None
    if known is not None and isinstance(members, Membership):
        del members.members[str(known.id)]


def _add(members: Membership, data: says.MemberAdd, context: Context) -> Outcome:
    if not data.peers or not all(_is_url(url) for url in data.peers):
        return BAD_PEERS
    if _taken(members, data.peers, 0):
        return PEERS_EXIST
    if data.learner and any(one.learner for one in members.members.values()):
        return TOO_MANY_LEARNERS
    if not data.learner and not _may_add(members):
        return NOT_ENOUGH_STARTED
    text = ",".join(sorted(data.peers)) + f"@{context.record.offset}"
    made = One(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]), list(data.peers), data.learner)
    members.members[str(made.id)] = made
    return Accepted({"id": str(made.id)})


def _remove(members: Membership, data: says.MemberRemove) -> Outcome:
    known = members.members.get(str(data.id))
    if known is None:
        return NOT_FOUND
    if not known.learner and not _may_remove(members, known):
        return NOT_ENOUGH_STARTED
    del members.members[str(data.id)]
    members.removed[str(data.id)] = known.machine
    return DONE


def _update(members: Membership, data: says.MemberUpdate) -> Outcome:
    known = members.members.get(str(data.id))
    if known is None:
        return NOT_FOUND
    if not data.peers or not all(_is_url(url) for url in data.peers):
        return BAD_PEERS
    if _taken(members, data.peers, data.id):
        return PEERS_EXIST
    known.peers = list(data.peers)
    return DONE


def _promote(members: Membership, data: says.MemberPromote) -> Outcome:
    known = members.members.get(str(data.id))
    if known is None:
        return NOT_FOUND
    if not known.learner:
        return NOT_LEARNER
    if not known.machine:
        return LEARNER_NOT_READY
    known.learner = False
    return DONE


def _taken(members: Membership, peers: list[str], but: int) -> bool:
    return any(set(one.peers) & set(peers) for one in members.members.values() if one.id != but)


def _may_add(members: Membership) -> bool:
    """A majority of the members, with the new one, has started; a second one may always come."""
    voting = [one for one in members.members.values() if not one.learner]
    started, count = sum(bool(one.machine) for one in voting), len(voting) + 1
    return (started == 1 and count == 2) or started >= count // 2 + 1


def _may_remove(members: Membership, gone: One) -> bool:
    voting = [one for one in members.members.values() if not one.learner and one is not gone]
    return sum(bool(one.machine) for one in voting) >= len(voting) // 2 + 1


def _is_url(text: str) -> bool:
    scheme, separator, rest = text.partition("://")
    return bool(separator) and scheme in ("http", "https", "unix", "unixs") and bool(rest) and " " not in rest
