"""``python -m tests.differential --minutes 60 [--older]``: new sequences until the time is over or an answer differs.

v3's sequences, plain and with users, and v2's (against etcd 3.4) take turns; ``--only v2`` or ``v3`` runs one of them.
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

from tests.differential import v2, v2_steps
from tests.differential.running import Differ, Pairs
from tests.differential.steps import auth_sequences, sequences

#: Of each kind of sequences; with users of v2 real etcd takes 60 ms of a core a step.
PER_ROUND = {"v3": 200, "v3 with users": 200, "v2": 200, "v2 with users": 10}
SEQUENCES: dict[str, Any] = {
    "v3": sequences,
    "v3 with users": auth_sequences,
    "v2": v2_steps.sequences,
    "v2 with users": v2_steps.auth_sequences,
}
PLAIN = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--older", action="store_true", help="run etcd 3.5.1 as well and tell where it parts from 3.7")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--only", choices=["v2", "v3"], help="not the other interface")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    asked = parser.parse_args()
    until, differences = time.monotonic() + 60 * asked.minutes, set[str]()
    kinds = [kind for kind in SEQUENCES if asked.only is None or kind.startswith(asked.only)]
    count = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Pairs(Path(folder), asked.older) as pairs,
        v2.Pairs(Path(folder)) as v2_pairs,
    ):
        while time.monotonic() < until:
            kind = kinds[asked.seed % len(kinds)]
            count += _round(v2_pairs if kind.startswith("v2") else pairs, kind, asked, until, differences)
            asked.seed += 1
            if differences and not asked.keep_going:
                break
        steps = pairs.steps + v2_pairs.steps
        print(f"{count} sequences, {sum(steps.values())} steps, {len(differences)} differences")
        print("steps: " + ", ".join(f"{name} {number}" for name, number in sorted(steps.items())))
        print("errors met:", *sorted({*pairs.errors, *v2_pairs.errors}), sep="\n  ")
        for crash in pairs.crashes[:10]:
            print(f"ended a real etcd: {crash[:300]}")
        for where, parted in sorted(pairs.parted.items()):
            print(f"3.5.1 parts from 3.7: {where}   at {parted[:200]}")
    return 1 if differences else 0


def _round(pairs: Pairs | v2.Pairs, kind: str, asked: argparse.Namespace, until: float, differences: set[str]) -> int:
    ran = 0
    phases = [Phase.generate] if asked.keep_going else [Phase.generate, Phase.shrink]

    @seed(asked.seed)
    @settings(
        max_examples=PER_ROUND[kind],
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(SEQUENCES[kind])
    def one(sequence: list[Any]) -> None:
        nonlocal ran
        if time.monotonic() > until:
            return
        ran += 1
        try:
            pairs.run(sequence)
        except Differ as differ:
            if not asked.keep_going:
                raise
            where = str(differ).partition("\n")[0].partition(": ")[2].split(" ")[0]
            told = where + "".join(str(differ).split("\n")[1:])[:400]
            if told not in differences:
                differences.add(told)
                print(f"{kind}, seed {asked.seed}: {differ}", flush=True)

    try:
        one()
    except Differ as differ:
        differences.add(str(differ))
        print(f"{kind}, seed {asked.seed}: {differ}")
    return ran


if __name__ == "__main__":
    sys.exit(main())
