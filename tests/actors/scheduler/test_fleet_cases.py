"""fleet's own functional tests of scheduling and clustering, by name, on the pure core."""

import pytest

from streams.events import unit as says
from streams.outcomes import Accepted, Rejected
from tests.actors.scheduler.cluster import Cluster, ident, reasons, unit_file


def test_machine_of_pairs_are_co_located_and_the_pair_migrates_together() -> None:
    cluster = Cluster(3)
    for number in range(3):
        cluster.submit(f"pong.{number}.service", unit_file(fleet=f"MachineOf=ping.{number}.service"))
        cluster.submit(f"ping.{number}.service")
    cluster.run()
    pairs = {number: cluster.where(f"ping.{number}.service") for number in range(3)}
    for number, machines in pairs.items():
        assert len(machines) == 1
        assert cluster.where(f"pong.{number}.service") == machines
    lost = next(number for number, machines in pairs.items() if machines != ["m1"])
    cluster.lose(pairs[lost][0])
    cluster.run()
    assert cluster.where(f"ping.{lost}.service") != pairs[lost]
    assert cluster.where(f"pong.{lost}.service") == cluster.where(f"ping.{lost}.service")
    others = [number for number in pairs if number != lost]
    assert all(cluster.where(f"ping.{number}.service") == pairs[number] for number in others)


def test_a_pair_is_put_where_both_fit() -> None:
    cluster = Cluster(0)
    cluster.join("m2", memory_bytes=1 << 30)
    cluster.join("m3", memory_bytes=3 << 30)
    cluster.start("filler.service", fleet=f"MachineID={ident('m3')}", corelog="Memory=1G")
    cluster.submit("b.service", unit_file(corelog="Memory=1G"))
    cluster.submit("a.service", unit_file(fleet="MachineOf=b.service", corelog="Memory=1G"))
    cluster.run()
    assert cluster.where("a.service") == cluster.where("b.service") == ["m3"]


def test_the_follower_is_unscheduled_when_the_one_it_follows_leaves() -> None:
    cluster = Cluster(2)
    cluster.submit("b.service")
    cluster.start("a.service", fleet="MachineOf=b.service")
    cluster.desire("b.service", "inactive")
    cluster.run()
    assert cluster.where("a.service") == []
    assert cluster.unit("a.service").waiting.endswith("it follows b.service, which is to be inactive")


def test_conflicts_of_five_on_three_hosts_exactly_three_are_active_on_distinct_hosts() -> None:
    cluster = Cluster(3)
    for number in range(5):
        cluster.start(f"conflict.{number}.service", fleet="Conflicts=conflict.*.service")
    assert sorted(machine for machines in cluster.placements().values() for machine in machines) == ["m1", "m2", "m3"]
    waiting = [name for name in cluster.placements() if not cluster.where(name)]
    assert len(waiting) == 2
    assert cluster.unit(waiting[0]).waiting == "no machine fits: conflict 3"
    assert cluster.unit(waiting[0]).waiting_machines[ident("m1")] == "conflict: conflict.0.service is here"


def test_one_way_conflict_destroying_the_blocker_frees_the_other() -> None:
    cluster = Cluster(1)
    cluster.start("conflicts-with-hello.service", fleet="Conflicts=hello.service")
    cluster.start("hello.service")
    assert cluster.where("hello.service") == []
    cluster.destroy("conflicts-with-hello.service")
    cluster.run()
    assert cluster.where("hello.service") == ["m1"]


def test_multiple_conflicts() -> None:
    cluster = Cluster(1)
    cluster.start("a.service", fleet="Conflicts=b.service c.service\nConflicts=d.service")
    for name in ("b", "c", "d", "e"):
        cluster.start(f"{name}.service")
    assert [name for name in ("b", "c", "d", "e") if cluster.where(f"{name}.service")] == ["e"]


def test_replace_the_kicked_unit_moves_and_the_replacer_takes_its_host() -> None:
    cluster = Cluster(2)
    cluster.start("replace-kick0.service")
    host = cluster.where("replace-kick0.service")
    cluster.submit("replace.0.service", unit_file(fleet="Replaces=replace-kick0.service"))
    assert reasons(cluster.run()) == [
        "replace-kick0.service unplaced from m1: replace.0.service replaces it on m1",
        "replace.0.service placed on m1: takes the place of replace-kick0.service",
        "replace-kick0.service placed on m2: m2 is the least loaded machine that fits",
    ]
    assert cluster.where("replace.0.service") == host


