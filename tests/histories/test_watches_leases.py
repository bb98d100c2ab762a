"""The checkers of watches and leases: good histories pass, each kind of fault that is planted is found."""

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories import leases, watches
from tests.histories.generate import history, watch
from tests.histories.linear import check
from tests.histories.ops import Alive, Event, Grant, Kv, Op, Put, PutDone, Renew, Revoke, Revoked
from tests.histories.watches import Message, Session, Watch

replace = msgspec.structs.replace
SEEDS = range(12)


@given(st.integers(0, 2**32), st.booleans(), st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_a_good_watch_passes(seed: int, prev_kv: bool, cut: float) -> None:
    changes = history(seed, 4, 40).changes
    assert watches.check(watch(changes, seed, prev_kv, cut), changes, len(changes) + 1) == []


def somewhere(told: Watch, rng: random.Random, least: int = 1) -> list[Event]:
    """The events of a message that has so many."""
    found = [one.events for session in told.sessions for one in session.messages if len(one.events) >= least]
    return rng.choice(found)


def lost(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng, 2)
    del events[rng.randrange(len(events))]


def doubled(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng)
    events.append(events[-1])


def reordered(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng, 2)
    events[0], events[1] = events[1], events[0]


def wrong_prev_kv(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng)
    index = rng.randrange(len(events))
    prev = events[index].prev
    events[index] = replace(events[index], prev=Kv(b"k", b"x") if prev is None else replace(prev, value=b"x"))


def wrong_value(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng)
    events[-1] = Event(replace(events[-1].kv, value=b"x", version=9), events[-1].prev)


def before_the_start(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng)
    events.insert(0, Event(Kv(b"k3", b"early", 4, 4, 1)))


def progress_too_far(told: Watch, rng: random.Random) -> None:
    """A notice just before events says their revision already."""
    places = [(s, n) for s in told.sessions for n, one in enumerate(s.messages) if one.events]
    session, number = rng.choice(places)
    session.messages.insert(number, Message(0.0, session.messages[number].events[0].kv.mod))


def header_too_low(told: Watch, rng: random.Random) -> None:
    places = [(s, n) for s in told.sessions for n, one in enumerate(s.messages) if one.events]
    session, number = rng.choice(places)
    message = session.messages[number]
    session.messages[number] = replace(message, revision=message.events[-1].kv.mod - 1)


def last_ones_missing(told: Watch, rng: random.Random) -> None:
    last = next(one for session in reversed(told.sessions) for one in reversed(session.messages) if one.events)
    last.events.pop()


def foreign_key(told: Watch, rng: random.Random) -> None:
    events = somewhere(told, rng)
    events.append(Event(Kv(b"zz", b"x", events[-1].kv.mod, events[-1].kv.mod, 1)))


@pytest.mark.parametrize(
    "plant",
    [
        lost,
        doubled,
        reordered,
        wrong_prev_kv,
        wrong_value,
        before_the_start,
        progress_too_far,
        header_too_low,
        last_ones_missing,
        foreign_key,
    ],
    ids=lambda plant: plant.__name__,
)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_planted_in_a_watch_is_found(plant: Callable[[Watch, random.Random], None], seed: int) -> None:
    changes = history(seed).changes
    told = watch(changes, seed)
    plant(told, random.Random(seed))
    assert watches.check(told, changes, len(changes) + 1)


def test_events_lost_between_two_streams_are_found() -> None:
    changes = history(3).changes
    told = watch(changes, 3)
    session = next(one for one in told.sessions[1:] if any(message.events for message in one.messages))
    first = next(message for message in session.messages if message.events)
    del session.messages[: session.messages.index(first) + 1]
    assert watches.check(told, changes, len(changes) + 1)


def test_a_watch_that_goes_on_from_elsewhere_is_no_proof() -> None:
    changes = history(3).changes
    told = watch(changes, 3)
    told.sessions[-1] = Session(told.sessions[-1].start + 1, told.sessions[-1].messages)
    assert "from elsewhere" in watches.check(told, changes, len(changes) + 1)[0]


def test_a_watch_that_nobody_began_is_no_proof() -> None:
    assert watches.check(Watch("w", b"k", b"", True, []), [], 1)


# -- leases ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_leases_of_good_histories_pass(seed: int) -> None:
    made = history(seed, 5, 150)
    assert leases.check(made.ops, check(made.ops, made.changes).ended) == []


def story(read_s: float, renewed: int = 3) -> list[Op]:
    """Granted at 0, renewed at 2, its key (revision 2) told to be gone (3) at ``read_s``."""
    return [
        Op("a", 0.0, 0.1, Grant(7, 3), Alive(3), 1),
        Op("a", 0.2, 0.3, Put(b"k", b"1", lease=7), PutDone(), 2),
        Op("a", 2.0, 2.5, Renew(7), Alive(renewed), 2),
        Op("b", read_s - 0.1, read_s, Put(b"l", b"2"), PutDone(), 4),
    ]


def test_an_early_end_is_found_by_the_first_who_was_told_a_later_revision() -> None:
    assert leases.check(story(5.01), {3: 7}) == []
    assert "0.010 s early" in leases.check(story(4.99), {3: 7})[0]
    message = Message(4.0, 3, [Event(Kv(b"k", mod=3))])
    told = Watch("w", b"k", b"", False, [Session(1, [message])])
    assert "1.000 s early" in leases.check(story(9.0), {3: 7}, [told])[0]


def test_only_answered_renewals_count_and_a_revoked_lease_may_end_at_once() -> None:
    unanswered = [replace(op, result=None, revision=0) if isinstance(op.request, Renew) else op for op in story(4.0)]
    assert leases.check(unanswered, {3: 7}) == []
    assert leases.check([*story(4.0), Op("c", 3.9, 3.95, Revoke(7), Revoked(), 3)], {3: 7}) == []
    assert leases.check([*story(4.0), Op("c", 4.5, 4.6, Revoke(7), Revoked(), 3)], {3: 7})


def test_a_lease_without_keys_that_is_gone_too_early_is_found() -> None:
    ops = [Op("a", 0.0, 0.1, Grant(7, 3), Alive(3), 1), Op("a", 2.0, 2.2, Renew(7), Alive(0), 1)]
    assert leases.check(ops, {})
    assert leases.check([ops[0], replace(ops[1], invoked_s=3.1, returned_s=3.2)], {}) == []


def test_a_lease_that_ended_and_lived_on_is_found() -> None:
    assert "lived on" in leases.check([*story(9.0), Op("a", 9.5, 9.6, Renew(7), Alive(3), 4)], {3: 7})[0]
    gone = Op("a", 5.5, 5.6, Renew(7), Alive(0), 1)
    later = Op("a", 6.0, 6.1, Renew(7), Alive(3), 1)
    assert "lived on" in leases.check([Op("a", 0.0, 0.1, Grant(7, 3), Alive(3), 1), gone, later], {})[0]
