"""Bugs, planted in the product's code for as long as a test runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from actors.coordination import decide, election
from actors.host import Host, Now
from streams import replay
from streams.events import cluster as says
from streams.events.base import Event
from streams.outcomes import STALE_TERM, Outcome
from streams.replay import Context


@contextmanager
def _patched(module: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def off_by_one_in_the_term() -> Any:
    """Facts of the term before the current one still count."""

    def guard(state: election.Election, event: Event, context: Context) -> Outcome | None:
        if not event.term or isinstance(event.data, says.Claim):
            return None
        return STALE_TERM if event.term < state.term - 1 else None

    return _patched(election, "guard", guard)


def a_renewal_that_ignores_its_order() -> Any:
    """A renewal that is ordered before a claim no longer voids it."""
    real: Callable[..., Outcome] = election._claim

    def claim(state: election.Election, data: says.Claim, context: Context) -> Outcome:
        return real(state, msgspec.structs.replace(data, expect_renew_seq=state.renew_seq), context)

    return _patched(election, "_claim", claim)


def a_countdown_that_counts_a_brokers_pause() -> Any:
    """However long an append took, the log counts as live."""
    return _patched(decide, "LOG_SLOW_S", float("inf"))


# -- mistakes that were made, found by the simulation, and mended: it must go on finding them ------------------------


def a_challenger_that_asks_only_once() -> Any:
    """No early barrier when a renewal is overdue."""
    return _patched(decide, "OVERDUE", float("inf"))


def a_host_that_forgets_its_own_openings() -> Any:
    """An opening that it had given up on, and that arrives after all, looks like another process's."""
    real = Host._open

    def opened(self: Host, now: Now) -> None:
        real(self, now)
        self._nonces &= {self._nonce}

    return _patched(Host, "_open", opened)


def a_record_that_counts_as_often_as_it_comes() -> Any:
    """A producer's repeated records are applied again."""
    return _patched(replay, "ONCE_FROM_LEVEL", float("inf"))
