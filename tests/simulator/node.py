"""Simulated machines and the actors' processes on them, each with a host and a replica of its own."""

from collections.abc import Callable
from typing import Any

from actors.coordination.actor import Coordination, Drain
from actors.host import Append, Host, Now, Superseded
from actors.setting import Setting
from streams.records import Entry
from streams.replay import Applied, Halt, Replica
from tests.simulator import loop
from tests.simulator.core import Clock, Time, Violation
from tests.simulator.log import SimLog
from tests.simulator.world import World

#: A restarted actor is back after this long at most.
RESPAWN_S = 0.5


class SharedReplica(Replica):
    """One replica for processes of a node that read each record at one instant: who comes first applies it."""

    def __init__(self, fold: Any) -> None:
        super().__init__(fold)
        self._last: list[Applied] = []

    def apply(self, entry: Entry, upto: int | None = None) -> list[Applied]:
        assert upto is None
        if entry.offset != self.log.offset:
            self._last = super().apply(entry)
        return self._last


class Process:
    """One actor's process: gets time and log entries, may be stopped (SIGSTOP) with its node, or killed."""

    def __init__(self, node: "Node", name: str, replica: SharedReplica | None = None) -> None:
        self.node = node
        self.name = name
        self.time: Time = node.time
        self.dead_at: float | None = None
        #: the log client keeps order: nothing of this process arrives before this instant
        self.sent_until = 0.0
        self.stalled_until = 0.0
        self.compared_at = -1
        self.host: Host = None  # type: ignore[assignment] # made below, from the actor
        self.actor = node.parts.actor(self, name)
        self.shares = replica is not None
        self.host = Host(self.actor, replica or Replica(node.parts.fold()), f"{name}@{node.machine}", node.nonce_maker)
        self._pump_at: float | None = None
        self._tick_at: float | None = None
        self._deferred: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        if not self.shares:
            node.log.readers.append(self)
        self._step(self.host.begin, len(node.log.entries))
        self.wake(0.0)

    def now(self) -> Now:
        true_s = self.time.now
        return Now(self.node.clock.read(true_s), int(true_s * 1000) + self.node.wall_skew_ms)

    # -- inputs, put off while the node stands still ------------------------------------------------------------

    def wake(self, delay: float) -> None:
        """Something was committed: read the log after ``delay``."""
        if self.shares:
            return
        if self._pump_at is None and self.dead_at is None:
            self._pump_at = max(self.time.now + delay, self.stalled_until, self.node.cut_in_until)
            self.time.at(self._pump_at, self._pump)

    def _pump(self) -> None:
        if self.dead_at is not None:
            return
        if self.node.stopped:
            self._deferred.append((self._pump, ()))
            return
        late = max(self.stalled_until, self.node.cut_in_until)
        if late > self.time.now:
            self.time.at(late, self._pump)
            return
        self._pump_at = None
        batch = self.node.log.entries[self.host.replica.offset + 1 :]
        if batch:
            self._step(self.host.delivered, batch)

    def within(self, call: Callable[..., None], *arguments: Any) -> None:
        """Something of this process's own event loop is due: what it tells the host comes by ``notice``."""
        if self.dead_at is not None:
            return
        if self.node.stopped:
            self._deferred.append((self.within, (call, *arguments)))
            return
        loop.current.append(self)
        try:
            call(*arguments)
        finally:
            loop.current.pop()

    def delivered(self, entry: Entry) -> None:
        """One record, read by all processes that share the node's replica."""
        if self.dead_at is None and self.shares:
            self._step(self.host.delivered, [entry])

    def alone(self) -> None:
        """From now on it reads at its own pace, with a replica of its own."""
        if self.shares:
            replica = Replica(self.node.parts.fold())
            for entry in self.node.log.entries[: self.host.replica.offset + 1]:
                replica.apply(entry)
            self.host.replica, self.shares = replica, False
            self.node.log.readers.append(self)
            self.wake(0.0)

    def refused(self, append: Append, error: Exception) -> None:
        self._input(self.host.refused, append, error)

    def unknown(self, append: Append, error: Exception) -> None:
        self._input(self.host.unknown, append, error)

    def notice(self, observation: Any) -> None:
        if self.host is None or (loop.current and loop.current[-1] is self):
            # told in the middle of a step: it is taken up when the step is over
            self.time.after(0.0, self._noticed, observation)
        else:
            self._noticed(observation)

    def _noticed(self, observation: Any) -> None:
        if self.actor_takes(observation):
            self._input(self.host.noticed, observation)

    def actor_takes(self, observation: Any) -> bool:
        return self.name != "engine" or getattr(self.actor, "is_live", True)

    def _tick(self, due: float) -> None:
        if self._tick_at == due:
            self._tick_at = None
            self.host.wake_at_s = None
            self._input(self.host.tick)

    def _input(self, call: Callable[..., None], *arguments: Any) -> None:
        if self.dead_at is not None:
            return
        if self.node.stopped:
            self._deferred.append((self._step, (call, *arguments)))
        else:
            self._step(call, *arguments)

    def resume(self) -> None:
        deferred, self._deferred = self._deferred, []
        self.time.random.shuffle(deferred)  # after SIGCONT timers and sockets race
        for call, arguments in deferred:
            if self.dead_at is None:
                call(*arguments)

    # -- one step, and what it asks for -------------------------------------------------------------------------

    def _step(self, call: Callable[..., None], *arguments: Any) -> None:
        host = self.host
        loop.current.append(self)
        try:
            call(*arguments, self.now())
        except Halt as error:
            raise Violation(f"replicas never halt: {self.host.writer} at {self.time.now:.3f} s: {error}") from error
        except Superseded as error:
            raise Violation(f"no process takes its own past for another: {host.writer}: {error}") from error
        finally:
            loop.current.pop()
        outbox, host.outbox = host.outbox, []
        for output in outbox:
            if isinstance(output, Append):
                self.node.log.send(self, output)
            else:
                for effect in output.effects:
                    self.time.after(0.002, self._perform, effect)
        self._set_timer()
        self.node.sim.stepped(self)

    def _perform(self, effect: Any) -> None:
        if self.dead_at is not None:
            return
        if self.node.stopped:
            self._deferred.append((self._perform, (effect,)))
            return
        self.node.parts.perform(self, effect)

    def _set_timer(self) -> None:
        if self.host.wake_at_s is None:
            return
        due = max(self.time.now + 0.0005, self.node.clock.true(self.host.wake_at_s))
        if self._tick_at is None or due < self._tick_at or self._tick_at < self.time.now:
            self._tick_at = due
            self.time.at(due, self._tick, due)

    def kill(self) -> None:
        self.dead_at = self.time.now
        if not self.shares:
            self.node.log.readers.remove(self)
        self.host.stop()


