"""Who is absent, who stands when: the pure decisions."""

from hypothesis import given
from hypothesis import strategies as st

from actors.coordination.decide import JITTER_MAX_S, SUCCESSOR_S, absent, candidates, countdown_s, successor
from actors.coordination.state import ClusterState, Machine

TTL_S = 3.0


def cluster(count: int) -> ClusterState:
    names = [f"m{number}" for number in range(count)]
    return ClusterState(machines={name: Machine(id=name, nonce="n", boot_id="b") for name in names})


def look(state: ClusterState, silent_s: dict[str, float], lost_s: dict[str, float] | None = None, now_s: float = 100.0):
    heard_s = {name: now_s - silent_s.get(name, 0.5) for name in state.machines}
    return absent(state, "m0", heard_s, lost_s or {}, now_s, TTL_S)


def test_one_silent_machine_is_lost():
    absence = look(cluster(3), {"m1": 3.1})
    assert list(absence.lost) == ["m1"]
    assert not absence.mass


def test_the_holder_never_gives_itself_up():
    assert look(cluster(3), {"m0": 60}).lost == {}


def test_two_of_three_at_once_are_withheld():
    absence = look(cluster(3), {"m1": 3.1, "m2": 3.0})
    assert absence.lost == {}
    assert absence.withheld == ["m1", "m2"]
    assert "2 of 3" in absence.reason


def test_while_it_is_open_how_many_vanished_nothing_is_said():
    """m2 missed a renewal, but its TTL isn't over: wait, then withhold both or lose one."""
    absence = look(cluster(3), {"m1": 3.1, "m2": 2.2})
    assert (absence.lost, absence.withheld, absence.mass) == ({}, [], True)
    assert absence.wake_at_s == 100.8


def test_a_quarter_is_not_more_than_a_quarter():
    assert sorted(look(cluster(8), {"m1": 3.1, "m2": 3.1}).lost) == ["m1", "m2"]
    assert look(cluster(7), {"m1": 3.1, "m2": 3.1}).withheld == ["m1", "m2"]


def test_losses_within_one_ttl_count_together_and_later_ones_apart():
    state = cluster(4)
    state.machines["m3"].alive = False
    assert look(state, {"m1": 3.1}, {"m3": 98.0}).withheld == ["m1"]
    assert list(look(state, {"m1": 3.1}, {"m3": 96.9}).lost) == ["m1"]


def test_what_is_withheld_isnt_said_again():
    state = cluster(3)
    state.withheld.update(m1="1.0", m2="1.0")
    assert look(state, {"m1": 30, "m2": 30}).withheld == []


def test_the_rest_of_what_was_withheld_is_lost_when_it_looks_like_one_death():
    state = cluster(3)
    state.withheld.update(m1="1.0")
    assert list(look(state, {"m1": 3.5}).lost) == ["m1"]


@given(st.integers(2, 12), st.data())
def test_never_more_than_a_quarter_and_one_are_given_up_in_one_look(count, data):
    silent = data.draw(st.dictionaries(st.sampled_from([f"m{n}" for n in range(count)]), st.floats(0, 10)))
    absence = look(cluster(count), silent)
    assert len(absence.lost) <= max(1, count // 4)
    assert not (absence.lost and absence.withheld)


@given(st.integers(1, 9), st.integers(0, 8))
def test_candidates_stand_one_after_the_other_the_last_holder_last(count, last):
    state = cluster(count)
    state.election.last_holder = f"m{last}"
    ranks = candidates(state)
    assert sorted(ranks) == sorted(state.machines)
    assert last >= count or ranks[-1] == f"m{last}"
    waits = [countdown_s(state, name, 1.0) for name in ranks]
    assert waits == sorted(set(waits))
    state.election.holder = "x"
    assert all(1.02 <= countdown_s(state, name, 1.0) <= 1.02 + JITTER_MAX_S for name in ranks)


def test_the_successor_named_stands_at_once_the_others_a_little_later():
    state = cluster(3)
    state.election.successor = "m1"
    assert countdown_s(state, "m1", 1.0) == 0.0
    assert all(countdown_s(state, name, 1.0) >= SUCCESSOR_S for name in ("m0", "m2"))


def test_a_successor_is_one_that_was_heard_lately():
    state = cluster(3)
    assert successor(state, "m0", {"m1": 90.0, "m2": 99.5}, 100.0) == "m2"
    assert successor(state, "m0", {}, 100.0) == ""
