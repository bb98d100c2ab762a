"""``python -m tests.differential --minutes 60 [--older]``: new sequences until the time is over or an answer differs.

``--keep-going`` tells of every difference, each once, without shrinking, and goes on.
"""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.differential.running import Differ, Pairs
from tests.differential.steps import auth_sequences, sequences

PER_ROUND = 200
PLAIN = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--older", action="store_true", help="run etcd 3.5.1 as well and tell where it parts from 3.7")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    asked = parser.parse_args()
    until, differences = time.monotonic() + 60 * asked.minutes, set[str]()
    count = 0
    with tempfile.TemporaryDirectory() as folder, Pairs(Path(folder), asked.older) as pairs:
        while time.monotonic() < until:
            count += _round(pairs, asked.seed, asked.keep_going, until, differences)
            asked.seed += 1
        print(f"{count} sequences, {sum(pairs.steps.values())} steps, {len(differences)} differences")
        print("steps: " + ", ".join(f"{name} {number}" for name, number in sorted(pairs.steps.items())))
        print("errors met:", *sorted(pairs.errors), sep="\n  ")
        for crash in pairs.crashes[:10]:
            print(f"ended a real etcd: {crash[:300]}")
        for where, parted in sorted(pairs.parted.items()):
            print(f"3.5.1 parts from 3.7: {where}: {parted[:300]}")
    return 1 if differences else 0


def _round(pairs: Pairs, number: int, keep_going: bool, until: float, differences: set[str]) -> int:
    ran = 0
    phases = [Phase.generate] if keep_going else [Phase.generate, Phase.shrink]

    @seed(number)
    @settings(
        max_examples=PER_ROUND, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    @given(auth_sequences if number % 2 else sequences)
    def one(sequence: list[Any]) -> None:
        nonlocal ran
        if time.monotonic() > until:
            return
        ran += 1
        try:
            pairs.run(sequence)
        except Differ as differ:
            if not keep_going:
                raise
            where = str(differ).partition("\n")[0].partition(": ")[2].split(" ")[0]
            kind = where + "".join(str(differ).split("\n")[1:])[:400]
            if kind not in differences:
                differences.add(kind)
                print(f"seed {number}: {differ}", flush=True)

    try:
        one()
    except Differ as differ:
        differences.add(str(differ))
        print(f"seed {number}: {differ}")
        until = 0
    return ran


if __name__ == "__main__":
    sys.exit(main())
