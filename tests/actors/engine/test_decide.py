"""The engine's rules, each under its name: what the fold keeps, when something is started again, what is said."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.control import Control
from actors.engine import decide
from actors.engine.decide import Check, Collect, Start, Stop, Track, Wanted, facts, step
from actors.engine.port import Seen
from actors.engine.spec import ProcessSpec, RestartPolicy, UnitSpec, spec_of
from actors.engine.state import Run, evolve, next_run
from actors.scheduler.state import Unit
from actors.scheduler.unitfile import parse
from streams.events import engine as says
from streams.events.base import Event, say
from streams.outcomes import Rejected
from streams.records import Position, Record
from streams.replay import Context, LogState

A, B = "a" * 32, "b" * 32
WANT = Wanted("u", "", "launched", 5, 1)


def context(machine: str, offset: int = 0) -> Context:
    return Context(Position(offset), Record("0" * 32, "engine", f"engine@{machine}", 1, 1, 0, b""), LogState())


def spec(when: str = "no", **more: Any) -> UnitSpec:
    return UnitSpec(name="u", restart=RestartPolicy(when=when, **more), process=ProcessSpec())


def seen(phase: str = "running", **more: Any) -> Seen:
    base = {"unit": "u", "engine": "process", "run": "r1", "fence": 5, "generation": 1, "pid": 10, "boot_id": "b"}
    return Seen(phase=phase, **{**base, "ready": phase == "running", **more})


def ended(result: str, **more: Any) -> Seen:
    return seen("ended", result=result, **more)


# -- the fold -------------------------------------------------------------------------------------------------

payloads = st.one_of(
    *(
        st.builds(cls, machine=st.sampled_from([A, B]), generation=st.integers(1, 3), fence=st.integers(1, 3))
        for cls in (says.Loaded, says.Started, says.Ready, says.Exited, says.Failed, says.Stopped, says.Adopted)
    )
)


@given(st.lists(st.tuples(payloads, st.sampled_from([A, B])), max_size=30))
def test_older_facts_never_overwrite_newer_ones_and_none_speaks_for_another(history):
    control = Control()
    for offset, (data, writer) in enumerate(history):
        before = control.engines.runs.get("u", {}).get(data.machine)
        others = {m: r for m, r in control.engines.runs.get("u", {}).items() if m != data.machine}
        outcome = evolve(control, say(data, subject="u"), context(writer, offset))
        after = control.engines.runs.get("u", {}).get(data.machine)
        if writer != data.machine:
            assert isinstance(outcome, Rejected)
            assert after == before
            continue
        if before is not None and (data.fence, data.generation) < (before.fence, before.generation):
            assert isinstance(outcome, Rejected)
            assert after == before
        elif after is not None:
            assert (after.fence, after.generation) == (data.fence, data.generation)
            assert after.at == f"{offset}.0"
        else:
            assert isinstance(data, says.Stopped)  # the unit is unknown: with its last stop it is forgotten
            assert all(run.state == "stopped" for run in others.values())


def test_a_failure_keeps_how_it_exited():
    run = next_run(None, say(says.Started(machine=A, generation=1, fence=5, pid=9), subject="u"), "1.0")
    run = next_run(run, say(says.Exited(machine=A, generation=1, fence=5, code=3), subject="u"), "1.1")
    run = next_run(run, say(says.Failed(machine=A, generation=1, fence=5, detail="given up"), subject="u"), "1.2")
    assert (run.state, run.code, run.pid, run.detail) == ("failed", 3, 9, "given up")


# -- what to do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "restarts"),
    [
        ("success", {"always", "on-success"}),
        ("exit-code", {"always", "on-failure"}),
        ("signal", {"always", "on-failure", "on-abnormal", "on-abort"}),
        ("timeout", {"always", "on-failure", "on-abnormal"}),
        ("exec", {"always", "on-failure"}),
    ],
)
def test_restart_follows_systemds_table(result, restarts):
    for when in ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort"):
        track = Track(own="r1")
        out = step(WANT, spec(when, delay_s=2.0), ended(result), None, track, 100.0)
        if when in restarts:
            assert out.wake_at_s == 102.0
            assert step(WANT, spec(when, delay_s=2.0), ended(result), None, track, 102.0).actions == (Start("u", 5, 1),)
        else:
            assert out == decide.WAIT
            assert track.done == ("exited" if result == "success" else "failed")


@given(
    st.integers(1, 6),
    st.floats(1, 100),
    st.floats(0, 5),
    st.lists(st.floats(0, 10), min_size=30, max_size=30),
)
def test_never_more_than_burst_starts_within_the_interval(burst, interval_s, delay_s, lives_s):
    policy = spec("always", delay_s=delay_s, limit_burst=burst, limit_interval_s=interval_s)
    track, now_s, starts, last = Track(), 1000.0, [], None
    for number, life_s in enumerate(lives_s):
        out = step(WANT, policy, last, None, track, now_s)
        if out.wake_at_s is not None:
            now_s = out.wake_at_s
            out = step(WANT, policy, last, None, track, now_s)
        if not out.actions:
            break
        starts.append(now_s)
        track.own = f"r{number}"
        now_s += life_s
        last = ended("exit-code", run=f"r{number}", code=1)
    for first, over in zip(starts, starts[burst:], strict=False):
        assert over - first > interval_s - 1e-6
    if len(starts) < len(lives_s):
        assert track.done == "failed"
        assert "given up" in track.given_up


def test_what_is_ours_to_blame_is_not_counted():
    track, policy = Track(), spec("no", limit_burst=1)
    assert step(WANT, policy, None, None, track, 1.0).actions
    for number, result in enumerate(["fence", "away", "stopped"] * 5):
        out = step(WANT, policy, ended(result, run=f"r{number}"), None, track, 2.0)
        assert out.actions or out.wake_at_s is not None
    assert track.restarts == 0


def test_a_unit_waits_until_it_may_start_and_counts_nothing_meanwhile():
    fenced = UnitSpec(name="u", fenced=True, process=ProcessSpec())
    track = Track()
    assert step(WANT, fenced, None, None, track, 1.0, may_start=False) == decide.WAIT
    assert (track.starts, track.restarts) == ([], 0)
    assert step(WANT, fenced, None, None, track, 1.0, may_start=True).actions == (Start("u", 5, 1),)


def test_another_generation_or_fence_stops_what_runs_once():
    for other in (seen(generation=2), seen(fence=4)):
        track = Track()
        out = step(WANT, spec(), other, None, track, 1.0)
        assert isinstance(out.actions[0], Stop)
        assert not out.actions[0].kill
        assert step(WANT, spec(), other, None, track, 2.0) == decide.WAIT
        ends = ended("stopped", fence=other.fence, generation=other.generation)
        assert step(WANT, spec(), ends, None, track, 3.0).actions == (Start("u", 5, 1),)


def test_what_lost_its_right_is_killed_even_while_it_is_being_stopped():
    track = Track()
    assert step(None, None, seen(fenced=True), None, track, 1.0).actions[0].kill is False
    assert step(None, None, seen("stopping", fenced=True), None, track, 1.0, stale=True).actions[0].kill is True
    assert step(None, None, seen("stopping", fenced=True), None, track, 1.0, stale=True) == decide.WAIT


def test_loaded_checks_and_never_starts():
    track, want = Track(), Wanted("u", "", "loaded", 5, 1)
    assert step(want, spec("always"), None, None, track, 1.0).actions == (Check("u"),)
    assert isinstance(step(want, spec("always"), seen(), None, track, 1.0).actions[0], Stop)
    assert step(want, spec("always"), ended("signal"), None, track, 1.0).actions == (Collect("u", "r1"),)


@pytest.mark.parametrize(
    ("state", "restart_in_ms", "starts"),
    [("failed", -1, False), ("exited", -1, False), ("exited", 100, True), ("ready", -1, True)],
)
def test_a_new_supervisor_goes_by_what_the_log_knows(state, restart_in_ms, starts):
    logged = Run(state, 5, 1, "1.0", restart_in_ms=restart_in_ms)
    assert bool(step(WANT, spec(), None, logged, Track(), 1.0).actions) == starts
    older = Run(state, 4, 1, "1.0", restart_in_ms=restart_in_ms)
    assert step(WANT, spec(), None, older, Track(), 1.0).actions  # of another placement: says nothing of this one


# -- what to say ----------------------------------------------------------------------------------------------

worlds = st.one_of(
    st.none(),
    st.builds(
        seen,
        st.sampled_from(["starting", "started", "running", "stopping"]),
        container=st.sampled_from(["", "c1", "c2"]),
        run=st.sampled_from(["r1", "r2"]),
        pid=st.sampled_from([10, 11]),
        fence=st.sampled_from([4, 5]),
        generation=st.sampled_from([1, 2]),
    ),
    st.builds(
        ended,
        st.sampled_from(["success", "exit-code", "signal", "fence", "stopped", "lost", "exec", "away"]),
        container=st.sampled_from(["", "c1", "c2"]),
        detail=st.sampled_from(["", "why", "why not"]),
        run=st.sampled_from(["r1", "r2"]),
        pid=st.sampled_from([0, 10, 11]),
        code=st.sampled_from([0, 3]),
        fence=st.sampled_from([4, 5]),
    ),
)
wants = st.one_of(
    st.none(),
    st.builds(
        Wanted,
        unit=st.just("u"),
        content=st.just(""),
        state=st.sampled_from(["loaded", "launched"]),
        fence=st.sampled_from([4, 5]),
        generation=st.sampled_from([1, 2]),
    ),
)


def applied(control: Control, events: list[Event]) -> None:
    for event in events:
        assert not isinstance(evolve(control, event, context(A)), Rejected), event


@given(st.lists(st.tuples(wants, worlds), max_size=12), st.sampled_from(["no", "always", "on-failure"]))
def test_what_was_said_is_not_said_again_and_nothing_said_is_void(history, when):
    control, track, floor = Control(), Track(), (0, 0)
    control.units.units["u"] = Unit("u", "")
    for number, (want, world) in enumerate(history):
        if want is not None and (want.fence, want.generation) < floor:
            continue  # the log's placements only grow
        if want is not None:
            floor = want.key
        if world is not None and (world.fence, world.generation) > floor:
            continue  # and nothing runs before it was placed
        logged = control.engines.runs.get("u", {}).get(A)
        out = step(want, spec(when), world, logged, track, float(number))
        if any(isinstance(action, Check) for action in out.actions):
            track.checked = track.key
        said = facts(A, "u", want, world, logged, track)
        applied(control, said)
        track.left = None
        logged = control.engines.runs.get("u", {}).get(A)
        assert facts(A, "u", want, world, logged, track) == []


def test_a_stop_closes_every_fence_that_is_not_wanted():
    def fences(said: list[Event]) -> list[int]:
        return [event.data.fence for event in said if isinstance(event.data, says.Stopped)]

    assert fences(facts(A, "u", None, None, None, Track(), (3, 4))) == [3, 4]
    assert fences(facts(A, "u", WANT, None, None, Track(), (4, 5))) == [4]
    assert fences(facts(A, "u", None, seen(fence=4), None, Track(), (3, 4))) == [3]  # 4 still runs
    assert fences(facts(A, "u", None, None, None, Track(busy=True), (4,))) == []
    assert fences(facts(A, "u", None, None, Run("stopped", 4, 1, "1.0"), Track(), ())) == []


# -- the unit file --------------------------------------------------------------------------------------------


def test_every_key_of_a_service_reaches_its_spec():
    text = """
