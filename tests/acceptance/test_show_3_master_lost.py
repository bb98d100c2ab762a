"""Show 3: the master's node is killed, cut off, stopped. Another is master, both its units run elsewhere, once."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.acceptance.beats import Beat, beating, beats, beats_on, gather, runs, submit
from tests.acceptance.compose import NODES, Cluster
from tests.acceptance.harness import until

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

PLAIN, FENCED = "plain", "fenced"
#: What goes on while the node is stopped: the fence's watchdog, and the units themselves.
GO_ON = ("actors.engine.watchdog", "/shared/beat.py")


@contextlib.contextmanager
def killed(cluster: Cluster, node: str) -> Iterator[None]:
    """docker kill, then docker start."""
    cluster.kill(node)
    yield
    cluster.start(node)


@contextlib.contextmanager
def cut_off(cluster: Cluster, node: str) -> Iterator[None]:
    """docker network disconnect, then connect."""
    cluster.disconnect(node)
    yield
    cluster.connect(node)


@contextlib.contextmanager
def stopped(cluster: Cluster, node: str) -> Iterator[None]:
    """SIGSTOP to all its processes but watchdog and units, then SIGCONT."""
    with cluster.stopped(node, *GO_ON) as chosen:
        assert len(chosen) > 5, chosen
        yield


@pytest.fixture(scope="module")
def units(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A plain unit and a fenced one, which append time, machine and fence to a volume that all nodes share."""
    cluster.healthy()
    folder = tmp_path_factory.mktemp("units")
    submit(cluster, "node1", folder, PLAIN, fenced=False)
    submit(cluster, "node1", folder, FENCED, fenced=True)
    yield [PLAIN, FENCED]
    cluster.healthy()
    for name in (PLAIN, FENCED):
        cluster.run("node1", "unit", "destroy", name)


def test_cluster_status_from_outside(cluster: Cluster) -> None:
    status = cluster.run("node1", "cluster", "status").out
    assert all(node in status for node in NODES), status
    assert cluster.run("node1", "cluster", "status", "-o", "json").json["alive"] == 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [killed, cut_off, stopped])
def test_another_is_master_and_both_units_run_elsewhere(
    cluster: Cluster, units: list[str], fault: Callable[[Cluster, str], AbstractContextManager[None]]
) -> None:
    cluster.healthy()
    old = gather(cluster, units)
    witness = next(node for node in NODES if node != old)
    before = cluster.position(witness)

    struck_ns = time.time_ns()
    with fault(cluster, old):
        new = until(
            lambda: (name := cluster.master(witness)) not in (old, "") and name, timeout_s=60, says="another master"
        )
        elected_s = (time.time_ns() - struck_ns) / 1e9
        moved = {name: _elsewhere(cluster, witness, name, old, struck_ns) for name in units}
    print(
        f"\n{fault.__name__}: {old} -> master {new} seen after {elected_s:.2f} s; "
        + ", ".join(f"{name} runs on {at.machine} after {_s(at, struck_ns):.2f} s" for name, at in moved.items())
    )
    fenced = beats(cluster, FENCED)
    last_old = max(one.at_ns for one in fenced if one.machine == old)
    assert last_old < moved[FENCED].at_ns, "two copies of a fenced unit ran at one time"
    assert int(moved[FENCED].fence) > max(int(one.fence) for one in fenced if one.at_ns <= last_old)

    cluster.healthy()
    for name in units:
        _one_copy(cluster, witness, name, moved[name].machine)
    assert {one.machine for one in beats(cluster, FENCED) if one.at_ns > last_old} == {moved[FENCED].machine}
    _diff_names_exactly_that(cluster, witness, before, old, units, moved)


def _s(beat: Beat, since_ns: int) -> float:
    return (beat.at_ns - since_ns) / 1e9


def _elsewhere(cluster: Cluster, ask: str, name: str, old: str, since_ns: int) -> Beat:
    """The first line that the unit wrote on another machine."""

    def first() -> Beat | None:
        found = [beats_on(cluster, name, node, since_ns) for node in NODES if node != old]
        return min((one for one in found if one), default=None)

    try:
        found = until(first, timeout_s=90, says=f"{name} on another machine than {old}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{runs(cluster, ask, name)}") from error
    assert isinstance(found, Beat)
    return found


def _one_copy(cluster: Cluster, ask: str, name: str, where: str) -> None:
    """Healed: the log says one placement, and only one machine writes lines."""

    def only_there() -> bool:
        since = len(beats(cluster, name))
        until(lambda: len(beats(cluster, name)) > since + 40, says=f"{name} beating")
        return beating(cluster, name, since) == {where}

    until(only_there, timeout_s=60, says=f"one copy of {name}, on {where}")
    assert [one.machine for one in cluster.placed(ask, f"{name}.service")] == [where]


def _diff_names_exactly_that(
    cluster: Cluster, ask: str, before: str, old: str, units: list[str], moved: dict[str, Beat]
) -> None:
    """The difference is a term, the old machine's loss and return, and the two units' moves; nothing else."""
    ids = {row["name"]: row["id"] for row in cluster.get(ask, "/v1/machines")}
    changes = cluster.run(ask, "diff", f"{before}..", "-o", "json", code=1).json
    print("\n".join(f"  {change['op']:6} {change['path']}" for change in changes))
    paths = [change["path"] for change in changes]
    for name in units:
        placements = f"control/units/units/{name}.service/placements"
        assert f"{placements}/{ids[old]}" in paths
        assert f"{placements}/{ids[moved[name].machine]}" in paths
    allowed = (
        "control/cluster/election/",
        f"control/cluster/machines/{ids[old]}/",
        *(f"control/units/{part}/{name}.service" for part in ("units", "fences") for name in units),
        *(f"control/engines/runs/{name}.service/" for name in units),
    )
    assert [path for path in paths if not path.startswith(allowed)] == []
    shown = cluster.run(ask, "diff", f"{before}..", code=1).out
    assert "control/cluster/election/term" in shown
