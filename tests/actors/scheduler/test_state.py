"""What evolve accepts, and what is void by the time it lands."""

from typing import Any

import pytest

from actors.scheduler import state
from streams.events import unit as says
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from tests.actors.scheduler.cluster import Cluster, ident, unit_file

FENCED = {"corelog": "Fence=yes"}


def code(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Rejected) else ""


def test_submit_is_checked_again_and_idempotent() -> None:
    cluster = Cluster(1)
    bad = cluster.submit("a.service", "[Service]\nExecStart=/a\nbroken\n")
    assert code(bad) == "bad-unit"
    assert bad.detail == {"line": 3, "key": ""}
    assert "a.service:3: broken line 'broken'" in bad.message
    first, again = cluster.submit("a.service"), cluster.submit("a.service")
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert first.result["created"]
    assert not again.result["created"]
    assert first.result["generation"] == again.result["generation"] == 1
    # comments aren't content
    assert isinstance(cluster.submit("a.service", "# comment\n" + unit_file()), Accepted)
    assert code(cluster.submit("a.service", desired="running")) == "bad-desired"
    assert code(cluster.desire("a.service", "running")) == "bad-desired"
    assert code(cluster.desire("b.service", "launched")) == "not-found"
    assert code(cluster.destroy("b.service")) == "not-found"


def test_a_cycle_of_machine_of_is_refused_and_named() -> None:
    cluster = Cluster(1)
    cluster.submit("a.service", unit_file(fleet="MachineOf=b.service"))
    cluster.submit("b.service", unit_file(fleet="MachineOf=x.service c.service"))
    refused = cluster.submit("c.service", unit_file(fleet="MachineOf=y.service a.service"))
    assert code(refused) == "machine-of-cycle"
    assert refused.message == "a cycle of MachineOf: c.service → a.service → b.service → c.service"
    assert "c.service" not in cluster.control.units.units
    cluster.submit("c.service", unit_file(fleet="MachineOf=y.service"))
    assert code(cluster.submit("c.service", unit_file(fleet="MachineOf=b.service"), replace=True)) == "machine-of-cycle"


def test_a_very_long_chain_of_machine_of_is_no_problem() -> None:
    cluster = Cluster(2)
    count = 1500
    for number in range(count):
        cluster.submit(f"u{number:04}.service", unit_file(fleet=f"MachineOf=u{number + 1:04}.service"))
    cluster.submit(f"u{count:04}.service")
    cluster.run(rounds_max=3)
    assert {tuple(machines) for machines in cluster.placements().values()} == {("m1",)}
    refused = cluster.submit(f"u{count:04}.service", unit_file(fleet="MachineOf=u0000.service"), replace=True)
    assert code(refused) == "machine-of-cycle"


def test_templates_never_run_and_instances_take_their_content() -> None:
    cluster = Cluster(1)
    assert code(cluster.submit("foo@.service", desired="launched")) == "template"
    cluster.submit("foo@.service", desired="")
    assert code(cluster.desire("foo@.service", "launched")) == "template"
    assert code(cluster.placed("foo@.service", "m1")) == "template"
    assert isinstance(cluster.submit("foo@1.service", ""), Accepted)
    assert isinstance(cluster.desire("foo@2.service", "loaded"), Accepted)
    assert code(cluster.desire("bar@2.service", "loaded")) == "not-found"
    cluster.run()
    assert cluster.placements() == {"foo@.service": [], "foo@1.service": ["m1"], "foo@2.service": ["m1"]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"generation": 2}, "stale-generation"),
        ({"machine_generation": 7}, "stale-machine"),
        ({"machine": "nobody"}, "stale-machine"),
        ({"from_machine": ident("m2")}, "already-placed"),
        ({"term": 0}, "not-the-master"),
        ({"term": 99}, "stale-term"),
    ],
)
def test_a_stale_placement_is_void(changes: dict[str, Any], why: str) -> None:
    cluster = Cluster(2)
    cluster.submit("a.service")
    before = cluster.control.units.next_fence
    assert code(cluster.placed("a.service", "m1", **changes)) == why
    assert cluster.placements() == {"a.service": []}
    assert cluster.control.units.next_fence == before
    assert cluster.placed("a.service", "m1") == Accepted({"fence": before})


def test_a_placement_that_was_decided_before_something_changed_is_void() -> None:
    """For each kind of change: the placement was right when it was decided."""
    changes = {
        "stale-machine": lambda cluster: cluster.drain("m1"),
        "stale-generation": lambda cluster: cluster.submit("a.service", unit_file(exec_start="/b"), replace=True),
        "inactive": lambda cluster: cluster.desire("a.service", "inactive"),
        "not-found": lambda cluster: cluster.destroy("a.service"),
        "already-placed": lambda cluster: cluster.placed("a.service", "m2"),
        "unfit-conflict": lambda cluster: cluster.placed("enemy.service", "m1"),
        "unfit-port": lambda cluster: cluster.placed("port.service", "m1"),
        "unfit-memory": lambda cluster: cluster.placed("large.service", "m1"),
    }
    for why, change in changes.items():
        cluster = Cluster(2, memory_bytes=1 << 30)
        cluster.submit("a.service", unit_file(corelog="Memory=600M\nPorts=80"))
        cluster.submit("enemy.service", unit_file(fleet="Conflicts=a*"))
        cluster.submit("port.service", unit_file(corelog="Ports=80"))
        cluster.submit("large.service", unit_file(corelog="Memory=600M"))
        machine = cluster.control.cluster.machines[ident("m1")]
        decided = says.Placed(machine.id, 1, machine.generation, "decided before")
        assert not isinstance(change(cluster), Rejected)
        assert code(cluster.fact(decided, "a.service")) == why, why
        assert cluster.where("a.service") in ([], ["m2"])