[Unit]
StartLimitIntervalSec=1min
StartLimitBurst=7
[Service]
Type=notify
ExecStartPre=-/bin/pre one "two three"
ExecStart=@/bin/main name ${A}
ExecStop=+/bin/stop $MAINPID
Environment=A=1 "B=x y"
EnvironmentFile=-/etc/env
WorkingDirectory=/srv
User=nobody
Group=daemon
Restart=on-failure
RestartSec=1500ms
TimeoutStartSec=5
TimeoutStopSec=infinity
KillSignal=SIGQUIT
KillMode=mixed
[X-Corelog]
Fence=yes
Ports=80 53/udp
"""
    it = spec_of(parse("a.service", text))
    process = it.process
    assert process is not None
    assert (it.engine, it.fenced, it.ports) == ("process", True, ((80, "tcp"), (53, "udp")))
    assert it.restart == RestartPolicy(when="on-failure", delay_s=1.5, limit_interval_s=60, limit_burst=7)
    assert process.pre[0].ignore
    assert process.pre[0].argv == ("/bin/pre", "one", "two three")
    assert (process.start[0].path, process.start[0].argv) == ("/bin/main", ("name", "${A}"))
    assert process.stop[0].privileged
    assert process.environment == {"A": "1", "B": "x y"}
    assert process.environment_files == (("/etc/env", True),)
    assert (process.type, process.user, process.group, process.cwd) == ("notify", "nobody", "daemon", "/srv")
    assert (process.start_timeout_s, process.stop_timeout_s) == (5, 0)
    assert (process.kill_signal, process.kill_mode) == (3, "mixed")


def test_a_container_becomes_dockerds_request():
    from actors.engine.docker_spec import body_of

    text = """
