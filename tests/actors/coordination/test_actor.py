"""The actor on real logs and in real time: alone, in a cluster, draining, beside a duplicate, starving."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.control import ControlFold
from actors.coordination.actor import Coordination, Drain, Progress, serve
from actors.coordination.admission import DuplicateMachine, Nonces, admit
from actors.host import Host, Now
from actors.setting import Setting, Signals
from actors.shell import Shell
from streams.events import cluster as says
from streams.events import log as log_says
from streams.events.base import decode, encode, say
from streams.log.memory import MemoryLog
from streams.log.open import open_log
from streams.records import Entry, Record, parse
from streams.replay import LEVEL, Replica

LOG_ID = "7" * 32


def setting(folder: Path, machine: str = "a" * 32, nonce: str = "1", **changes: Any) -> Setting:
    known = {"boot_id": "b", "log": f"segments://{folder}/log", "log_id": LOG_ID, "folder": str(folder)}
    return Setting(machine=machine, nonce=nonce, **{**known, **changes})


async def founded() -> MemoryLog:
    log = MemoryLog()
    await log.append([founding()])
    return log


def founding() -> Record:
    return Record(LOG_ID, "log", "node@founder", 1, 1, 0, encode([say(log_says.LogOpened(id=LOG_ID, level=LEVEL))]))


async def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


class Member:
    """One coordination actor on a log in memory."""

    def __init__(self, log: MemoryLog, tmp_path: Path, machine: str, nonce: str = "1", **changes: Any) -> None:
        self.setting = setting(tmp_path, machine * 32, nonce, alone=False, **changes)
        self.actor = Coordination(self.setting, [])
        writer = f"coordination@{self.setting.machine}"
        self.host = Host(self.actor, Replica(ControlFold()), writer, lambda: secrets.token_hex(8))
        self.shell = Shell(self.host, log, self._none)
        self.task = asyncio.ensure_future(self.shell.run())

    async def _none(self, effect: Any, notice: Any) -> None:
        raise AssertionError(effect)

    @property
    def cluster(self) -> Any:
        return self.host.replica.fold.state.cluster  # type: ignore[attr-defined]

    @property
    def acting(self) -> bool:
        return self.actor.acting(self.host.replica, self.shell.now())

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self.task


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[Callable[..., Member]]:
    log = await founded()
    made: list[Member] = []

    def make(machine: str, nonce: str = "1", **changes: Any) -> Member:
        made.append(Member(log, tmp_path, machine, nonce, **changes))
        return made[-1]

    yield make
    for member in made:
        await member.end()


async def test_alone_it_claims_once_and_an_idle_node_writes_nothing(tmp_path: Path) -> None:
    mine, signals, said = setting(tmp_path), Signals(), []
    signals.report = said.append
    log = await open_log(mine.log)
    await log.append([founding()])
    serving = asyncio.ensure_future(serve(mine, signals))
    await until(lambda: said and said[-1]["acting"])
    end = await log.end()
    await asyncio.sleep(0.7)
    assert await log.end() == end
    assert end == 3  # founded, opened, joined and claimed in one record
    signals.drain.set()
    await until(lambda: said[-1]["left"])
    signals.stop.set()
    await serving
    assert Nonces(mine.folder).read() == ["1"]
    await log.close()


async def test_alone_a_restart_takes_the_next_term(tmp_path: Path) -> None:
    log = await open_log(setting(tmp_path).log)
    await log.append([founding()])
    for term in (1, 2):
        mine, signals, said = setting(tmp_path, nonce=str(term)), Signals(), []
        signals.report = said.append
        serving = asyncio.ensure_future(serve(mine, signals))
        await until(lambda said=said: said and said[-1]["acting"])
        assert said[-1]["term"] == term
        signals.stop.set()
        await serving
    await log.close()


async def test_in_a_cluster_one_is_master_and_a_drain_hands_over(members: Callable[..., Member]) -> None:
    three = [members(name) for name in "abc"]
    await until(lambda: any(member.acting for member in three))
    await until(lambda: all(len(member.cluster.machines) == 3 for member in three))
    master = next(member for member in three if member.acting)
    term = master.cluster.election.term
    master.shell.notice(Drain())
    await until(lambda: master.actor.left)
    assert not master.acting
    await until(lambda: any(member.acting for member in three))
    heir = next(member for member in three if member.acting)
    assert heir is not master
    assert heir.cluster.election.term == term + 1


async def test_the_master_hands_over_to_the_machine_that_an_operator_names(members: Callable[..., Member]) -> None:
    three = [members(name) for name in "abc"]
    await until(lambda: any(member.acting for member in three))
    await until(lambda: all(len(member.cluster.machines) == 3 for member in three))
    master = next(member for member in three if member.acting)
    last = [member for member in three if member is not master][-1]
    term = master.cluster.election.term
    [applied] = await last.shell.submit([say(says.MasterAsked(), subject="9" * 32)], 100)
    assert applied.outcome.code == "unknown-machine"  # type: ignore[union-attr]
    await last.shell.submit([say(says.MasterAsked(), subject=last.setting.machine)], 100)
    await until(lambda: last.acting)
    assert last.cluster.election.term == term + 1
    assert not master.acting
    # asked of the one that is it, nothing changes
    await last.shell.submit([say(says.MasterAsked(), subject=last.setting.machine)], 100)
    await asyncio.sleep(0.3)
    assert last.acting
    assert last.cluster.election.term == term + 1


async def test_a_master_without_progress_resigns_and_stands_no_more(members: Callable[..., Member]) -> None:
    starving, other = members("a"), members("b", control=False)
    await until(lambda: starving.acting)
    starving.shell.notice(Progress("kv", starving.shell.now().boot_s))
    await until(lambda: starving.cluster.election.holder == "")
    await asyncio.sleep(0.5)
    assert starving.cluster.election.holder == ""
    starving.shell.notice(Progress("kv", starving.shell.now().boot_s + 3600))
    await until(lambda: starving.acting)
    assert other.cluster.election.holder in ("", starving.setting.machine)


async def test_a_machine_that_only_works_never_stands(members: Callable[..., Member]) -> None:
    worker = members("a", control=False)
    await until(lambda: worker.cluster.machines)
    await asyncio.sleep(0.5)
    assert worker.cluster.election.term == 0


async def test_a_join_that_lost_the_race_ends_the_node(members: Callable[..., Member]) -> None:
    first = members("a", nonce="1")
    await until(lambda: first.cluster.machines)
    second = members("a", nonce="2")
    with pytest.raises(DuplicateMachine, match="another data folder"):
        await second.task
    assert first.cluster.machines["a" * 32].nonce == "1"


async def test_admission_refuses_while_a_live_node_is_heard(tmp_path: Path, members: Callable[..., Member]) -> None:
    living = members("a", nonce="1")
    await until(lambda: living.cluster.machines)
    before = len(living.shell.log.entries)  # type: ignore[attr-defined]
    copy = setting(tmp_path / "copy", nonce="2", alone=False)
    with pytest.raises(DuplicateMachine, match="was heard at"):
        await admit(copy, living.shell.log, [])
    new = living.shell.log.entries[before:]  # type: ignore[attr-defined]
    assert {parse(entry).writer for entry in new} <= {living.host.writer}
    assert not living.task.done()


async def test_admission_lets_a_restart_in_at_once_and_strangers_after_silence(
    tmp_path: Path, members: Callable[..., Member]
) -> None:
    dead = members("a", nonce="1")
    await until(lambda: dead.cluster.machines)
    await dead.end()
    log = dead.shell.log
    restarted = setting(tmp_path, nonce="2", alone=False)
    started = asyncio.get_running_loop().time()
    assert await admit(restarted, log, ["1"]) == "1"
    at_once_s = asyncio.get_running_loop().time() - started
    assert await admit(setting(tmp_path, nonce="2", alone=False, machine_ttl_ms=300), log, []) == "1"
    assert asyncio.get_running_loop().time() - started > at_once_s + 1.5
    assert await admit(setting(tmp_path, machine="b" * 32, alone=False), log, []) == ""


def test_nonces_are_kept_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    nonces = Nonces(str(tmp_path))
    assert nonces.read() == []
    for number in range(20):
        nonces.add(str(number))
    assert nonces.read() == [str(number) for number in range(4, 20)]
    nonces.path.write_text("{")
    with pytest.raises(ValueError, match=r"nonces\.json is damaged"):
        nonces.read()
    nonces.path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="no list of strings"):
        nonces.read()


def test_what_a_holder_says_carries_a_renewal(tmp_path: Path) -> None:
    """A plan without one, under way in a broker's pause, would let a challenger in."""
    actor = Coordination(setting(tmp_path, alone=False))
    host = Host(actor, Replica(ControlFold()), f"coordination@{actor.machine}", lambda: "n")
    log: list[Record] = []
    boot_s = 100.0

    def step(call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments, Now(boot_s, 0))
        outbox, host.outbox = host.outbox, []
        for output in outbox:
            log.extend(output.records)  # type: ignore[union-attr]

    step(host.delivered, [Entry(0, founding().canonical())])
    step(host.begin, 1)
    delivered = 0
    for _ in range(400):
        boot_s += 0.01
        batch = [Entry(1 + at, record.canonical()) for at, record in enumerate(log[delivered:], delivered)]
        delivered = len(log)
        step(host.delivered, batch) if batch else step(host.tick)
    spoken = [decode(record.stream, record.payload) for record in log if record.stream == "cluster"]
    reign = [events for events in spoken if any(event.term for event in events)]
    after = spoken[spoken.index(reign[0]) :]
    assert len(after) > 10
    assert all(isinstance(events[0].data, says.Renew) for events in after)
    assert any(isinstance(event.data, says.MachineSeen) for events in after for event in events)
