"""What the scheduler says of its decisions, as people read it."""

from actors.scheduler.decide import Planner, decide
from actors.scheduler.verdict import NAMED_MAX
from streams.events import unit as says
from streams.events.base import say
from tests.actors.scheduler.cluster import Cluster, ident, reasons, unit_file


def test_least_loaded_first_with_ties_by_id() -> None:
    cluster = Cluster(3)
    for name in "abcd":
        cluster.submit(f"{name}.service")
    assert reasons(cluster.run()) == [
        "a.service placed on m1: m1 is the least loaded machine that fits",
        "b.service placed on m2: m2 is the least loaded machine that fits",
        "c.service placed on m3: m3 is the least loaded machine that fits",
        "d.service placed on m1: m1 is the least loaded machine that fits",
    ]


def test_the_larger_share_of_cpu_and_memory_is_the_load() -> None:
    cluster = Cluster(0)
    cluster.join("m2", cpu_millis=1000, memory_bytes=1 << 30)
    cluster.join("m3", cpu_millis=4000, memory_bytes=4 << 30)
    for name in "abc":
        cluster.start(f"{name}.service", corelog="CPU=400m\nMemory=100M")
    assert cluster.placements() == {"a.service": ["m2"], "b.service": ["m3"], "c.service": ["m3"]}


def test_loss() -> None:
    cluster = Cluster(3)
    for name in "abc":
        cluster.start(f"{name}.service")
    cluster.lose("m2")
    assert reasons(cluster.run()) == [
        "b.service placed on m1 from m2: m2 is lost; m1 is the least loaded machine that fits"
    ]


def test_loss_where_no_other_machine_fits() -> None:
    cluster = Cluster(2, memory_bytes=1 << 30)
    cluster.start("a.service", corelog="Memory=700M")
    cluster.start("b.service", corelog="Memory=700M")
    cluster.lose("m2")
    assert reasons(cluster.run()) == [
        "b.service waiting: m2 is lost, and no machine fits: lost 1, memory 1",
        "    m1  memory: needs 700 MiB, 324 of 1024 MiB is free",
        f"    m2  lost: not seen since {cluster.control.cluster.machines[ident('m2')].seen_at}",
    ]
    cluster.destroy("a.service")
    assert reasons(cluster.run()) == [
        "b.service placed on m1 from m2: m2 is lost; m1 is the least loaded machine that fits"
    ]


def test_drain() -> None:
    cluster = Cluster(2)
    cluster.start("a.service")
    cluster.start("g.service", fleet="Global=yes")
    cluster.start("p.service", fleet=f"MachineID={ident('m1')}")
    cluster.drain("m1")
    assert reasons(cluster.run()) == [
        "g.service unplaced from m1: m1 is drained",
        "a.service placed on m2 from m1: m1 is drained; m2 is the least loaded machine that fits",
        "p.service unplaced from m1: m1 is drained",
        "p.service waiting: no machine fits: drained 1, machine-id 1",
        "    m1  drained: by an operator",
        f"    m2  machine-id: the unit asks for {ident('m1')}",
    ]
    cluster.drain("m1", drain=False)
    assert reasons(cluster.run()) == [
        "g.service placed on m1: a global unit runs on every machine it fits",
        "p.service placed on m1: m1 is asked for by MachineID",
    ]


def test_a_follower_goes_where_its_leader_goes() -> None:
    cluster = Cluster(2)
    cluster.submit("a.service", unit_file(fleet="MachineOf=b.service"))
    cluster.submit("b.service")
    assert reasons(cluster.run()) == [
        "b.service placed on m1: m1 is the least loaded machine that fits together with a.service",
        "a.service placed on m1: follows b.service to m1",
    ]
    cluster.drain("m1")
    assert reasons(cluster.run()) == [
        "b.service placed on m2 from m1: m1 is drained; "
        "m2 is the least loaded machine that fits together with a.service",
        "a.service placed on m2 from m1: m1 is drained; follows b.service to m2",
    ]


def test_a_unit_that_follows_nobody_there() -> None:
    cluster = Cluster(1)
    cluster.start("a.service", fleet="MachineOf=b.service")
    assert cluster.unit("a.service").waiting == "it follows b.service, which is not submitted"
    cluster.submit("b.service", desired="")
    cluster.run()
    assert cluster.unit("a.service").waiting == "it follows b.service, which is to be inactive"
    cluster.desire("b.service", "loaded")
    cluster.run()
    assert cluster.where("a.service") == ["m1"]
    assert cluster.unit("a.service").waiting == ""


