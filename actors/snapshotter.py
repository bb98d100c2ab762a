"""A transient process that writes snapshots aside: loads the newest one, applies the tail, writes, exits.

Serving never pauses and the memory of a second replica isn't kept: ``python -m actors.snapshotter`` reads a JSON
:class:`~actors.setting.Setting` on standard input and prints a JSON line per fold. With ``--patient`` (nobody waits for
it) it takes the processor when it is idle.
"""

import asyncio
import contextlib
import os
import resource
import sys
import threading
import time
from pathlib import Path

import msgspec

from actors.folds import FOLDS
from actors.setting import Setting
from actors.start import restored
from actors.supervision.process import die_with_parent
from streams import snapshots
from streams.history.at import entries
from streams.log.open import open_log
from streams.log.port import Log
from streams.records import Entry
from streams.replay import Halt, Replica

#: For so long a patient one uses idle time only.
PATIENT, PATIENCE_S = "--patient", 60.0
NICE = 10
#: The number of the capability (capabilities(7)).
CAP_SYS_NICE = 23


class Taken(msgspec.Struct, frozen=True):
    """What was written: the fold, the offset of the last record in it, and the state hash."""

    fold: str
    offset: int
    state_hash: str


async def take(setting: Setting) -> list[Taken]:
    """Bring each fold's snapshot up to the log's end. Raises Halt when one can't pass a record; others are written."""
    log = await open_log(setting.log, setting.log_options, setting.log_checked)
    try:
        end = await log.end()
        replicas = await restored(setting, list(FOLDS.values()), log)
        before = {replica.fold.name: replica.offset for replica in replicas}
        halted = await _brought(replicas, log, end)
        taken = []
        for replica in (one for one in replicas if one.fold.name not in halted):
            name = replica.fold.name
            folder = Path(setting.folder) / "snapshots" / name
            # a state with the seal in it would be of a log that nobody goes on with
            if replica.offset > before[name] and replica.log.sealed_at < 0:
                path = snapshots.write(folder, replica)
                taken.append(Taken(name, replica.offset, snapshots.head_of(path).state_hash))
            snapshots.prune(folder)
        for error in halted.values():
            raise error
    finally:
        await log.close()
    return taken


async def _brought(replicas: list[Replica], log: Log, end: int) -> dict[str, Halt]:
    """Apply what is there before ``end``: the log is read once for all. Returns which folds halted, and why."""
    start = min(replica.offset if replica.resume else replica.offset + 1 for replica in replicas)
    halted: dict[str, Halt] = {}
    async for batch in entries(log, start, end):
        for replica in (one for one in replicas if one.fold.name not in halted):
            try:
                _bring(replica, batch)
            except Halt as error:
                halted[replica.fold.name] = error
    return halted


def _bring(replica: Replica, batch: list[Entry]) -> None:
    for entry in batch:
        if replica.resume and entry.offset >= replica.offset:
            replica.confirm(entry)
        elif entry.offset > replica.offset:
            replica.replay(entry)


def give_way(patient: bool) -> None:
    """To all others of the machine. ``patient``: run when nobody else wants the processor, and after PATIENCE_S beside
    them, for a machine that is never idle must have snapshots, too."""
    patient = patient and may_come_back()
    os.nice(NICE)
    with contextlib.suppress(PermissionError):
        # Linux shares the processor out by sessions first: in its node's one, it would give way to that node alone
        os.setsid()
        _of_session(19 if patient else NICE)
    if patient:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        timer = threading.Timer(PATIENCE_S, _insist)
        timer.daemon = True
        timer.start()


def may_come_back() -> bool:
    """Whether this process may leave idle time again: with CAP_SYS_NICE, or if its limit of niceness allows it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limit = resource.getrlimit(resource.RLIMIT_NICE)[0]
    is_capable = int(status["CapEff"], 16) >> CAP_SYS_NICE & 1
    return bool(is_capable) or limit == resource.RLIM_INFINITY or limit >= 20 - NICE


def _of_session(nice: int) -> None:
    """Where sessions aren't told apart, or it may not be favoured again, it goes on as it is."""
    for _ in range(20):
        try:
            Path("/proc/self/autogroup").write_text(str(nice))
        except BlockingIOError:
            time.sleep(0.1)  # one may be changed each 100 ms, of the whole machine
        except OSError:
            return
        else:
            return


def _insist() -> None:
    _of_session(NICE)
    while idle := [thread for thread in map(int, os.listdir("/proc/self/task")) if _is_idle(thread)]:
        for thread in idle:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _is_idle(thread: int) -> bool:
    try:
        return os.sched_getscheduler(thread) == os.SCHED_IDLE
    except ProcessLookupError:
        return False


def main() -> None:
    die_with_parent(os.getppid())
    give_way(PATIENT in sys.argv[1:])
    setting = msgspec.json.decode(sys.stdin.buffer.read(), type=Setting)
    for taken in asyncio.run(take(setting)):
        sys.stdout.buffer.write(msgspec.json.encode(taken) + b"\n")


if __name__ == "__main__":
    main()
