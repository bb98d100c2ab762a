"""h2spec, the conformance suite of HTTP/2, against the node's port."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.actors.kv.server import Running
from tests.differential.servers import CACHE

pytestmark = pytest.mark.acceptance
MODULE = "github.com/summerwind/h2spec/cmd/h2spec"


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """Built once, by Go."""
    found = CACHE.parent / "h2spec" / "h2spec"
    if not found.exists():
        go = shutil.which("go") or "/usr/local/go/bin/go"
        if not Path(go).exists():
            needs.missing("Go, to build h2spec")
        found.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(found.parent), "GOFLAGS": "-mod=mod"}
        subprocess.run([go, "install", f"{MODULE}@latest"], env=environment, check=True, timeout=300)
    return found


def failed(h2spec: Path, port: int, path: str) -> set[str]:
    """The cases that failed, those of its strict mode among them."""
    command = [str(h2spec), "-h", "127.0.0.1", "-p", str(port), "-P", path, "-o", "2", "--strict"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert " passed" in done.stdout, done.stdout + done.stderr
    report = done.stdout.partition("Failures:")[2]
    return {case.strip() for case in re.findall(r"× \d+: (.*)", report)}


@pytest.mark.parametrize("path", ["/", "/etcdserverpb.KV/Range"])
def test_it_passes(h2spec: Path, tmp_path: Path, path: str) -> None:
    """All of it, which etcd 3.7 doesn't."""
    with Running(tmp_path) as server:
        assert failed(h2spec, server.port, path) == set()
