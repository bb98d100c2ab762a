"""Show: a confd user's walk. Three machines, a template, one ``etcdctl put``: all three files are new within a second;
one is cut off and follows when it is healed; what is broken leaves the old file and says why."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.kafka.brokers import Missing, jars
from tests import needs
from tests.acceptance.confd_walk import ROUNDS
from tests.foreign import installs, servers

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka]
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1500)
def test_files_follow_keys_on_three_machines(tmp_path: Path) -> None:
    needs.root()
    for name in ("unshare", "nsenter", "setpriv", "ip", "iptables"):
        needs.program(name)
    try:
        jars()
        servers.program("etcdctl", "3.7")
    except (Missing, installs.Unavailable) as error:
        needs.missing(str(error))
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        needs.missing("no network namespaces here")
    words = [sys.executable, "-m", "tests.acceptance.confd_walk", str(tmp_path)]
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "TERM", "--", "unshare", "--net", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = {path.parent.name: path.read_text() for path in tmp_path.glob("machine*/said")}
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{said}"
    seen = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(seen, indent=2))
    assert statistics.median(seen["took_s"]) < 1.0, seen
    assert seen["reloads"] == [1 + ROUNDS] * 3, "one for each new file, and no more"
    assert seen["kept while cut off"]
    assert [("can't be reached" in line, "reached again" in line) for line in seen["said while cut off"]] == [
        (True, False),
        (False, True),
    ], "each is said once"
    assert seen["healed_s"] < 15
    assert seen["kept while broken"] == [True] * 3
    syntax, check, missing = seen["broken"]
    assert "web.conf.tmpl:2: unexpected '}', expected ')'; the file stays as it is" in syntax
    assert "the check failed: `grep -q listen" in check
    assert "web.conf.tmpl:1: there is no key /production/web/port; the file stays as it is" in missing
    assert seen["modes"] == ["0o640"] * 3
    assert seen["beside"] == [["web.conf"]] * 3
