"""``python -m tests.simulator --seeds N [--seed S] [--processes P] [--model] [--broker]``: any number of runs."""

import argparse
import sys
import time

from tests.simulator.many import options, reports


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
    for report in reports(seeds, options(arguments.model, arguments.broker), arguments.processes):
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
