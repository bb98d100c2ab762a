"""``unshare --net python -m tests.storm --minutes 5``: a storm. Exit code 1 if something is wrong, its history kept."""

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.histories.ops import Put, PutDone
from tests.storm import judge
from tests.storm.clients import KEYS, Client, Notes
from tests.storm.cluster import Cluster, until
from tests.storm.faults import Faults
from tests.storm.watchers import Watcher

CLIENTS, HOLDERS, WATCHERS = 48, 4, 4
#: A slow machine may take so many times the minutes asked for to come to the operations and faults asked for.
LONGEST = 3
#: The longest TTL that is asked for, and a new master's election.
LEASES_END_S = 12.0
TOLD_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--operations", type=int, default=0, help="goes on until there were so many")
    parser.add_argument("--each", type=int, default=0, help="goes on until each kind of fault came so often")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--rest-ms", type=float, default=15, help="how long a client rests between two requests")
    parser.add_argument("--only", default="", help="only faults with this word: killed, stopped, master …")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="folder of a failure's history")
    parser.add_argument("--judge", type=Path, help="judge a kept history again")
    asked = parser.parse_args()
    if asked.judge:
        return _report(judge.kept(asked.judge).violations())
    for name in [one for one in os.environ if one.lower().endswith("_proxy")]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="corelog-storm-") as folder:
        cluster = Cluster(Path(folder))
        try:
            story = asyncio.run(_storm(cluster, asked))
        except BaseException:
            for broker in cluster.brokers.brokers:
                print(f"-- broker {broker.node}, pid {broker.pid}:\n{broker.output()[-3000:]}", file=sys.stderr)
            for node in cluster.nodes:
                print(f"-- {node.name}:\n{node.output()[-8000:]}", file=sys.stderr)
            raise
        finally:
            cluster.close()
    found = story.violations()
    if found:
        path = asked.keep / f"corelog-storm-{asked.seed}.json"
        judge.keep(story, path)
        print(f"seed {asked.seed}; the history is kept in {path}")
    return _report(found)


def _report(found: list[str]) -> int:
    print(f"{len(found)} violations")
    for one in found[:40]:
        print("  " + one[:1500])
    return 1 if found else 0


async def _storm(cluster: Cluster, asked: argparse.Namespace) -> judge.Story:
    await cluster.up()
    addresses = [node.etcd for node in cluster.nodes]
    notes, stop = Notes(), asyncio.Event()
    clients = [Client(f"c{n}", addresses, asked.seed, notes, stop) for n in range(CLIENTS)]
    holders = [Client(f"h{n}", addresses, asked.seed, notes, stop) for n in range(HOLDERS)]
    watchers = [Watcher(f"w{n}", addresses, asked.seed, notes, 2) for n in range(WATCHERS)]
    working = [asyncio.create_task(one.work(asked.rest_ms / 1000)) for one in clients]
    working += [asyncio.create_task(one.hold_leases()) for one in holders]
    watching = [asyncio.create_task(one.run()) for one in watchers]
    faults = Faults(cluster, asked.seed, asked.only)
    print(f"seed {asked.seed}", flush=True)
    began_s = time.monotonic()

    def is_over() -> bool:
        lasted = (time.monotonic() - began_s) / 60 / asked.minutes
        return lasted > LONGEST or (lasted > 1 and len(notes.ops) >= asked.operations and faults.rarest >= asked.each)

    storming = asyncio.create_task(faults.run(is_over))
    try:
        # a client that ends now has met what none should meet
        await asyncio.wait([storming, *working, *watching], return_when=asyncio.FIRST_COMPLETED)
        for task in (*working, *watching):
            if task.done():
                task.result()
        await storming
        lasted_s = time.monotonic() - began_s
        for node in cluster.nodes:
            await node.ask("/v1/log/snapshot", "POST", 60)
        stop.set()
        await asyncio.gather(*working)
        until_told = await _mark(clients[0])
        await _told(watchers, until_told, watching, notes)
        await asyncio.sleep(LEASES_END_S)
        last = await _mark(clients[0])
        notes.wrong += await judge.never_ended(addresses[0], notes.left)
        notes.wrong += await judge.alike(cluster, last)
        changes = await judge.changes(addresses[1], last)
        size, differ = await judge.states(cluster.log, [node.folder for node in cluster.nodes])
        notes.wrong += differ
    finally:
        for task in (*working, *watching, storming):
            task.cancel()
        await asyncio.gather(*working, *watching, storming, return_exceptions=True)
        for one in (*clients, *holders, *watchers):
            await one.close()
    watches = [watch for one in watchers for watch in one.watches]
    story = judge.Story(asked.seed, faults.told, notes.ops, changes, watches, until_told, notes.wrong)
    _tell(story, lasted_s, notes, faults, sum(one.streams for one in watchers), size)
    return story


async def _mark(client: Client) -> int:
    """The revision of a put that was answered, in what most watches see."""
    for _ in range(60):
        op = await client.ask(Put(KEYS[3], client.value()))
        if isinstance(op.result, PutDone):
            return op.revision
        await asyncio.sleep(1)
    raise AssertionError("nobody takes a put any more")


async def _told(watchers: list[Watcher], revision: int, watching: list[asyncio.Task[None]], notes: Notes) -> None:
    """Until all watches were told everything up to a revision, or promised that there is no more of it."""
    for one in watchers:
        one.ending = True
    try:
        await until(lambda: all(min(one.next) > revision for one in watchers), TOLD_S, "the end of all watches")
    except AssertionError as error:
        notes.wrong.append(f"{error}: {[one.next for one in watchers]}, the last is {revision}")
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


def _tell(story: judge.Story, lasted_s: float, notes: Notes, faults: Faults, streams: int, size: int) -> None:
    told = sum(len(message.events) for watch in story.watches for one in watch.sessions for message in one.messages)
    notices = sum(not message.events for watch in story.watches for one in watch.sessions for message in one.messages)
    unknown = sum(op.result is None for op in story.ops)
    kinds = Counter(type(op.request).__name__ for op in story.ops if op.result is not None)
    print(f"seed {story.seed}, {lasted_s:.0f} s: {len(story.ops)} operations, {unknown} of unknown outcome")
    print("answered: " + ", ".join(f"{name} {number}" for name, number in sorted(kinds.items())))
    print(f"revisions {len(story.changes)}; {len(story.watches)} watches over {streams} streams were told")
    print(f"{told} events and {notices} notices of progress")
    print("faults: " + ", ".join(f"{name} {number}" for name, number in sorted(faults.done.items())))
    print(f"states compared byte for byte: {size} bytes")
    for words, number in notes.failures.most_common(12):
        print(f"  {number} x {words}")


if __name__ == "__main__":
    sys.exit(main())
