"""The simulated log: one order; answers get lost, appends are refused or late, and the whole of it can stand still.

It behaves like a topic of one partition: what a process sends arrives in the order in which it sent it, is committed
when it arrives (or when the broker's pause ends), and may be committed although the sender was told otherwise
or is dead by then, but not long after its death. After a fail-over a client may write again what was under way.
"""

import random
from typing import TYPE_CHECKING

from actors.host import Append
from streams.log.port import LogUnavailable, OutcomeUnknown
from streams.records import Entry

if TYPE_CHECKING:
    from tests.simulator.core import Time
    from tests.simulator.node import Node, Process

#: The log client's delivery timeout: after it the outcome is unknown.
DELIVERY_S = 3.0
DELAY_S = (0.001, 0.006)
#: After a broker's fail-over every client is back within this time.
RECONNECT_S = 0.4
#: How often a client begins a new epoch then, by which the broker doesn't know what it has.
REPEATS = 0.2


class SimLog:
    def __init__(self, time: "Time") -> None:
        self.time = time
        self.entries: list[Entry] = []
        #: woken when something is committed: nodes, and processes that read at their own pace
        self.readers: list[Node | Process] = []
        self.observers: list = []
        self.nodes: list[Node] = []
        self.paused_until = 0.0
        self.refusing_until = 0.0
        self.losing_until = 0.0
        self.slow_until = 0.0
        self.slow_s = 0.0
        #: when the last consequence of a fault (a timeout under way) is over
        self.settled_at = 0.0
        self.latency_max_s = 0.0
        self._queue: list[tuple[Process, Append]] = []
        # of its own: what a seed draws otherwise stays as it was
        self._repeating = random.Random(str(time.random.getstate()))

    def delay(self) -> float:
        time = self.time
        delay = time.random.uniform(*DELAY_S)
        if time.now < self.slow_until:
            delay += self.slow_s * time.random.random()
        return delay

    def send(self, process: "Process", append: Append) -> None:
        time, node = self.time, process.node
        if time.now < self.refusing_until or (node.cut_out_until > time.now and time.random.random() < 0.3):
            time.after(0.01, process.refused, append, LogUnavailable("nobody answers"))
            return
        lost = time.now < self.losing_until and time.random.random() < 0.7
        arrives = max(process.sent_until, node.reconnected_at, time.now + self.delay())
        if node.cut_out_until > time.now:
            lost = True
            arrives = max(arrives, node.cut_out_until + self.delay())
            if arrives > time.now + DELIVERY_S and time.random.random() < 0.5:
                arrives = -1.0  # given up by the client before it got through
        if arrives >= 0:
            process.sent_until = arrives
            time.at(arrives, self._arrive, process, append)
        if lost or max(arrives, self.paused_until) > time.now + DELIVERY_S:
            self._time_out(process, append)

    def _time_out(self, process: "Process", append: Append) -> None:
        self.settled_at = max(self.settled_at, self.time.now + DELIVERY_S)
        self.time.after(DELIVERY_S, process.unknown, append, OutcomeUnknown("no answer"))

    def pause(self, seconds: float) -> None:
        """Nothing is committed for a while; what arrives waits in line."""
        self.paused_until = max(self.paused_until, self.time.now + seconds)
        self.time.at(self.paused_until, self._resume)

    def _resume(self) -> None:
        if self.time.now < self.paused_until:
            return
        queue, self._queue = self._queue, []
        now, chance = self.time.now, self.time.random
        self.settled_at = max(self.settled_at, now + RECONNECT_S)
        for node in self.nodes:
            # every client finds the new leader after a back-off of its own
            node.reconnected_at = now + chance.uniform(0, RECONNECT_S)
            node.cut_in_until = max(node.cut_in_until, now + chance.uniform(0, RECONNECT_S))
        again = {process for process, _ in queue if self._repeating.random() < REPEATS}
        for process, append in [*queue, *(one for one in queue if one[0] in again)]:
            process.sent_until = max(process.sent_until, process.node.reconnected_at)
            self.time.at(process.node.reconnected_at, self._arrive, process, append)

    def _arrive(self, process: "Process", append: Append) -> None:
        if process.dead_at is not None and self.time.now > process.dead_at + 0.05:
            return  # its connection died with it
        if self.time.now < self.paused_until:
            self._queue.append((process, append))
            self.time.at(self.time.now + DELIVERY_S, self._waits_too_long, process, append)
        else:
            self._commit(process, append)

    def _waits_too_long(self, process: "Process", append: Append) -> None:
        if any(waiting is append for _, waiting in self._queue):
            process.unknown(append, OutcomeUnknown("no answer"))

    def _commit(self, process: "Process", append: Append) -> None:
        for record in append.records:
            self.put(record.canonical())

    def put(self, raw: bytes) -> None:
        entry = Entry(len(self.entries), raw)
        self.entries.append(entry)
        for observer in self.observers:
            observer.committed(entry)
        for reader in self.readers:
            reader.wake(self.delay())
