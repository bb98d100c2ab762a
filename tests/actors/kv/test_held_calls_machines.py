"""Of the cluster the kv fold tells what came of each event, and knows who is there."""

from typing import Any

from actors.coordination.membership import is_removed, plain_id
from actors.kv.state import KvFold
from streams.events import cluster as says
from streams.events.base import Data, say
from streams.outcomes import DONE, Accepted, Rejected
from streams.records import Position, Record
from streams.replay import Context, LogState

A, B = "aa" * 16, "bb" * 16


def tell(fold: KvFold, data: Data, subject: str = "", machine: str = A, term: int = 0) -> Any:
    record = Record("ab" * 16, "cluster", f"coordination@{machine}", 1, 1, 1000, b"", offset=3)
    return fold.evolve(say(data, subject=subject, term=term), Context(Position(3), record, LogState()))


def join(fold: KvFold, machine: str, *peers: str) -> Any:
    return tell(fold, says.MachineJoined(nonce="n", boot_id="b", name=machine[:1], peers=list(peers)), machine, machine)


def test_it_is_told_who_won_an_election_and_who_lost() -> None:
    fold = KvFold()
    assert tell(fold, says.Claim(0, 0)) == Accepted({"term": 1})
    lost = tell(fold, says.Claim(0, 0), machine=B)
    assert isinstance(lost, Rejected)
    assert lost.code == "claim-lost"
    assert fold.cluster.election.holder == A
    assert tell(fold, says.Resign(), term=1) == DONE
    assert fold.cluster.election.holder == ""


def test_a_machine_that_is_alive_or_unknown_is_not_taken_away() -> None:
    fold = KvFold()
    assert join(fold, A) == DONE
    assert tell(fold, says.MachineRemoved(), B) == DONE
    assert tell(fold, says.MachineRemoved(), A) == DONE
    assert list(fold.cluster.members) == [A]
    assert tell(fold, says.MachineLeft(), A) == DONE
    assert tell(fold, says.MachineRemoved(), A) == DONE
    assert fold.cluster.members == {}


def test_the_machine_of_a_removed_member_does_not_come_back() -> None:
    fold = KvFold()
    join(fold, A, "http://a:2380")
    ident = int(tell(fold, says.MemberAdd(["http://b:2380"], learner=True)).result["id"])
    assert join(fold, B, "http://b:2380") == DONE
    assert set(fold.cluster.members) == {A, B}
    assert tell(fold, says.MachineLeft(), B) == DONE
    assert tell(fold, says.MemberRemove(ident)) == DONE
    assert join(fold, B, "http://b:2380") == DONE
    assert is_removed(fold.cluster.membership, B)
    assert not fold.cluster.members[B].alive
    assert ident != plain_id(B)
