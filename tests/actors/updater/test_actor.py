"""The updater whole, on a log in memory: orders become facts, once, whatever dies on the way."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from actors.updater.fetch import Terms
from actors.updater.store import Store
from streams.events import update as says
from streams.outcomes import Accepted, Rejected
from tests.actors.updater.cluster import Cluster, Killed, until
from tests.actors.updater.trees import V1, Serving, make, nobody, read


def version(number: int) -> dict[str, bytes | str | None]:
    return {**V1, "VERSION": b"%d\n" % number}


async def test_a_switch_stages_switches_checks_and_tells(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        await cluster.publish("a", "1", version(1), "test $CORELOG_VERSION = 1 && test -e VERSION")
        outcome = await cluster.tell(says.Switch(), "1")
        assert outcome == Accepted({"machines": ["a"], "already": [], "pinned": []})
        await cluster.settled()
        assert cluster.facts() == [("a", "staged", "1"), ("a", "switched", "1"), ("a", "healthy", "1")]
        mine = cluster.installed("a")
        assert (mine.running, mine.state, mine.staged, mine.previous) == ("1", "healthy", ["1"], "")
        assert read(tmp_path / "a/updater/current") == version(1)


async def test_any_version_kept_is_switched_to_and_rollback_goes_to_the_one_before(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        for number in (1, 2, 3):
            await cluster.publish("a", str(number), version(number))
            await cluster.tell(says.Switch(), str(number))
            await cluster.settled()
        assert (cluster.installed("a").running, cluster.installed("a").previous) == ("3", "2")
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        assert (cluster.installed("a").running, cluster.installed("a").previous) == ("1", "3")
        assert await cluster.tell(says.Rollback()) == Accepted({"machines": ["a"], "already": [], "pinned": []})
        await cluster.settled()
        assert (cluster.installed("a").running, cluster.installed("a").previous) == ("3", "1")
        assert read(tmp_path / "a/updater/current") == version(3)
        said = cluster.facts()
        assert await cluster.tell(says.Switch(["a"]), "3") == Accepted({"machines": [], "already": ["a"], "pinned": []})
        assert cluster.facts() == said


@pytest.mark.parametrize(
    ("command", "timeout_ms", "reason"),
    [
        ("echo it is bad; exit 3", 30_000, "the health command ended with 3: it is bad"),
        ("echo waiting; sleep 60", 200, "the health command was not done after 0.2 s: waiting"),
        ("kill -9 $$", 30_000, "the health command was killed by signal 9"),
        ("no-such-command-here", 30_000, "the health command ended with 127"),
    ],
)
async def test_an_unhealthy_version_goes_back_by_itself_and_says_why(
    tmp_path: Path, command: str, timeout_ms: int, reason: str
) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        await cluster.publish("a", "1", version(1))
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        await cluster.publish("a", "2", version(2), command, health_timeout_ms=timeout_ms)
        await cluster.tell(says.Switch(), "2")
        await cluster.settled()
        mine = cluster.installed("a")
        assert (mine.running, mine.state, mine.previous) == ("1", "rolledback", "")
        assert reason in mine.detail
        assert read(tmp_path / "a/updater/current") == version(1)
        assert cluster.facts()[-2:] == [("a", "switched", "2"), ("a", "rolledback", "2")]


async def test_an_unhealthy_first_version_leaves_nothing_running(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        await cluster.publish("a", "1", version(1), "false")
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        assert (cluster.installed("a").running, cluster.installed("a").state) == ("", "rolledback")
        assert not (tmp_path / "a/updater/current").exists()


async def test_what_a_health_command_leaves_in_the_background_is_killed(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        pid = tmp_path / "pid"
        await cluster.publish("a", "1", version(1), f"sleep 300 & echo $! > {pid}")
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        assert cluster.installed("a").state == "healthy"

        def gone() -> bool:
            try:
                return Path(f"/proc/{pid.read_text().strip()}/stat").read_text().split()[2] == "Z"
            except FileNotFoundError:
                return True

        await until(gone)


async def test_three_machines_fetch_from_each_other_and_each_goes_back_by_itself(tmp_path: Path) -> None:
    one = Serving(tmp_path / "a")
    with Serving(tmp_path / "b") as two:
        gateways = {"a": one.address, "b": two.address}
        async with Cluster(tmp_path, "a", "b", "c", gateways=gateways) as cluster:
            with one:
                for name in "abc":
                    cluster.start(name)
                for number, health in ((1, "true"), (2, "true"), (3, "echo too new; false")):
                    await cluster.publish("a", str(number), version(number), health)
                    await cluster.tell(says.Switch(), str(number))
                    await cluster.settled()
                for name in "abc":
                    mine = cluster.installed(name)
                    assert (mine.running, mine.state) == ("2", "rolledback")
                    assert "too new" in mine.detail
                    assert read(cluster.data(name) / "updater/current") == version(2)
                await cluster.tell(says.Switch(), "1")
                await cluster.settled()
                assert [cluster.installed(name).running for name in "abc"] == ["1", "1", "1"]
            # the publisher's gateway is gone, and c loses its disk: it takes all from b
            asked = len(two.asked)
            await cluster.updaters["c"].stop()
            shutil.rmtree(cluster.data("c"))
            cluster.start("c")
            await cluster.tell(says.Switch(["c"]), "2")
            await cluster.settled("c")
            assert (cluster.installed("c").running, cluster.installed("c").detail) == ("2", "")
            assert read(cluster.data("c") / "updater/current") == version(2)
            assert len(two.asked) > asked


async def test_a_version_that_can_not_be_had_fails_with_the_object_and_changes_nothing(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        await cluster.publish("a", "1", version(1))
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        await cluster.publish("a", "2", version(2))
        store = Store(tmp_path / "a/updater")
        file = next(f for f in store.tree(cluster.state.updates.versions["2"].tree).files if f.path == "VERSION")
        os.unlink(store.object_path(file.hash, file.mode))
        await cluster.tell(says.Switch(), "2")
        await cluster.settled()
        mine = cluster.installed("a")
        assert (mine.running, mine.state, mine.staged) == ("1", "failed", ["1"])
        assert mine.detail.startswith(f"fetch: object {file.hash} of 'VERSION' is not here")
        assert cluster.facts()[-1] == ("a", "failed", "2")
        assert read(tmp_path / "a/updater/current") == version(1)


async def test_a_newer_order_replaces_one_that_waits_for_a_silent_gateway(tmp_path: Path) -> None:
    with nobody() as silent:
        async with Cluster(tmp_path, "a", "b", gateways={"b": silent}) as cluster:
            cluster.start("a", terms=Terms(patience_s=600))
            await cluster.publish("a", "1", version(1))
            await cluster.publish("b", "2", version(2))
            await cluster.tell(says.Switch(["a"]), "2")
            await until(lambda: type(cluster.updaters["a"].actor.job).__name__ == "StageJob")
            await cluster.tell(says.Switch(["a"]), "1")
            await cluster.settled("a")
            assert (cluster.installed("a").running, cluster.installed("a").state) == ("1", "healthy")
            assert [kind for _, kind, _ in cluster.facts()] == ["staged", "switched", "healthy"]


async def test_pinned_versions_are_neither_left_nor_collected(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        for number in (1, 2, 3, 4):
            await cluster.publish("a", str(number), version(number))
            await cluster.tell(says.Switch(), str(number))
            await cluster.settled()
        await cluster.tell(says.Pin(), "1")
        await cluster.tell(says.Pin(), "4")
        for order, subject in ((says.Switch(), "2"), (says.Rollback(), "")):
            refused = await cluster.tell(order, subject)
            assert isinstance(refused, Rejected)
            assert refused.code == "pinned"
        await cluster.tell(says.Collect(keep=0))
        await cluster.settled()
        assert cluster.facts()[-1] == ("a", "collected", "")
        assert cluster.installed("a").staged == ["1", "3", "4"]
        assert sorted(Store(tmp_path / "a/updater").staged()) == ["1", "3", "4"]
        await cluster.tell(says.Pin(pinned=False), "4")
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        assert read(tmp_path / "a/updater/current") == version(1)


async def test_orders_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        await cluster.publish("a", "1", version(1))
        tree = cluster.state.updates.versions["1"].tree
        for command, subject, code in (
            (says.Switch(), "9", "unknown-version"),
            (says.Stage(["x"]), "1", "unknown-machine"),
            (says.Rollback(), "", "no-previous"),
            (says.Pin(), "9", "unknown-version"),
            (says.Collect(keep=-1), "", "bad-keep"),
            (says.Publish(tree="0" * 64, files=1, size_bytes=1), "1", "version-exists"),
            (says.Publish(tree="../x", files=1, size_bytes=1), "2", "bad-tree"),
            (says.Publish(tree=tree, files=1, size_bytes=1), "../2", "bad-version"),
            (says.Healthy("a"), "1", "not-own"),
        ):
            outcome = await cluster.tell(command, subject)
            assert isinstance(outcome, Rejected), command
            assert outcome.code == code
        assert list(cluster.state.updates.versions) == ["1"]
        assert cluster.state.updates.machines == {}


async def test_a_link_that_was_moved_by_hand_is_told_and_one_taken_away_is_laid_again(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        for number in (1, 2):
            await cluster.publish("a", str(number), version(number))
            await cluster.tell(says.Switch(), str(number))
            await cluster.settled()
        await cluster.updaters["a"].stop()
        current = tmp_path / "a/updater/current"
        current.unlink()
        current.symlink_to("versions/1")
        cluster.start("a")
        await until(lambda: cluster.installed("a").running == "1" and not cluster.installed("a").checking)
        assert cluster.facts()[-2:] == [("a", "switched", "1"), ("a", "healthy", "1")]
        await cluster.updaters["a"].stop()
        said = cluster.facts()
        current.unlink()
        cluster.start("a")
        await until(current.exists)
        assert read(current) == version(1)
        assert cluster.facts() == said


STEPS = ("stage", "stage-sync", "stage-note", "stage-name", "staged", "link-made", "link-renamed")
BACK = ("leaving", "leaving-noted", "left")


@pytest.mark.parametrize("at", [*STEPS, *BACK, *(f"{step}/2" for step in ("link-made", "link-renamed"))])
async def test_killed_at_any_step_it_goes_on_and_says_nothing_twice(tmp_path: Path, at: str) -> None:
    """The process's memory is lost at the step; disk and log are as they were. ``/2``: the second time (going back)."""
    name, _, nth = at.partition("/")
    left = int(nth or 1)

    def step(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                raise Killed

    async with Cluster(tmp_path, "a") as cluster:
        cluster.start("a")
        await cluster.publish("a", "1", version(1))
        await cluster.tell(says.Switch(), "1")
        await cluster.settled()
        await cluster.updaters["a"].stop()
        healthy = at in STEPS
        await cluster.publish("a", "2", version(2), "true" if healthy else "echo no good; false")
        cluster.start("a", step)
        await cluster.tell(says.Switch(), "2")
        await asyncio.wait_for(cluster.killed.wait(), 30)
        assert read(tmp_path / "a/updater/current") in (version(1), version(2))
        await cluster.updaters["a"].stop()
        cluster.start("a")
        await cluster.settled()
        said = [kind for _, kind, subject in cluster.facts() if subject == "2"]
        mine = cluster.installed("a")
        if healthy:
            assert said == ["staged", "switched", "healthy"]
            assert (mine.running, mine.previous) == ("2", "1")
        else:
            assert said == ["staged", "switched", "rolledback"]
            assert (mine.running, mine.state) == ("1", "rolledback")
            assert "no good" in mine.detail
        assert read(tmp_path / "a/updater/current") == version(2 if healthy else 1)
        await until(lambda: not (tmp_path / "a/updater/leaving.json").exists())
        await cluster.updaters["a"].stop()
        said_all = cluster.facts()
        cluster.start("a")
        await until(lambda: cluster.updaters["a"].actor.world is not None)
        assert cluster.facts() == said_all


async def test_the_health_command_dies_with_the_node(tmp_path: Path) -> None:
    """A node that is killed leaves no health command behind to tell about a version that isn't switched any more."""
    pid = tmp_path / "pid"
    folder = make(tmp_path / "data/updater/versions/1", {"VERSION": b"1"}).parent.parent
    code = f"""
import asyncio
from pathlib import Path
from actors.updater.store import Store
from actors.updater.switch import check_health
asyncio.run(check_health(Store(Path({str(folder)!r})), "1", "", "echo $$ > {pid}; exec sleep 300", 60))
"""
    node = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    await until(lambda: pid.exists() and pid.read_text().strip() != "")
    node.kill()
    await node.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid.read_text().strip()}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    await until(gone)
