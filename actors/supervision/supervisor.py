"""What the node's main process does: starts the actor system, watches it, makes it anew, drains and stops it.

The main process starts no thread and forks nothing but the admin. It waits in ``turn`` for news on the board, for
signals, and for the end of the admin or of the root actor, which Thespian itself would not replace.
"""

import contextlib
import gc
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from actors.setting import Setting
from actors.supervision import process, system
from actors.supervision.board import ADMIN, FIRST, ROOT, SLOTS, Board, Note
from actors.supervision.messages import Drain, Fallen, Gone, Query, Spec, StartAll, Status, Stop, Turn
from actors.supervision.system import System, backoff_s

#: The main process looks at all loops' beats this often, and kills one that stood still for OVERDUE_LOOKS of them.
LOOK_S = 1.0
OVERDUE_LOOKS = 30
#: One that was to be forked and never began (a message of Thespian's can be lost) is noticed sooner.
UNBEGUN_LOOKS = 10
#: Who is stopped last: it says that the machine leaves.
LAST = "coordination"


class Supervisor:
    """``hold`` takes a process's share of the node's lock; ``port`` chooses the admin's."""

    def __init__(
        self,
        specs: Sequence[Spec],
        setting: Setting,
        one_process: bool = False,
        hold: Callable[[], None] = lambda: None,
        port: Callable[[], int] = system.free_port,
    ) -> None:
        assert len(specs) <= SLOTS - FIRST - 1, "the board has no slot for so many actors"
        self._specs = tuple(specs)
        self._setting = setting
        self._one_process = one_process
        self._hold = hold
        self._port = port
        self.board = Board()
        self._system: System | None = None
        self._failures = 0
        self._rebuilt = 0
        self._built_s = 0.0
        self._rebuild_at_s: float | None = None
        self._fallen: tuple[Fallen, ...] = ()
        self._watched: dict[int, int] = {}
        self._looked_s = 0.0
        self._told: set[tuple[str, int]] = set()
        self._beats: dict[int, tuple[int, int]] = {}
        self._stopping = False
        self._logger = structlog.get_logger(actor="node")

    # -- starting -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fork the admin, the root and the actors. No thread may run in this process yet."""
        threads = len(os.listdir("/proc/self/task"))
        assert threads == 1 or self._one_process, f"{threads} threads run: a forked actor could meet a held lock"
        if not self._one_process:
            process.adopt_orphans()
        gc.collect()
        gc.freeze()  # so that a collection in a forked process leaves the shared pages shared
        self._build()

    def _build(self) -> None:
        for slot in range(SLOTS):
            self.board.clear(slot)
        self._built_s, self._rebuild_at_s = time.monotonic(), None
        self._system = System(self.board, self._hold, self._one_process, self._port)
        self._system.tell(StartAll(self._specs, self._setting, self._fallen))
        self._fallen = ()
        self._beats.clear()
        self._told.clear()
        self._looked_s = time.monotonic()
        self._watch()

    # -- what is going on -----------------------------------------------------------------------------------------

    @property
    def notes(self) -> Mapping[str, Note]:
        """What each actor says of itself now."""
        return {spec.name: self.board.read(FIRST + index) for index, spec in enumerate(self._specs)}

    @property
    def running(self) -> bool:
        return all(note.state == "running" for note in self.notes.values())

    @property
    def live(self) -> bool:
        """Every actor has caught up with the log and serves (``report({"live": True})``)."""
        return all(note.state == "running" and note.report.get("live") is True for note in self.notes.values())

    @property
    def failed(self) -> tuple[str, Note] | None:
        """An actor that ended for a reason for which the whole node must end."""
        for name, note in self.notes.items():
            if note.state == "ended" and note.stops_node:
                return name, note
        return None

    def status(self) -> Status:
        """Asks the root. Raises RuntimeError when it doesn't answer."""
        answer = self._system.ask(Query()) if self._system is not None else None
        if not isinstance(answer, Status):
            raise RuntimeError("the node's root actor doesn't answer")
        return answer

    def pids(self) -> set[int]:
        """The processes of the board that are alive, without the main one."""
        found = {self.board.read(slot).pid for slot in range(SLOTS)} - {0, os.getpid()}
        return {pid for pid in found if _alive(pid)}

    # -- watching -------------------------------------------------------------------------------------------------

    def turn(self, timeout_s: float, also: Sequence[int] = ()) -> None:
        """Wait for news, at most ``timeout_s`` (also for file descriptors ``also``), and do what is to be done."""
        poll = select.poll()
        for fd in (self.board.news, *self._watched.values(), *also):
            poll.register(fd, select.POLLIN)
        with contextlib.suppress(InterruptedError):
            poll.poll(max(0.0, min(timeout_s, self._next_look_s())) * 1000)
        self.board.heard()
        self._reap()
        if self._one_process:
            if self._system is not None:
                self._system.tell(Turn())
            return
        self._watch()
        if self._stopping:
            return
        self._tell_ended()
        if self._rebuild_at_s is None and (dead := self._dead()):
            self._down(dead)
        if self._rebuild_at_s is not None and time.monotonic() >= self._rebuild_at_s:
            self._build()
        if time.monotonic() - self._looked_s >= LOOK_S:
            self._look()

    def _tell_ended(self) -> None:
        """Tell the root of each process that wrote its last words, once."""
        for index, spec in enumerate(self._specs):
            note = self.board.read(FIRST + index)
            if note.state == "ended" and not note.stops_node:
                self._gone(spec.name, note.pid)
        self._tell_reported(lambda note: note.state == "ended")

    def _tell_reported(self, over: Callable[[Note], bool]) -> None:
        """The same of the transient process that says facts: Thespian's own word of its end can be lost."""
        note = self.board.read(system.REPORTER_SLOT)
        if note.pid and over(note):
            self._gone(system.FACTS, note.pid)

    def _gone(self, name: str, pid: int) -> None:
        if self._system is not None and (name, pid) not in self._told:
            self._told = {told for told in self._told if told[0] != name} | {(name, pid)}
            self._system.tell(Gone(name, pid))

    def _next_look_s(self) -> float:
        if self._rebuild_at_s is not None:
            return self._rebuild_at_s - time.monotonic()
        return max(0.01, self._looked_s + LOOK_S - time.monotonic())

    def _watch(self) -> None:
        """Hold a pidfd of the admin and of the root; where the kernel has none, ``_look`` finds their end."""
        wanted = {pid for slot in (ADMIN, ROOT) if (pid := self.board.read(slot).pid)}
        for pid in list(self._watched):
            if pid not in wanted:
                os.close(self._watched.pop(pid))
        for pid in wanted - set(self._watched):
            with contextlib.suppress(OSError):
                self._watched[pid] = os.pidfd_open(pid)

    def _dead(self) -> str:
        for slot, name in ((ADMIN, "admin"), (ROOT, "root actor")):
            pid = self.board.read(slot).pid
            if pid and not _alive(pid):
                return f"the node's {name} (process {pid}) was killed"
        unbegun_s = time.monotonic() - self._built_s
        if self._system is not None and not self.board.read(ROOT).pid and unbegun_s > UNBEGUN_LOOKS * LOOK_S:
            return f"the node's root actor has not begun after {unbegun_s:.0f} s"
        return ""

    def _down(self, reason: str) -> None:
        """The system is headless: end what is left of it, and make it anew after a back-off."""
        now_s = time.monotonic()
        if now_s - self._built_s > system.SETTLED_S:
            self._failures = 0
        wait_s = backoff_s(self._failures)
        self._failures += 1
        self._rebuilt += 1
        self._logger.warning("the actor system is made anew", reason=reason, times=self._rebuilt)
        self._fallen = tuple(Fallen(spec.name, reason, self._rebuilt, round(wait_s * 1000)) for spec in self._specs)
        self._kill()
        if self._system is not None:
            self._system.close()
            self._system = None
        self._rebuild_at_s = now_s + wait_s

    def _look(self) -> None:
        """Has each loop turned since the last look? Counted in looks of this process, so that a sleeping machine or
        a stopped process group makes nobody overdue."""
        self._looked_s = time.monotonic()
        for index, spec in enumerate(self._specs):
            slot = FIRST + index
            note, beats = self.board.read(slot), self.board.beats(slot)
            if note.pid and not _alive(note.pid):
                self._gone(spec.name, note.pid)
            before, still = self._beats.get(slot, (-1, 0))
            still = still + 1 if beats == before and note.state != "ended" else 0
            self._beats[slot] = (beats, still)
            overdue = OVERDUE_LOOKS if note.pid else min(OVERDUE_LOOKS, UNBEGUN_LOOKS)
            if still >= overdue and self._system is not None:
                self._logger.error("an actor's loop stands still; it is killed", actor=spec.name, pid=note.pid)
                self._beats[slot] = (beats, 0)
                if note.pid and _alive(note.pid):
                    _kill(note.pid)
                else:
                    self._system.tell(Gone(spec.name, note.pid))
        self._tell_reported(lambda note: not _alive(note.pid))

    @staticmethod
    def _reap() -> None:
        """Orphans of this process's descendants end here (it is their subreaper)."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    # -- ending ---------------------------------------------------------------------------------------------------

    def drain(self, timeout_s: float, also: Sequence[int] = (), hurry: Callable[[], bool] = lambda: False) -> bool:
        """Have the mastership handed over; True when the one who holds it says ``{"left": True}``."""
        if self._system is None:
            return False
        self._stopping = True
        self._system.tell(Drain())
        return self._until(self._drained, timeout_s, also, hurry)

    def _drained(self) -> bool:
        note = self.notes.get(LAST)
        return note is None or note.state != "running" or note.report.get("left") is True

    def stop(self, timeout_s: float, also: Sequence[int] = (), hurry: Callable[[], bool] = lambda: False) -> bool:
        """End all actors, the one that says goodbye last. True if all ended by themselves within ``timeout_s``."""
        self._stopping = True
        in_order = False
        if self._system is not None:
            until_s = time.monotonic() + timeout_s
            others = tuple(spec.name for spec in self._specs if spec.name != LAST)
            if others:
                self._system.tell(Stop(others))
            in_order = self._until(lambda: self._over(others), until_s - time.monotonic(), also, hurry)
            if not hurry():
                self._system.tell(Stop())
                all_names = tuple(spec.name for spec in self._specs)
                in_order &= self._until(lambda: self._over(all_names), until_s - time.monotonic(), also, hurry)
        self._finish()
        return in_order

    def _over(self, names: Sequence[str]) -> bool:
        notes = self.notes
        return all(notes[name].state in ("ended", "") or not _alive(notes[name].pid) for name in names)

    def _until(
        self,
        reached: Callable[[], bool],
        timeout_s: float,
        also: Sequence[int],
        hurry: Callable[[], bool] = lambda: False,
    ) -> bool:
        until_s = time.monotonic() + timeout_s
        while not reached():
            if hurry() or time.monotonic() >= until_s or (not self._one_process and self._dead()):
                return reached()
            self.turn(min(0.1, until_s - time.monotonic()), also)
        return True

    def _finish(self) -> None:
        if self._system is not None:
            if self._one_process:
                process.Loop.end()
            self._system.close()
            self._system = None
        self._kill()
        for fd in self._watched.values():
            os.close(fd)
        self._watched.clear()
        self.board.close()

    def _kill(self) -> None:
        """SIGKILL to every process of the board, and wait until they are gone."""
        if self._one_process:
            return
        until_s = time.monotonic() + 5.0
        while (pids := self.pids()) and time.monotonic() < until_s:
            for pid in pids:
                _kill(pid)
            time.sleep(0.002)
            self._reap()
        self._reap()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie doesn't."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False
