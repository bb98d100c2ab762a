"""The adapter to Thespian: the root actor, the inner ones, and the system that they live in."""

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from thespian import actors as thespian

from actors.setting import Setting
from actors.supervision import process
from actors.supervision.board import FIRST, ROOT, SLOTS, Board, Note
from actors.supervision.facts import last_writer
from actors.supervision.messages import (
    ActorStatus,
    Drain,
    Fallen,
    Gone,
    Query,
    Spec,
    Start,
    StartAll,
    Status,
    Stop,
    Turn,
)
from actors.supervision.transport import Here, PortTaken, here, settle
from streams.replay import LEVEL

REPORTER_SLOT = SLOTS - 1
#: The name of the transient actor that says facts.
FACTS = "facts"
#: Who says facts ends sooner by itself (actors.supervision.facts.TRY_S and its start).
REPORTER_S = 90.0
#: The master renews only while these work (docs: the election).
WATCHER, WATCHED = "coordination", ("kv", "scheduler")
#: An actor that lived for so long is started anew at once when it dies; others wait, ever longer.
SETTLED_S = 30.0
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 30.0


def backoff_s(failures: int) -> float:
    """How long to wait before the start after this many failures in a row: 0, 0.1, 0.2, 0.4 … 30 s."""
    return 0.0 if failures == 0 else min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16))


#: Thespian's own logger process; ours write to standard error by themselves.
_LOG_DEFS = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "root": {"level": "ERROR", "handlers": ["stderr"]},
}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class System:
    """Thespian's actor system of one node, with its root actor. Made before any thread of this process starts."""

    def __init__(
        self, board: Board, hold: Callable[[], None], one_process: bool, port: Callable[[], int] = free_port
    ) -> None:
        """Raises PortTaken after three ports that were taken between asking and listening."""
        settle(Here(board, os.getpid(), os.urandom(32), one_process, hold))
        self._keep_logging()
        for attempt in range(3):
            try:
                self._system = self._open(one_process, port())
                break
            except PortTaken:
                if attempt == 2:
                    raise
        self.root = self._system.createActor(Root)

    @staticmethod
    def _keep_logging() -> None:
        global _logging
        _logging = (logging.root, logging.Logger.manager)

    @staticmethod
    def _open(one_process: bool, port: int) -> Any:
        if one_process:
            return thespian.ActorSystem("simpleSystemBase", transientUnique=True)
        return thespian.ActorSystem("multiprocTCPBase", {"Admin Port": port}, logDefs=_LOG_DEFS, transientUnique=True)

    def tell(self, message: object) -> None:
        self._system.tell(self.root, message)

    def ask(self, message: object, timeout_s: float = 10.0) -> Any:
        return self._system.ask(self.root, message, timedelta(seconds=timeout_s))

    def close(self) -> None:
        """Close what this process has open towards the admin; the processes are ended by who knows their ids."""
        base = self._system._systemBase
        if hasattr(base, "transport"):
            base.transport.close()
        else:
            self._system.shutdown()


_logging: tuple[Any, Any] = (logging.root, logging.Logger.manager)


def _plain_logging() -> None:
    """Thespian sends standard logging to a process of its own; ours goes where the main process set it up to go."""
    logging.root, logging.Logger.root = _logging[0], _logging[0]
    logging.Logger.manager = _logging[1]


# -- the actors -------------------------------------------------------------------------------------------------


class Inner(thespian.Actor):  # type: ignore[misc]
    """Runs one ``serve``. In a process of its own, the process ends with it."""

    def __init__(self) -> None:
        self._running: process.Running | None = None

    def receiveMessage(self, message: Any, _sender: Any) -> None:
        match message:
            case Start():
                if not here().one_process:
                    _plain_logging()
                    process.name_process(f"corelog-{message.spec.name}")
                self._running = process.Running(message, here().board, self._ended)
            case Stop() | thespian.ActorExitRequest() if self._running is not None:
                self._running.stop()
            case Drain() if self._running is not None:
                self._running.drain()

    @staticmethod
    def _ended(note: Note) -> None:
        if not here().one_process:
            process.exit_now((note.exit_code or 1) if note.words else 0)


class _Child:
    """What the root knows of one actor. Addresses are compared by ``==``; they can't be dictionary keys."""

    def __init__(self, spec: Spec, slot: int) -> None:
        self.spec = spec
        self.slot = slot
        self.address: Any = None
        self.restarts = 0
        self.failures = 0
        self.started_s = 0.0
        self.due_s: float | None = None
        self.stopping = False


