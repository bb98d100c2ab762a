"""What several folds keep of one log they take alike, from feature level 3 on: records, machines, the level itself."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.control import ControlFold
from actors.coordination import decide
from actors.kv.state import KvFold
from streams.events import cluster as cluster_says
from streams.events import encode, say
from streams.events import kv as kv_says
from streams.events import log as log_says
from streams.events.base import Event
from streams.outcomes import Accepted, AcceptedBefore, Outcome, Rejected
from streams.records import Entry, Record
from streams.replay import LEVEL, Replica
from tests.folds import LOG

MACHINES = [letter * 32 for letter in "abcd"]
A = MACHINES[0]


class World:
    """Both folds over one log."""

    def __init__(self, level: int = LEVEL) -> None:
        self.control, self.kv = Replica(ControlFold()), Replica(KvFold())
        self._offsets = count()
        self._seqs = {"node@founder": 0}
        self.put("log", "node@founder", say(log_says.LogOpened(id=LOG, level=level)))

    def put(
        self, stream: str, writer: str, *events: Event, seq: int | None = None
    ) -> tuple[list[Outcome], list[Outcome]]:
        """What each fold makes of the record; nothing if it doesn't read the stream."""
        self._seqs[writer] = self._seqs.get(writer, 0) + 1 if seq is None else seq
        record = Record(LOG, stream, writer, 1, self._seqs[writer], 0, encode(list(events)))
        self.offset = next(self._offsets)
        entry = Entry(self.offset, record.canonical())
        of_control, of_kv = ([one.outcome for one in fold.apply(entry)] for fold in (self.control, self.kv))
        return of_control, of_kv

    def opened(self, writer: str, level: int = LEVEL) -> None:
        self.put("log", writer, say(log_says.ActorOpened(nonce=writer, level=level)))

    def joined(self, machine: str, **more: Any) -> str:
        """Its coordination actor."""
        writer = f"coordination@{machine}"
        self.opened(writer)
        joined = cluster_says.MachineJoined(nonce=f"n{machine}", boot_id="b", **more)
        self.put("cluster", writer, say(joined, subject=machine))
        return writer

    def claimed(self, writer: str, machine: str) -> None:
        claim = cluster_says.Claim(expect_term=0, expect_renew_seq=0, sent_ms=0, nonce=f"n{machine}")
        self.put("cluster", writer, say(claim, subject=machine))

    @property
    def machines(self) -> dict[str, Any]:
        found: dict[str, Any] = self.control.fold.state.cluster.machines  # type: ignore[attr-defined]
        return found

    @property
    def members(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kv.fold.cluster.members  # type: ignore[attr-defined]
        return found


def test_a_retry_is_answered_after_as_many_events_of_others_as_a_busy_minute_has() -> None:
    world = World()
    world.opened(f"kv@{A}")

    def job() -> Outcome:
        event = kv_says.Append(key="/jobs", value="one")
        asked = say(event, principal="uid:0", client="worker", sequence=1, floor=1)
        return world.put("kv", f"kv@{A}", asked)[1][0]

    assert isinstance(job(), Accepted)
    others = [say(kv_says.Put(key="/x", value="1"), principal="uid:0")] * 1000
    for _ in range(102):
        world.put("kv", f"kv@{A}", *others)
    forgets = say(kv_says.Put(key="/y", value="1"), principal="uid:0", client="other", sequence=1)
    world.put("kv", f"kv@{A}", forgets)
    assert isinstance(job(), AcceptedBefore)


@pytest.mark.parametrize("level", [2, LEVEL])
def test_a_record_that_was_overtaken_is_void_in_every_fold(level: int) -> None:
    world = World(level)
    world.joined(A, peers=["http://10.0.0.1:2380"])
    world.opened(f"kv@{A}")
    # of one writer, on two streams: control doesn't read the first
    world.put("kv", f"kv@{A}", say(kv_says.Put(key="/a", value="1"), principal="uid:0"), seq=6)
    added = say(cluster_says.MemberAdd(peers=["http://10.0.0.9:2380"]), principal="uid:0")
    (of_control,), (of_kv,) = world.put("cluster", f"kv@{A}", added, seq=5)
    assert isinstance(of_kv, Rejected)
    assert isinstance(of_control, Rejected if level == LEVEL else Accepted), "older logs fold as they did"


@pytest.mark.parametrize("how", ["withheld", "late renewal"])
def test_a_machine_that_was_removed_is_in_neither_fold(how: str) -> None:
    world = World()
    writers = [world.joined(machine) for machine in MACHINES]
    last = MACHINES[3]
    world.claimed(writers[0], A)
    if how == "withheld":
        withheld = cluster_says.MachinesWithheld(machines=MACHINES[2:], reason="2 of 4")
        world.put("cluster", writers[0], say(withheld, term=1))
    else:
        lost = cluster_says.MachineLost(last_seen=world.machines[last].seen_at, ttl_ms=3000)
        world.put("cluster", writers[0], say(lost, subject=last, term=1))
        world.put("cluster", writers[3], say(cluster_says.MachineSeen(sent_ms=5, nonce=f"n{last}"), subject=last))
    (of_control,), _ = world.put(
        "cluster", writers[0], say(cluster_says.MachineRemoved(), subject=last, principal="uid:0")
    )
    assert isinstance(of_control, Accepted)
    assert last not in world.machines
    assert last not in world.members


_WHAT = ["join", "replace", "seen", "left", "returning", "lost", "withheld", "removed", "member removed"]
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(_WHAT),
        st.integers(0, 2),  # of which machine
        st.integers(0, 2),  # who says it
        st.integers(0, 2),  # with which nonce
        st.booleans(),  # whether the rest of it is right
    ),
    max_size=40,
)


