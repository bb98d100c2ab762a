"""A switch in this process's network namespace, and a namespace with an address of its own for each member.

Nothing outlives the processes: a namespace is gone with the last one in it. This process must itself be in a namespace
made for it (``unshare --net``).
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterable

SUBNET = "10.213.90"


#: SIGKILL when the thread that started it ends. Not by Python between fork and exec: gRPC's threads and that, together,
#: end children before they begin.
DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL", "--"]


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")


def switch() -> None:
    """Raises RuntimeError where this process may not, or is in the machine's own namespace."""
    if os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{os.getppid()}/ns/net"):
        raise RuntimeError("start this in a namespace of its own: unshare --net python -m tests.storm")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "addr", "add", f"{SUBNET}.254/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")


class Place:
    """``within``: the words that run a command there."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.address = name, f"{SUBNET}.{number}"
        self._holder = subprocess.Popen([*DIE_WITH_PARENT, "unshare", "--net", "sleep", "infinity"])
        self.within = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]
        here, there = os.readlink("/proc/self/ns/net"), f"/proc/{self._holder.pid}/ns/net"
        while os.readlink(there) == here:
            time.sleep(0.005)
        run("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(self._holder.pid))
        run("ip", "link", "set", f"v{number}", "master", "br0")
        run("ip", "link", "set", f"v{number}", "up")
        for words in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run(*self.within, "ip", *words.split())

    async def cut(self, others: Iterable[str], hears: bool, speaks: bool) -> None:
        """No packets from ``others`` (unless it ``hears`` them) and none to them (unless it ``speaks``)."""
        for other in others:
            if not hears:
                await asyncio.to_thread(run, *self.within, "iptables", "-w", "-A", "INPUT", "-s", other, "-j", "DROP")
            if not speaks:
                await asyncio.to_thread(run, *self.within, "iptables", "-w", "-A", "OUTPUT", "-d", other, "-j", "DROP")

    async def mend(self) -> None:
        await asyncio.to_thread(run, *self.within, "iptables", "-w", "-F")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
