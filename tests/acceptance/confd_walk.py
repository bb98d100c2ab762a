"""A confd user's walk: three machines on one log, a template resource on each, etcdctl. Run by
``test_show_etcd_confd.py`` in a network namespace of its own (``unshare --net``); prints what it saw as JSON.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.kafka.brokers import Brokers
from tests.actors.engine.rig import clean
from tests.foreign import servers
from tests.storm.cluster import ROOT, TOPIC, Node, until
from tests.storm.places import DIE_WITH_PARENT, Place, switch

ROUNDS = 5
#: Nothing is done to the broker here; it need not be quick to take itself for dead.
PATIENT = "broker.session.timeout.ms=18000\ncontroller.quorum.fetch.timeout.ms=10000\n"

RESOURCE = """
[template]
prefix = "/production"
src = "web.conf.tmpl"
dest = "{folder}/etc/web.conf"
mode = "0640"
keys = ["/web", "/upstream"]
check_cmd = "grep -q listen {{{{.src}}}}"
reload_cmd = "echo reload >> {folder}/reloads"
"""
TEMPLATE = """\
listen {{ getv("/web/port") }};
{% for server in gets("/upstream/*") -%}
server {{ base(server.Key) }} {{ server.Value }};
{% endfor %}"""


class Machine:
    """A node, and ``corelog kv sync`` beside it."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.file, self.template = folder / "etc/web.conf", folder / "confd/templates/web.conf.tmpl"
        for part in ("confd/conf.d", "confd/templates"):
            (folder / part).mkdir(parents=True)
        (folder / "confd/conf.d/web.toml").write_text(RESOURCE.format(folder=folder))
        self.template.write_text(TEMPLATE)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "node.cli.main", "kv", "sync", "--config", str(self.folder / "confd")]
        with (self.folder / "said").open("wb") as out:
            self.process = subprocess.Popen(
                [*DIE_WITH_PARENT, *self.node.place.within, *words, "--data", str(self.node.folder)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    def again(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def said(self) -> list[str]:
        return (self.folder / "said").read_text().splitlines()

    def reads(self) -> str:
        return self.file.read_text() if self.file.exists() else ""


class Walk:
    def __init__(self, folder: Path) -> None:
        switch()
        self.broker_place = Place("kafka1", 1)
        places = [Place(f"node{n}", 10 + n) for n in (1, 2, 3)]
        within = [[*DIE_WITH_PARENT, *self.broker_place.within]]
        self.brokers = Brokers(1, folder / "kafka", PATIENT, hosts=[self.broker_place.address], within=within)
        log = f"kafka://{self.brokers.bootstrap}/{TOPIC}"
        nodes = [Node(place, folder / place.name, log) for place in places]
        self.machines = [Machine(node, folder / f"machine{number}") for number, node in enumerate(nodes, 1)]
        self.program = str(servers.program("etcdctl", "3.7"))
        self.seen: dict[str, Any] = {}

    def etcdctl(self, *words: str) -> None:
        """Waits until a cluster on a slow machine has settled; a put that is done twice is the same."""
        command = [self.program, "--endpoints", self.machines[0].node.etcd, "--command-timeout", "20s", *words]
        env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        for last in (False, False, False, True):
            done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
            if not done.returncode:
                return
            if last:
                raise AssertionError(f"{command}: {done.stderr}")
            time.sleep(1)

    async def everywhere(self, machines: list[Machine], text: str, began_s: float = 0.0) -> float:
        """Seconds until the text is in all their files."""
        end_s = time.monotonic() + 180
        while not all(text in one.reads() for one in machines):
            if time.monotonic() > end_s:
                raise AssertionError(f"{text!r} didn't come: {[(one.reads(), one.said()) for one in machines]}")
            await asyncio.sleep(0.005)
        return time.monotonic() - began_s

    async def settled(self) -> bool:
        """A node that found no broker yet, on a slow machine, is started again."""
        for machine in self.machines:
            if not machine.node.running:
                machine.node.start()
        rows = await asyncio.gather(*(one.node.ask("/v1/cluster?consistency=serializable") for one in self.machines))
        return all(row and row["master_name"] for row in rows)

    async def run(self) -> dict[str, Any]:
        self.brokers.up()
        for machine in self.machines:
            machine.node.start()
        await until(self.settled, 240, "three nodes")
        self.etcdctl("put", "/production/web/port", "8000")
        self.etcdctl("put", "/production/upstream/a", "10.0.0.1")
        for machine in self.machines:
            machine.start()
        await self.everywhere(self.machines, "server a 10.0.0.1;")
        await self.followed()
        await self.cut_off()
        await self.broken()
        await until(self.reloaded, 60, "the last reloads")
        self.seen["modes"] = [oct(one.file.stat().st_mode & 0o777) for one in self.machines]
        self.seen["beside"] = [sorted(os.listdir(one.file.parent)) for one in self.machines]
        return self.seen

    async def followed(self) -> None:
        took, whole = [], []
        for number in range(ROUNDS):
            value = f"10.0.1.{number}"
            await asyncio.sleep(0.3)
            began_s = time.monotonic()
            self.etcdctl("put", "/production/upstream/b", value)
            answered_s = time.monotonic()
            whole.append(await self.everywhere(self.machines, f"server b {value};", began_s))
            took.append(began_s + whole[-1] - answered_s)
        self.seen["took_s"] = [round(one, 3) for one in took]
        self.seen["took with etcdctl's own start and end, s"] = [round(one, 3) for one in whole]
        await until(self.reloaded, 60, "the last reloads")
        reloads = [(one.folder / "reloads").read_text().count("reload") for one in self.machines]
        self.seen["reloads"] = reloads

    def reloaded(self) -> bool:
        """Nothing is left to be told."""
        return all(sorted(os.listdir(one.file.parent)) == ["web.conf"] for one in self.machines)

    async def cut_off(self) -> None:
        last, others = self.machines[2], self.machines[:2]
        before, said = last.reads(), len(last.said())
        await last.node.place.cut([self.broker_place.address], False, False)
        self.etcdctl("put", "/production/web/port", "8001")
        await self.everywhere(others, "listen 8001;")
        lost = "can't be reached"
        await until(lambda: any(lost in line for line in last.said()[said:]), 90, "the word of the one cut off")
        await asyncio.sleep(2)
        self.seen["kept while cut off"] = last.reads() == before
        began_s = time.monotonic()
        await last.node.place.mend()
        self.seen["healed_s"] = round(await self.everywhere([last], "listen 8001;", began_s), 3)
        await until(lambda: any("reached again" in line for line in last.said()[said:]), 90, "the word that it goes on")
        self.seen["said while cut off"] = [line for line in last.said()[said:] if "reached" in line]

    async def broken(self) -> None:
        """A template that can't be read, a key that is missing, a file that the check refuses; each mended again."""
        one = self.machines[0]
        before = one.reads()

        async def told(words: str, wrong: Callable[[], None], right: Callable[[], None]) -> None:
            wrong()
            await until(lambda: any(words in line for line in one.said()), 60, words)
            self.seen.setdefault("broken", []).append(next(line for line in one.said() if words in line))
            self.seen.setdefault("kept while broken", []).append(one.reads() == before)
            right()
            await asyncio.sleep(0.3)

        def template(text: str) -> None:
            one.template.write_text(text)
            one.again()

        await told(
            "unexpected '}'", lambda: template("listen 1;\n{{ getv('/web/port' }}\n"), lambda: template(TEMPLATE)
        )
        await told("the check failed", lambda: template("nothing\n"), lambda: template(TEMPLATE))
        await told(
            "there is no key",
            lambda: self.etcdctl("del", "/production/web/port"),
            lambda: self.etcdctl("put", "/production/web/port", "8001"),
        )
        self.etcdctl("put", "/production/web/port", "8002")
        await self.everywhere(self.machines, "listen 8002;")

    def close(self) -> None:
        for machine in self.machines:
            if machine.process is not None:
                machine.process.terminate()
                machine.process.wait()
            if machine.node.running:
                machine.node.signal(signal.SIGKILL)
                assert machine.node.process is not None
                machine.node.process.wait()
            clean(machine.node.folder / "engine")
        self.brokers.close()
        for place in (self.broker_place, *(machine.node.place for machine in self.machines)):
            place.close()


def main() -> None:
    walk = Walk(Path(sys.argv[1]))
    try:
        print(json.dumps(asyncio.run(walk.run())))
    finally:
        walk.close()


if __name__ == "__main__":
    main()