def test_new_content_that_needs_another_machine() -> None:
    cluster = Cluster(2, memory_bytes=1 << 30)
    cluster.start("a.service", corelog="Memory=500M")
    cluster.start("b.service", fleet=f"MachineID={ident('m1')}", corelog="Memory=500M")
    cluster.submit("a.service", unit_file(corelog="Memory=600M"), replace=True)
    assert reasons(cluster.run()) == [
        "a.service placed on m2 from m1: its new content doesn't fit m1 "
        "(memory: needs 600 MiB, 524 of 1024 MiB is free); m2 is the least loaded machine that fits",
    ]
    cluster.submit("a.service", unit_file(corelog="Memory=2G"), replace=True)
    assert reasons(cluster.run()) == [
        "a.service waiting: its new content doesn't fit m2 (memory: needs 2048 MiB, 1024 of 1024 MiB is free), "
        "and no machine fits: memory 2",
        "    m1  memory: needs 2048 MiB, 524 of 1024 MiB is free",
        "    m2  memory: needs 2048 MiB, 1024 of 1024 MiB is free",
    ]
    assert cluster.placement("a.service").generation == 2, "what runs goes on"


def test_no_machine_at_all() -> None:
    cluster = Cluster(0)
    cluster.submit("a.service")
    cluster.submit("g.service", unit_file(fleet="Global=yes"))
    assert reasons(cluster.run()) == [
        "a.service waiting: no machine has joined",
        "g.service waiting: no machine has joined",
    ]


def test_amounts_that_change_are_no_news() -> None:
    cluster = Cluster(1, memory_bytes=1 << 30)
    cluster.start("large.service", corelog="Memory=2G")
    cluster.start("a.service", corelog="Memory=100M")
    cluster.submit("b.service", unit_file(corelog="Memory=100M"))
    assert [decision.unit for decision in cluster.run()] == ["b.service"]


def test_withheld_machines_keep_their_units_and_get_no_new_ones() -> None:
    cluster = Cluster(4)
    for name in "abcd":
        cluster.start(f"{name}.service")
    cluster.withhold("m2", "m3")
    assert not cluster.run()
    cluster.start("e.service")
    cluster.start("f.service")
    assert cluster.where("e.service") + cluster.where("f.service") == ["m1", "m4"]
    cluster.seen("m2")
    cluster.start("g.service")
    assert cluster.where("g.service") == ["m2"]


def test_what_waits_names_some_machines_and_counts_all() -> None:
    cluster = Cluster(NAMED_MAX + 6)
    cluster.start("a.service", fleet="MachineMetadata=disk=ssd")
    unit = cluster.unit("a.service")
    assert unit.waiting == f"no machine fits: metadata {NAMED_MAX + 6}"
    assert len(unit.waiting_machines) == NAMED_MAX
    assert set(unit.waiting_machines.values()) == {"metadata: disk is not set, the unit asks for ssd"}


def test_small_rounds_come_to_the_same_places() -> None:
    """A large cluster is decided in rounds; nothing is left out and no decision is void."""
    cluster = Cluster(8, cpu_millis=4000)
    files = [
        unit_file(corelog="CPU=200m", fleet="Conflicts=u1?.service" if number % 7 == 0 else "") for number in range(120)
    ]
    for number, text in enumerate(files):
        cluster.submit(f"u{number}.service", text)
    fresh = Planner()
    rounds = 0
    while True:
        decisions = cluster.planner.decide(cluster.control, cluster.term, round_looks=10)
        if not decisions and not cluster.planner.pending:
            break
        rounds += 1
        for applied in cluster.tell(f"scheduler@{cluster.master}", [one.event for one in decisions]):
            assert not hasattr(applied.outcome, "code"), applied
    assert rounds > 10
    assert not decide(cluster.control, cluster.term)
    assert not fresh.decide(cluster.control, cluster.term)


def test_a_decision_that_became_void_is_made_again() -> None:
    cluster = Cluster(2)
    cluster.submit("a.service")
    decisions = cluster.planner.decide(cluster.control, cluster.term)
    cluster.drain("m1")
    applied = cluster.tell(f"scheduler@{cluster.master}", [one.event for one in decisions])
    assert applied[0].outcome.code == "stale-machine"
    assert reasons(cluster.run()) == ["a.service placed on m2: m2 is the least loaded machine that fits"]


def test_what_users_do_between_decision_and_apply_wins() -> None:
    cluster = Cluster(1)
    cluster.submit("a.service")
    decisions = cluster.planner.decide(cluster.control, cluster.term)
    cluster.tell("gateway@x", [say(says.Destroy(), subject="a.service")])
    assert cluster.tell(f"scheduler@{cluster.master}", [decisions[0].event])[0].outcome.code == "not-found"
    assert not cluster.run()