def test_circular_replace_one_is_active() -> None:
    cluster = Cluster(1)
    cluster.start("a.service", fleet="Replaces=b.service")
    cluster.start("b.service", fleet="Replaces=a.service")
    assert cluster.where("a.service") == ["m1"]
    assert cluster.where("b.service") == []


@pytest.mark.parametrize("machines", [1, 2, 3, 4])
def test_a_longer_circle_of_replaces_comes_to_rest(machines: int) -> None:
    cluster = Cluster(machines)
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        cluster.start(f"{one}.service", fleet=f"Replaces={other}.service")
    assert sum(bool(cluster.where(f"{name}.service")) for name in "abc") == min(machines, 3)


def test_a_chain_of_replaces_comes_to_rest() -> None:
    cluster = Cluster(2)
    cluster.start("c.service")
    cluster.start("b.service", fleet="Replaces=c.service")
    cluster.start("a.service", fleet="Replaces=b.service")
    assert cluster.where("a.service") == ["m1"]
    assert cluster.where("b.service") == ["m2"]
    assert cluster.where("c.service") == ["m1"]


def test_condition_machine_id() -> None:
    cluster = Cluster(3)
    for name in ("m3", "m2", "m1"):
        cluster.start(f"on-{name}.service", fleet=f"MachineID={ident(name)[:8]}")
        cluster.start(f"full-{name}.service", fleet=f"X-ConditionMachineID={ident(name)}")
        assert cluster.where(f"on-{name}.service") == cluster.where(f"full-{name}.service") == [name]


def test_global_units_one_per_host_and_a_restart_keeps_three() -> None:
    cluster = Cluster(3)
    cluster.start("hello.service")
    cluster.start("global.service", fleet="Global=true")
    assert cluster.where("global.service") == ["m1", "m2", "m3"]
    fences = [placement.fence for placement in cluster.unit("global.service").placements.values()]
    cluster.join("m2")  # its node was started anew
    assert not cluster.run()
    assert [placement.fence for placement in cluster.unit("global.service").placements.values()] == fences
    cluster.join("m4")
    cluster.run()
    assert cluster.where("global.service") == ["m1", "m2", "m3", "m4"]


def test_global_conflicts_only_the_first_runs() -> None:
    cluster = Cluster(3)
    cluster.start("g0.service", fleet="Global=yes\nConflicts=g1.service")
    cluster.start("g1.service", fleet="Global=yes\nConflicts=g0.service")
    assert cluster.where("g0.service") == ["m1", "m2", "m3"]
    assert cluster.where("g1.service") == []
    assert cluster.unit("g1.service").waiting == "3 of 3 machines have no room for it"


def test_global_units_pass_metadata() -> None:
    cluster = Cluster(3)
    cluster.label("m2", disk="ssd")
    cluster.start("g.service", fleet="Global=yes\nMachineMetadata=disk=ssd disk=nvme")
    assert cluster.where("g.service") == ["m2"]
    assert cluster.unit("g.service").waiting == ""
    cluster.label("m3", disk="nvme")
    cluster.label("m2", disk=None)
    cluster.run()
    assert cluster.where("g.service") == ["m3"]


def test_metadata_is_and_across_keys_or_across_values() -> None:
    cluster = Cluster(3)
    cluster.label("m1", region="eu")
    cluster.label("m2", region="us", disk="ssd")
    cluster.label("m3", region="asia", disk="ssd")
    cluster.start("a.service", fleet="MachineMetadata=region=eu region=us disk=ssd")
    assert cluster.where("a.service") == ["m2"]


def test_metadata_of_the_instance() -> None:
    cluster = Cluster(3)
    for name in ("m1", "m2", "m3"):
        cluster.label(name, hostname=name)
    cluster.submit("app@.service", unit_file(fleet="MachineMetadata=hostname=%i"), desired="")
    for name in ("m3", "m1"):
        assert isinstance(cluster.desire(f"app@{name}.service", "launched"), Accepted)
        cluster.run()
        assert cluster.where(f"app@{name}.service") == [name]