[Container]
Image=registry.example/app:1
Exec=serve --port 80
PublishPort=127.0.0.1:8080:80
PublishPort=53/udp
Volume=/srv:/data:ro
Volume=cache:/cache
Volume=/anonymous
Tmpfs=/run:size=1M
Network=host
HealthCmd=true
HealthInterval=2s
AddCapability=NET_ADMIN
Ulimit=nofile=10:20
Memory=64M
StopTimeout=3
ReadOnly=yes
Label=team=a
"""
    container = spec_of(parse("a.service", text)).container
    assert container is not None
    body = body_of(container, {"A": "1"}, {"corelog.unit": "a.service"})
    host = body["HostConfig"]
    assert (body["Image"], body["Cmd"], body["Env"]) == ("registry.example/app:1", ["serve", "--port", "80"], ["A=1"])
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["PortBindings"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
    assert host["PortBindings"]["53/udp"] == [{"HostIp": "", "HostPort": ""}]
    assert host["Binds"] == ["/srv:/data:ro", "cache:/cache"]
    assert body["Volumes"] == {"/anonymous": {}}
    assert host["Tmpfs"] == {"/run": "size=1M"}
    assert (host["NetworkMode"], host["Memory"], host["ReadonlyRootfs"]) == ("host", 64 << 20, True)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert body["Healthcheck"]["Interval"] == 2_000_000_000
    assert body["StopTimeout"] == 3
    assert body["Labels"] == {"team": "a", "corelog.unit": "a.service"}
