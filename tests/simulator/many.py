"""Many runs, on several processes."""

import multiprocessing
from collections.abc import Iterator
from typing import Any

from tests.simulator import faults
from tests.simulator.core import Violation
from tests.simulator.run import Report, run
from tests.simulator.units import ModelParts


def options(model: bool, broker: bool) -> dict[str, Any]:
    chosen: dict[str, Any] = {"parts": ModelParts()} if model else {}
    if broker:
        chosen |= {"kinds": faults.BROKER, "fault_count": 5, "steady": True}
    return chosen


def one(work: tuple[int, dict[str, Any]]) -> Report | str:
    seed, chosen = work
    try:
        return run(seed, **chosen)
    except Violation as error:
        return str(error)


def reports(seeds: range, chosen: dict[str, Any], processes: int) -> Iterator[Report | str]:
    work = [(seed, chosen) for seed in seeds]
    if processes == 1:
        yield from map(one, work)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(one, work, chunksize=10)