def test_new_member_unit_migration_moves_to_the_free_host_and_nothing_else() -> None:
    cluster = Cluster(2)
    for number in range(3):
        cluster.start(f"conflict.{number}.service", fleet="Conflicts=conflict.*.service")
    before = cluster.placements()
    cluster.join("m3")
    assert reasons(cluster.run()) == ["conflict.2.service placed on m3: m3 is the least loaded machine that fits"]
    assert {name: cluster.where(name) for name in before if before[name]} == {n: m for n, m in before.items() if m}


def test_member_reboot_exactly_one_migrates() -> None:
    cluster = Cluster(3)
    for number in range(3):
        cluster.start(f"hello.{number}.service")
    cluster.lose("m2")
    moves = cluster.run()
    assert len(moves) == 1
    cluster.join("m2")
    assert not cluster.run()


@pytest.mark.parametrize("desired", ["inactive", "loaded", "launched"])
@pytest.mark.parametrize("scope", ["", "Global=true"])
def test_connectivity_loss_changes_nothing_where_there_is_nowhere_to_go(desired: str, scope: str) -> None:
    cluster = Cluster(1)
    cluster.submit("a.service", unit_file(fleet=scope), desired)
    cluster.run()
    before = dict(cluster.unit("a.service").placements)
    cluster.lose("m1")
    cluster.run()
    cluster.join("m1")
    cluster.run()
    assert cluster.unit("a.service").placements == before
    assert cluster.unit("a.service").desired == desired
    assert cluster.unit("a.service").waiting == ""


def test_node_shutdown_its_units_run_elsewhere() -> None:
    cluster = Cluster(2)
    cluster.start("a.service")
    assert cluster.where("a.service") == ["m1"]
    cluster.leave("m1")
    assert reasons(cluster.run()) == [
        "a.service placed on m2 from m1: m1 has left; m2 is the least loaded machine that fits"
    ]


def test_unit_actions_do_undo_redo() -> None:
    cluster = Cluster(3)
    names = [f"hello.{number}.service" for number in range(9)]
    for name in names:
        cluster.submit(name, desired="")
    assert not cluster.run()
    for state in ("loaded", "launched", "loaded", "inactive", "launched", "inactive"):
        for name in names:
            cluster.desire(name, state)
        cluster.run()
        assert sum(bool(cluster.where(name)) for name in names) == (0 if state == "inactive" else 9)
    for name in names:
        cluster.destroy(name)
    cluster.run()
    assert not cluster.control.units.units
    assert not cluster.control.units.placed


@pytest.mark.parametrize("desired", ["inactive", "loaded", "launched"])
def test_replace_while_submitted_loaded_started(desired: str) -> None:
    cluster = Cluster(3)
    cluster.submit("hello.service", desired=desired)
    cluster.run()
    where = cluster.where("hello.service")
    changed = unit_file(exec_start="/bin/false")
    refused = cluster.submit("hello.service", changed, desired="")
    assert isinstance(refused, Rejected)
    assert refused.code == "exists"
    assert isinstance(cluster.submit("hello.service", changed, desired="", replace=True), Accepted)
    said = reasons(cluster.run())
    assert cluster.where("hello.service") == where
    if desired == "inactive":
        assert not said
    else:
        assert said == [f"hello.service placed on {where[0]}: new content, stays where it is"]
        assert cluster.placement("hello.service").generation == 2
    assert cluster.unit("hello.service").desired == desired


def test_restart_keeps_the_place_and_asks_for_a_new_generation() -> None:
    cluster = Cluster(3)
    cluster.start("hello.service")
    before = cluster.placement("hello.service")
    assert isinstance(cluster.say(says.Restart(), "hello.service"), Accepted)
    assert not cluster.run()
    after = cluster.placement("hello.service")
    assert (after.machine, after.fence, after.generation) == (before.machine, before.fence, before.generation + 1)
    cluster.desire("hello.service", "loaded")
    refused = cluster.say(says.Restart(), "hello.service")
    assert isinstance(refused, Rejected)
    assert refused.code == "not-launched"