@given(_STEPS)
def test_both_folds_have_the_same_machines_alive_whatever_is_said_of_them(
    steps: list[tuple[str, int, int, int, bool]],
) -> None:
    world = World()
    writers = [f"coordination@{machine}" for machine in MACHINES[:3]]
    for writer in writers:
        world.opened(writer)
    world.put("cluster", writers[0], say(_joins(0), subject=A))
    world.claimed(writers[0], A)
    for what, of, by, nonce, right in steps:
        machine = MACHINES[of]
        known = world.machines.get(machine)
        if what == "member removed":
            data: Any = cluster_says.MemberRemove(int(machine[:16], 16))
        else:
            data = _data(what, nonce, known if right else None)
        term = 1 if right and what in ("lost", "withheld") else 0
        outcomes = world.put(
            "cluster", writers[of if right else by], say(data, subject=machine, term=term, principal="uid:0")
        )
        ours, theirs = ([isinstance(one, Accepted) for one in each] for each in outcomes)
        if what not in ("withheld", "join", "replace"):
            assert ours == theirs, what
        assert {name: one.alive for name, one in world.machines.items()} == {
            name: one.alive for name, one in world.members.items()
        }, what
        assert [name for name in world.machines if world.machines[name].control] == world.kv.fold.cluster.controls  # type: ignore[attr-defined]


def _joins(nonce: int, previous: str = "") -> cluster_says.MachineJoined:
    return cluster_says.MachineJoined(nonce=f"n{nonce}", boot_id="b", previous=previous)


def _data(what: str, nonce: int, known: Any) -> Any:
    match what:
        case "join":
            return _joins(nonce)
        case "replace":
            return _joins(nonce, known.nonce if known else "n1")
        case "seen":
            return cluster_says.MachineSeen(sent_ms=5, nonce=known.nonce if known else f"n{nonce}")
        case "left" | "returning":
            return cluster_says.MachineLeft(returning=what == "returning")
        case "lost":
            return cluster_says.MachineLost(last_seen=known.seen_at if known else "0.0", ttl_ms=3000)
        case "withheld":
            return cluster_says.MachinesWithheld(machines=MACHINES[:3], reason="all")
        case _:
            return cluster_says.MachineRemoved()


@pytest.mark.parametrize("named", [True, False])
def test_a_machine_that_was_removed_holds_back_no_level_and_says_nothing_any_more(named: bool) -> None:
    world = World(level=1)
    writer = world.joined(A)
    gone = MACHINES[1]
    old = f"coordination@{gone}"
    world.opened(old, level=1)
    joined = cluster_says.MachineJoined(nonce="old", boot_id="b")
    world.put("cluster", old, say(joined, subject=gone))
    world.put("cluster", old, say(cluster_says.MachineLeft(returning=False), subject=gone))
    world.put("cluster", writer, say(cluster_says.MachineRemoved(), subject=gone, principal="uid:0"))
    cluster = world.control.fold.state.cluster  # type: ignore[attr-defined]
    raised = decide.levels(world.control.log, cluster) if named else [say(log_says.LevelRaised(LEVEL))]
    for outcomes in world.put("log", writer, *raised):
        assert isinstance(outcomes[0], Accepted if named else Rejected)
    for outcomes in world.put("cluster", old, say(joined, subject=gone)):
        assert [isinstance(one, Rejected) for one in outcomes] == [named]
    world.opened(old)
    for outcomes in world.put("cluster", old, say(joined, subject=gone)):
        assert not isinstance(outcomes[0], Rejected)
