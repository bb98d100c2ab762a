"""etcd's members on the log: added, joined, updated, promoted, removed for good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.coordination.membership import full, id_of, plain_id, votes
from streams.events import cluster as says
from streams.events.base import say
from streams.outcomes import Accepted, Rejected
from tests.actors.coordination.test_election import MACHINES, Book

A, B, C = MACHINES
NOT_ENOUGH = "etcdserver: re-configuration failed due to not enough started members"


def join(book: Book, who: str, *peers: str, control: bool = True, nonce: str = "1"):
    joined = says.MachineJoined(nonce=nonce, boot_id="b", peers=list(peers), control=control, previous="1")
    return book.one(who, say(joined, subject=who))


def add(book: Book, *peers: str, learner: bool = False) -> int:
    outcome = book.one(A, say(says.MemberAdd(list(peers), learner)))
    assert isinstance(outcome, Accepted), outcome
    return int(outcome.result["id"])


def members(book: Book):
    cluster = book.replica.fold.state.cluster
    return full(cluster.membership, [name for name, one in cluster.machines.items() if one.control])


def may(book: Book, machine: str) -> bool:
    return votes(book.replica.fold.state.cluster.membership, machine)


def ident_of(book: Book, machine: str) -> int:
    return id_of(book.replica.fold.state.cluster.membership, machine)


def refused(book: Book, data: object, words: str) -> None:
    outcome = book.one(A, say(data))
    assert isinstance(outcome, Rejected), outcome
    assert words in outcome.message


def test_machines_are_members_by_joining_those_without_control_are_not():
    book = Book()
    join(book, A)
    join(book, B, control=False)
    assert {one.machine for one in members(book).members.values()} == {A}
    assert ident_of(book, A) == plain_id(A)


def test_the_machine_with_its_peer_url_becomes_the_member_that_was_added():
    book = Book()
    join(book, A, "http://a:2380")
    ident = add(book, "http://b:2380", "http://b:2381")
    assert members(book).members[str(ident)].machine == ""
    join(book, B, "http://b:2381")
    assert ident_of(book, B) == ident
    join(book, B, "http://b:2381", nonce="2")  # a restart changes nothing
    assert ident_of(book, B) == ident
    assert len(members(book).members) == 2


def test_a_majority_must_have_started_but_the_second_may_come():
    book = Book()
    join(book, A)
    add(book, "http://b:1")
    refused(book, says.MemberAdd(["http://c:1"]), NOT_ENOUGH)
    join(book, B, "http://b:1")
    add(book, "http://c:1")
    refused(book, says.MemberRemove(plain_id(A)), NOT_ENOUGH)


def test_the_last_one_is_not_removed():
    book = Book()
    join(book, A)
    refused(book, says.MemberRemove(plain_id(A)), NOT_ENOUGH)


def test_one_learner_at_most_who_neither_stands_nor_counts_until_it_is_promoted():
    book = Book()
    join(book, A)
    ident = add(book, "http://l:1", learner=True)
    refused(book, says.MemberAdd(["http://m:1"], True), "too many learner members in cluster")
    refused(book, says.MemberPromote(ident), "which is in sync with leader")
    join(book, B, "http://l:1")
    assert not may(book, B)
    assert isinstance(book.one(A, say(says.MemberPromote(ident))), Accepted)
    assert may(book, B)
    refused(book, says.MemberPromote(ident), "can only promote a learner member")


def test_who_was_removed_never_returns():
    book = Book()
    for machine in (A, B, C):
        join(book, machine)
    assert isinstance(book.one(A, say(says.MemberRemove(plain_id(C)))), Accepted)
    assert not may(book, C)
    outcome = join(book, C, nonce="2")
    assert isinstance(outcome, Rejected)
    assert outcome.code == "removed-member"
    refused(book, says.MemberRemove(plain_id(C)), "member not found")


@pytest.mark.parametrize("peers", [[], [""], ["b:2380"], ["ftp://b"], ["http://"], ["http://a b"]])
def test_what_is_no_url_is_refused(peers: list[str]):
    book = Book()
    join(book, A)
    refused(book, says.MemberAdd(peers), "given member URLs are invalid")
    refused(book, says.MemberUpdate(plain_id(A), peers), "given member URLs are invalid")


def test_no_two_have_one_peer_url():
    book = Book()
    join(book, A, "http://a:1")
    refused(book, says.MemberAdd(["http://a:1"]), "Peer URLs already exists")
    ident = add(book, "http://b:1")
    refused(book, says.MemberUpdate(ident, ["http://a:1"]), "Peer URLs already exists")
    assert isinstance(book.one(A, say(says.MemberUpdate(ident, ["http://b:1", "http://b:2"]))), Accepted)
    for data in (says.MemberUpdate(1, ["http://x:1"]), says.MemberPromote(1), says.MemberRemove(1)):
        refused(book, data, "member not found")


@given(st.data())
def test_whatever_is_asked_a_majority_has_started_and_ids_are_one_machines(data):
    book = Book()
    join(book, A, "http://0:1")
    known: list[int] = [plain_id(A)]
    for number in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["add", "learn", "join", "remove", "promote"]))
        if kind in ("add", "learn"):
            outcome = book.one(A, say(says.MemberAdd([f"http://{number}:1"], kind == "learn")))
            if isinstance(outcome, Accepted):
                known.append(int(outcome.result["id"]))
        elif kind == "join":
            join(book, data.draw(st.sampled_from([B, C])), f"http://{data.draw(st.integers(0, 11))}:1")
        else:
            change = says.MemberRemove if kind == "remove" else says.MemberPromote
            book.one(A, say(change(data.draw(st.sampled_from(known)))))
        voting = [one for one in members(book).members.values() if not one.learner]
        machines = [one.machine for one in members(book).members.values() if one.machine]
        assert len(set(machines)) == len(machines)
        assert sum(one.learner for one in members(book).members.values()) <= 1
        assert not voting or any(one.machine for one in voting)
