"""Sessions at their limits: how long an idle client is remembered, and how much of a busy one."""

import pytest

from streams import sessions
from streams.events.base import Event, say
from streams.events.kv import Set
from streams.outcomes import BODY_DIFFERS, SESSION_EXPIRED, Accepted, AcceptedBefore, Outcome
from streams.sessions import IDLE_EVENTS, OPEN_MAX, Sessions


class Fold:
    """Counts what is applied; each command's result is its number."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.applied = 0

    def ask(self, event: Event, count: int) -> Outcome:
        return self.sessions.once(event, count, self._apply)

    def _apply(self) -> Outcome:
        self.applied += 1
        return Accepted(self.applied)


def put(client: str, sequence: int, floor: int = 0, key: str = "/a") -> Event:
    return say(Set(key), client=client, sequence=sequence, floor=floor)


@pytest.fixture
def fold() -> Fold:
    return Fold()


def test_an_idle_client_is_remembered_up_to_the_limit_and_forgotten_behind_it(fold: Fold) -> None:
    fold.ask(put("a", 1), 10)
    # the retry at the limit is answered, and counts as use
    assert fold.ask(put("a", 1), 10 + IDLE_EVENTS) == AcceptedBefore(1)
    assert fold.ask(put("a", 1), 10 + 2 * IDLE_EVENTS) == AcceptedBefore(1)
    assert fold.applied == 1
    assert fold.ask(put("a", 1), 10 + 3 * IDLE_EVENTS + 1) == Accepted(2)


def test_a_client_that_was_forgotten_is_told_so_and_can_begin_anew(fold: Fold) -> None:
    fold.ask(put("a", 1), 1)
    fold.ask(put("a", 2, floor=1), 2)
    late = 2 + IDLE_EVENTS + 1
    assert fold.ask(put("a", 2, floor=1), late) == SESSION_EXPIRED
    assert fold.applied == 2, "a command whose outcome is forgotten is not done twice"
    assert fold.sessions.by_client == {}
    assert fold.ask(put("a", 3, floor=3), late) == Accepted(3)


def test_only_who_is_idle_is_forgotten_however_early_they_came(fold: Fold) -> None:
    for client, count in (("early", 1), ("idle", 2), ("late", 3), ("early", 4)):
        fold.ask(put(client, 1), count)
    assert list(fold.sessions.by_client) == ["idle", "late", "early"]
    fold.ask(put("other", 1), 2 + IDLE_EVENTS + 1)
    assert list(fold.sessions.by_client) == ["late", "early", "other"]


def test_the_oldest_outcomes_of_a_busy_client_expire(fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OPEN_MAX > 3
    monkeypatch.setattr(sessions, "OPEN_MAX", 3)
    for sequence in (1, 2, 3):
        fold.ask(put("a", sequence), sequence)
    assert fold.ask(put("a", 1), 4) == AcceptedBefore(1), "at the limit all are kept"
    assert fold.ask(put("a", 4), 5) == Accepted(4)
    assert fold.ask(put("a", 1), 6) == SESSION_EXPIRED
    assert fold.ask(put("a", 2), 7) == AcceptedBefore(2)
    assert fold.ask(put("a", 2, key="/b"), 8) == BODY_DIFFERS
    assert fold.applied == 4
