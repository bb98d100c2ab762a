"""The runner itself: a fault that a test looks at is noticed, one that none looks at isn't."""

import json
import os
import subprocess
import sys

import pytest

from tests.mutation.__main__ import chosen
from tests.mutation.mutants import mutants, mutated
from tests.mutation.targets import ROOT, TARGETS

LITTLE = """
LIMIT = 10

def double(x):
    return x * 2

def triple(x):
    return x * 3

def never(x):
    return x + 1

class Counter:
    def __init__(self):
        self.count = 0

    @property
    def left(self):
        while self.count > LIMIT:
            self.count -= 1
        return LIMIT - self.count

SQUARES = [double(x) for x in range(3)]
"""

CHECKS = """
from little import sums

def test_double():
    assert sums.double(2) == 4 and sums.double(3) == 6

def test_triple_is_called():
    sums.triple(2)

def test_left():
    counter = sums.Counter()
    assert counter.left == 10
    counter.count = 12
    assert (counter.left, counter.count) == (0, 10)
"""

RUN = """
import json
from pathlib import Path
from tests.mutation.__main__ import of, work
from tests.mutation.running import Budget, run
planted = of(["little.sums"], Path.cwd())
said = {}
for at, verdict in run(work(planted, Path.cwd()), ["test_sums.py"], 2, Budget(5, 20, more_s=2), []):
    if at is not None:
        said[f"{planted[at].mutant.line} {planted[at].mutant.what}"] = verdict.value
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("little")
    (folder / "little").mkdir()
    (folder / "little" / "__init__.py").touch()
    (folder / "little" / "sums.py").write_text(LITTLE)
    (folder / "test_sums.py").write_text(CHECKS)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def line(text: str) -> int:
    return LITTLE.splitlines().index(text) + 1


@pytest.mark.parametrize(
    ("text", "what", "verdict"),
    [
        ("    return x * 2", "Mult is FloorDiv", "killed"),
        ("    return x * 2", "2 is 3", "killed"),  # it makes a constant on import as well
        ("    return x * 3", "Mult is FloorDiv", "survived"),  # called, but nobody looks
        ("    return x * 3", "3 is 4", "survived"),
        ("    return x + 1", "Add is Sub", "survived"),  # never called
        ("LIMIT = 10", "10 is 11", "killed"),  # runs on import
        ("        return LIMIT - self.count", "Sub is Add", "killed"),
        ("        while self.count > LIMIT:", "Gt is GtE", "killed"),
        ("            self.count -= 1", "Sub is Add", "did not end"),
        ("SQUARES = [double(x) for x in range(3)]", "3 is 4", "survived"),
    ],
)
def test_what_a_test_looks_at_is_noticed(verdicts: dict[str, str], text: str, what: str, verdict: str) -> None:
    assert verdicts[f"{line(text)} {what}"] == verdict


def test_all_mutants_of_the_module_were_run(verdicts: dict[str, str]) -> None:
    assert verdicts.keys() == {f"{one.line} {one.what}" for one in mutants(LITTLE)}


def test_a_mutant_is_one_change() -> None:
    same = compile(LITTLE, "", "exec")
    made = [compile(mutated(LITTLE, one.number), "", "exec") for one in mutants(LITTLE)]
    assert all(one != same for one in made)
    assert len(made) == len(set(made))


def test_the_seed_decides() -> None:
    assert chosen(TARGETS, 50, 1) == chosen(TARGETS, 50, 1) != chosen(TARGETS, 50, 2)
    assert set(chosen(TARGETS[:1], 10**9, 1)) == set(chosen(TARGETS[:1], 10**9, 2))


def test_targets_are_there() -> None:
    assert all((ROOT / (module.replace(".", "/") + ".py")).is_file() for module in TARGETS)
