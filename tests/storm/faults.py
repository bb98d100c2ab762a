"""What happens to the members: killed, stopped or cut off, of three kinds (the master's node, any node, a broker)."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from tests.storm.cluster import Cluster, Node

NODE_FAULTS = [f"{who} {what}" for who in ("master", "node") for what in ("killed", "stopped", "cut off")]
BROKER_FAULTS = [f"broker {what}" for what in ("killed", "stopped", "cut off")]


class Faults:
    """``done``: how often each came. ``told``: a line each, with the time since the start."""

    def __init__(self, cluster: Cluster, seed: int, only: str = "") -> None:
        self._cluster = cluster
        self._nodes, self._brokers = random.Random(seed), random.Random(seed + 1)
        self._only = only
        self.done: Counter[str] = Counter()
        self.told: list[str] = []
        self._began_s = time.monotonic()

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Until then; all is mended when it returns. Nodes and brokers at once."""
        await asyncio.gather(self._to_nodes(is_over), self._to_brokers(is_over))

    @property
    def rarest(self) -> int:
        """How often the kind came that came least."""
        return min(self.done[kind] for kind in NODE_FAULTS + BROKER_FAULTS if self._only in kind)

    def _note(self, kind: str, member: str) -> None:
        self.done[kind] += 1
        self.told.append(f"{time.monotonic() - self._began_s:7.1f} s  {kind}: {member}")
        print(self.told[-1], flush=True)

    def _kinds(self, kinds: list[str], rng: random.Random) -> list[str]:
        return rng.sample(chosen := [one for one in kinds if self._only in one], len(chosen))

    # -- nodes ------------------------------------------------------------------------------------------------

    async def _to_nodes(self, is_over: Callable[[], bool]) -> None:
        rng, kinds = self._nodes, list[str]()
        while True:
            await asyncio.sleep(rng.uniform(0.5, 3))
            if is_over():
                return
            kinds = kinds or self._kinds(NODE_FAULTS, rng)
            kind = kinds.pop()
            node = await self._cluster.master() if kind.startswith("master") else rng.choice(self._cluster.nodes)
            if node is None:
                kinds.append(kind)
                continue
            if rng.random() < 0.2:
                # what comes back begins with a snapshot then
                await node.ask("/v1/log/snapshot", "POST", 30)
            self._note(kind, node.name)
            await self._to_node(node, kind, rng)
            await self._cluster.healthy()

    async def _to_node(self, node: Node, kind: str, rng: random.Random) -> None:
        lasts_s = rng.choice([0.0, 1.0, 3.0, 6.0]) * rng.random()
        if kind.endswith("killed"):
            await node.kill()
            await asyncio.sleep(lasts_s)
            node.start()
        elif kind.endswith("stopped"):
            node.signal(signal.SIGSTOP)
            await asyncio.sleep(lasts_s + 0.5)
            node.signal(signal.SIGCONT)
        else:
            brokers = [one.address for one in self._cluster.broker_places]
            # from all brokers, or from some: then the way to the log is a matter of who leads it
            chosen = brokers if rng.random() < 0.6 else rng.sample(brokers, rng.randint(1, 2))
            hears, speaks = rng.choice([(False, False), (False, False), (True, False), (False, True)])
            await node.place.cut(chosen, hears, speaks)
            await asyncio.sleep(lasts_s + 1)
            await node.place.mend()

    # -- brokers ----------------------------------------------------------------------------------------------

    async def _to_brokers(self, is_over: Callable[[], bool]) -> None:
        rng, kinds = self._brokers, list[str]()
        while True:
            await asyncio.sleep(rng.uniform(1, 4))
            if is_over():
                return
            kinds = kinds or self._kinds(BROKER_FAULTS, rng)
            kind = kinds.pop()
            leader = await asyncio.to_thread(self._cluster.leader)
            index = leader if leader >= 0 and rng.random() < 0.7 else rng.randrange(3)
            self._note(kind, f"kafka{index + 1}" + (", which led the log" if index == leader else ""))
            await self._to_broker(index, kind, rng)
            await self._cluster.in_sync()

    async def _to_broker(self, index: int, kind: str, rng: random.Random) -> None:
        brokers, lasts_s = self._cluster.brokers, rng.uniform(0.5, 5)
        if kind.endswith("killed"):
            brokers.kill(index)
            await asyncio.sleep(lasts_s)
            brokers.start(index)
        elif kind.endswith("stopped"):
            brokers.stop(index)
            await asyncio.sleep(lasts_s)
            brokers.cont(index)
        else:
            place = self._cluster.broker_places[index]
            others = [one.address for one in self._cluster.broker_places if one is not place]
            if rng.random() < 0.5:
                # else it goes on hearing the nodes, and takes itself for the leader
                others += [node.place.address for node in self._cluster.nodes]
            await place.cut(others, *rng.choice([(False, False), (False, False), (True, False), (False, True)]))
            await asyncio.sleep(lasts_s)
            await place.mend()
