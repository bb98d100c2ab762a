"""``corelog log move`` under a running node, from segments to segments: refused, killed, finished.

See tests/cluster for the whole walk to Kafka.
"""

import asyncio
import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import logmove
from node.config import Config
from streams.events import log as says
from streams.log.founding import found
from streams.log.port import ForeignLog
from streams.log.segments import SegmentsLog
from streams.log.tools_read import speak
from tests.acceptance.harness import Node, until

LOG_ID = "ab" * 16
#: A mover that kills itself (and the node's process group, if it is told one) at a step.
KILLED = """
import os, sys
from node import logmove
from node.cli import main
from streams.log import tools_move
step, node, *argv = sys.argv[1:]
def kill(*_, **__):
    if int(node):
        os.killpg(int(node), 9)
    os.kill(os.getpid(), 9)
if step == "sealed":
    say = tools_move._Seal.say
    async def sealed(self):
        await say(self)
        kill()
    tools_move._Seal.say = sealed
elif step == "opened":
    tools_move.check_opened = kill
elif step == "_note":
    logmove._note = kill
else:
    setattr(tools_move, step, kill)
main.main(["log", "move", *argv])
"""
BEFORE_THE_SEAL = ("carry", "speak")
BEHIND_THE_SEAL = ("sealed", "open_anew", "opened", "_note")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "data", "--engine", "docker=none").start()
    yield made
    made.stop()


def killed_mover(node: Node, step: str, target: str, with_node: bool) -> None:
    assert node.process is not None
    group = str(node.process.pid if with_node else 0)
    command = [sys.executable, "-c", KILLED, step, group, target, "--data", str(node.folder)]
    done = subprocess.run(command, env=node.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def log_of(node: Node) -> str:
    return Config(data=node.folder).log_address


def put(node: Node, key: str) -> None:
    until(lambda: node.kv("PUT", f"/v2/keys/{key}", b"value=here")[0] in (200, 201), says=f"a put of {key}")


def has(node: Node, *keys: str) -> bool:
    return all(node.kv("GET", f"/v2/keys/{key}")[0] == 200 for key in keys)


@pytest.mark.parametrize("step", BEFORE_THE_SEAL)
def test_a_mover_killed_before_the_seal_leaves_the_old_log_in_use(node: Node, tmp_path: Path, step: str) -> None:
    target = f"segments://{tmp_path / 'elsewhere'}"
    put(node, "before")
    killed_mover(node, step, target, with_node=False)
    put(node, "after")
    assert log_of(node) == f"segments://{node.folder / 'log'}"
    # once more, and now to its end
    assert "sealed at" in node.run("log", "move", target).err
    put(node, "moved")
    assert has(node, "before", "after", "moved")
    assert log_of(node) == target
    assert node.run("log", "verify").out.rstrip().endswith("whole")


@pytest.mark.parametrize("with_node", [False, True], ids=["mover", "mover and node"])
@pytest.mark.parametrize("step", BEHIND_THE_SEAL)
def test_a_move_killed_behind_the_seal_is_finished_by_the_node(
    node: Node, tmp_path: Path, step: str, with_node: bool
) -> None:
    target = f"segments://{tmp_path / 'elsewhere'}"
    put(node, "before")
    killed_mover(node, step, target, with_node)
    if with_node:
        assert node.process is not None
        node.process.wait(30)
        # its log is set by hand to the old one: it goes on with the new one all the same
        node.options += ("--log", f"segments://{node.folder / 'log'}")
        node.start(wait=False)
    until(lambda: log_of(node) == target, says="the move's end")
    node.wait()
    put(node, "after")
    assert has(node, "before", "after")
    assert not (node.folder / logmove.INTENT).exists()
    old = node.run("log", "verify", "--log", f"segments://{node.folder / 'log'}").out
    assert f"it goes on at {target}" in old
    moved = node.run("log", "verify").out
    assert moved.startswith(target)
    assert moved.rstrip().endswith("whole")


def test_a_move_that_cant_be_is_refused_and_the_node_goes_on(node: Node, tmp_path: Path) -> None:
    async def other() -> None:
        log = await SegmentsLog.open(tmp_path / "other")
        await found(log, "", LOG_ID)
        await log.close()

    asyncio.run(other())
    refused = node.run("log", "move", f"segments://{tmp_path / 'other'}", code=4)
    assert "holds other records" in refused.err
    refused = node.run("log", "move", "kafka://127.0.0.1:1/t", code=5)
    assert "no Kafka broker answers" in refused.err
    with open(node.folder / logmove.LOCK, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = node.run("log", "move", f"segments://{tmp_path / 'elsewhere'}", code=4)
        assert "another move" in refused.err
    put(node, "after")
    assert log_of(node) == f"segments://{node.folder / 'log'}"


# --- without a node


async def sealed(folder: Path, target: Path) -> tuple[logmove.Place, int]:
    log = await SegmentsLog.open(folder / "log")
    await found(log, "", LOG_ID)
    at = await speak(log, LOG_ID, says.LogSealed(f"segments://{target}"))
    await log.close()
    return logmove.Place(log.address), at


async def test_a_node_waits_for_the_mover_of_another_machine(tmp_path: Path) -> None:
    mover, other, target = tmp_path / "mover", tmp_path / "other", tmp_path / "target"
    mover.mkdir()
    other.mkdir()
    source, at = await sealed(mover, target)
    following = asyncio.ensure_future(logmove.follow(other, source, LOG_ID, at, f"segments://{target}"))
    await asyncio.sleep(1)
    assert not following.done()
    moved = await logmove.move(mover, source, f"segments://{target}", {})
    assert moved.sealed_at == at
    await asyncio.wait_for(following, 30)
    for folder in (mover, other):
        assert logmove.place(folder, source.address) == logmove.Place(f"segments://{target}", {}, (source.address,))


async def test_a_target_that_somebody_else_wrote_to_is_named_and_nothing_is_noted(tmp_path: Path) -> None:
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    source, at = await sealed(folder, target)
    log = await SegmentsLog.open(target)
    await found(log, "", "cd" * 16)
    await speak(log, "cd" * 16, says.Barrier())
    await log.close()
    with pytest.raises(ForeignLog, match="remove what stands there"):
        await logmove.follow(folder, source, LOG_ID, at, f"segments://{target}")
    assert logmove.moved(folder) is None


words = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@settings(max_examples=50)
@given(
    st.lists(words, min_size=1, max_size=4),
    st.dictionaries(
        words.filter(lambda key: "=" not in key), st.from_regex(r"[!-~]([ -~]{0,18}[!-~])?", fullmatch=True)
    ),
)
def test_what_is_noted_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, addresses: list[str], options: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("noted")
    *before, address = [f"kafka://{address}" for address in addresses]
    place = logmove.Place(address, options, tuple(before))
    logmove._note(folder, place)
    assert logmove.moved(folder) == place
    assert logmove.place(folder, before[0] if before else "").address == address
    assert logmove.place(folder, "kafka://it-was-never-there") == logmove.Place("kafka://it-was-never-there")
    assert (folder / logmove.ADDRESS).stat().st_mode & 0o777 == 0o600


@given(st.text(max_size=60))
def test_any_text_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / logmove.ADDRESS).write_text(text, encoding="utf-8")
    try:
        found = logmove.moved(folder)
    except logmove.MoveError as error:
        assert str(folder) in str(error)
    else:
        assert found is not None
        assert "://" in found.address
