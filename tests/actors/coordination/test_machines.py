"""Machines on the log: who may join, be seen, be lost; what a restart or a duplicate comes to."""

import pytest

from streams.events import cluster as says
from streams.events.base import say
from streams.outcomes import Accepted, Rejected
from tests.actors.coordination.test_election import MACHINES, Book

A, B, C = MACHINES


def machine(book: Book, name: str):
    return book.replica.fold.state.cluster.machines[name]


def join(book: Book, who: str = A, nonce: str = "1", previous: str = "", **more):
    return book.one(who, say(says.MachineJoined(nonce=nonce, boot_id="b", previous=previous, **more), subject=who))


def see(book: Book, name: str = A, nonce: str = "1", sent_ms: int = 5):
    return book.one(name, say(says.MachineSeen(sent_ms=sent_ms, nonce=nonce), subject=name))


def lose(book: Book, name: str, last_seen: str = "", master: str = C):
    lost = says.MachineLost(last_seen=last_seen or machine(book, name).seen_at, ttl_ms=3000)
    return book.one(master, say(lost, subject=name, term=book.election.term))


def code(outcome) -> str:
    assert isinstance(outcome, Rejected), outcome
    return outcome.code


def test_a_second_live_node_of_one_machine_is_refused_and_changes_nothing():
    book = Book()
    join(book, nonce="1", name="first")
    before = b"".join(book.replica.fold.encode())
    refused = join(book, nonce="2")
    assert code(refused) == "duplicate-machine"
    assert "first" in refused.message
    assert b"".join(book.replica.fold.encode()) == before


def test_a_restart_names_the_nonce_that_it_replaces():
    book = Book()
    join(book, nonce="1")
    assert join(book, nonce="2", previous="1") == Accepted({"generation": 2})
    assert code(see(book, nonce="1")) == "other-nonce"
    assert code(join(book, nonce="3", previous="1")) == "duplicate-machine"


def test_a_lost_machine_joins_again_under_any_nonce():
    book = Book()
    join(book)
    book.claim(C)
    assert isinstance(lose(book, A), Accepted)
    assert isinstance(join(book, nonce="9"), Accepted)
    assert machine(book, A).alive


def test_a_renewal_ordered_before_it_voids_a_loss():
    book = Book()
    join(book)
    book.claim(C)
    seen_at = machine(book, A).seen_at
    see(book)
    assert code(lose(book, A, seen_at)) == "seen-since"
    assert machine(book, A).alive


def test_a_renewal_after_its_loss_extends_nothing():
    """Its right to fenced units may not grow behind the master's back."""
    book = Book()
    join(book, sent_ms=100)
    book.claim(C)
    lose(book, A)
    assert code(see(book, sent_ms=9000)) == "not-alive"
    assert machine(book, A).seen_ms == 100


def test_nobody_but_the_master_gives_machines_up():
    book = Book()
    join(book)
    lost = say(says.MachineLost(last_seen=machine(book, A).seen_at, ttl_ms=3000), subject=A)
    assert code(book.one(B, lost)) == "not-the-master"
    withheld = say(says.MachinesWithheld(machines=[A], reason="x"))
    assert code(book.one(B, withheld)) == "not-the-master"


def test_no_machine_speaks_for_another():
    book = Book()
    join(book)
    assert code(book.one(B, say(says.MachineSeen(sent_ms=1, nonce="1"), subject=A))) == "not-own-machine"
    left = say(says.MachineLeft(), subject=A)
    assert code(book.one(B, left)) == "not-own-machine"


def test_generation_counts_joins_losses_drains_and_metadata_and_never_counts_back():
    book = Book()
    join(book)
    seen = [machine(book, A).generation]
    book.claim(C)
    for act in (
        lambda: book.one(B, say(says.MachineDrain(), subject=A)),
        lambda: book.one(B, say(says.MachineLabelled(metadata={"disk": "ssd"}), subject=A)),
        lambda: lose(book, A),
        lambda: join(book, nonce="2"),
        lambda: book.one(A, say(says.MachineLeft(), subject=A)),
    ):
        assert isinstance(act(), Accepted)
        seen.append(machine(book, A).generation)
    assert isinstance(book.one(B, say(says.MachineRemoved(), subject=A)), Accepted)
    join(book, nonce="3")
    seen.append(machine(book, A).generation)
    assert seen == sorted(set(seen)), seen


def test_what_says_the_same_again_changes_no_generation():
    book = Book()
    join(book)
    book.one(B, say(says.MachineDrain(), subject=A))
    generation = machine(book, A).generation
    book.one(B, say(says.MachineDrain(), subject=A))
    see(book)
    assert machine(book, A).generation == generation


def test_labels_outlive_a_restart_and_null_removes():
    book = Book()
    join(book, metadata={"disk": "ssd", "zone": "a"})
    book.one(B, say(says.MachineLabelled(metadata={"zone": "b", "disk": None}), subject=A))
    assert machine(book, A).metadata == {"zone": "b"}
    join(book, nonce="2", previous="1", metadata={"disk": "ssd", "zone": "a", "new": "1"})
    assert machine(book, A).metadata == {"new": "1", "zone": "b"}


def test_a_drain_outlives_a_restart():
    book = Book()
    join(book)
    book.one(B, say(says.MachineDrain(), subject=A))
    join(book, nonce="2", previous="1")
    assert machine(book, A).drained


def test_withheld_machines_count_as_alive_until_seen():
    book = Book()
    for name in (A, B):
        join(book, name)
    book.claim(C)
    withheld = say(says.MachinesWithheld(machines=[A, B], reason="x"), term=1)
    assert isinstance(book.one(C, withheld), Accepted)
    cluster = book.replica.fold.state.cluster
    assert set(cluster.withheld) == {A, B}
    assert machine(book, A).alive
    see(book, A)
    assert set(cluster.withheld) == {B}
    assert isinstance(book.one(C, say(says.MachineRemoved(), subject=B)), Accepted)
    assert cluster.withheld == {}


def test_a_live_machine_is_not_removed():
    book = Book()
    join(book)
    assert code(book.one(B, say(says.MachineRemoved(), subject=A))) == "machine-alive"


@pytest.mark.parametrize(
    "data",
    [
        says.MachineRemoved(),
        says.MasterAsked(),
        says.MachineLabelled(metadata={"a": "b"}),
        says.MachineDrain(drain=True),
    ],
)
def test_commands_about_strangers_are_refused_by_name(data):
    refused = Book().one(B, say(data, subject="f" * 32))
    assert code(refused) == "unknown-machine"
    assert "f" * 32 in refused.message
