"""Units that append a line a moment to a file which all nodes share: when, on which machine, under which fence."""

import json
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.compose import NODES, Cluster
from tests.acceptance.harness import Result, until

_BEAT = """\
import os, socket, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
who = f"{socket.gethostname()} {os.environ.get('CORELOG_FENCE', '-')}"
while True:
    os.write(out, f"{time.time_ns()} {who}\\n".encode())
    time.sleep(0.05)
"""
_UNIT = """\
[Unit]
Description=Tells that it lives
[Service]
ExecStart=/usr/bin/python3 /shared/beat.py /shared/{name}
"""
_FENCED = "[X-Corelog]\nFence=true\n"


class Beat(NamedTuple):
    at_ns: int
    machine: str
    fence: str


def unit(name: str, fenced: bool) -> str:
    """The text of a unit that beats into ``/shared/NAME``."""
    return _UNIT.format(name=name) + (_FENCED if fenced else "")


def submit(cluster: Cluster, node: str, folder: Path, name: str, fenced: bool) -> Result:
    (cluster.shared / "beat.py").write_text(_BEAT)
    file = folder / f"{name}.service"
    file.write_text(unit(name, fenced))
    return cluster.run(node, "unit", "start", str(file))


def beats(cluster: Cluster, name: str) -> list[Beat]:
    """All lines so far, in the order in which they were appended."""
    path = cluster.shared / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [Beat(int(at), machine, fence) for at, machine, fence in (line.split(" ") for line in lines)]


def beats_on(cluster: Cluster, name: str, machine: str, after_ns: int) -> Beat | None:
    """The first line of a machine after an instant."""
    return next((one for one in beats(cluster, name) if one.machine == machine and one.at_ns > after_ns), None)


def beating(cluster: Cluster, name: str, since: int) -> set[str]:
    """Machines that have beaten after the first ``since`` lines."""
    return {one.machine for one in beats(cluster, name)[since:]}


def gather(cluster: Cluster, units: list[str]) -> str:
    """Have the units run on the master's machine, by draining the others for a moment; returns its name."""

    def at_home(home: str) -> bool:
        return all(
            [(one.machine, one.state) for one in cluster.placed(home, f"{name}.service")] == [(home, "ready")]
            for name in units
        )

    for _ in range(5):
        home = cluster.settled_master()
        others = [node for node in NODES if node != home]
        for node in others:
            cluster.run(home, "machine", "drain", node)
        until(lambda home=home: at_home(home), timeout_s=90, every_s=0.1, says=f"{units} on {home}")  # type: ignore[misc]
        for node in others:
            cluster.run(home, "machine", "undrain", node)
        if cluster.settled_master() == home and at_home(home):
            return home
    raise AssertionError("the mastership never stayed while units were moved to it")


def runs(cluster: Cluster, ask: str, name: str) -> str:
    """For a failing test: what is known of a unit."""
    return json.dumps(cluster.seen(ask, f"/v1/units/{name}.service"), indent=1)
