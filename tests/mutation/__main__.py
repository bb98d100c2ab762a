"""``python -m tests.mutation --mutants 1000 --seed 1``: plants small faults, and tells which no test noticed.

Exit code 1 if fewer than ``--reach`` of them were killed. ``--only`` takes modules whose name has that word;
``--these module#number`` takes just those, e.g. the survivors of a run before, as it told them.
"""

import argparse
import ast
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.running import Budget, Verdict, Work, read, run
from tests.mutation.targets import ROOT, TARGETS, TESTS


class Planted(NamedTuple):
    module: str
    mutant: Mutant


def chosen(modules: list[str], number: int, seed: int, root: Path = ROOT) -> list[Planted]:
    """Mutants of all modules alike, by the seed."""
    every = of(modules, root)
    return every if number >= len(every) else random.Random(seed).sample(every, number)


def of(modules: list[str], root: Path = ROOT) -> list[Planted]:
    return [Planted(module, mutant) for module in modules for mutant in mutants(path(module, root).read_text())]


def path(module: str, root: Path = ROOT) -> Path:
    return root / (module.replace(".", "/") + ".py")


def work(planted: list[Planted], root: Path = ROOT) -> list[Work]:
    users = _users({one.module for one in planted}, root)
    return [Work(one.module, str(path(one.module, root)), one.mutant, users[one.module]) for one in planted]


def _users(modules: set[str], root: Path) -> dict[str, frozenset[str]]:
    """Of each module, those of its top package that import it, and itself: paths."""
    found = {module: {str(path(module, root))} for module in modules}
    for top in {module.partition(".")[0] for module in modules}:
        for file in (root / top).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom):
                    for name in (node.module, *(f"{node.module}.{one.name}" for one in node.names)):
                        if name in found:
                            found[name].add(str(file))
    return {module: frozenset(users) for module, users in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--these", nargs="+", default=[])
    parser.add_argument("--tests", nargs="+", default=TESTS, help="paths, in place of the quick ones")
    parser.add_argument("--reach", type=float, default=0.9)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--longest-s", type=float, default=6, help="tests that take longer aren't run")
    parser.add_argument("--each-s", type=float, default=60, help="seconds of tests that a mutant is worth")
    parser.add_argument("--known", type=Path, help="a file that keeps for the next run what the tests take and enter")
    asked = parser.parse_args()
    modules = [module for module in TARGETS if asked.only in module]
    planted = chosen(modules, asked.mutants, asked.seed)
    if asked.these:
        named = {f"{one.module}#{one.mutant.number}": one for one in of(TARGETS)}
        planted = [named[name] for name in asked.these]
    began_s, came = time.monotonic(), Counter[Verdict]()
    survivors: list[Planted] = []
    known = [read(test) for test in json.loads(asked.known.read_text())] if asked.known and asked.known.exists() else []
    for at, verdict in run(work(planted), asked.tests, asked.workers, Budget(asked.longest_s, asked.each_s), known):
        if at is None:
            print(f"{len(known)} tests known after {time.monotonic() - began_s:.0f} s", flush=True)
            if asked.known:
                asked.known.write_text(json.dumps([(test, took_s, list(enters)) for test, took_s, enters in known]))
            continue
        came[verdict] += 1
        if verdict is Verdict.SURVIVED:
            survivors.append(planted[at])
        if verdict is not Verdict.KILLED:
            print(f"{verdict.value}: {_told(planted[at])}", flush=True)
        if came.total() % 50 == 0:
            print(f"{came.total()} after {time.monotonic() - began_s:.0f} s", flush=True)
    assert came.total() == len(planted), f"{len(planted) - came.total()} came to nothing"
    killed = len(planted) - came[Verdict.SURVIVED]
    print(f"{len(planted)} mutants (seed {asked.seed}) in {time.monotonic() - began_s:.0f} s: {killed} killed")
    print(f"{killed / max(1, len(planted)):.1%}; {came[Verdict.TIMEOUT]} of them by not ending")
    print("survivors by module: " + ", ".join(f"{name} {n}" for name, n in _by_module(survivors)))
    return 0 if killed >= asked.reach * len(planted) else 1


def _told(one: Planted) -> str:
    line = path(one.module).read_text().splitlines()[one.mutant.line - 1].strip()
    return f"{one.module}#{one.mutant.number} line {one.mutant.line}: {one.mutant.what}: {line[:90]}"


def _by_module(survivors: list[Planted]) -> list[tuple[str, int]]:
    return Counter(one.module for one in survivors).most_common()


if __name__ == "__main__":
    sys.exit(main())
