"""The scheduler's actor, driven by the product's host in virtual time, and once by its own loop."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors import start
from actors.control import ControlFold
from actors.host import Append, Host, Now
from actors.scheduler.actor import Scheduler, serve
from actors.scheduler.decide import fence_wait_s
from actors.setting import Setting, Signals
from streams.events import cluster as of_cluster
from streams.events import log as of_log
from streams.events import unit as says
from streams.events.base import say
from streams.log.memory import MemoryLog
from streams.outcomes import Accepted, Rejected
from streams.records import Entry
from streams.replay import CHECKPOINT_EVENTS, Applied, Replica
from tests.actors.scheduler.cluster import LOG, Cluster, ident, unit_file

FENCED = unit_file(corelog="Fence=yes")


def setting(name: str = "m1", **changes: Any) -> Setting:
    fields: dict[str, Any] = {
        "machine": ident(name),
        "nonce": "n",
        "boot_id": "b",
        "folder": "unused",
        "log": "memory://",
        "log_id": LOG,
    }
    return Setting(**{**fields, **changes})


class Rig:
    """A scheduler's host on a cluster's log. ``drop``: appends are refused; ``hold``: they stay under way."""

    def __init__(self, cluster: Cluster, name: str = "m1", **changes: Any) -> None:
        self.cluster = cluster
        self.now_s = 0.0
        self.nonces = 0
        self.answer: Callable[[Append], bool] = lambda append: True
        self.actor = Scheduler(setting(name, **changes))
        self.host = Host(self.actor, Replica(ControlFold()), f"scheduler@{ident(name)}", self.nonce)
        self.said: list[Applied] = []
        self.host.begin(cluster.offset, self.now)
        self.go()

    def nonce(self) -> str:
        self.nonces += 1
        return f"nonce{self.nonces}"

    @property
    def now(self) -> Now:
        return Now(self.now_s, 0)

    def go(self) -> None:
        """Deliver what the log has and append what is handed out, until all is quiet."""
        while True:
            new = [entry for entry in self.cluster.entries if entry.offset > self.host.replica.offset]
            if new:
                self.host.delivered(new, self.now)
            outbox, self.host.outbox = self.host.outbox, []
            for output in outbox:
                assert isinstance(output, Append)
                if self.answer(output):
                    self.append(output)
            if not outbox and not new:
                return

    def append(self, output: Append) -> None:
        for record in output.records:
            self.said += self.cluster.append(record)

    def at(self, now_s: float) -> None:
        self.now_s = now_s
        self.host.tick(self.now)
        self.go()

    def placed(self) -> list[str]:
        return [one.event.subject for one in self.said if isinstance(one.event.data, says.Placed)]

    def accepted(self, kind: type) -> list[Applied]:
        return [one for one in self.said if isinstance(one.event.data, kind) and not isinstance(one.outcome, Rejected)]


def test_only_the_machine_that_holds_the_term_decides() -> None:
    cluster = Cluster(2)
    cluster.submit("a.service")
    other = Rig(cluster, "m2")
    assert other.placed() == []
    holder = Rig(cluster, "m1")
    assert holder.placed() == ["a.service"]
    cluster.elect("m2")
    cluster.submit("b.service")
    holder.go()
    assert holder.placed() == ["a.service"]
    other.go()
    assert other.placed() == ["b.service"]
    assert cluster.placements() == {"a.service": ["m1"], "b.service": ["m2"]}


def test_a_new_start_of_the_holders_node_is_not_the_holder() -> None:
    cluster = Cluster(1)
    cluster.submit("a.service")
    assert Rig(cluster, nonce="another start").placed() == []


def test_nothing_is_decided_after_the_holders_deadline() -> None:
    cluster = Cluster(1)
    rig = Rig(cluster, alone=False, lease_ms=1000)
    rig.now_s = 0.95
    cluster.submit("a.service")
    rig.go()
    assert rig.placed() == []
    found = cluster.control.cluster.election
    renewal = of_cluster.Renew(found.renew_seq + 1, 700, found.proof_at, found.proof)
    assert isinstance(cluster.fact(renewal, "", "coordination"), Accepted)
    rig.go()
    assert rig.placed() == ["a.service"]


def test_decisions_name_position_cause_and_correlation() -> None:
    cluster = Cluster(1)
    rig = Rig(cluster)
    submitted = cluster.tell(
        "gateway@x", [say(says.Submit(unit_file(), "launched"), subject="a.service", correlation="c1")]
    )[0]
    rig.go()
    placed = rig.said[-1].event
    assert placed.cause == str(submitted.position)
    assert placed.correlation == "c1"
    assert placed.data.decided_at == str(submitted.position.offset)
    assert placed.term == cluster.term


def test_a_plan_that_the_log_refused_is_decided_again() -> None:
    cluster = Cluster(1)
    rig = Rig(cluster)
    refused: list[Append] = []
    rig.answer = lambda append: bool(refused.append(append))
    cluster.submit("a.service")
    rig.go()
    assert len(refused) == 1
    rig.answer = lambda append: True
    rig.host.refused(refused[0], OSError("no"), rig.now)
    rig.go()
    assert rig.placed() == []
    rig.at(1.0)
    assert rig.placed() == ["a.service"]


@pytest.mark.parametrize("landed", [False, True])
def test_a_plan_with_unknown_outcome_places_once(landed: bool) -> None:
    cluster = Cluster(1)
    rig = Rig(cluster)
    lost: list[Append] = []
    rig.answer = lambda append: bool(lost.append(append))
    cluster.submit("a.service")
    rig.go()
    rig.answer = lambda append: True
    if landed:
        rig.append(lost[0])
    rig.host.unknown(lost[0], OSError("no answer"), rig.now)
    rig.at(1.0)
    if not landed:
        rig.append(lost[0])  # now it comes, after the barrier
        rig.go()
    assert len(rig.accepted(says.Placed)) == 1
    assert cluster.where("a.service") == ["m1"]


def test_an_old_masters_plan_under_way_is_void() -> None:
    cluster = Cluster(2)
    rig = Rig(cluster)
    held: list[Append] = []
    rig.answer = lambda append: bool(held.append(append))
    cluster.submit("a.service")
    rig.go()
    cluster.elect("m2")
    rig.append(held[0])
    assert [one.outcome.code for one in rig.said if isinstance(one.outcome, Rejected)] == ["stale-term"]
    assert cluster.where("a.service") == []


def test_a_fence_expires_only_after_the_wait_that_counts_from_the_loss_applied_here() -> None:
    cluster = Cluster(2)
    rig = Rig(cluster, "m1", fence_ms=10_000)
    cluster.start("filler.service")
    cluster.submit("a.service", FENCED)
    rig.go()
    assert cluster.where("a.service") == ["m2"]
    rig.at(5.0)
    cluster.lose("m2")
    rig.go()
    wait_s = fence_wait_s(10_000)
    assert wait_s > 10.2
    assert rig.host.wake_at_s == 5.0 + wait_s
    rig.at(5.0 + wait_s - 0.001)
    assert rig.accepted(says.FenceExpired) == []
    assert cluster.where("a.service") == ["m2"]
    rig.at(5.0 + wait_s)
    assert len(rig.accepted(says.FenceExpired)) == 1
    assert cluster.where("a.service") == ["m1"]


def test_a_machine_that_comes_back_ends_the_wait() -> None:
    cluster = Cluster(2)
    cluster.start("filler.service")
    rig = Rig(cluster)
    cluster.submit("a.service", FENCED)
    rig.go()
    fence = cluster.placement("a.service").fence
    cluster.lose("m2")
    rig.at(1.0)
    cluster.join("m2")
    rig.at(100.0)
    assert rig.accepted(says.FenceExpired) == []
    assert cluster.placement("a.service").fence == fence
    cluster.lose("m2")
    rig.at(101.0)
    rig.at(101.0 + fence_wait_s(10_000) - 1.1)
    assert rig.accepted(says.FenceExpired) == [], "the wait counts from the later loss"


def test_a_new_term_counts_the_wait_afresh() -> None:
    cluster = Cluster(3)
    cluster.submit("a.service", unit_file(corelog="Fence=yes", fleet="MachineMetadata=x=1"))
    cluster.label("m3", x="1")
    rig = Rig(cluster)
    assert cluster.where("a.service") == ["m3"]
    cluster.lose("m3")
    rig.at(1.0)
    rig.at(8.0)
    cluster.elect("m2")
    rig.go()
    cluster.elect("m1")
    rig.at(9.0)
    rig.at(9.0 + fence_wait_s(10_000) - 0.1)
    assert rig.accepted(says.FenceExpired) == []
    rig.at(9.0 + fence_wait_s(10_000))
    assert len(rig.accepted(says.FenceExpired)) == 1


def test_the_holder_says_each_new_boundary_once() -> None:
    cluster = Cluster(1)
    rig = Rig(cluster)

    def checkpoints() -> list[str]:
        return [one.event.data.position for one in rig.said if isinstance(one.event.data, of_log.Checkpoint)]

    assert checkpoints() == []
    cluster.submit("a.service", desired="")
    for state in ("loaded", "inactive") * (CHECKPOINT_EVENTS // 2):
        cluster.desire("a.service", state)
    rig.go()
    assert checkpoints() == [cluster.replica.log.boundaries[-1].position]
    cluster.desire("a.service", "loaded")
    rig.go()
    Rig(cluster)
    assert len(checkpoints()) == 1


def test_a_quiet_cluster_writes_nothing_and_sleeps() -> None:
    cluster = Cluster(3)
    cluster.submit("a.service")
    cluster.submit("b.service", unit_file(corelog="Fence=yes"))
    rig = Rig(cluster)
    said, rig.said = rig.said, []
    assert said
    for second in range(1, 50):
        cluster.seen("m2")
        rig.at(float(second))
    assert rig.said == []
    assert rig.host.wake_at_s is None


async def test_serve_places_units_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, log = Cluster(1), MemoryLog()
    cluster.submit("a.service")
    for entry in cluster.entries:
        log.put(entry.raw)

    async def opened(address: str, options: Any, checked: str) -> MemoryLog:
        return log

    monkeypatch.setattr(start, "open_log", opened)
    reports: list[dict[str, Any]] = []
    signals = Signals(reports.append)
    serving = asyncio.ensure_future(serve(setting(folder=str(tmp_path)), signals))
    async with asyncio.timeout(30):
        while not (reports and reports[-1]["acting"] and reports[-1]["live"] and len(log.entries) > cluster.offset + 1):
            await asyncio.sleep(0.01)
    signals.stop.set()
    await serving
    for entry in log.entries[cluster.offset :]:
        cluster.replica.apply(Entry(entry.offset, entry.raw))
    assert cluster.where("a.service") == ["m1"]
    assert {"applied", "live", "acting", "units", "waiting"} <= reports[-1].keys()
