"""The watchdog: ends fenced units when their machine's right to run them ends, whatever became of the node.

A small process of its own (``python -S -E``, standard library), one per data folder, which outlives the node. It
holds a timerfd on CLOCK_BOOTTIME at the deadline that the engine publishes (:mod:`actors.engine.deadline`). When the
timer fires it reads the deadline anew: moved on, it sleeps again; passed, it kills every fenced run that it knows,
and those that it finds in ``units/*/status``. It asks nobody and polls nothing: it works while the node's processes
are stopped, hang, or are dead, and at rest it wakes once per T_a.

Socket ``watchdog.sock`` (its folder is its owner's alone), lines of text:

    hold process UNIT SHIM_PID CGROUP|-                                     → ok DEADLINE_MS
    hold docker UNIT CONTAINER DOCKER_SOCKET                                → ok DEADLINE_MS
    drop UNIT                                                               → ok
    arm          (the deadline was set for the first time, or set back)     → ok DEADLINE_MS
    hold is refused when the deadline has passed:                           → no REASON

Whoever keeps its connection open sees by its end that the watchdog is gone.
"""

import ctypes
import fcntl
import marshal
import os
import select
import signal
import socket
import struct
import sys
from typing import Any, NamedTuple

from actors.engine import cgroups, deadline
from actors.engine.child import PR_SET_NAME, prctl

CLOCK_BOOTTIME = 7
TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1
#: After a kill it looks again so soon, then twice as late each time, until nothing fenced is on record.
AGAIN_MS, AGAIN_MAX_MS = 100, 5000
#: With nothing left to guard and nobody connected it ends after this long.
ALONE_MS = 10_000
#: How long dockerd may take to answer.
DOCKER_S = 1.0


class Hold(NamedTuple):
    kind: str
    unit: str
    #: the shim's pid, or the container's id
    name: str
    #: the cgroup's path or "-", or dockerd's socket
    where: str


class Timer:
    """A timerfd on the clock that counts suspend: os.timerfd_create is not in Python 3.11."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at_ms: int) -> None:
        """Fire at ``at_ms`` of CLOCK_BOOTTIME; 0 disarms."""
        value = struct.pack("4q", 0, 0, at_ms // 1000, at_ms % 1000 * 1_000_000)
        if self._libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, value, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return


class Watchdog:
    """Runs in its folder (``folder/engine``). ``step`` handles what is ready."""

    def __init__(self) -> None:
        self.boot_id = cgroups.boot_id()
        self.holds: dict[str, Hold] = {}
        self.timer = Timer()
        self.listener = _listen("watchdog.sock")
        self.poll = select.poll()
        self.clients: dict[int, socket.socket] = {}
        self.rests: dict[int, bytes] = {}
        self.again_ms = AGAIN_MS
        self.busy_ms = deadline.now_ms()
        self.poll.register(self.timer.fd, select.POLLIN)
        self.poll.register(self.listener, select.POLLIN)
        self.arm()

    def run(self) -> None:
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.timer.fd:
                    self.timer.clear()
                    self.arm()
                elif fd == self.listener.fileno():
                    self._accept()
                else:
                    self._hear(fd)

    def arm(self) -> int:
        """Sleep until the deadline, or, if it has passed, kill and look again while there is what to kill."""
        at_ms, now_ms = deadline.read(".", self.boot_id), deadline.now_ms()
        if now_ms < at_ms:
            self.again_ms = AGAIN_MS
            self.timer.set(at_ms)
            return at_ms
        holds, killed = self.expire()
        if not self.clients and not killed and now_ms > self.busy_ms + ALONE_MS:
            raise SystemExit(0)
        if holds or not self.clients:
            self.timer.set(now_ms + self.again_ms)
            self.again_ms = min(2 * self.again_ms, AGAIN_MAX_MS)
        else:
            self.timer.set(0)
        return at_ms

    def expire(self) -> tuple[int, int]:
        """Kill all fenced runs; returns how many are on record and how many of them were alive."""
        holds = {**self.holds, **found()}
        killed = 0
        for hold in holds.values():
            if end(hold):
                killed += 1
            else:
                self.holds.pop(hold.unit, None)
        return len(holds), killed

    def _accept(self) -> None:
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self.clients[client.fileno()] = client
        self.busy_ms = deadline.now_ms()
        self.poll.register(client, select.POLLIN)

    def _hear(self, fd: int) -> None:
        client = self.clients[fd]
        try:
            raw = client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        lines = (self.rests.pop(fd, b"") + raw).split(b"\n")
        if not raw or len(lines[-1]) > 4096:
            self.busy_ms = deadline.now_ms()
            self.timer.set(self.busy_ms + AGAIN_MS)  # the last one may have gone
            self.poll.unregister(fd)
            del self.clients[fd]
            client.close()
            return
        if lines[-1]:
            self.rests[fd] = lines[-1]
        for line in lines[:-1]:
            answer = self.obey(line.decode("utf-8", "replace").split(" "))
            try:
                client.send(answer.encode() + b"\n")
            except OSError:
                break

    def obey(self, words: list[str]) -> str:
        """Do one line; returns the answer."""
        match words:
            case ["hold", "process" | "docker" as kind, unit, name, where]:
                at_ms = deadline.read(".", self.boot_id)
                if deadline.now_ms() >= at_ms:
                    return "no this machine's right to run fenced units has ended, or is not known yet"
                self.holds[unit] = Hold(kind, unit, name, where)
                self.timer.set(at_ms)
                return f"ok {at_ms}"
            case ["drop", unit]:
                self.holds.pop(unit, None)
                return "ok"
            case ["arm"]:
                return f"ok {self.arm()}"
        return "no such request"


def found(units: str = "units") -> dict[str, Hold]:
    """The fenced runs that are on record in the units' folders and not at their end."""
    out: dict[str, Hold] = {}
    try:
        names = sorted(os.listdir(units))
    except OSError:
        return out
    boot_id = cgroups.boot_id()
    for name in names:
        status = _status(name, units)
        if not status.get("fenced") or status["phase"] == "ended" or status["boot_id"] != boot_id:
            continue
        if cgroups.start_ticks(status["shim"]) == status["shim_ticks"] or cgroups.pids(status["cgroup"]):
            out[name] = Hold("process", name, str(status["shim"]), status["cgroup"] or "-")
    for name in names:
        try:
            with open(f"{units}/{name}/fenced-container", encoding="ascii") as file:
                container, where = file.read().split(" ", 1)
            out[name] = Hold("docker", name, container, where.strip())
        except (OSError, ValueError):
            continue
    return out


