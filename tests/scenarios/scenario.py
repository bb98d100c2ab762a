"""Golden scenarios: steps in text, and what the cluster said, word for word.

A scenario is a file of blocks: a comment (``#``), one step, ``----``, and the events that it led to (without renewals
and barriers), with the seconds since the step began. Steps:

    nodes N              a cluster of N nodes n1 … nN with undrifted clocks; runs until it has a master
    submit UNIT          a fenced unit is submitted
    crash NODE S         kill -9 of everything of the node, started again after S seconds (units run on)
    reboot NODE S        the machine goes down for S seconds, with its units
    stop NODE S          SIGSTOP of the node for S seconds
    cut NODE S           nothing gets to the node or from it for S seconds
    drain NODE S         an orderly stop, started again after S seconds
    pause S              the broker stands still for S seconds
    remove NODE          an operator removes the machine
    run S                S seconds pass (every step is followed by as much of this as the file says)

NODE may be ``master``.
"""

from typing import Any

from streams.events import cluster as cluster_says
from streams.events import unit as unit_says
from streams.events.base import say
from streams.outcomes import Rejected
from tests.simulator import cache, loop
from tests.simulator.run import Simulation

QUIET = {"machine.seen.v1", "master.renewed.v1", "actor.opened.v1", "log.barrier.v1", "log.opened.v1"}


class Player:
    """Plays one file's steps; ``step`` returns what came of it."""

    def __init__(self) -> None:
        self.sim: Simulation
        self.told = 0
        self.began = 0.0
        self.said: list[str] = []

    def step(self, line: str) -> list[str]:
        verb, *words = line.split()
        if verb == "nodes":
            self._nodes(int(words[0]))
        else:
            self.began = self.sim.time.now
            getattr(self, f"do_{verb}")(*words)
        said, self.said = self.said, []
        return said

    def _nodes(self, count: int) -> None:
        self.sim = Simulation(0, nodes=count, drift=0.0)
        self.sim.fence_ms = 10000  # as in a real cluster
        self.sim.log.observers.append(self)
        for node in self.sim.nodes:
            node.wall_skew_ms = 0
            self.sim.time.after(0.05 * node.index, node.start)
        self.sim.time.run(1.5)

    def committed(self, entry: Any) -> None:
        """An observer of the simulated log, after the one that applies it."""
        record = cache.parsed(entry)
        for index, event in enumerate(cache.decoded(record.stream, record.payload)):
            if event.type in QUIET:
                continue
            outcome = self.sim.observer.outcomes[type(next(iter(self.sim.observer.outcomes)))(entry.offset, index)]
            name = self.name(record.machine)
            words = [f"+{self.sim.time.now - self.began:5.2f}", name, event.type.removesuffix(".v1").removesuffix("?")]
            words += [self.name(event.subject)] if event.subject and self.name(event.subject) != name else []
            words += self._details(event, outcome)
            self.said.append(" ".join(words))

    def _details(self, event: Any, outcome: Any) -> list[str]:
        words = [f"on {self.name(machine)}"] if (machine := getattr(event.data, "machine", "")) else []
        for field in ("fence", "to", "reason"):
            value = getattr(event.data, field, "")
            words += [f"{field}={self.name(str(value))!r}"] if value else []
        words += [f"term={event.term}"] if event.term else []
        if isinstance(outcome, Rejected):
            words.append(f"VOID: {outcome.code}")
        elif isinstance(outcome.result, dict):
            words += [f"{key}={value}" for key, value in outcome.result.items() if key in ("term", "fence")]
        return words

    def name(self, machine: str) -> str:
        text = machine
        for node in self.sim.nodes:
            text = text.replace(node.machine, f"n{node.index + 1}")
        return text

    def node(self, name: str) -> Any:
        if name == "master":
            return next(node for node in self.sim.nodes if node.machine == self.sim.observer.holder)
        return self.sim.nodes[int(name[1:]) - 1]

    def do_run(self, seconds: str) -> None:
        self.sim.time.run(self.sim.time.now + float(seconds))

    def do_submit(self, unit: str) -> None:
        self._command(say(unit_says.Submit(content=self.sim.parts.unit, desired="launched"), subject=unit))

    def do_remove(self, name: str) -> None:
        self._command(say(cluster_says.MachineRemoved(), subject=self.node(name).machine))

    def _command(self, event: Any) -> None:
        process = next(n.processes["coordination"] for n in self.sim.nodes if n.up and not n.stopped)
        process.host.submit([event], lambda _answer: None, process.now())
        process._step(process.host.tick)
        self.sim.time.run(self.sim.time.now + 0.1)

    def do_crash(self, name: str, seconds: str) -> None:
        self.node(name).crash(float(seconds))

    def do_reboot(self, name: str, seconds: str) -> None:
        self.node(name).crash(float(seconds), reboot=True)

    def do_stop(self, name: str, seconds: str) -> None:
        self.node(name).stop(float(seconds))

    def do_cut(self, name: str, seconds: str) -> None:
        node = self.node(name)
        node.cut_out_until = node.cut_in_until = self.sim.time.now + float(seconds)

    def do_drain(self, name: str, seconds: str) -> None:
        self.node(name).drain(float(seconds))

    def do_pause(self, seconds: str) -> None:
        self.sim.log.pause(float(seconds))


def play(text: str) -> str:
    """The scenario with what really came of each step."""
    player, out = Player(), []
    with cache.shared(), loop.installed():
        for block in text.strip().split("\n\n"):
            head = block.split("\n----")[0].split("\n")
            said: list[str] = []
            for line in head:
                if line and not line.startswith("#"):
                    said += player.step(line)
            out.append("\n".join([*head, "----", *said]))
    return "\n\n".join(out) + "\n"
