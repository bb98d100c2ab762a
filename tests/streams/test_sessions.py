"""Sessions at their limits: how long an idle client is remembered, and how much of a busy one."""

from itertools import count

import msgspec
import pytest

from streams import sessions
from streams.events.base import Event, say
from streams.events.kv import Set
from streams.outcomes import BODY_DIFFERS, SESSION_EXPIRED, Accepted, AcceptedBefore, Outcome
from streams.sessions import IDLE, IDLE_MS, OPEN_MAX, Sessions


class Fold:
    """Counts what is applied; each command's result is its number."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.applied = 0

    def ask(self, event: Event, number: int, time_ms: int | None = None) -> Outcome:
        return self.sessions.once(event, self._apply, lambda outcome: outcome, number, time_ms)

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
    assert fold.ask(put("a", 1), 10 + IDLE) == AcceptedBefore(1)
    assert fold.ask(put("a", 1), 10 + 2 * IDLE) == AcceptedBefore(1)
    assert fold.applied == 1
    assert fold.ask(put("a", 1), 10 + 3 * IDLE + 1) == Accepted(2)


def test_from_level_3_on_an_hour_is_remembered_however_much_is_said_and_so_many_records_however_long_that_takes(
    fold: Fold,
) -> None:
    fold.ask(put("a", 1), 10, 0)
    assert fold.ask(put("a", 1), 10 + 100 * IDLE, IDLE_MS) == AcceptedBefore(1)
    assert fold.ask(put("a", 1), 10 + 101 * IDLE, 100 * IDLE_MS) == AcceptedBefore(1)
    assert fold.applied == 1
    assert fold.ask(put("a", 1), 10 + 102 * IDLE + 1, 101 * IDLE_MS + 1) == Accepted(2)


def test_a_client_that_was_forgotten_is_told_so_and_can_begin_anew(fold: Fold) -> None:
    fold.ask(put("a", 1), 1)
    fold.ask(put("a", 2, floor=1), 2)
    late = 2 + IDLE + 1
    assert fold.ask(put("a", 2, floor=1), late) == SESSION_EXPIRED
    assert fold.applied == 2, "a command whose outcome is forgotten is not done twice"
    assert fold.sessions.by_client == {}
    assert fold.ask(put("a", 3, floor=3), late) == Accepted(3)


@pytest.mark.parametrize("floor", [0, 1, 2])
def test_from_level_3_on_nothing_is_done_twice_of_who_was_forgotten_whatever_floor_it_names(
    fold: Fold, floor: int
) -> None:
    fold.ask(put("a", 1), 1, 0)
    fold.ask(put("a", 2, floor=floor), 2, 0)
    late = 2 + IDLE + 1, IDLE_MS + 1
    assert fold.ask(put("a", 2, floor=floor), *late) == SESSION_EXPIRED
    assert fold.applied == 2
    assert fold.sessions.by_client == {}
    assert fold.ask(put("another", 1), *late) == Accepted(3)


def test_only_who_is_idle_is_forgotten_however_early_they_came(fold: Fold) -> None:
    for client, number in (("early", 1), ("idle", 2), ("late", 3), ("early", 4)):
        fold.ask(put(client, 1), number)
    assert list(fold.sessions.by_client) == ["idle", "late", "early"]
    fold.ask(put("other", 1), 2 + IDLE + 1)
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


def test_from_level_3_on_all_clients_together_have_so_many_outcomes(
    fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "KEPT_MAX", 5)
    numbers = count(1)
    for sequence in (1, 2, 3):
        fold.ask(put("a", sequence), next(numbers), 0)
    for client in "bcdef":
        fold.ask(put(client, 1), next(numbers), 0)
        assert fold.sessions.total == sum(len(one.kept) for one in fold.sessions.by_client.values()) <= 5
    assert list(fold.sessions.by_client) == ["b", "c", "d", "e", "f"], "of the one idle longest all are gone"
    fold.ask(put("f", 2, floor=2), next(numbers), 0)
    assert list(fold.sessions.by_client) == ["c", "d", "e", "f"]
    assert fold.sessions.total == 4, "what is below a floor counts no more"


def test_a_log_that_comes_to_level_3_forgets_nobody_early_and_keeps_a_state_that_older_versions_wrote(
    fold: Fold,
) -> None:
    for client in "ab":
        fold.ask(put(client, 1), 500_000)
    fold.ask(put("b", 2), 500_000)
    assert b"last_ms" not in msgspec.json.encode(fold.sessions)
    assert b"total" not in msgspec.json.encode(fold.sessions)
    assert fold.ask(put("b", 1), 3_000_000, 10**12) == AcceptedBefore(2)
    assert fold.ask(put("a", 1), 3_000_000 + IDLE, 10**12 + IDLE_MS) == AcceptedBefore(1)
    assert fold.sessions.total == 3
    again = msgspec.json.decode(msgspec.json.encode(fold.sessions), type=Sessions)
    assert again == fold.sessions