def end(hold: Hold) -> bool:
    """Kill what the hold names; True if something was there to be killed."""
    if hold.kind == "docker":
        return _end_container(hold.name, hold.where)
    killed = False
    if hold.where != "-" and cgroups.pids(hold.where):
        killed = cgroups.kill(hold.where)
    shim = int(hold.name)
    if cgroups.descendants(shim):
        # without a cgroup, or what has left it: the shim itself lives on and tells how it ended
        cgroups.kill_tree(shim)
        killed = True
    if _starting(hold.unit, shim):
        # stopped between its last look at the deadline and exec, it would start the unit when it is continued
        cgroups.signal(shim, signal.SIGKILL)
        if hold.where != "-":
            cgroups.kill(hold.where)
        killed = True
    return killed


def _starting(unit: str, shim: int) -> bool:
    status = _status(unit)
    return (
        status.get("shim") == shim
        and status.get("phase") == "starting"
        and cgroups.start_ticks(shim) == status.get("shim_ticks")
    )


def _status(unit: str, units: str = "units") -> dict[str, Any]:
    """What the unit's shim wrote last; empty if there is nothing that can be read."""
    try:
        with open(f"{units}/{unit}/status", "rb") as file:
            status = marshal.loads(file.read())
    except (OSError, ValueError, EOFError, TypeError):
        return {}
    return status if isinstance(status, dict) else {}


def _end_container(container: str, where: str) -> bool:
    """Kill by the container's cgroup (dockerd need not answer), then by dockerd's API (its cgroup need not be
    visible here)."""
    killed = False
    for root in cgroups.roots():
        for path in (f"docker/{container}", f"system.slice/docker-{container}.scope"):
            if cgroups.pids(f"{root}/{path}"):
                killed = cgroups.kill(f"{root}/{path}") or killed
    return _docker_kill(container, where) or killed


def _docker_kill(container: str, where: str) -> bool:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(DOCKER_S)
    try:
        sock.connect(where.removeprefix("unix://"))
        sock.sendall(
            f"POST /containers/{container}/kill?signal=SIGKILL HTTP/1.1\r\nHost: docker\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        status = sock.recv(200).split(b" ", 2)[1]
    except (OSError, IndexError):
        return True  # nobody answered: look again
    finally:
        sock.close()
    return status == b"204"  # 404 and 409: gone, or doesn't run


def _listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    if os.path.lexists(path):
        os.unlink(path)
    old = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(old)
    sock.listen(64)
    return sock


def main() -> None:
    """``python -S -E -c … FOLDER``: leaves the session by a double fork, says ``ok`` when it listens, or ``busy``
    when another watchdog of the folder does."""
    folder = sys.argv[1]
    told, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        with open(told, "rb") as pipe:
            os.write(1, pipe.read() or b"the watchdog died")
        os._exit(0)
    os.close(told)
    try:
        os.setsid()
        os.chdir(folder)
        lock = os.open("watchdog.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        for fd in (0, 1, 2):
            os.dup2(os.open("/dev/null", os.O_RDWR), fd)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        prctl(PR_SET_NAME, b"corelog-watchdog")
        watchdog = Watchdog()
    except OSError as error:
        os.write(tell, b"busy" if isinstance(error, BlockingIOError) else str(error).encode())
        os._exit(1)
    os.write(tell, b"ok")
    os.close(tell)
    watchdog.run()
