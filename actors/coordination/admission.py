"""Before a node speaks: is its machine id used by another live node?

Two nodes get one id when a data folder or a machine's image is copied. The join on the log (compare and set on the
nonce) lets one of them in at most, but a start of an actor already ends its namesake. So a node first only listens:

* the machine is unknown, lost or has left, or its nonce is this very start's: go on;
* its nonce is one of this data folder's, and the kernel hasn't been booted since: the folder's lock proves that the
  process is dead, go on;
* otherwise (rebooted, or a folder that doesn't know the nonce): listen long enough to hear a live node. One word of it
  refuses this start, and so does a log that doesn't answer.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncGenerator, Collection
from pathlib import Path

from actors import start
from actors.control import ControlFold
from actors.coordination.decide import SEEN_S
from actors.coordination.state import Machine
from actors.setting import Setting
from streams.log.port import Log
from streams.records import Entry
from streams.replay import Replica

#: Nonces kept: starts in a row that died before their join was written.
KEPT = 16
SLACK_S = 1.5


class DuplicateMachine(Exception):
    """Another live node has this machine id: this one must end, having changed nothing."""

    exit_code = 4
    #: for the supervisor: another start would not help
    stops_node = True


class Removed(Exception):
    """This machine was removed from the cluster for good: its node must end."""

    exit_code = 4
    stops_node = True


class Nonces:
    """The nonces of this data folder's starts, oldest first, in ``coordination/nonces.json``. Written before a join
    is said, by the one process that holds the data folder's lock."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "coordination" / "nonces.json"

    def read(self) -> list[str]:
        """Raises ValueError when the file is damaged: it names the file and how to go on."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            nonces = json.loads(raw)
        except ValueError as error:
            raise ValueError(
                f"{self.path} is damaged ({error}); remove it: the next start only takes longer"
            ) from error
        if not isinstance(nonces, list) or not all(isinstance(nonce, str) for nonce in nonces):
            raise ValueError(f"{self.path} holds no list of strings; remove it: the next start only takes longer")
        return nonces

    def add(self, nonce: str) -> None:
        """Durable when it returns."""
        nonces = [*[known for known in self.read() if known != nonce], nonce][-KEPT:]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".new")
        with aside.open("w") as file:
            json.dump(nonces, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


async def admit(setting: Setting, log: Log, known: Collection[str]) -> str:
    """Listen before speaking. Returns the nonce that this start may replace ("" if none).

    ``known``: nonces of this data folder (``Nonces(folder).read()``). Raises DuplicateMachine, LogUnavailable,
    streams.replay.Halt.
    """
    replica = await start.resumed(setting, ControlFold, log)
    tail = log.tail(replica.offset + 1)
    reader = asyncio.ensure_future(_follow(replica, tail))
    try:
        await _reach(replica, reader, await log.end())
        first = _machine(replica, setting.machine)
        wait_s = _listen_s(first, setting, known)
        if first is None or wait_s == 0:
            return first.nonce if first else ""
        heard_at = first.seen_at
        until_s = time.monotonic() + wait_s
        while True:
            now = _machine(replica, setting.machine)
            if now is None or not now.alive:
                return ""
            if now.seen_at != heard_at:
                raise DuplicateMachine(
                    f"a live node has this machine id already: {setting.machine} ({now.name or 'no name'}) was "
                    f"heard at {now.seen_at}. Give this node another data folder (--data), or stop the other one"
                )
            if time.monotonic() >= until_s:
                end = await log.end()
                if replica.offset + 1 >= end:
                    return now.nonce
                await _reach(replica, reader, end)
                continue
            await asyncio.sleep(0.02)
            if reader.done():
                reader.result()
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await reader
        await tail.aclose()


def _listen_s(machine: Machine | None, setting: Setting, known: Collection[str]) -> float:
    if machine is None or not machine.alive or machine.nonce == setting.nonce:
        return 0.0
    if machine.nonce in known and machine.boot_id == setting.boot_id:
        return 0.0
    return SEEN_S + SLACK_S if machine.nonce in known else setting.machine_ttl_ms / 1000 + SLACK_S


def _machine(replica: Replica, name: str) -> Machine | None:
    fold = replica.fold
    assert isinstance(fold, ControlFold)
    found = fold.state.cluster.machines.get(name)
    # the struct is changed in place by later events: keep what was seen now
    return None if found is None else Machine(**{key: getattr(found, key) for key in Machine.__struct_fields__})


async def _follow(replica: Replica, tail: AsyncGenerator[list[Entry], None]) -> None:
    async for batch in tail:
        for entry in batch:
            replica.apply(entry)


async def _reach(replica: Replica, reader: "asyncio.Future[None]", end: int) -> None:
    """Until all below ``end`` is applied. Holes may end a log, so standing still for a while counts as well."""
    still, at = 0, replica.offset
    while replica.offset + 1 < end and still < 50:
        await asyncio.sleep(0.02)
        if reader.done():
            reader.result()
        still, at = (still + 1, at) if replica.offset == at else (0, replica.offset)
