"""The shim: one small process per run of a unit, which outlives the node.

Started as ``python -I -S`` with the standard library alone. It reads one marshalled ``dict`` (``SPEC``, see
:mod:`actors.engine.child`) from its standard input, leaves the node's session by a double fork, becomes the subreaper
of all that the unit forks, and answers ``ok`` or a reason on its standard output. Then it runs the unit to its end,
the way systemd does:

    ExecStartPre… → ExecStart (or each, for oneshot) → [READY=1] → … → ExecStop… → KillSignal → SIGKILL

What happens is written, atomically, to ``status`` in the unit's folder, where a supervisor (also one that starts
later) reads it. SIGTERM asks the shim to stop the unit, SIGINT to kill it now, SIGHUP to run ExecReload once the unit
runs. It polls nothing.
"""

import fcntl
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from actors.engine import cgroups, child, deadline
from actors.engine.child import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, SPEC, prctl
from actors.engine.journal_file import JournalFile

#: Deaths by these are a clean end of a service, as in systemd.
CLEAN_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
READ_BYTES = 65536


class Ended(Exception):
    """The run is over: ``result`` is success, exit-code, signal, timeout, exec, stopped, fence."""

    def __init__(self, result: str, detail: str = "") -> None:
        super().__init__(result, detail)
        self.result = result
        self.detail = detail


