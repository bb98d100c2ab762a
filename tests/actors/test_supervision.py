"""Supervision on real processes. Each test runs a node's main process as a child, so that it can be killed as well."""

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.control import ControlFold
from actors.setting import Setting
from actors.supervision import board as boards
from actors.supervision.facts import last_writer, next_incarnation, record
from actors.supervision.messages import Fallen
from actors.supervision.system import backoff_s
from streams.events.base import encode, say
from streams.events.log import LogOpened
from streams.outcomes import DONE
from streams.records import Entry, Record
from streams.replay import LEVEL, Replica

#: The main process of a tiny node: writes its status to a file, obeys lines on its standard input.
DRIVER = """
import os, sys, json, select, signal
from actors.setting import Setting
from actors.supervision import supervisor as module
from actors.supervision.messages import Spec
from actors.supervision.supervisor import Supervisor
from node.output import set_up

folder, log, log_id, one_process, looks, ports, *specs = sys.argv[1:]
set_up("never")
module.OVERDUE_LOOKS = int(looks)
ports = [int(port) for port in ports.split(",") if port]
def port():
    from actors.supervision.system import free_port
    return ports.pop(0) if ports else free_port()
alone = "ALONE" in os.environ
if lost := os.environ.get("LOSE"):
    # the first message of this kind never arrives
    from actors.supervision import system
    owner, verb = (system.System, "tell") if lost == "StartAll" else (system.Root, "send")
    arrives = getattr(owner, verb)
    def send(self, *arguments):
        global lost
        if type(arguments[-1]).__name__ == lost:
            lost = ""
            return
        arrives(self, *arguments)
    setattr(owner, verb, send)
    module.LOOK_S = 0.1
setting = Setting(machine="5" * 32, nonce="n", boot_id="b", folder=folder, log=log, log_id=log_id, alone=alone)
actors = [Spec(*spec.split("=")) for spec in specs]
node = Supervisor(actors, setting, one_process == "1", port=port)
node.start()
def tell():
    state = {
        "main": os.getpid(), "live": node.live, "failed": bool(node.failed), "pids": sorted(node.pids()),
        "admin": node.board.read(0).pid, "root": node.board.read(1).pid,
        "actors": {
            name: {"pid": note.pid, "state": note.state, "words": note.words} for name, note in node.notes.items()
        },
    }
    with open(folder + "/state.new", "w") as file:
        json.dump(state, file)
    os.rename(folder + "/state.new", folder + "/state")
while True:
    node.turn(0.05, [0])
    tell()
    if select.select([0], [], [], 0)[0]:
        word = os.read(0, 100).decode().strip()
        if word == "drain":
            print("drained", node.drain(5), flush=True)
        elif word == "status":
            print(sorted((actor.name, actor.restarts) for actor in node.status().actors), flush=True)
        else:
            print("stopped", node.stop(5), flush=True)
            break
"""
GOOD = "a=tests.actors.little:good"
COORDINATION = "coordination=tests.actors.little:coordination"
MINE = "corelog-supervision-test"


