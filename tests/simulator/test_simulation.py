"""A thousand runs hold; a seed reproduces its run; planted bugs are found."""

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


MASTERS = [faults.cut_off_master, faults.stop, faults.stall, faults.slow_log]
MODEL: dict[str, Any] = {"parts": ModelParts(), "kinds": MASTERS}
OPENINGS: dict[str, Any] = {"parts": ModelParts(), "kinds": [faults.cut_off, faults.refuse_log], "nodes": 3}

#: Bugs, the first seed to try, how many are enough (counted from seed 0: 2, 16, 2, 2 and 23), what is said, and how.
PLANTED = [
    (planted.off_by_one_in_the_term, 0, 10, "an old master's facts change nothing", MODEL),
    (planted.a_renewal_that_ignores_its_order, 10, 30, "one per term", MODEL),
    (planted.a_countdown_that_counts_a_brokers_pause, 0, 10, "a broker's pause", BROKER),
    # made once, found by the simulation, and mended
    (planted.a_challenger_that_asks_only_once, 0, 20, "a broker's pause changes no master", BROKER),
    # found by a storm on real brokers
    (planted.a_record_that_counts_as_often_as_it_comes, 0, 20, "counts once", BROKER),
    (planted.a_host_that_forgets_its_own_openings, 20, 20, "takes its own past for another", OPENINGS),
]


@pytest.mark.parametrize(
    ("bug", "first", "enough", "words", "options"), PLANTED, ids=lambda v: getattr(v, "__name__", "")
)
def test_it_finds_a_planted_bug(bug: Any, first: int, enough: int, words: str, options: dict[str, Any]) -> None:
    for seed in range(first, first + enough):
        with bug():
            try:
                run(seed, **options)
            except Violation as violation:
                assert words in str(violation), violation
                return
    raise AssertionError(f"{bug.__name__} was not found in {enough} seeds")