def test_placements_on_dead_drained_or_wrong_machines_are_void() -> None:
    cluster = Cluster(5)
    cluster.submit("a.service", unit_file(fleet="MachineMetadata=disk=ssd"))
    cluster.submit("b.service", unit_file(fleet=f"MachineID={ident('m5')}"))
    cluster.submit("c.service", unit_file(fleet="MachineOf=a.service"))
    for name in ("m2", "m3", "m4", "m5"):
        cluster.label(name, disk="ssd")
    cluster.lose("m2")
    cluster.leave("m3")
    cluster.drain("m4")
    assert code(cluster.placed("a.service", "m1")) == "unfit-metadata"
    assert code(cluster.placed("a.service", "m2")) == "unfit-lost"
    assert code(cluster.placed("a.service", "m3")) == "unfit-left"
    assert code(cluster.placed("a.service", "m4")) == "unfit-drained"
    assert code(cluster.placed("b.service", "m1")) == "unfit-machine-id"
    assert code(cluster.placed("c.service", "m5")) == "unfit-machine-of"
    assert isinstance(cluster.placed("a.service", "m5"), Accepted)
    assert isinstance(cluster.placed("c.service", "m5"), Accepted)


def test_facts_of_a_master_whose_term_is_over_change_nothing() -> None:
    cluster = Cluster(2)
    cluster.submit("a.service")
    old, writer = cluster.term, f"scheduler@{cluster.master}"
    cluster.elect("m2")
    machine = cluster.control.cluster.machines[ident("m1")]
    placed = says.Placed(machine.id, 1, machine.generation, "old master")
    assert code(cluster.say(placed, "a.service", writer, term=old)) == "stale-term"
    assert code(cluster.say(placed, "a.service", writer, term=cluster.term)) == "stale-term"
    assert cluster.where("a.service") == []


# -- fences ---------------------------------------------------------------------------------------------------


def test_a_fence_is_open_from_placed_until_stopped() -> None:
    cluster = Cluster(2)
    cluster.start("a.service", **FENCED)
    fence = cluster.placement("a.service").fence
    assert state.is_open(cluster.control, "a.service", fence)
    cluster.drain("m1")
    cluster.run()
    assert cluster.where("a.service") == []
    assert state.owed(cluster.control, ident("m1")) == [("a.service", cluster.control.units.fences["a.service"][0])]
    assert code(cluster.placed("a.service", "m2")) == "fence-open"
    assert cluster.unit("a.service").waiting == f"fence {fence} on m1 is open until the unit has stopped there"
    assert cluster.stopped("a.service", "m1", fence + 1) == DONE
    assert state.is_open(cluster.control, "a.service", fence)
    cluster.stopped("a.service", "m1", fence)
    assert not cluster.control.units.fences
    cluster.run()
    assert cluster.where("a.service") == ["m2"]
    assert cluster.placement("a.service").fence > fence


def test_a_unit_that_stopped_under_its_fence_gets_a_new_one() -> None:
    cluster = Cluster(2)
    cluster.start("a.service", **FENCED)
    fence = cluster.placement("a.service").fence
    cluster.stopped("a.service", "m1")
    assert cluster.where("a.service") == []
    cluster.run()
    assert cluster.placement("a.service").fence > fence


def test_fence_expired_is_void_once_the_machine_is_back() -> None:
    cluster = Cluster(3)
    cluster.start("a.service", **FENCED)
    fence = cluster.placement("a.service").fence
    cluster.lose("m1")
    lost = cluster.control.cluster.machines[ident("m1")].generation
    said = says.FenceExpired(fence, ident("m1"), lost)
    cluster.join("m1")
    assert code(cluster.fact(said, "a.service")) == "machine-alive"
    cluster.lose("m1")
    # lost again a moment ago: the wait that this was said after is not the one that counts
    assert code(cluster.fact(said, "a.service")) == "stale-machine"
    assert state.is_open(cluster.control, "a.service", fence)
    now = cluster.control.cluster.machines[ident("m1")].generation
    assert code(cluster.fact(says.FenceExpired(fence + 1, ident("m1"), now), "a.service")) == "no-such-fence"
    assert code(cluster.fact(says.FenceExpired(fence, ident("m1"), now), "a.service", term=0)) == "not-the-master"
    assert cluster.fact(says.FenceExpired(fence, ident("m1"), now), "a.service") == DONE
    assert cluster.where("a.service") == []
    cluster.run()
    assert cluster.where("a.service") == ["m2"]