class Node:
    """A machine: its clock, its data folder (nonces), its world of units, and its processes."""

    def __init__(self, sim: Any, index: int, parts: Any) -> None:
        self.sim = sim
        self.time: Time = sim.time
        self.log: SimLog = sim.log
        self.parts = parts
        self.index = index
        self.machine = f"{index + 1:032x}"
        rng = self.time.random
        self.clock = Clock(1 + rng.uniform(-sim.drift, sim.drift), rng.uniform(10, 1e6))
        self.wall_skew_ms = rng.randrange(-5000, 5000)
        self.stopped = False
        #: nothing gets out (in) before these instants: partitions, one-way ones too
        self.cut_out_until = 0.0
        self.cut_in_until = 0.0
        self.reconnected_at = 0.0
        self.boots = 1
        self.nonces: list[str] = []
        self.world = World(self)
        self.processes: dict[str, Process] = {}
        self.down_until = 0.0
        #: the processes that share a replica read the log here
        self.replica: SharedReplica | None = None
        self._pump_at: float | None = None
        self.log.readers.append(self)
        self.log.nodes.append(self)

    def nonce_maker(self) -> str:
        return f"{self.time.random.getrandbits(64):016x}"

    def setting(self) -> Setting:
        return Setting(
            machine=self.machine,
            nonce=self.nonces[-1],
            boot_id=f"boot-{self.machine[-1]}-{self.boots}",
            folder="",
            log="memory://",
            log_id=self.sim.log_id,
            alone=False,
            name=f"n{self.index + 1}",
            cpu_millis=8000,
            memory_bytes=8 << 30,
            lease_ms=self.sim.lease_ms,
            machine_ttl_ms=self.sim.machine_ttl_ms,
            fence_ms=self.sim.fence_ms,
        )

    @property
    def up(self) -> bool:
        return bool(self.processes)

    def start(self) -> None:
        if self.up:
            return
        self.stopped = False
        self.nonces.append(self.nonce_maker())
        self.replica = SharedReplica(self.parts.fold())
        for name in self.parts.names:
            self.processes[name] = Process(self, name, self.replica)
        self.wake(0.0)

    def wake(self, delay: float) -> None:
        """Something was committed: read the log after ``delay``."""
        if self._pump_at is None and self.up:
            self._pump_at = max(self.time.now + delay, self.cut_in_until)
            self.time.at(self._pump_at, self._pump)

    def _pump(self) -> None:
        self._pump_at = None
        if not self.up or self.stopped:
            return
        if self.cut_in_until > self.time.now:
            self.wake(0.0)
            return
        replica = self.replica
        assert replica is not None
        for entry in self.log.entries[replica.offset + 1 :]:
            for process in list(self.processes.values()):
                process.delivered(entry)
                if self.replica is not replica:
                    return
            if replica.offset < entry.offset:
                replica.apply(entry)

    def crash(self, down_s: float, reboot: bool = False) -> None:
        """kill -9 of everything of the node; units and the watchdog live on, unless the machine reboots."""
        for process in self.processes.values():
            process.kill()
        self.processes.clear()
        self.stopped = False
        if reboot:
            self.world.power_off()
            self.boots += 1
            self.clock.reboot(self.time.now)
            self.world.armed += 1
        self.down_until = self.time.now + down_s
        self.time.at(self.down_until, self._restart)

    def _restart(self) -> None:
        if self.time.now >= self.down_until:
            self.start()

    def respawn(self, process: Process) -> None:
        """One actor dies, the node's supervisor starts it again."""
        if self.processes.get(process.name) is not process:
            return
        process.kill()
        self.time.after(self.time.random.uniform(0.05, RESPAWN_S), self._respawned, process)

    def _respawned(self, old: Process) -> None:
        if self.processes.get(old.name) is old:
            self.processes[old.name] = Process(self, old.name)

    def stop(self, seconds: float) -> None:
        """SIGSTOP of all of the node's processes but units and watchdog."""
        if self.up and not self.stopped:
            self.stopped = True
            self.time.after(seconds, self._continue, dict(self.processes))

    def _continue(self, _processes: dict[str, Process]) -> None:
        if not self.stopped:
            return
        self.stopped = False
        first = self.time.random.random() < 0.5
        if first:
            self._pump()
        for process in list(self.processes.values()):
            process.resume()
        if not first:
            self.wake(0.001)

    def drain(self, down_s: float) -> None:
        """An orderly restart: hand over, then stop."""
        process = self.processes.get("coordination")
        if process is None or process.dead_at is not None or self.stopped:
            return
        assert isinstance(process.actor, Coordination)
        process.notice(Drain())
        self.down_until = self.time.now + 0.5 + down_s
        self.time.after(0.5, self._drained, down_s)

    def _drained(self, down_s: float) -> None:
        if self.up:
            self.crash(down_s)
