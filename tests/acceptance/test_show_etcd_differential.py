"""Show: random sequences to real etcds (3.7, and 3.4 for v2) and to us; nothing differs that docs/etcd.md doesn't list.

``CORELOG_DIFFERENTIAL_MINUTES`` makes it longer (2; the show itself is of ten), ``CORELOG_DIFFERENTIAL_SEED`` another.
"""

import os
import subprocess
import sys

import pytest

from tests import needs
from tests.acceptance.harness import ROOT
from tests.differential import servers

MINUTES = float(os.environ.get("CORELOG_DIFFERENTIAL_MINUTES", "2"))
SEED = os.environ.get("CORELOG_DIFFERENTIAL_SEED", "1")

pytestmark = pytest.mark.acceptance


@pytest.mark.timeout(60 * MINUTES + 300)
def test_no_answer_differs_from_etcds() -> None:
    servers.program(servers.NEWEST)
    needs.program("etcd")
    command = [sys.executable, "-m", "tests.differential", "--minutes", str(MINUTES), "--seed", SEED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    # else the servers weren't there
    sequences = int(done.stdout.partition(" sequences")[0].rpartition("\n")[2])
    assert sequences > 60 * MINUTES
