"""The tests of ``tests/foreign/go``, by which etcd's own Go client and its concurrency packages speak to endpoints.

python -m tests.foreign.golang http://127.0.0.1:2379 ...
python -m tests.foreign.golang real        three real members, of which the last is killed in mid-watch
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.foreign import installs, servers
from tests.foreign.suites import Counts

FOLDER = Path(__file__).parent / "go"
TESTS = 15


def go() -> str:
    """The go command: on the PATH, or where its own installer puts it."""
    found = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(found).exists():
        raise installs.Unavailable("no go here: install Go 1.26 or newer")
    return found


def run(endpoints: Sequence[str], victim: int = 0, timeout_s: int = 300) -> Counts:
    """Run them; ``victim`` is the process behind the last endpoint, for the test that kills it."""
    env = {**os.environ, "FOREIGN_ENDPOINTS": ",".join(endpoints), "FOREIGN_VICTIM": str(victim or "")}
    command = [go(), "test", "-json", "-count=1", "-mod=readonly", f"-timeout={timeout_s}s", "./..."]
    done = subprocess.run(command, cwd=FOLDER, env=env, capture_output=True, text=True, check=False)
    ends: dict[str, list[str]] = {"pass": [], "skip": [], "fail": []}
    said = []
    for line in done.stdout.splitlines():
        event = json.loads(line)
        said.append(event.get("Output", ""))
        if event.get("Test") and "/" not in event["Test"] and event["Action"] in ends:
            ends[event["Action"]].append(event["Test"])
    if done.returncode and not ends["fail"]:
        ends["fail"].append("go test itself")
    return Counts(len(ends["pass"]), len(ends["skip"]), tuple(ends["fail"]), "".join(said) + done.stderr)


def main(arguments: list[str]) -> None:
    if arguments == ["real"]:
        with servers.Etcd("3.7", 3) as etcd:
            counts = run(etcd.clients, etcd.processes[-1].pid)
    else:
        counts = run(arguments)
    print(counts.output if counts.failed else "", counts, sep="")


if __name__ == "__main__":
    main(sys.argv[1:])