def test_a_fenced_unit_on_a_lost_machine_stays_until_the_fence_has_expired() -> None:
    cluster = Cluster(2)
    cluster.start("a.service", **FENCED)
    fence = cluster.placement("a.service").fence
    cluster.lose("m1")
    cluster.run()
    assert cluster.where("a.service") == ["m1"]
    assert cluster.unit("a.service").waiting == (
        f"m1 is lost; fence {fence} is open until nothing can run there any more"
    )
    cluster.join("m1")
    cluster.run()
    assert cluster.placement("a.service").fence == fence
    assert cluster.unit("a.service").waiting == ""


def test_the_fence_of_a_removed_machine_ends_by_expiry_only() -> None:
    cluster = Cluster(2)
    cluster.start("a.service", **FENCED)
    fence = cluster.placement("a.service").fence
    cluster.lose("m1")
    cluster.remove("m1")
    cluster.run()
    assert cluster.unit("a.service").placements == {}
    assert code(cluster.placed("a.service", "m2")) == "fence-open"
    generation = state.machine_generation(cluster.control, ident("m1"))
    assert generation > 1
    assert cluster.fact(says.FenceExpired(fence, ident("m1"), generation), "a.service") == DONE
    cluster.run()
    assert cluster.where("a.service") == ["m2"]


def test_new_content_in_place_keeps_the_fence() -> None:
    cluster = Cluster(2)
    cluster.start("a.service", **FENCED)
    fence = cluster.placement("a.service").fence
    cluster.submit("a.service", unit_file(exec_start="/bin/false", **FENCED), replace=True)
    cluster.run()
    assert (cluster.placement("a.service").fence, cluster.placement("a.service").generation) == (fence, 2)
    assert state.is_open(cluster.control, "a.service", fence)


def test_whether_a_unit_is_fenced_can_change_only_while_nothing_runs() -> None:
    cluster = Cluster(2)
    cluster.start("a.service")
    assert code(cluster.submit("a.service", unit_file(**FENCED), replace=True)) == "fence-change"
    cluster.engine("a.service", "m1")
    cluster.desire("a.service", "inactive")
    cluster.run()
    assert code(cluster.submit("a.service", unit_file(**FENCED), replace=True)) == "fence-change"
    cluster.stopped("a.service", "m1")
    assert isinstance(cluster.submit("a.service", unit_file(**FENCED), replace=True), Accepted)
    cluster.run()
    assert code(cluster.submit("a.service", unit_file(), replace=True)) == "fence-change"
    cluster.destroy("a.service")
    assert code(cluster.submit("a.service", unit_file())) == "fence-change"
    fence = cluster.control.units.fences["a.service"][0]
    cluster.stopped("a.service", "m1", fence.fence)
    assert isinstance(cluster.submit("a.service", unit_file()), Accepted)


# -- destroy --------------------------------------------------------------------------------------------------


def test_a_destroyed_unit_is_kept_until_it_has_stopped() -> None:
    cluster = Cluster(2)
    cluster.start("a.service")
    cluster.engine("a.service", "m1")
    cluster.destroy("a.service")
    assert cluster.unit("a.service").destroyed
    assert cluster.unit("a.service").placements == {}
    assert code(cluster.desire("a.service", "launched")) == "not-found"
    assert not cluster.run()
    cluster.stopped("a.service", "m1")
    assert cluster.control.units.units == {}
    assert cluster.control.engines.runs == {}


def test_a_destroyed_unit_of_a_lost_machine_is_forgotten() -> None:
    cluster = Cluster(2)
    cluster.start("a.service")
    cluster.engine("a.service", "m1")
    cluster.lose("m1")
    cluster.destroy("a.service")
    cluster.run()
    assert cluster.control.units.units == {}


def test_a_unit_that_comes_again_while_it_stops_is_a_new_one() -> None:
    cluster = Cluster(2)
    cluster.start("a.service")
    cluster.engine("a.service", "m1")
    cluster.destroy("a.service")
    outcome = cluster.submit("a.service", unit_file(exec_start="/b"), desired="")
    assert isinstance(outcome, Accepted)
    assert outcome.result["created"]
    assert cluster.unit("a.service").generation == 2
    assert cluster.unit("a.service").desired == "inactive"
    cluster.stopped("a.service", "m1")
    assert "a.service" in cluster.control.units.units


def test_what_is_placed_and_its_sum_are_the_same_thing() -> None:
    cluster = Cluster(3)
    for number in range(6):
        cluster.start(f"u{number}.service", corelog=f"Ports={8000 + number}\nCPU=10m")
    cluster.destroy("u1.service")
    cluster.lose("m2")
    cluster.run()
    expected: dict[str, list[str]] = {}
    for unit in cluster.control.units.units.values():
        for machine in unit.placements:
            expected.setdefault(machine, []).append(unit.name)
    placed = cluster.control.units.placed
    assert {machine: sorted(units) for machine, units in placed.items()} == {m: sorted(u) for m, u in expected.items()}
    machine = next(iter(placed))
    assert [unit.name for unit, _ in state.placements_of(cluster.control, machine)] == list(placed[machine])
