"""What a machine runs, and its watchdog: both outlive the node's processes, not the machine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulator.node import Node

#: The watchdog's kill is done after this long at most.
KILL_GRACE_S = 0.4


class World:
    """Fenced units by name (value: the fence they were started with)."""

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.running: dict[str, int] = {}
        self.deadline_s = float("-inf")
        #: counts settings of the watchdog's timer: an older one is without effect
        self.armed = 0
        #: what the engine port shows (the product's engine actor), and the last process id
        self.seen: dict[str, Any] = {}
        self.pids = 0

    def arm(self, deadline_s: float) -> None:
        """Set the watchdog to kill at this boot time."""
        if deadline_s <= self.deadline_s:
            return
        self.deadline_s = deadline_s
        self.armed += 1
        self.node.time.at(self.node.clock.true(deadline_s), self._kill, self.armed)

    def _kill(self, armed: int) -> None:
        if armed != self.armed:
            return
        for unit, fence in list(self.running.items()):
            self.node.time.after(self.node.time.random.uniform(0, KILL_GRACE_S), self._killed, unit, fence)

    def _killed(self, unit: str, fence: int) -> None:
        self.stop(unit, fence)
        self.node.parts.looked(self.node)

    def start(self, unit: str, fence: int) -> bool:
        """No fenced start past the deadline. Returns whether it runs."""
        if self.node.clock.read(self.node.time.now) >= self.deadline_s:
            return False
        if unit not in self.running:
            self.running[unit] = fence
            self.node.sim.units_check.started(unit, self.node)
        return True

    def stop(self, unit: str, fence: int) -> None:
        if self.running.get(unit) == fence:
            del self.running[unit]
            self.node.sim.units_check.ended(unit, self.node)

    def power_off(self) -> None:
        for unit, fence in list(self.running.items()):
            self.stop(unit, fence)
        self.seen.clear()
        self.deadline_s = float("-inf")
        self.armed += 1
