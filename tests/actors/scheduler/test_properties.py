"""Properties of scheduler and state together, over arbitrary lives of small clusters.

Each life also checks (in ``Cluster.run``) that the planner that is kept up to date decides what one made from nothing
decides, that no decision is void, and that deciding comes to an end.
"""

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.control import ControlFold
from actors.scheduler import state
from actors.scheduler.decide import decide
from actors.scheduler.fit import host_of, kind_of, unusable, why_not
from streams.events import engine as of_engine
from streams.events import unit as says
from streams.outcomes import Accepted, Rejected
from streams.replay import Applied, Replica
from tests.actors.scheduler.cluster import Cluster, ident, unit_file

CPU, MEMORY = 1000, 1 << 30
MACHINES = ("m1", "m2", "m3", "m4")
UNITS = ("a.service", "b.service", "c@1.service", "d.service", "e.service")

_CORELOG = st.lists(
    st.sampled_from(["Fence=yes", "CPU=400m", "CPU=700m", "Memory=600M", "Ports=80", "Ports=80 81"]),
    max_size=2,
    unique=True,
).map("\n".join)
_FLEET = st.sampled_from(
    [
        "",
        "",
        "MachineMetadata=disk=ssd",
        "Conflicts=*.service",
        "Conflicts=a* b*",
        "Replaces=a.service",
        "Replaces=?.service",
        "MachineOf=a.service",
        "MachineOf=b.service d.service",
        "Global=yes",
        "Global=yes\nConflicts=e*",
        f"MachineID={ident('m2')}",
    ]
)
_machine, _unit = st.sampled_from(MACHINES), st.sampled_from(UNITS)
STEP = st.one_of(
    st.tuples(st.just("submit"), _unit, st.builds(lambda f, c: unit_file(fleet=f, corelog=c), _FLEET, _CORELOG)),
    st.tuples(st.just("desire"), _unit, st.sampled_from(state.DESIRED)),
    st.tuples(st.just("destroy"), _unit),
    st.tuples(st.just("restart"), _unit),
    st.tuples(st.just("started"), _unit),
    st.tuples(st.just("stopped"), _machine),
    st.tuples(st.just("lose"), _machine),
    st.tuples(st.just("leave"), _machine),
    st.tuples(st.just("join"), _machine),
    st.tuples(st.just("drain"), _machine, st.booleans()),
    st.tuples(st.just("label"), _machine, st.sampled_from(["ssd", "hdd", None])),
    st.tuples(st.just("withhold"), _machine, _machine),
    st.tuples(st.just("seen"), _machine),
    st.tuples(st.just("remove"), _machine),
    st.tuples(st.just("expire"), _unit),
    st.tuples(st.just("by hand"), _unit, _machine),
    st.tuples(st.just("decide")),
)
LIFE = st.lists(STEP, max_size=30)
#: ``LIVES=5000 pytest tests/actors/scheduler/test_properties.py`` lives that many other ones for each property.
LIVES = int(os.environ.get("LIVES", "0"))
lives = settings(
    max_examples=LIVES or 60,
    derandomize=not LIVES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def play(steps: list[tuple[Any, ...]]) -> Iterator[Cluster]:
    """Live through the steps; yields after each one that may decide, and at the end."""
    cluster = Cluster(2, cpu_millis=CPU, memory_bytes=MEMORY)
    for step in steps:
        act(cluster, *step)
        if step[0] == "decide":
            cluster.run()
        yield cluster
    cluster.run()
    yield cluster


def last(life: Iterator[Cluster]) -> Cluster:
    return deque(life, maxlen=1)[0]


def act(cluster: Cluster, verb: str, *args: Any) -> None:
    known = cluster.control.cluster.machines
    match verb:
        case "submit":
            cluster.submit(args[0], args[1], replace=True)
        case "desire":
            cluster.desire(*args)
        case "destroy":
            cluster.destroy(*args)
        case "restart":
            cluster.say(says.Restart(), args[0])
        case "started":
            for machine in cluster.where(args[0]):
                cluster.engine(args[0], machine)
        case "stopped":
            stop_all(cluster, args[0])
        case "expire":
            for fence in list(cluster.control.units.fences.get(args[0], ())):
                generation = state.machine_generation(cluster.control, fence.machine)
                cluster.fact(says.FenceExpired(fence.fence, fence.machine, generation), args[0])
        case "by hand":
            cluster.placed(*args)
        case "join":
            cluster.join(args[0], cpu_millis=CPU, memory_bytes=MEMORY)
        case "label" if ident(args[0]) in known:
            cluster.label(args[0], disk=args[1])
        case "withhold":
            cluster.withhold(*args)
        case "lose" | "leave" | "drain" | "seen" | "remove" if ident(args[0]) in known:
            getattr(cluster, verb)(*args)


def stop_all(cluster: Cluster, machine: str) -> None:
    """What an engine does for units that its machine shall not have any more."""
    for name, fence in state.owed(cluster.control, ident(machine)):
        cluster.stopped(name, machine, fence.fence)
    for name, runs in list(cluster.control.engines.runs.items()):
        unit, run = cluster.control.units.units.get(name), runs.get(ident(machine))
        if run is not None and run.state != "stopped" and (unit is None or ident(machine) not in unit.placements):
            cluster.stopped(name, machine, run.fence)


def accepted(cluster: Cluster) -> Iterator[Applied]:
    return (applied for applied in cluster.history if not isinstance(applied.outcome, Rejected))


@lives
@given(LIFE)
def test_a_fenced_unit_is_never_placed_while_its_fence_is_open(steps: list[tuple[Any, ...]]) -> None:
    """Judged from the history alone: who was placed under which fence, and which fences ended."""
    cluster = last(play(steps))
    open_fences: dict[str, set[tuple[str, int]]] = {}
    fenced: dict[str, bool] = {}
    for applied in accepted(cluster):
        name, data = applied.event.subject, applied.event.data
        held = open_fences.setdefault(name, set())
        match data:
            case says.Submit():
                fenced[name] = "Fence=yes" in data.content
            case says.Placed() if fenced[name]:
                assert isinstance(applied.outcome, Accepted)
                given_ = (data.machine, applied.outcome.result["fence"])
                assert held <= {given_}, f"{name} placed as {given_} while {held} are open, at {applied.position}"
                held.add(given_)
            case of_engine.Stopped():
                held.discard((data.machine, data.fence))
            case says.FenceExpired():
                held.discard((data.machine, data.fence))
    now = {name: {(f.machine, f.fence) for f in fences} for name, fences in cluster.control.units.fences.items()}
    assert now == {name: held for name, held in open_fences.items() if held}


@lives
@given(LIFE)
def test_a_placed_fenced_unit_has_its_fence_open(steps: list[tuple[Any, ...]]) -> None:
    for cluster in play(steps):
        for unit in cluster.control.units.units.values():
            for placement in unit.placements.values():
                assert unit.spec.fence == state.is_open(cluster.control, unit.name, placement.fence)
        for machine in MACHINES:
            for name, fence in state.owed(cluster.control, ident(machine)):
                assert fence.fence not in [p.fence for p in cluster.control.units.units[name].placements.values()]


@lives
@given(LIFE)
def test_resources_never_oversubscribed(steps: list[tuple[Any, ...]]) -> None:
    for cluster in play(steps):
        for machine, units in cluster.control.units.placed.items():
            assert units
            assert sum(needs.cpu_millis for needs in units.values()) <= CPU, machine
            assert sum(needs.memory_bytes for needs in units.values()) <= MEMORY, machine
            ports = [port for needs in units.values() for port in needs.ports]
            assert len(ports) == len(set(ports)), machine
        placed = {(m, name) for m, units in cluster.control.units.placed.items() for name in units}
        assert placed == {(m, unit.name) for unit in cluster.control.units.units.values() for m in unit.placements}


@lives
@given(LIFE)
def test_units_that_conflict_never_share_a_machine(steps: list[tuple[Any, ...]]) -> None:
    """Of units whose present content is placed; older content goes on until the new one has its place."""
    for cluster in play(steps):
        for unit in cluster.control.units.units.values():
            for machine, placement in unit.placements.items():
                found = cluster.control.cluster.machines.get(machine)
                if placement.generation == unit.generation and found is not None:
                    host = host_of(cluster.control, found, without=unit.name)
                    for name in list(host.units):
                        other = cluster.control.units.units[name]
                        if other.placements[machine].generation != other.generation:
                            host.remove(name)
                    assert kind_of(why_not(unit.name, unit.spec, host)) != "conflict"


@lives
@given(LIFE)
def test_no_move_without_need(steps: list[tuple[Any, ...]]) -> None:
    """Each decision that takes a unit from a machine has one of the reasons that make it necessary."""
    needed = (
        "it is to be inactive",
        "it is no longer global",
        "was removed",
        " is lost;",
        " has left;",
        " is drained",
        "no longer passes",
        "its new content doesn't fit",
        ", which it follows, has left ",
        " replaces it on ",
        "destroyed",
    )
    for cluster in play(steps):
        for decision in decide(cluster.control, cluster.term):
            data = decision.event.data
            if isinstance(data, says.Unplaced) or (isinstance(data, says.Placed) and data.from_machine):
                assert any(words in decision.reason for words in needed), decision
        cluster.run()
        assert not decide(cluster.control, cluster.term), "a settled cluster is left alone"


@lives
@given(LIFE)
def test_nothing_waits_that_fits_somewhere(steps: list[tuple[Any, ...]]) -> None:
    cluster = last(play(steps))
    for unit in cluster.control.units.units.values():
        if unit.destroyed or unit.desired == "inactive" or cluster.control.units.fences.get(unit.name):
            continue
        for machine in cluster.control.cluster.machines.values():
            host = host_of(cluster.control, machine, without=unit.name)
            if unit.spec.fleet.is_global:
                assert machine.id in unit.placements or why_not(unit.name, unit.spec, host)
            elif not unit.placements:
                why = why_not(unit.name, unit.spec, host)
                assert why
                assert unit.waiting
                if unit.waiting_machines:
                    assert kind_of(unit.waiting_machines[machine.id]) == kind_of(why)


@lives
@given(LIFE)
def test_nothing_is_moved_from_withheld_machines(steps: list[tuple[Any, ...]]) -> None:
    for cluster in play(steps):
        withheld = cluster.control.cluster.withheld
        for decision in decide(cluster.control, cluster.term):
            data = decision.event.data
            if isinstance(data, says.Placed) and data.machine in withheld:
                raise AssertionError(decision)
            if isinstance(data, says.Placed) and data.from_machine in withheld:
                machine = cluster.control.cluster.machines[data.from_machine]
                stays = not unusable(host_of(cluster.control, machine)).startswith(("lost", "left"))
                assert stays, decision
                assert not decision.reason.startswith(f"{machine.name} is lost"), decision


@lives
@given(LIFE)
def test_the_same_log_gives_the_same_state(steps: list[tuple[Any, ...]]) -> None:
    """Applied again, or restored from a snapshot, byte for byte."""
    cluster = last(play(steps))
    again = Replica(ControlFold())
    for entry in cluster.entries:
        again.apply(entry)
    assert again.state_hash() == cluster.replica.state_hash()
    restored = ControlFold()
    restored.restore(cluster.replica.fold.encode())
    assert list(restored.encode()) == list(cluster.replica.fold.encode())
    assert restored.state == cluster.control
