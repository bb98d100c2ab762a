"""``python -m tests.simulator --seeds N [--seed S] [--processes P] [--model] [--broker]``: any number of runs."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.simulator import faults
from tests.simulator.core import Violation
from tests.simulator.run import Report, run
from tests.simulator.units import ModelParts


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen: dict[str, Any] = {"parts": ModelParts()} if arguments.model else {}
    if arguments.broker:
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many runs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", action="store_true", help="a model of units instead of the product's actors")
    parser.add_argument("--broker", action="store_true", help="nothing but broker pauses: the first master must stay")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    began, failed, records, terms = time.monotonic(), 0, 0, 0
    for report in reports(seeds, options(arguments), arguments.processes):
        if isinstance(report, str):
            failed += 1
            print(report, flush=True)
            continue
        records, terms = records + report.records, terms + report.terms
        if arguments.seeds == 1:
            print(report)
    took_s = time.monotonic() - began
    print(
        f"{len(seeds)} seeds, {failed} failed, {records} records, {terms} terms, {took_s:.1f} s, "
        f"{len(seeds) / took_s:.1f} seeds/s",
        file=sys.stderr,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
