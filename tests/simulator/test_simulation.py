"""A thousand runs hold; a seed reproduces its run; planted bugs are found."""

from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.simulator import faults, planted
from tests.simulator.core import Violation
from tests.simulator.run import run
from tests.simulator.units import ModelParts

SEEDS = 1000
CHUNK = 50
BROKER: dict[str, Any] = {"kinds": faults.BROKER, "fault_count": 5, "steady": True, "parts": ModelParts()}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_cluster_with_ten_faults_keeps_its_promises(first: int) -> None:
    """One master, one copy of a fenced unit, nothing acknowledged lost, and a master soon after the faults."""
    for seed in range(first, first + CHUNK):
        run(seed)


def test_a_seed_reproduces_its_run() -> None:
    assert run(7) == run(7)


def test_a_brokers_pause_changes_no_master_and_looks_like_nobodys_death() -> None:
    for seed in range(20):
        run(seed, **BROKER)


#: Runs that once failed, and what they found.
FOUND = [
    # the holder's own machine.seen was under way alone in the pause, so a barrier came before any renewal
    (54, BROKER),
    # pauses of 0.8 to 1.7 s: the barrier was sent less than 500 ms before the pause's end
    (23, BROKER),
    (29, BROKER),
    # an opening that its process had given up on arrived after all, and was taken for another process's
    (8, {"parts": ModelParts()}),
    (32, {"parts": ModelParts()}),
    (52, {"parts": ModelParts()}),
]


@pytest.mark.parametrize(("seed", "options"), FOUND)
def test_what_was_found_stays_mended(seed: int, options: dict[str, Any]) -> None:
    run(seed, **options)


def seeds_until_found(bug: Any, seeds: int, words: str, **options: Any) -> int:
    """How many seeds the simulation needs to find a planted bug."""
    for seed in range(seeds):
        plant: AbstractContextManager[None] = bug()
        with plant:
            try:
                run(seed, **options)
            except Violation as violation:
                assert words in str(violation), violation
                return seed + 1
    raise AssertionError(f"{bug.__name__} was not found in {seeds} seeds")


MASTERS = [faults.cut_off_master, faults.stop, faults.stall, faults.slow_log]


def test_it_finds_an_off_by_one_in_the_term() -> None:
    words = "an old master's facts change nothing"
    seeds_until_found(planted.off_by_one_in_the_term, 30, words, parts=ModelParts(), kinds=MASTERS)


def test_it_finds_a_renewal_that_ignores_its_order() -> None:
    seeds_until_found(planted.a_renewal_that_ignores_its_order, 60, "", parts=ModelParts(), kinds=MASTERS)


def test_it_finds_a_countdown_that_counts_a_brokers_pause() -> None:
    words = "a broker's pause"
    seeds_until_found(planted.a_countdown_that_counts_a_brokers_pause, 10, words, **BROKER)
