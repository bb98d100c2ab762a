"""What goes wrong: each fault is drawn from the seed and is over when it says so."""

from collections.abc import Callable
from typing import Any


def pause_log(sim: Any) -> float:
    """A broker's fail-over: nothing is committed for 1 to 6 seconds."""
    seconds = sim.time.random.uniform(1, 6)
    sim.log.pause(seconds)
    return seconds


def refuse_log(sim: Any) -> float:
    seconds = sim.time.random.uniform(0.3, 3)
    sim.log.refusing_until = max(sim.log.refusing_until, sim.time.now + seconds)
    return seconds


def slow_log(sim: Any) -> float:
    seconds = sim.time.random.uniform(1, 6)
    sim.log.slow_until = max(sim.log.slow_until, sim.time.now + seconds)
    sim.log.slow_s = sim.time.random.uniform(0.1, 1.0)
    return seconds


def lose_answers(sim: Any) -> float:
    seconds = sim.time.random.uniform(0.2, 3)
    sim.log.losing_until = max(sim.log.losing_until, sim.time.now + seconds)
    return seconds


def cut_off(sim: Any) -> float:
    """A partition of one node, whole or of one direction."""
    node, seconds = _node(sim), sim.time.random.uniform(0.5, 15)
    way = sim.time.random.randrange(4)
    if way != 1:
        node.cut_out_until = max(node.cut_out_until, sim.time.now + seconds)
    if way != 2:
        node.cut_in_until = max(node.cut_in_until, sim.time.now + seconds)
    return seconds


def crash(sim: Any) -> float:
    seconds = sim.time.random.choice([0.1, 0.5, 2, 6, 12]) * sim.time.random.uniform(0.8, 1.2)
    _node(sim).crash(seconds)
    return seconds


def crash_master(sim: Any) -> float:
    seconds = sim.time.random.choice([0.1, 2, 8]) * sim.time.random.uniform(0.8, 1.2)
    _master(sim).crash(seconds)
    return seconds


def reboot(sim: Any) -> float:
    seconds = sim.time.random.uniform(1, 12)
    _node(sim).crash(seconds, reboot=True)
    return seconds


def kill_actor(sim: Any) -> float:
    node = _node(sim)
    if node.up and not node.stopped:
        node.respawn(sim.time.random.choice(list(node.processes.values())))
    return 1.0


def stop(sim: Any) -> float:
    seconds = sim.time.random.choice([0.3, 0.9, 1.5, 4, 14]) * sim.time.random.uniform(0.8, 1.2)
    sim.time.random.choice([_node, _master])(sim).stop(seconds)
    return seconds


def stall(sim: Any) -> float:
    """One process reads the log late."""
    node, seconds = _node(sim), sim.time.random.uniform(0.2, 3)
    if node.up:
        process = sim.time.random.choice(list(node.processes.values()))
        process.alone()
        process.stalled_until = sim.time.now + seconds
    return seconds


def drain(sim: Any) -> float:
    node, seconds = sim.time.random.choice([_node, _master])(sim), sim.time.random.uniform(0.1, 5)
    node.drain(seconds)
    return seconds + 0.5


def _node(sim: Any) -> Any:
    return sim.time.random.choice(sim.nodes)


def _master(sim: Any) -> Any:
    """The holder by the observer's knowledge, or any node."""
    for node in sim.nodes:
        if node.machine == sim.observer.holder:
            return node
    return _node(sim)


Fault = Callable[[Any], float]

#: All kinds, the commoner ones more often.
ALL: list[Fault] = [
    pause_log,
    pause_log,
    refuse_log,
    slow_log,
    lose_answers,
    cut_off,
    cut_off,
    crash,
    crash_master,
    reboot,
    kill_actor,
    stop,
    stop,
    stall,
    drain,
]
#: Only what a broker does in a fail-over: the master must stay.
BROKER: list[Fault] = [pause_log]


def cut_off_master(sim: Any) -> float:
    """The holder is heard late: what it said before the partition may arrive after another has claimed."""
    node, seconds = _master(sim), sim.time.random.uniform(0.8, 4)
    node.cut_out_until = max(node.cut_out_until, sim.time.now + seconds)
    if sim.time.random.random() < 0.5:
        node.cut_in_until = max(node.cut_in_until, sim.time.now + seconds)
    return seconds
