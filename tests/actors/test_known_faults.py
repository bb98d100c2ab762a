"""Faults of the folds that are known and not mended yet: a mend changes what a record does, and wants feature level 3.

Each test says what is right. The day it passes it fails here (``strict``), and is to be moved to where it belongs.
"""

from itertools import count
from typing import Any

import pytest

from actors.control import ControlFold
from actors.kv.state import KvFold
from streams.events import cluster as cluster_says
from streams.events import encode, say
from streams.events import kv as kv_says
from streams.events import log as log_says
from streams.events.base import Event
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Entry, Record
from streams.replay import LEVEL, Replica
from tests.folds import LOG

MACHINES = [letter * 32 for letter in "abcd"]
A = MACHINES[0]
LEVEL_3 = pytest.mark.xfail(strict=True, reason="wants feature level 3")


class World:
    """Both folds over one log."""

    def __init__(self, level: int = LEVEL) -> None:
        self.control, self.kv = Replica(ControlFold()), Replica(KvFold())
        self._offsets = count()
        self.put("log", "node@founder", 1, say(log_says.LogOpened(id=LOG, level=level)))

    def put(self, stream: str, writer: str, seq: int, *events: Event) -> tuple[list[Outcome], list[Outcome]]:
        """What each fold makes of the record; nothing if it doesn't read the stream."""
        entry = Entry(next(self._offsets), Record(LOG, stream, writer, 1, seq, 0, encode(list(events))).canonical())
        of_control, of_kv = ([one.outcome for one in fold.apply(entry)] for fold in (self.control, self.kv))
        return of_control, of_kv

    def opened(self, writer: str, level: int = LEVEL) -> None:
        self.put("log", writer, 1, say(log_says.ActorOpened(nonce=writer, level=level)))

    def joined(self, machine: str, **more: Any) -> str:
        """Its coordination actor, whose next record is its third."""
        writer = f"coordination@{machine}"
        self.opened(writer)
        self.put(
            "cluster",
            writer,
            2,
            say(cluster_says.MachineJoined(nonce=f"n{machine}", boot_id="b", **more), subject=machine),
        )
        return writer


@LEVEL_3
def test_a_retry_is_never_applied_again_once_its_client_was_forgotten() -> None:
    world, seqs = World(), count(2)
    world.opened(f"kv@{A}")

    def job() -> Outcome:
        event = kv_says.Append(key="/jobs", value="one")
        ((outcome,),) = world.put(
            "kv", f"kv@{A}", next(seqs), say(event, principal="uid:0", client="worker", sequence=7, floor=7)
        )[1:]
        return outcome

    assert isinstance(job(), Accepted)
    others = [say(kv_says.Put(key="/x", value="1"), principal="uid:0")] * 1000
    for _ in range(102):
        world.put("kv", f"kv@{A}", next(seqs), *others)
    forgets = say(kv_says.Put(key="/y", value="1"), principal="uid:0", client="other", sequence=1)
    world.put("kv", f"kv@{A}", next(seqs), forgets)
    assert isinstance(job(), Rejected)


@LEVEL_3
def test_a_record_that_was_overtaken_is_void_in_every_fold() -> None:
    world = World()
    world.joined(A, peers=["http://10.0.0.1:2380"])
    world.opened(f"kv@{A}")
    # of one writer, on two streams: control doesn't read the first
    world.put("kv", f"kv@{A}", 6, say(kv_says.Put(key="/a", value="1"), principal="uid:0"))
    added = say(cluster_says.MemberAdd(peers=["http://10.0.0.9:2380"]), principal="uid:0")
    (of_control,), (of_kv,) = world.put("cluster", f"kv@{A}", 5, added)
    assert isinstance(of_kv, Rejected)
    assert isinstance(of_control, Rejected)


@LEVEL_3
@pytest.mark.parametrize("how", ["withheld", "late renewal"])
def test_a_machine_that_was_removed_is_in_neither_fold(how: str) -> None:
    world = World()
    writers = [world.joined(machine) for machine in MACHINES]
    last = MACHINES[3]
    claim = cluster_says.Claim(expect_term=0, expect_renew_seq=0, sent_ms=0, nonce=f"n{A}")
    world.put("cluster", writers[0], 3, say(claim, subject=A))
    if how == "withheld":
        withheld = cluster_says.MachinesWithheld(machines=MACHINES[2:], reason="2 of 4")
        world.put("cluster", writers[0], 4, say(withheld, term=1))
    else:
        lost = cluster_says.MachineLost(last_seen="8.0", ttl_ms=3000)
        world.put("cluster", writers[0], 4, say(lost, subject=last, term=1))
        world.put("cluster", writers[3], 3, say(cluster_says.MachineSeen(sent_ms=5, nonce=f"n{last}"), subject=last))
    (of_control,), _ = world.put(
        "cluster", writers[0], 5, say(cluster_says.MachineRemoved(), subject=last, principal="uid:0")
    )
    assert isinstance(of_control, Accepted)
    assert last not in world.control.fold.state.cluster.machines  # type: ignore[attr-defined]
    assert last not in world.kv.fold.cluster.members  # type: ignore[attr-defined]


@LEVEL_3
def test_a_machine_that_is_gone_holds_back_no_level() -> None:
    world = World(level=1)
    writer = world.joined(A)
    old = f"coordination@{MACHINES[1]}"
    world.opened(old, level=1)
    world.put("cluster", old, 2, say(cluster_says.MachineJoined(nonce="old", boot_id="b"), subject=MACHINES[1]))
    world.put("cluster", old, 3, say(cluster_says.MachineLeft(returning=False), subject=MACHINES[1]))
    world.put("cluster", writer, 3, say(cluster_says.MachineRemoved(), subject=MACHINES[1], principal="uid:0"))
    (of_control,), _ = world.put("log", writer, 4, say(log_says.LevelRaised(LEVEL)))
    assert isinstance(of_control, Accepted)