class Node:
    def __init__(
        self,
        folder: Path,
        *specs: str,
        one_process: bool = False,
        looks: int = 30,
        ports: str = "",
        alone: bool = True,
        lose: str = "",
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        arguments = [
            str(folder),
            f"segments://{folder}/log",
            "0" * 32,
            str(int(one_process)),
            str(looks),
            ports,
            *specs,
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", DRIVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
            env={**os.environ, "LOSE": lose} | ({"ALONE": "1"} if alone else {}),
        )

    def state(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, Any] = msgspec.json.decode((self.folder / "state").read_bytes())
            return found
        return {"actors": {}, "live": False, "pids": []}

    def until(self, what: Callable[[dict[str, Any]], bool], timeout_s: float = 30.0) -> dict[str, Any]:
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            if what(state := self.state()):
                return state
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.01)
        raise AssertionError(f"not reached: {self.state()}")

    def pid(self, name: str) -> int:
        found: int = self.state()["actors"][name]["pid"]
        return found

    def live(self) -> dict[str, Any]:
        return self.until(lambda state: bool(state["live"]))

    def say(self, word: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def lines(self, name: str) -> list[str]:
        try:
            return (self.folder / name).read_text().split()
        except FileNotFoundError:
            return []

    def mine(self) -> set[int]:
        """All processes whose command line names this folder: forked ones keep their main process's."""
        return processes_of(self.folder)

    def gone(self) -> None:
        until_s = time.monotonic() + 10
        while left := self.mine():
            assert time.monotonic() < until_s, f"orphans: {left}"
            time.sleep(0.01)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for pid in self.mine():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if str(folder).encode() in (entry / "cmdline").read_bytes() and state not in (b"Z", b"X"):
                    found.add(int(entry.name))
    return found - {os.getpid()}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def begin(*specs: str, **options: Any) -> Node:
        nodes.append(Node(tmp_path / f"node{len(nodes)}", *specs, **options))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.end()


def test_each_actor_has_a_process_and_all_stop_in_order(start: Callable[..., Node]) -> None:
    node = start(COORDINATION, GOOD, "b=tests.actors.little:good")
    state = node.live()
    pids = {actor["pid"] for actor in state["actors"].values()}
    assert len(pids) == 3
    assert not pids & {state["main"], state["admin"], state["root"]}
    assert node.say("drain") == "drained True"
    assert node.lines("drained") == [str(state["actors"]["coordination"]["pid"])]
    assert node.say("stop") == "stopped True"
    assert len(node.lines("good-stopped")) == 2
    assert len(node.lines("coordination-stopped")) == 1
    _, errors = node.process.communicate(timeout=10)
    assert node.process.returncode == 0
    assert "Warning" not in errors
    node.gone()


def test_actors_are_forked_before_any_thread_starts(start: Callable[..., Node]) -> None:
    node = start("a=tests.actors.little:threads")
    node.live()
    assert (node.folder / "threads").read_text() == "2"
    state = node.state()
    for pid in (state["main"], state["admin"], state["root"]):
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


def test_an_actor_killed_is_replaced_and_its_neighbours_stay(start: Callable[..., Node]) -> None:
    node = start(GOOD, "b=tests.actors.little:good")
    before = node.live()
    os.kill(node.pid("a"), signal.SIGKILL)
    after = node.until(lambda state: state["live"] and state["actors"]["a"]["pid"] != before["actors"]["a"]["pid"])
    assert after["actors"]["b"] == before["actors"]["b"]
    assert node.say("status") == "[('a', 1), ('b', 0)]"


def children(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def test_a_restart_is_on_the_log_also_when_who_says_it_is_killed(start: Callable[..., Node]) -> None:
    node = start(GOOD, "b=tests.actors.little:good")
    before = node.live()
    os.kill(node.pid("a"), signal.SIGKILL)
    killed = 0
    while killed < 2:
        for pid in children(before["root"]):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "corelog-facts\n":
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    segment = node.folder / "log" / "00000000000000000000.seg"
    node.until(lambda _: segment.exists() and b"actor.restarted.v1" in segment.read_bytes())


def test_restarts_in_quick_succession_are_all_on_the_log(start: Callable[..., Node]) -> None:
    names = "abcdefgh"
    node = start(*(f"{name}=tests.actors.little:good" for name in names))
    node.live()
    for name in names:
        os.kill(node.pid(name), signal.SIGKILL)
        time.sleep(0.03)
    segment = node.folder / "log" / "00000000000000000000.seg"
    node.until(lambda _: segment.exists() and segment.read_bytes().count(b"actor.restarted.v1") >= len(names))


@pytest.mark.parametrize("victim", ["admin", "root"])
def test_the_system_is_made_anew_when_its_head_is_killed(start: Callable[..., Node], victim: str) -> None:
    node = start(GOOD, "b=tests.actors.little:good")
    before = node.live()
    os.kill(before[victim], signal.SIGKILL)
    after = node.until(lambda state: state["live"] and state[victim] != before[victim])
    assert not set(after["pids"]) & set(before["pids"])
    assert not node.mine() & set(before["pids"]), "orphans of the old system live"
    assert node.say("stop") == "stopped True"
    node.process.communicate(timeout=10)
    node.gone()


def test_nothing_survives_a_kill_of_the_main_process(start: Callable[..., Node]) -> None:
    node = start(GOOD, "b=tests.actors.little:good", COORDINATION)
    node.live()
    assert len(node.mine()) >= 6
    node.process.kill()
    node.gone()


def test_coordination_is_told_whose_loop_turns(start: Callable[..., Node]) -> None:
    """A master that renews but whose keys or scheduler stand still is worse than none."""
    node = start(
        "coordination=tests.actors.little:watching",
        "kv=tests.actors.little:good",
        "scheduler=tests.actors.little:good",
        "engine=tests.actors.little:good",
        alone=False,
    )
    node.live()
    node.until(lambda _: set(node.lines("progress")) == {"kv", "scheduler"})
    os.kill(node.pid("kv"), signal.SIGSTOP)
    time.sleep(0.5)  # what was said before is told
    before = node.lines("progress")
    node.until(lambda _: node.lines("progress").count("scheduler") >= before.count("scheduler") + 5)
    assert node.lines("progress").count("kv") == before.count("kv")
    os.kill(node.pid("kv"), signal.SIGCONT)
    node.until(lambda _: node.lines("progress").count("kv") > before.count("kv"))


def test_thespians_logger_killed_harms_nobody(start: Callable[..., Node]) -> None:
    node = start(GOOD)
    state = node.live()
    (logger,) = node.mine() - set(state["pids"]) - {state["main"]}
    os.kill(logger, signal.SIGKILL)
    os.kill(node.pid("a"), signal.SIGKILL)
    node.until(lambda now: now["live"] and now["actors"]["a"]["pid"] != state["actors"]["a"]["pid"])
    assert node.say("stop") == "stopped True"
    node.process.communicate(timeout=10)
    node.gone()


@pytest.mark.parametrize("one_process", [False, True])
def test_an_actor_that_fails_is_started_anew_with_backoff(start: Callable[..., Node], one_process: bool) -> None:
    node = start("a=tests.actors.little:once_broken", "b=tests.actors.little:broken", one_process=one_process)
    node.until(lambda state: state["actors"].get("a", {}).get("state") == "running")
    state = node.until(lambda state: len(node.lines("broken")) >= 4)
    assert state["actors"]["b"]["words"] in ("RuntimeError: this one can't run", "")
    assert len(node.lines("once-broken")) == 2
    if one_process:
        assert {actor["pid"] for actor in state["actors"].values()} == {state["main"]}
    assert node.say("stop") == "stopped True"


def test_backoff_grows_from_nothing_to_half_a_minute() -> None:
    waits = [backoff_s(failures) for failures in range(12)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 30
    assert backoff_s(10**6) == 30


def test_a_failure_that_no_restart_mends_is_told_and_not_repeated(start: Callable[..., Node]) -> None:
    node = start("a=tests.actors.little:refusing", GOOD.replace("a=", "b="))
    state = node.until(lambda state: bool(state.get("failed")))
    assert state["actors"]["a"]["words"] == "Refused: another node has this machine id"
    assert node.say("status") == "[('a', 0), ('b', 0)]"


@pytest.mark.parametrize("lost", ["StartAll", "Start"])
def test_the_node_comes_up_also_when_a_message_of_its_start_is_lost(start: Callable[..., Node], lost: str) -> None:
    node = start(GOOD, "b=tests.actors.little:good", lose=lost)
    node.live()
    assert node.say("stop") == "stopped True"
    node.gone()


def test_a_loop_that_stands_still_is_killed_and_replaced(start: Callable[..., Node]) -> None:
    node = start("a=tests.actors.little:stuck", looks=2)
    node.until(lambda state: len(node.lines("stuck")) >= 2)
    first, second, *_ = node.lines("stuck")
    assert first != second


def test_an_actor_that_will_not_end_is_killed_at_the_deadline(start: Callable[..., Node]) -> None:
    node = start("a=tests.actors.little:slow")
    node.live()
    assert node.say("stop") == "stopped False"
    node.process.communicate(timeout=10)
    node.gone()


def test_one_process_runs_all_on_one_loop(start: Callable[..., Node]) -> None:
    node = start(COORDINATION, GOOD, one_process=True)
    state = node.live()
    assert {actor["pid"] for actor in state["actors"].values()} == {state["main"]}
    assert node.say("drain") == "drained True"
    assert node.say("stop") == "stopped True"
    assert node.lines("good-stopped") == [str(state["main"])]


def test_a_foreign_admin_is_not_joined(start: Callable[..., Node], tmp_path: Path) -> None:
    """ActorSystem() would silently join it, and run its old code."""
    stale = subprocess.Popen(
        [sys.executable, "-c", STALE_ADMIN, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "THESPLOG_FILE": str(tmp_path / "thespian.log")},
    )
    try:
        assert stale.stdout
        port = stale.stdout.readline().strip()
        assert port.isdigit()
        node = start(GOOD, ports=port)
        state = node.live()
        assert listening(state["admin"]) != {("127.0.0.1", int(port))}
        assert state["actors"]["a"]["pid"] in node.mine()
    finally:
        stale.communicate("\n", timeout=30)


STALE_ADMIN = """
import socket, sys
with socket.socket() as probe:
    probe.bind(("", 0))
    port = probe.getsockname()[1]
from thespian.actors import ActorSystem
system = ActorSystem("multiprocTCPBase", {"Admin Port": port})
print(port, flush=True)
sys.stdin.readline()
system.shutdown()
"""


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of the TCP sockets that a process listens on."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(fd)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            host, port = fields[1].split(":")
            found.add((socket.inet_ntoa(struct.pack("<I", int(host, 16))), int(port, 16)))
    return found


def test_only_loopback_is_listened_on(start: Callable[..., Node]) -> None:
    node = start(GOOD)
    node.live()
    heard = set().union(*(listening(pid) for pid in node.mine()))
    assert heard
    assert {host for host, _ in heard} == {"127.0.0.1"}


class Poison:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_message_without_the_nodes_seal_is_never_unpickled(start: Callable[..., Node], tmp_path: Path) -> None:
    """Anybody on the machine can connect; a pickle is code, and the node may run as root."""
    node = start(GOOD)
    state = node.live()
    canary = tmp_path / "owned"
    raw = pickle.dumps((None, Poison(canary)))
    assert pickle.loads(raw)[1] is None and canary.exists()  # noqa: PT018 - the poison works
    canary.unlink()
    for address in set().union(*(listening(pid) for pid in node.mine())):
        with socket.create_connection(address, timeout=0.5) as to:
            to.sendall(b"%d>" % len(raw) + raw)
            with contextlib.suppress(OSError):  # the main process listens only while it waits for an answer
                to.recv(100)
        with socket.create_connection(address, timeout=0.5) as to:
            to.sendall(os.urandom(200))
    os.kill(node.pid("a"), signal.SIGKILL)  # all of them still do what they are for
    node.until(lambda now: now["live"] and now["actors"]["a"]["pid"] != state["actors"]["a"]["pid"])
    assert not canary.exists()


def test_the_nodes_writer_says_its_new_feature_level_at_the_start(start: Callable[..., Node], tmp_path: Path) -> None:
    """A writer that once said it knows level 0 and is silent ever since would bar the log from a higher level."""
    folder = tmp_path / "node0"
    folder.mkdir()
    (folder / "node-writer.json").write_text('{"incarnation":7,"level":0}')
    node = start(GOOD)
    node.live()
    segment = folder / "log" / "00000000000000000000.seg"
    node.until(lambda _: segment.exists() and b"actor.opened" in segment.read_bytes())
    node.until(lambda _: last_writer(str(folder)).level == LEVEL)


# -- the board ----------------------------------------------------------------------------------------------------


@pytest.fixture
def board() -> Iterator[boards.Board]:
    made = boards.Board()
    yield made
    made.close()


def test_a_note_is_read_as_written(board: boards.Board) -> None:
    note = boards.Note(7, "ended", "why — ever", 4, True, report={"live": True, "applied": 12})
    board.write(3, note)
    assert board.read(3) == note
    assert board.read(2) == boards.Note()
    assert board.read(4) == boards.Note()


def test_long_words_and_reports_are_cut_and_nobody_elses_slot_is_touched(board: boards.Board) -> None:
    board.write(4, boards.Note(1, "running"))
    board.write(3, boards.Note(2, "ended", "\N{SNOWMAN}\n" * 3000, report={"x": "y" * 9000}))
    assert board.read(3).pid == 2
    assert board.read(3).state == "ended"
    assert board.read(4) == boards.Note(1, "running")


def test_a_torn_note_reads_as_none(board: boards.Board) -> None:
    board.write(3, boards.Note(2, "running", report={"applied": 1}))
    board._page[3 * boards.SLOT_BYTES + 30] ^= 1
    assert board.read(3) == boards.Note()


def test_news_are_heard_once(board: boards.Board) -> None:
    import select

    def heard() -> bool:
        return bool(select.select([board.news], [], [], 0)[0])

    assert not heard()
    board.write(3, boards.Note(1, "running"))
    assert heard()
    board.heard()
    assert not heard()
    for _ in range(100_000):
        board.ring()  # a full pipe blocks nobody


def test_beats_are_counted(board: boards.Board) -> None:
    board.write(2, boards.Note(1, "running"))
    board.beat(2)
    board.beat(2)
    assert board.beats(2) == 2
    assert board.read(2).pid == 1


# -- the fact -----------------------------------------------------------------------------------------------------


def test_replicas_take_the_fact_whatever_was_said_before(tmp_path: Path) -> None:
    replica = Replica(ControlFold())
    founding = Record("0" * 32, "log", "node@x", 1, 1, 0, encode([say(LogOpened(id="0" * 32, level=LEVEL))]))
    replica.apply(Entry(0, founding.canonical()))
    setting = Setting(machine="5" * 32, nonce="n", boot_id="b", folder=str(tmp_path), log="memory://", log_id="0" * 32)
    for offset, wall_ms in ((1, 5000), (2, 4000)):  # the clock was set back in between
        fact = Fallen("kv", "process 7 was killed", offset, 100)
        said = record(setting, (fact,), next_incarnation(str(tmp_path), wall_ms), wall_ms)
        applied = replica.apply(Entry(offset, said.canonical()))
        assert [one.outcome for one in applied] == [DONE, DONE]
    assert replica.log.restarts == {f"kv@{'5' * 32}": 2}
    assert replica.log.void_incarnations == 0


def test_incarnations_of_the_nodes_writer_only_grow(tmp_path: Path) -> None:
    first = next_incarnation(str(tmp_path), 1000)
    assert next_incarnation(str(tmp_path), 500) > first  # a clock that was set back
    assert next_incarnation(str(tmp_path), 5000) == 5000
    (tmp_path / "node-writer.json").write_text("{torn")
    assert last_writer(str(tmp_path)).incarnation == 0
    assert next_incarnation(str(tmp_path), 6000) == 6000
