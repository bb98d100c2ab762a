"""Control groups and process trees: how a unit is held together and killed whole.

Used by the shim and the watchdog, which are small programs: this module imports nothing but ``os``.

Three ways, the best that the machine offers:

* cgroup v2 (also the ``unified`` mount of a hybrid machine): ``cgroup.kill``, one write kills all, forks included;
  before Linux 5.14 freeze, kill each, thaw.
* cgroup v1: the freezer, in the same way.
* none writable (a container without rights): the shim is the subreaper of all that the unit forks, so the tree
  below it is the unit: stop every process found, look again until no new one appears, then kill them.
"""

import os

#: Looks at a tree this often at most before killing what was found; a fork bomb ends when all of it is stopped.
ROUNDS_MAX = 50
SIGKILL, SIGSTOP = 9, 19


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def roots(mounts: str = "/proc/self/mounts") -> list[str]:
    """Mounted hierarchies in which a unit can be killed whole, best first."""
    v2, v1 = [], []
    for line in _read(mounts).splitlines():
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        if fields[2] == "cgroup2":
            v2.append(fields[1])
        elif fields[2] == "cgroup" and "freezer" in fields[3].split(","):
            v1.append(fields[1])
    return v2 + v1


def make(name: str, where: list[str] | None = None) -> str:
    """Make the group ``name`` (``corelog/MACHINE/UNIT``) and return its path, or "" where none can be made."""
    for root in roots() if where is None else where:
        path = root + "/" + name
        for _ in range(10):  # the parents may be removed by another shim between two of our steps
            try:
                os.makedirs(path, exist_ok=True)
                break
            except FileNotFoundError:
                continue
            except OSError:
                break
        if os.path.exists(path + "/cgroup.procs") and _killable(path):
            return path
        remove(path, name.count("/"))
    return ""


def _killable(path: str) -> bool:
    return any(os.access(path + "/" + file, os.W_OK) for file in ("cgroup.kill", "cgroup.freeze", "freezer.state"))


def enter(path: str) -> None:
    """Move the calling process into the group, which is made again if somebody has removed it while it was empty."""
    try:
        _write(path + "/cgroup.procs", "0")
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)
        _write(path + "/cgroup.procs", "0")


def pids(path: str) -> list[int]:
    """Processes in the group; none if it is gone."""
    return [int(word) for word in _read(path + "/cgroup.procs").split()]


def kill(path: str) -> bool:
    """Kill every process of the group, once for all. False if the group is gone or has no way to do so."""
    if os.path.exists(path + "/cgroup.kill"):
        try:
            _write(path + "/cgroup.kill", "1")
        except OSError:
            return False
        return True
    for file, freeze, thaw in (("cgroup.freeze", "1", "0"), ("freezer.state", "FROZEN", "THAWED")):
        if os.path.exists(path + "/" + file):
            try:
                _write(path + "/" + file, freeze)
                for pid in pids(path):
                    signal(pid, SIGKILL)
                _write(path + "/" + file, thaw)
            except OSError:
                return False
            # a process that was being forked while the group froze is killed in the second round
            for pid in pids(path):
                signal(pid, SIGKILL)
            return True
    return False


def remove(path: str, parents: int = 2) -> None:
    """Remove the group and up to ``parents`` empty groups above it."""
    for _ in range(parents + 1):
        try:
            os.rmdir(path)
        except OSError:
            return
        path = path.rpartition("/")[0]


def signal(pid: int, number: int) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the boot id and the pid it names a process for
    ever. 0 if there is no such process (a zombie counts as gone)."""
    fields = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split(" ")
    return 0 if len(fields) < 20 or fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip()


def descendants(pid: int) -> list[int]:
    """All living processes below ``pid``, not itself, from one walk over /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = _read(f"/proc/{name}/stat").rpartition(") ")[2].split(" ")
        if len(fields) > 1 and fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(name))
    out, todo = [], [pid]
    while todo:
        found = children.get(todo.pop(), [])
        out += found
        todo += found
    return out


def kill_tree(pid: int) -> None:
    """Kill all below ``pid`` (a subreaper), which itself lives on: stop until nothing new appears, then kill."""
    known: set[int] = set()
    for _ in range(ROUNDS_MAX):
        new = [child for child in descendants(pid) if child not in known]
        if not new:
            break
        for child in new:
            signal(child, SIGSTOP)
        known.update(new)
    for child in known:
        signal(child, SIGKILL)
    for child in descendants(pid):
        signal(child, SIGKILL)
