"""Commands on their way: who shares a record, and who doesn't wait for company."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from actors.host import Unsayable
from actors.kv import commands as module
from actors.kv.commands import Commands, NotSent, OutcomeUnknown, Reads
from actors.kv.company import ALONE_MIN
from streams.log.segments import SegmentsLog
from streams.replay import Applied
from tests.actors.test_shell import Make, Node, node, put, until

__all__ = ["node"]

CLIENTS, ROUNDS = 12, 30


class Client:
    """Puts, and some turns of the loop after each answer again, as one at the other end of a socket would."""

    def __init__(self, commands: Commands, number: int, rounds: int, turns: int) -> None:
        self.left, self._commands, self._number, self._turns = rounds, commands, number, turns
        self._put()

    def _put(self) -> None:
        self._commands.submit(put(f"k{self._number}", "v"), 100, self._came, self._number)

    def _came(self, result: Applied | NotSent | OutcomeUnknown) -> None:
        assert isinstance(result, Applied), result
        self.left -= 1
        if self.left:
            self._later(self._turns)

    def _later(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._later, turns - 1)
        else:
            self._put()


async def a_record_for_each_round(node: Node) -> None:
    commands = Commands(node.shell)
    clients = [Client(commands, number + 1, ROUNDS, turns=1 + number % 5) for number in range(CLIENTS)]
    await until(lambda: not any(client.left for client in clients))
    # the end apart, when fewer and fewer come again
    assert commands.sent <= ROUNDS + CLIENTS, "a record for each round"
    commands.close()


@pytest.fixture
async def one(node: Make) -> Node:
    made: Node = await node("a", still_max=64)
    return made


async def test_those_who_come_again_at_once_share_a_record(one: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPANY_S", 0.05)
    await a_record_for_each_round(one)


async def test_who_stays_away_is_waited_for_ever_less_often(one: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait in vain lets twice as many records go at once."""
    monkeypatch.setattr(module, "COMPANY_S", 0.05)
    commands = Commands(one.shell)
    for _ in range(3 + ALONE_MIN + 2 * ALONE_MIN):
        gone = Client(commands, 1, 1, turns=1)
        busy = Client(commands, 2, 2, turns=1)
        await until(lambda gone=gone, busy=busy: not gone.left and not busy.left)  # type: ignore[misc]
    assert commands.company.haste == 8 * ALONE_MIN
    commands.close()


async def test_who_comes_later_had_not_been_waited_for(one: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was answered long ago isn't missed, and that he isn't there is nobody's wait in vain."""
    monkeypatch.setattr(module, "COMPANY_S", 0.0)
    commands = Commands(one.shell)
    for _ in range(2 * ALONE_MIN):
        gone, late = Client(commands, 1, 1, turns=1), Client(commands, 2, 2, turns=1)
        await until(lambda gone=gone, late=late: not gone.left and not late.left)  # type: ignore[misc]
    assert (commands.company.is_hasty, commands.company.haste) == (False, ALONE_MIN)
    commands.close()


async def test_a_client_alone_waits_for_nobody(one: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPANY_S", 60.0)
    commands = Commands(one.shell)
    client = Client(commands, 1, ROUNDS, turns=3)
    await until(lambda: not client.left)
    assert commands.sent == ROUNDS
    commands.close()


async def test_more_than_the_loop_stands_still_for_are_sent_while_others_are_applied(node: Make) -> None:
    """The next record is at the disk before the one that became durable is applied: two are under way then."""
    one = await node("a", still_max=0)
    commands = Commands(one.shell)
    under_way: list[int] = []
    applied = one.actor.applied

    def noted(*words: object) -> None:
        under_way.append(len(commands._under_way))
        applied(*words)

    one.actor.applied = noted
    clients = [Client(commands, number + 1, ROUNDS, turns=number) for number in range(CLIENTS)]
    await until(lambda: not any(client.left for client in clients))
    assert 2 in under_way
    commands.close()


async def test_tails_leave_an_own_record_to_whoever_hands_it_over(tmp_path: Path) -> None:
    """What this handle wrote last is told before tails of it read."""
    log = await SegmentsLog.open(tmp_path / "log")
    assert log._reach() == 0
    await log.append_raw([b"foreign"])
    assert log._reach() == 1
    # the commit is published, and its call back to the loop is still to come
    log._writer.commit([b"more"])
    assert (log._shared.end, log._reach()) == (2, 1)
    other = await SegmentsLog.open(tmp_path / "log")
    await other.append_raw([b"theirs"])
    assert log._reach() == 3, "somebody else's are read at once, with what stands before them"
    await other.close()
    await log.close()


async def test_what_is_written_after_all_answers_of_a_record(one: Node) -> None:
    """Each is called once, at the end of the turn, or in the loop's next one; one's failure is no other one's."""
    commands = Commands(one.shell)
    loop, faults, done = asyncio.get_running_loop(), list[object](), list[str]()
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))

    def came(name: str) -> None:
        commands.turn.soon(lambda: done.append(f"{name} written"))
        commands.turn.soon(lambda: 1 // 0)
        done.append(f"{name} answered")

    for name in ("a", "b"):
        commands.submit(put(name, "v"), 100, lambda _, name=name: came(name))  # type: ignore[misc]
    await until(lambda: len(done) == 4)
    assert done == ["a answered", "b answered", "a written", "b written"]
    assert [type(fault) for fault in faults] == [ZeroDivisionError, ZeroDivisionError]
    commands.turn.soon(lambda: done.append("late"))
    assert done[-1] != "late"
    await asyncio.sleep(0)
    assert done[-1] == "late"
    commands.close()


async def test_what_can_not_be_written_is_refused_and_what_came_with_it_is_not(one: Node) -> None:
    commands = Commands(one.shell)
    told: dict[str, object] = {}
    for key in ("/a", "/\udcff", "/b", "/\udcfe", "/c"):
        commands.submit(put(key, "v"), 100, partial(told.__setitem__, key))
    await until(lambda: len(told) == 5)
    for key in ("/a", "/b", "/c"):
        assert isinstance(told[key], Applied)
    for key in ("/\udcff", "/\udcfe"):
        assert isinstance(told[key], NotSent)
        assert "surrogates not allowed" in str(told[key])
    assert not commands.stuck
    assert commands.pending == 0
    with pytest.raises(Unsayable):
        await one.shell.submit([put("/d", "v"), put("/\udcff", "v")])
    await one.put("/e")
    assert sorted(one.fold.v3.revs.live) == [b"/a", b"/b", b"/c", b"/e"]
    commands.close()


async def test_an_answer_that_fails_is_no_other_ones_trouble(one: Node) -> None:
    commands = Commands(one.shell)
    reads = Reads(one.shell, commands.turn)
    loop, faults, told = asyncio.get_running_loop(), list[object](), list[object]()
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))

    def fails(result: object) -> None:
        told.append(result)
        if not isinstance(result, NotSent | OutcomeUnknown):
            raise ZeroDivisionError

    others: list[object] = []
    for ask in (lambda answer: commands.submit(put("a", "v"), 100, answer), reads.linearizable):
        ask(others.append)
        ask(fails)
        ask(others.append)
    await until(lambda: len(others) == 4 and len(told) == 4)
    assert sum(isinstance(one, Applied) for one in others) == 2
    assert others.count(None) == 2
    assert [type(fault) for fault in faults] == [ZeroDivisionError, ZeroDivisionError]
    assert sum(isinstance(one, NotSent | OutcomeUnknown) for one in told) == 2, "who waits is told that there is none"
    await one.put("b")
    commands.close()
    reads.close()
