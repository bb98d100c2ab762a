"""The election's rules, each under its name, over random histories and a few chosen ones."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.control import ControlFold
from actors.coordination.election import EPSILON, acting
from streams.events import cluster as says
from streams.events import log as log_says
from streams.events.base import Event, encode, say
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Entry, Record
from streams.replay import LEVEL, Applied, Diverged, Halt, Replica

LOG_ID = "0" * 32
MACHINES = ["a" * 32, "b" * 32, "c" * 32]


@dataclass
class Book:
    """A log written by hand, applied to a replica as it grows."""

    entries: list[Entry] = field(default_factory=list)
    replica: Replica = field(default_factory=lambda: Replica(ControlFold()))

    def __post_init__(self) -> None:
        self.write("log", "node", MACHINES[0], say(log_says.LogOpened(id=LOG_ID, level=LEVEL)))
        for machine in MACHINES:
            self.write("log", "coordination", machine, say(log_says.ActorOpened(nonce="n")))

    def write(self, stream: str, actor: str, machine: str, *events: Event, incarnation: int = 1) -> list[Applied]:
        offset = len(self.entries)
        record = Record(LOG_ID, stream, f"{actor}@{machine}", incarnation, offset, 1000, encode(list(events)))
        entry = Entry(offset, record.canonical())
        self.entries.append(entry)
        return self.replica.apply(entry)

    def one(self, machine: str, event: Event, actor: str = "coordination") -> Outcome:
        return self.write("cluster", actor, machine, event)[0].outcome

    @property
    def election(self):
        return self.replica.fold.state.cluster.election

    def claim(self, machine: str, **changes) -> Outcome:
        said = {"expect_term": self.election.term, "expect_renew_seq": self.election.renew_seq, **changes}
        return self.one(machine, say(says.Claim(**said)))

    def renewal(self, **changes) -> says.Renew:
        said = {
            "seq": self.election.renew_seq + 1,
            "sent_ms": 1,
            "offset": self.election.proof_at,
            "chain": self.election.proof,
            **changes,
        }
        return says.Renew(**said)

    def renew(self, machine: str, term: int = 0, **changes) -> Outcome:
        return self.one(machine, say(self.renewal(**changes), term=term or self.election.term))


steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "renew", "resign", "stale-claim", "fact"]),
        st.sampled_from(MACHINES),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    max_size=40,
)


def play(book: Book, history) -> list[tuple[str, str, Outcome, int]]:
    out = []
    for kind, machine, back, skew in history:
        term = book.election.term
        before = max(1, term - back)
        if kind == "claim":
            outcome = book.claim(machine)
        elif kind == "stale-claim":
            outcome = book.claim(machine, expect_term=term - back, expect_renew_seq=book.election.renew_seq + skew - 1)
        elif kind == "renew":
            outcome = book.renew(machine, before, seq=book.election.renew_seq + skew)
        elif kind == "resign":
            outcome = book.one(machine, say(says.Resign(), term=before))
        else:
            fact = says.MachinesWithheld(machines=[machine], reason="x")
            outcome = book.one(machine, say(fact, term=before))
        out.append((kind, machine, outcome, term))
    return out


@given(steps)
@settings(max_examples=150, deadline=None)
def test_at_most_one_master_per_term(history):
    book = Book()
    holders: dict[int, set[str]] = {}
    for kind, machine, outcome, _ in play(book, history):
        if kind in ("claim", "stale-claim") and isinstance(outcome, Accepted):
            holders.setdefault(outcome.result["term"], set()).add(machine)
        if kind == "renew" and isinstance(outcome, Accepted):
            assert holders[max(holders)] == {machine}
    assert all(len(machines) == 1 for machines in holders.values())


@given(steps)
@settings(max_examples=100, deadline=None)
def test_terms_grow_by_one_and_only_by_an_accepted_claim(history):
    book = Book()
    term = 0
    for kind, _, outcome, before in play(book, history):
        assert before == term
        term += kind in ("claim", "stale-claim") and isinstance(outcome, Accepted)
    assert book.election.term == term


@given(steps)
@settings(max_examples=100, deadline=None)
def test_every_replica_finds_the_same_state_and_outcomes(history):
    book = Book()
    play(book, history)
    other = Replica(ControlFold())
    for entry in book.entries:
        other.apply(entry)
    assert other.state_hash() == book.replica.state_hash()


def test_a_renewal_ordered_before_a_claim_voids_it():
    book = Book()
    book.claim(MACHINES[0])
    expect_term, expect_renew_seq = book.election.term, book.election.renew_seq
    assert isinstance(book.renew(MACHINES[0]), Accepted)
    late = book.claim(MACHINES[1], expect_term=expect_term, expect_renew_seq=expect_renew_seq)
    assert isinstance(late, Rejected)
    assert late.code == "claim-lost"
    assert book.election.holder == MACHINES[0]


def test_of_two_claims_the_first_in_the_log_wins():
    book = Book()
    assert book.claim(MACHINES[1], expect_term=0, expect_renew_seq=0) == Accepted({"term": 1})
    lost = book.claim(MACHINES[0], expect_term=0, expect_renew_seq=0)
    assert isinstance(lost, Rejected)
    assert (book.election.holder, book.election.term) == (MACHINES[1], 1)


@pytest.mark.parametrize("machine", MACHINES[1:])
def test_only_the_holder_renews(machine):
    book = Book()
    book.claim(MACHINES[0])
    assert isinstance(book.renew(machine), Rejected)
    assert book.election.renew_seq == 0


def test_a_renewal_of_an_older_term_is_stale_also_from_the_same_machine():
    book = Book()
    book.claim(MACHINES[0])
    book.claim(MACHINES[0])
    outcome = book.renew(MACHINES[0], term=1)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "stale-term"
    assert book.replica.log.void_terms == 1


@pytest.mark.parametrize("seq", [0, 2])
def test_a_renewal_out_of_order_is_refused(seq):
    book = Book()
    book.claim(MACHINES[0])
    outcome = book.renew(MACHINES[0], seq=seq)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "out-of-order"


def test_another_actor_of_the_holders_machine_can_neither_claim_nor_renew():
    book = Book()
    book.write("log", "scheduler", MACHINES[0], say(log_says.ActorOpened(nonce="n")))
    claim = say(says.Claim(expect_term=0, expect_renew_seq=0))
    assert isinstance(book.one(MACHINES[0], claim, actor="scheduler"), Rejected)
    book.claim(MACHINES[0])
    renewal = say(book.renewal(), term=1)
    assert isinstance(book.one(MACHINES[0], renewal, actor="scheduler"), Rejected)


def test_a_renewal_must_quote_the_last_accepted_one():
    book = Book()
    book.claim(MACHINES[0])
    first_at, first = book.election.proof_at, book.election.proof
    assert isinstance(book.renew(MACHINES[0]), Accepted)
    outcome = book.renew(MACHINES[0], offset=first_at, chain=first)
    assert isinstance(outcome, Rejected)


def test_a_master_whose_log_differs_halts_the_replica_that_sees_it():
    book = Book()
    book.claim(MACHINES[0])
    with pytest.raises(Diverged, match="another chain hash at offset 4") as error:
        book.renew(MACHINES[0], chain="00" * 32)
    assert isinstance(error.value, Halt)


def test_a_resignation_hands_over_at_once():
    book = Book()
    book.claim(MACHINES[0])
    assert isinstance(book.one(MACHINES[0], say(says.Resign(to=MACHINES[2]), term=1)), Accepted)
    assert (book.election.holder, book.election.successor, book.election.last_holder) == ("", MACHINES[2], MACHINES[0])
    assert isinstance(book.renew(MACHINES[0], term=1), Rejected)
    assert book.claim(MACHINES[2]) == Accepted({"term": 2})


def test_an_old_masters_facts_change_nothing():
    book = Book()
    for machine in MACHINES:
        book.one(machine, say(says.MachineJoined(nonce=machine[0], boot_id="x"), subject=machine))
    book.claim(MACHINES[0])
    book.claim(MACHINES[1])
    seen_at = book.replica.fold.state.cluster.machines[MACHINES[2]].seen_at
    before = b"".join(book.replica.fold.encode())
    lost = say(says.MachineLost(last_seen=seen_at, ttl_ms=3000), subject=MACHINES[2], term=1)
    assert isinstance(book.one(MACHINES[0], lost), Rejected)
    assert b"".join(book.replica.fold.encode()) == before


@given(
    st.floats(-EPSILON, EPSILON), st.floats(-EPSILON, EPSILON), st.floats(0, 5), st.floats(0.3, 60), st.floats(0, 1e6)
)
def test_no_clock_within_epsilon_lets_a_holder_act_when_a_challenger_may_claim(
    holder, challenger, lag_s, lease_s, at_s
):
    """True time: the record is sent at 0; the challenger applies it ``lag_s`` later and waits L(1+ε) on its clock."""
    book = Book()
    book.claim(MACHINES[0], nonce="n", sent_ms=int(at_s * 1000))
    claim_s = lag_s + lease_s * (1 + EPSILON) / (1 + challenger)
    holders_clock_s = at_s + claim_s * (1 + holder)
    # sent_ms is cut to a millisecond, in the safe direction
    assert not acting(book.election, MACHINES[0], "n", holders_clock_s, lease_s, alone=False)


def test_another_start_of_the_same_node_may_not_act_on_an_old_clock():
    book = Book()
    book.claim(MACHINES[0], nonce="first", sent_ms=10**9)
    assert acting(book.election, MACHINES[0], "first", 10**6, 1.0, alone=False)
    assert not acting(book.election, MACHINES[0], "second", 5.0, 1.0, alone=False)
    assert not acting(book.election, MACHINES[1], "first", 5.0, 1.0, alone=True)
