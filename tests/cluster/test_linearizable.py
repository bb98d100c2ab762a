"""Three nodes on three brokers in a storm of faults: every answer, watch and lease is held against one history.

``CORELOG_FAULT_MINUTES`` says how long (30; tests/acceptance/test_show_etcd_faults.py takes 5).
``CORELOG_SOAK_MINUTES`` says how long nodes and brokers are killed before states are compared (60).
``CORELOG_FAULT_SEED`` repeats the choices of a run. A failure keeps the history:
``python -m tests.storm --judge FILE``.
"""

import math
import os
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deploy.kafka.brokers import Missing, jars
from tests import needs
from tests.storm.__main__ import LONGEST

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("CORELOG_FAULT_MINUTES", "30"))
#: 200,000 operations and 20 faults of each kind in half an hour.
OPERATIONS_A_MINUTE, FAULTS_A_MINUTE = 200_000 / 30, 20 / 30
SOAK_MINUTES = float(os.environ.get("CORELOG_SOAK_MINUTES", "60"))
KINDS = [f"{who} {what}" for who in ("master", "node", "broker") for what in ("killed", "stopped", "cut off")]


def storm(minutes: float, *options: str) -> str:
    """What a storm printed. Fails with it if something was wrong."""
    needs.root()
    for name in ("unshare", "nsenter", "setpriv", "ip", "iptables"):
        needs.program(name)
    try:
        jars()
    except Missing as error:
        needs.missing(str(error))
    seed = os.environ.get("CORELOG_FAULT_SEED") or str(secrets.randbits(32))
    keep = os.environ.get("CORELOG_FAULT_KEEP", tempfile.gettempdir())
    words = [sys.executable, "-m", "tests.storm", "--minutes", str(minutes), "--seed", seed, "--keep", keep, *options]
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        needs.missing(f"no network namespaces here: {probe.stderr.strip()}")
    # a node refuses variables that it doesn't know
    ours = ("CORELOG_FAULT_", "CORELOG_SOAK_")
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "TERM", "--", "unshare", "--net", *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
    )
    print("\n" + done.stdout)
    assert done.returncode == 0, f"seed {seed}: exit {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-40_000:]}"
    return done.stdout


def counted(told: str) -> dict[str, int]:
    """How often each kind of fault came."""
    line = next(line for line in told.splitlines() if line.startswith("faults: "))
    parts = [part.rpartition(" ") for part in line.removeprefix("faults: ").split(", ")]
    return {kind: int(number) for kind, _, number in parts}


def operations(told: str) -> int:
    found = re.search(r"(\d+) operations", told)
    assert found is not None, told
    return int(found[1])


def compared_bytes(told: str) -> int:
    found = re.search(r"compared byte for byte: (\d+) bytes", told)
    assert found is not None, told
    return int(found[1])


def held(minutes: float) -> None:
    """A storm of all faults, at the rates that are to be reached; it lasts longer where a machine is slow."""
    least, each = math.ceil(OPERATIONS_A_MINUTE * minutes), math.ceil(FAULTS_A_MINUTE * minutes)
    told = storm(minutes, "--operations", str(least), "--each", str(each))
    assert "\n0 violations" in told
    assert operations(told) >= least
    assert set(counted(told)) == set(KINDS)
    assert min(counted(told).values()) >= each


@pytest.mark.slow
@pytest.mark.timeout(60 * (LONGEST * MINUTES + 10))
def test_every_answer_watch_and_lease_fits_one_history_whatever_is_killed_stopped_or_cut_off() -> None:
    held(MINUTES)


@pytest.mark.slow
@pytest.mark.timeout(60 * (SOAK_MINUTES + 10))
def test_states_are_the_same_byte_for_byte_on_three_nodes_after_an_hour_of_kills() -> None:
    """Made from each node's snapshot and what follows it, and from the first record on; the serving ones by their
    whole history and HashKV. A storm compares both at its end."""
    told = storm(SOAK_MINUTES, "--only", "killed")
    assert compared_bytes(told) > 100_000
