"""When a snapshot is due, and how it gives way."""

import subprocess
import sys

import pytest

from actors.snapshotter import may_come_back
from node.gateway.snapshotting import RECORDS, RECORDS_MAX, SHARE, is_due
from tests import needs

NEVER_S = float("inf")


@pytest.mark.parametrize(
    ("records", "rested_s", "took_s", "due"),
    [
        (RECORDS - 1, NEVER_S, 0.0, False),
        (RECORDS, NEVER_S, 0.0, True),
        # one that took ten seconds takes a twentieth of the time
        (RECORDS, 10.0 * SHARE - 11, 10.0, False),
        (RECORDS, 10.0 * SHARE - 10, 10.0, True),
        (RECORDS_MAX - 1, 0.0, 10.0, False),
        (RECORDS_MAX, 0.0, 10.0, True),
    ],
)
def test_a_long_one_is_rare_unless_a_start_would_take_long(
    records: int, rested_s: float, took_s: float, due: bool
) -> None:
    assert is_due(records, rested_s, took_s) is due


#: What a process (and a thread of it that is there already) runs as: when it begins, and when its patience is over.
LOOK = """
import os, threading, time
from actors import snapshotter
snapshotter.PATIENCE_S = 0.2
held = threading.Event()
threading.Thread(target=held.wait).start()
session = os.getsid(0)
def nice():
    return open("/proc/self/autogroup").read().split()[-1] if os.path.exists("/proc/self/autogroup") else None
snapshotter.give_way(True)
def kinds():
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}
first = os.sched_getscheduler(0), nice() in (None, "19"), os.getsid(0) != session
late = threading.Thread(target=held.wait)
late.start()
until_s = time.monotonic() + 20
while kinds() != {os.SCHED_OTHER} and time.monotonic() < until_s:
    time.sleep(0.02)
print(first == (os.SCHED_IDLE, True, True), kinds() == {os.SCHED_OTHER} and nice() in (None, "10"))
held.set()
"""


def test_one_that_nobody_waits_for_takes_idle_time_but_not_for_ever() -> None:
    if not may_come_back():
        needs.missing("this user may not come back from idle time")
    told = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == ["True", "True"]