class Shim:
    """One run. All I/O is in ``_turn``; the phases read like the unit file."""

    def __init__(self, spec: SPEC) -> None:
        self.spec = spec
        self.journal = JournalFile(".", spec["journal_bytes"])
        self.boot_id = cgroups.boot_id()
        self.cgroup = cgroups.make(spec["cgroup"], spec["cgroup_roots"]) if spec["cgroup"] else ""
        self.main = 0
        self.main_exit: tuple[int, int] | None = None
        self.exits: dict[int, tuple[int, int]] = {}
        self.childless = True
        self.ready = False
        self.asked = ""  # "stop" or "kill"
        self.reload_asked = False
        self.guard: socket.socket | None = None
        self.guarding = False
        self.unsaved = False
        self.status: dict[str, Any] = {
            **{key: spec[key] for key in ("unit", "machine", "fence", "generation", "run", "fenced")},
            "boot_id": self.boot_id,
            "shim": os.getpid(),
            "shim_ticks": cgroups.start_ticks(os.getpid()),
            "cgroup": self.cgroup,
            "phase": "starting",
            "ready": False,
            "pid": 0,
            "ticks": 0,
            "code": 0,
            "signal": 0,
            "result": "",
            "detail": "",
            "text": "",
        }
        self.poll = select.poll()
        self.fds: dict[int, str] = {}
        self._signals()
        self._notify_socket()

    # -- the run ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the unit to its end; never raises."""
        try:
            try:
                self._phases()
                end = Ended("success")
            except Ended as error:
                end = error
            self._end(end)
        except Exception as error:  # the last word must reach the supervisor
            self._end_tree()
            self._save(phase="ended", result="exec", detail=f"the shim failed: {type(error).__name__}: {error}")
        finally:
            if self.cgroup:
                cgroups.remove(self.cgroup)

    def _phases(self) -> None:
        spec = self.spec
        until = _until(spec["start_timeout_s"])
        for command in spec["pre"]:
            self._wait_for(command, until, "ExecStartPre")
        self._fence()
        if spec["type"] == "oneshot":
            for command in spec["start"]:
                self._wait_for(command, until, "ExecStart", main=True)
            self.main = 0
            if not spec["remain"]:
                return
        else:
            self._start_main(spec["start"][0], until)
        for command in spec["post"]:
            self._wait_for(command, until, "ExecStartPost")
        self.ready = True
        self._save(phase="running", ready=True)
        if spec["type"] != "oneshot":
            self._run_on(lambda: self.main_exit is not None)
            result = self._result(self.main_exit)
            if result is not None:
                raise result
            if not spec["remain"]:
                return
            self.main = 0
            self._save(pid=0, ticks=0, detail="its process ended; it remains active")
        self._run_on(lambda: False)

    def _run_on(self, over: Callable[[], bool]) -> None:
        """It runs: ExecReload whenever that is asked for, until ``over``."""
        while True:
            self._pump(lambda: over() or self.reload_asked)
            if over():
                return
            self.reload_asked = False
            for command in self.spec["reload"]:
                self._aside(command, "ExecReload")

    def _start_main(self, command: dict[str, Any], until: float | None) -> None:
        self.main = self._spawn(command, "ExecStart")
        self._save(phase="started", pid=self.main, ticks=cgroups.start_ticks(self.main))
        if self.spec["type"] != "notify":
            return
        if not self._pump(lambda: self.ready or self.main_exit is not None, until):
            raise Ended("timeout", f"no READY=1 within {self.spec['start_timeout_s']:g} s")
        if not self.ready:
            raise self._result(self.main_exit) or Ended("exit-code", "it ended before it said READY=1")

    def _wait_for(self, command: dict[str, Any], until: float | None, what: str, main: bool = False) -> None:
        pid = self._spawn(command, what)
        if main:
            self.main, self.main_exit = pid, None
            self._save(phase="started", pid=pid, ticks=cgroups.start_ticks(pid))
        if not self._pump(lambda: pid in self.exits, until):
            raise Ended("timeout", f"{what} {command['argv'][0]} did not end in {self.spec['start_timeout_s']:g} s")
        code, number = self.exits[pid]
        if main:
            self._save(code=code, signal=number)
        if (code or number) and not command["ignore"]:
            raise Ended("signal" if number else "exit-code", f"{what} {command['argv'][0]} {_how(code, number)}")

    def _result(self, exit_: tuple[int, int] | None) -> Ended | None:
        code, number = exit_ or (0, 0)
        ignored = bool(self.spec["start"][0]["ignore"])
        self._save(code=code, signal=number)
        if ignored or (not code and (not number or number in CLEAN_SIGNALS)):
            return None
        if self.spec["fenced"] and number == signal.SIGKILL and deadline.now_ms() >= self._deadline_ms():
            return Ended("fence", "killed: this machine's right to run it ended")
        return Ended("signal" if number else "exit-code", "it " + _how(code, number))

    def _end(self, end: Ended) -> None:
        """ExecStop, the kill, ExecStopPost, and the last status."""
        spec = self.spec
        self._save(phase="stopping", ready=False)
        asked, self.asked = self.asked, "kill" if self.asked == "kill" else ""
        if end.result in ("stopped", "success") and self.ready and asked != "kill":
            for command in spec["stop"]:
                self._aside(command, "ExecStop")
        self._end_tree()
        self.asked = ""
        for command in spec["stop_post"]:
            self._aside(command, "ExecStopPost")
        self._end_tree()
        self._drain()
        self.journal.say(f"ended: {end.result}" + (f", {end.detail}" if end.detail else ""))
        self._save(phase="ended", result=end.result, detail=end.detail)
        while self.unsaved:
            time.sleep(1)
            self._save()

    def _aside(self, command: dict[str, Any], what: str) -> None:
        """A command whose failure changes nothing but is said."""
        try:
            pid = self._spawn(command, what)
        except Ended as error:
            self.journal.say(f"{what}: {error.detail}")
            return
        if not self._pump(lambda: pid in self.exits, _until(self.spec["stop_timeout_s"]), stoppable=False):
            self.journal.say(f"{what} {command['argv'][0]} did not end in {self.spec['stop_timeout_s']:g} s: killed")
            cgroups.signal(pid, signal.SIGKILL)
        elif any(self.exits[pid]) and not command["ignore"]:
            self.journal.say(f"{what} {command['argv'][0]} {_how(*self.exits[pid])}")

    def _end_tree(self) -> None:
        """KillSignal, the time to comply, SIGKILL; returns when nothing of the unit is left.

        All that the unit forked are children of this subreaper in the end: no child means nothing is left.
        """
        self._reap()
        if self.childless:
            return
        spec = self.spec
        if self.asked != "kill" and spec["kill_mode"] != "none":
            whole = spec["kill_mode"] == "control-group"
            for pid in self._members() if whole or not self.main else [self.main]:
                cgroups.signal(pid, spec["kill_signal"])
                cgroups.signal(pid, signal.SIGCONT)
            gone = lambda: self.childless or (not whole and self.main_exit is not None)  # noqa: E731
            if not self._pump(gone, _until(spec["stop_timeout_s"]), stoppable=False) and self.asked != "kill":
                self.journal.say(f"did not end within TimeoutStopSec={spec['stop_timeout_s']:g}: SIGKILL")
        while not self.childless:
            if not (self.cgroup and cgroups.kill(self.cgroup)):
                cgroups.kill_tree(os.getpid())
            for pid in cgroups.descendants(os.getpid()):
                cgroups.signal(pid, signal.SIGKILL)  # what left the cgroup on its own
            self._pump(lambda: self.childless, time.monotonic() + 1, stoppable=False)

    def _members(self) -> list[int]:
        inside = cgroups.pids(self.cgroup) if self.cgroup else []
        return list(dict.fromkeys(inside + cgroups.descendants(os.getpid())))

    # -- processes --------------------------------------------------------------------------------------------

    def _spawn(self, command: dict[str, Any], what: str) -> int:
        """Fork and exec; returns the pid, raises Ended("exec") with the reason when it can't be executed."""
        told, tell = os.pipe2(os.O_CLOEXEC)
        out, err = self._pipes()
        pid = os.fork()
        if pid == 0:
            child.become(self.spec, command, self.cgroup, self.main, tell, out, err)
        for fd in (tell, out, err):
            os.close(fd)
        self.childless = False
        with open(told, "rb") as pipe:
            reason = pipe.read().decode("utf-8", "replace")
        if reason:
            self._pump(lambda: pid in self.exits, stoppable=False)
            if not command["ignore"]:
                raise Ended("exec", f"{what}: {reason}")
        return pid

    def _pipes(self) -> tuple[int, int]:
        ends = []
        for stream in "OE":
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            self._watch(read, stream)
            ends.append(write)
        return ends[0], ends[1]

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return
            if not pid:
                return
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self.exits[pid] = (0 if number else os.WEXITSTATUS(status), number)
            if pid == self.main:
                self.main_exit = self.exits[pid]

    # -- the loop ---------------------------------------------------------------------------------------------

    def _signals(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._watch(read, "signal")
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._ask("stop"))
        signal.signal(signal.SIGINT, lambda *_: self._ask("kill"))
        signal.signal(signal.SIGHUP, lambda *_: self._ask_reload())
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _ask(self, what: str) -> None:
        if self.asked != "kill":
            self.asked = what

    def _ask_reload(self) -> None:
        self.reload_asked = True

    def _notify_socket(self) -> None:
        """NOTIFY_SOCKET, in the abstract name space: no path limit, no folder that the unit's user must enter."""
        if self.spec["type"] != "notify":
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"corelog/{self.spec['run']}/{self.spec['unit'][:40]}"
        sock.bind("\0" + name)
        self.notify = sock
        self.spec["env"]["NOTIFY_SOCKET"] = "@" + name
        self._watch(sock.fileno(), "notify")

    def _watch(self, fd: int, what: str) -> None:
        self.fds[fd] = what
        self.poll.register(fd, select.POLLIN)

    def _pump(self, done: Callable[[], bool], until: float | None = None, stoppable: bool = True) -> bool:
        """Turn until ``done`` (True) or the monotonic time ``until`` (False). Asked to stop: raises Ended."""
        while True:
            self._reap()
            if done():
                return True
            if self.asked and (stoppable or self.asked == "kill"):
                if not stoppable:
                    return False
                raise Ended("stopped", "")
            if until is not None and time.monotonic() >= until:
                return False
            self._turn(until)

    def _turn(self, until: float | None) -> None:
        waits = [] if until is None else [until - time.monotonic()]
        if self.unsaved:
            waits.append(1.0)
        if self.guarding:
            waits.append((self._deadline_ms() - deadline.now_ms()) / 1000)
        timeout_ms = max(0, int(min(waits) * 1000) + 1) if waits else None
        for fd, _ in self.poll.poll(timeout_ms):
            self._readable(fd, self.fds[fd])
        if self.unsaved:
            self._save()
        if self.guarding and deadline.now_ms() >= self._deadline_ms():
            self.asked = "kill"

    def _readable(self, fd: int, what: str) -> None:
        if what == "notify":
            self._notified()
            return
        if what == "guard":
            self.guarding = True  # the watchdog is gone: until the node starts another, the shim keeps the deadline
            self._forget(fd)
            return
        try:
            raw = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if what == "signal":
            return
        if raw:
            self.journal.feed(what, raw)
            return
        self._forget(fd)
        os.close(fd)
        if what not in self.fds.values():
            self.journal.finish(what)

    def _forget(self, fd: int) -> None:
        self.poll.unregister(fd)
        del self.fds[fd]

    def _drain(self) -> None:
        """Read what the pipes still hold; nobody writes any more."""
        for fd, what in list(self.fds.items()):
            while what in ("O", "E") and fd in self.fds:
                before = len(self.fds)
                self._readable(fd, what)
                if len(self.fds) == before and not select.select([fd], [], [], 0)[0]:
                    break
        for stream in "OE":
            self.journal.finish(stream)

    def _notified(self) -> None:
        """READY=1, STATUS=, MAINPID= of sd_notify(3), from the unit's own user or root only."""
        space = socket.CMSG_SPACE(struct.calcsize("3i"))
        try:
            raw, control, _flags, _address = self.notify.recvmsg(4096, space)
        except BlockingIOError:
            return
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                _pid, uid, _gid = struct.unpack("3i", data[: struct.calcsize("3i")])
                if uid not in (0, os.getuid(), self.spec["uid"]):
                    return
        for line in raw.decode("utf-8", "replace").splitlines():
            key, _, value = line.partition("=")
            if key == "READY" and value == "1":
                self.ready = True
            elif key == "STATUS":
                self._save(text=value)
            elif key == "MAINPID" and value.isdigit() and int(value) in self._members():
                self.main, self.main_exit = int(value), None
                self._save(pid=self.main, ticks=cgroups.start_ticks(self.main))

    # -- status and fence -------------------------------------------------------------------------------------

    def _save(self, **changes: Any) -> None:
        self.status.update(changes)
        raw = marshal.dumps(self.status, 4)
        try:
            fd = os.open("status.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, raw)
            finally:
                os.close(fd)
            os.replace("status.new", "status")
            self.unsaved = False
        except OSError:
            self.unsaved = True
            if os.path.exists("journal.1"):
                os.unlink("journal.1")  # a full disk: the oldest lines of this unit make room

    def first_save(self) -> None:
        """Raises OSError: a run that can't be put on record is not begun."""
        self._save()
        if self.unsaved:
            raise OSError(28, "its status can't be written")

    def _deadline_ms(self) -> int:
        return deadline.read("../..", self.boot_id)

    def _fence(self) -> None:
        """Before a fenced unit runs: its machine has the right to, and a watchdog holds the deadline."""
        if not self.spec["fenced"]:
            return
        self._save()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(2)
        try:
            sock.connect("../../watchdog.sock")
            sock.sendall(f"hold process {self.spec['unit']} {os.getpid()} {self.cgroup or '-'}\n".encode())
            answer = sock.recv(100).decode("ascii", "replace")
        except OSError as error:
            raise Ended("fence", f"no watchdog answers ({error}): a fenced unit is not started") from error
        if not answer.startswith("ok"):
            raise Ended("fence", f"the watchdog refuses: {answer.strip() or 'it went away'}")
        if deadline.now_ms() >= self._deadline_ms():
            raise Ended("fence", "this machine's right to run fenced units has ended; not started")
        self.guard = sock
        self._watch(sock.fileno(), "guard")


def _until(timeout_s: float) -> float | None:
    return time.monotonic() + timeout_s if timeout_s > 0 else None


def _how(code: int, number: int) -> str:
    return f"was killed by {signal.Signals(number).name}" if number else f"exited with code {code}"


def main() -> None:
    """See the module. Exits 0 once the run is under way, 1 with a reason on standard output."""
    spec: SPEC = marshal.loads(sys.stdin.buffer.read())
    told, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        with open(told, "rb") as pipe:
            answer = pipe.read() or b"the shim died"
        os.write(1, answer)
        os._exit(0 if answer == b"ok" else 1)
    os.close(told)
    try:
        os.setsid()
        os.chdir(spec["folder"])
        lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_NAME, b"corelog-shim")
        shim = Shim(spec)
        shim.first_save()
    except OSError as error:
        busy = isinstance(error, BlockingIOError)
        os.write(tell, b"busy" if busy else f"{error.strerror}: {error.filename or spec['folder']}".encode())
        os._exit(1)
    os.write(tell, b"ok")
    os.close(tell)
    shim.run()
    os._exit(0)
