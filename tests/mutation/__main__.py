"""``python -m tests.mutation --mutants 1000 --seed 1``: plants small faults, and tells which no test noticed.

Each mutant runs in a process of its own, forked from one that has the libraries loaded. Exit code 1 if fewer than
``--reach`` of them were killed. ``--only`` takes modules whose name has that word.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.running import NO_FAULT, Verdict, run
from tests.mutation.targets import TARGETS

ROOT = Path(__file__).parents[2]


class Planted(NamedTuple):
    module: str
    mutant: Mutant


def chosen(only: str, number: int, seed: int) -> list[Planted]:
    """Mutants of all targets alike, by the seed."""
    every = [
        Planted(module, mutant)
        for module in sorted(TARGETS)
        if only in module
        for mutant in mutants(path(module).read_text())
    ]
    return every if number >= len(every) else random.Random(seed).sample(every, number)


def path(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--reach", type=float, default=0.9)
    parser.add_argument("--timeout-s", type=float, default=180)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    planted = chosen(asked.only, asked.mutants, asked.seed)
    began_s, came = time.monotonic(), Counter[Verdict]()
    survivors: list[Planted] = []
    suites = {tuple(tests): module for module, tests in TARGETS.items() if asked.only in module}
    sound = [(module, str(path(module)), NO_FAULT, list(tests)) for tests, module in suites.items()]
    for at, verdict in run(sound, asked.workers, 10 * asked.timeout_s):
        if verdict is not Verdict.SURVIVED:
            raise SystemExit(f"without any fault: {verdict.value}: {' '.join(sound[at][3])}")
    work = [(one.module, str(path(one.module)), one.mutant.number, TARGETS[one.module]) for one in planted]
    for at, verdict in run(work, asked.workers, asked.timeout_s):
        came[verdict] += 1
        if verdict is Verdict.SURVIVED:
            survivors.append(planted[at])
            print(_told(planted[at]), flush=True)
    killed = len(planted) - came[Verdict.SURVIVED]
    print(f"{len(planted)} mutants (seed {asked.seed}) in {time.monotonic() - began_s:.0f} s: {killed} killed")
    print(f"{killed / max(1, len(planted)):.1%}; {came[Verdict.TIMEOUT]} of them by not ending")
    print("survivors by module: " + ", ".join(f"{name} {n}" for name, n in _by_module(survivors)))
    return 0 if killed >= asked.reach * len(planted) else 1


def _told(one: Planted) -> str:
    line = path(one.module).read_text().splitlines()[one.mutant.line - 1].strip()
    return f"{one.module}:{one.mutant.line} #{one.mutant.number}: {one.mutant.what}: {line[:90]}"


def _by_module(survivors: list[Planted]) -> list[tuple[str, int]]:
    return Counter(one.module for one in survivors).most_common()


if __name__ == "__main__":
    sys.exit(main())