class Root(thespian.Actor):  # type: ignore[misc]
    """Creates the others, starts anew what dies, has it said on the log. Starts no thread: it forks."""

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._setting: Setting | None = None
        self._facts: list[Fallen] = []
        self._saying: tuple[Fallen, ...] = ()
        self._reporter_until_s = 0.0
        self._reporter: Any = None
        self._stopping = False
        self._logger = structlog.get_logger(actor="node")

    def receiveMessage(self, message: Any, sender: Any) -> None:
        match message:
            case StartAll():
                self._start_all(message)
            case thespian.ChildActorExited():
                self._exited(message.childAddress)
            case thespian.WakeupMessage() | Turn():
                self._turn()
            case Gone():
                self._gone(message)
            case Drain():
                for child in self._children:
                    if child.address is not None:
                        self.send(child.address, message)
            case Stop():
                self._stop(message)
            case Query():
                self.send(sender, self._status())
            case thespian.ActorExitRequest():
                self._stopping = True

    # -- starting and stopping

    def _start_all(self, message: StartAll) -> None:
        if not here().one_process:
            _plain_logging()
            process.name_process("corelog-root")
        here().board.write(ROOT, Note(pid=os.getpid(), state="running"))
        self._setting = message.setting
        self._children = [_Child(spec, FIRST + index) for index, spec in enumerate(message.specs)]
        for child in self._children:
            self._start(child)
        self._facts += message.fallen
        before = last_writer(message.setting.folder)
        self._report(introduce=before.incarnation > 0 and before.level != LEVEL)

    def _start(self, child: _Child) -> None:
        assert self._setting is not None
        child.due_s = None
        child.started_s = time.monotonic()
        here().board.clear(child.slot)
        if child.address is None:
            child.address = self.createActor(Inner)
        watches: tuple[tuple[str, int], ...] = ()
        if child.spec.name == WATCHER:
            watches = tuple((other.spec.name, other.slot) for other in self._children if other.spec.name in WATCHED)
        self.send(child.address, Start(child.spec, child.slot, self._setting, watches=watches))

    def _stop(self, message: Stop) -> None:
        self._stopping = True
        for child in self._children:
            if message.names and child.spec.name not in message.names:
                continue
            child.stopping, child.due_s = True, None
            if child.address is not None:
                self.send(child.address, message)
        here().board.ring()

    # -- deaths

    def _exited(self, address: Any) -> None:
        if self._reporter is not None and address == self._reporter:
            self._reported()
            return
        for child in self._children:
            if child.address is not None and child.address == address:
                child.address = None
                self._fell(child)

    def _gone(self, message: Gone) -> None:
        if message.name == FACTS:
            if self._reporter is not None and here().board.read(REPORTER_SLOT).pid == message.pid:
                self._reported()
            return
        for child in self._children:
            known = child.spec.name == message.name and here().board.read(child.slot).pid == message.pid
            if known and child.due_s is None and child.address is not None:
                child.address = None
                self._fell(child)

    def _fell(self, child: _Child) -> None:
        note = here().board.read(child.slot)
        reason = note.words or f"process {note.pid} was killed"
        if child.stopping or self._stopping or note.stops_node:
            here().board.write(child.slot, _ended(note, reason))
            return
        now_s = time.monotonic()
        if now_s - child.started_s > SETTLED_S:
            child.failures = 0
        wait_s = backoff_s(child.failures)
        child.failures += 1
        child.restarts += 1
        self._logger.warning(
            "an actor ended and is started anew", died=child.spec.name, reason=reason, restarts=child.restarts
        )
        self._facts.append(Fallen(child.spec.name, reason[:500], child.restarts, round(wait_s * 1000)))
        if wait_s == 0:
            self._start(child)
        else:
            here().board.write(child.slot, _ended(note, reason))
            child.due_s = now_s + wait_s
            if not here().one_process:
                self.wakeupAfter(timedelta(seconds=wait_s))
        self._report()

    def _turn(self) -> None:
        now_s = time.monotonic()
        for child in self._children:
            if child.due_s is not None and child.due_s <= now_s and not self._stopping:
                self._start(child)
            elif here().one_process and child.due_s is None and not child.stopping and self._over(child.slot):
                self._fell(child)
        if here().one_process and self._reporter is not None and self._over(REPORTER_SLOT):
            self.send(self._reporter, thespian.ActorExitRequest())
            self._reported()

    @staticmethod
    def _over(slot: int) -> bool:
        return here().board.read(slot).state == "ended"

    # -- facts

    def _report(self, introduce: bool = False) -> None:
        """Have the facts said by a transient actor: this process may start no thread, and must not wait.

        ``introduce``: also without facts, so that the log knows the feature level of this version of the writer.
        """
        if not (self._saying or self._facts or introduce) or self._stopping or self._setting is None:
            return
        if self._reporter is not None and time.monotonic() < self._reporter_until_s:
            return
        # one killed as it was forked is announced by nobody: its time is over some day
        self._reporter_until_s = time.monotonic() + REPORTER_S
        self._saying, self._facts = (*self._saying, *self._facts), []
        here().board.clear(REPORTER_SLOT)
        self._reporter = self.createActor(Inner)
        spec = Spec(FACTS, "actors.supervision.facts:serve")
        self.send(self._reporter, Start(spec, REPORTER_SLOT, self._setting, (self._saying,), once=True))

    def _reported(self) -> None:
        """The transient actor is over. Killed before it was done, its facts are said again: a fact that stands twice
        bears the same count of restarts, one that was lost would be missed by nobody."""
        self._reporter = None
        if self._over(REPORTER_SLOT):
            self._saying = ()
        self._report()

    def _status(self) -> Status:
        notes = [(child, here().board.read(child.slot)) for child in self._children]
        return Status(
            os.getpid(),
            tuple(ActorStatus(child.spec.name, note.pid, note.state, child.restarts) for child, note in notes),
        )


def _ended(note: Note, reason: str) -> Note:
    return msgspec.structs.replace(note, state="ended", words=note.words or reason)
