"""What every actor process of a node is told when it starts. Made by the node, never changed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """``machine``: 32 hex digits, made once in the data folder. ``nonce``: new at each start of the node.

    ``folder``: the data folder; actors keep their own files in ``folder/<actor>/``, sockets in ``folder/run/``.
    ``log``: address (``segments://…`` or ``kafka://…``), ``log_id`` as founded, ``log_options`` for the driver.
    ``alone``: the log is embedded: the file lock is the term, nothing is renewed, an idle node writes nothing.
    """

    machine: str
    nonce: str
    boot_id: str
    folder: str
    log: str
    log_id: str
    log_options: dict[str, str] = {}
    #: Ed25519 public key (hex) of `log.opened`: voids must be signed by it
    operator_key: str = ""
    alone: bool = True
    name: str = ""
    version: str = ""
    metadata: dict[str, str] = {}
    cpu_millis: int = 0
    memory_bytes: int = 0
    control: bool = True
    #: addresses to listen on (host:port); empty: don't
    etcd_listen: list[str] = []
    gateway_listen: list[str] = []
    #: how others reach this node's gateway (host:port)
    gateway_advertise: str = ""
    #: L of the election, the machines' TTL and T_a, in milliseconds
    lease_ms: int = 1000
    machine_ttl_ms: int = 3000
    fence_ms: int = 10000
    #: engine settings: docker host, static units folder, cgroup root …
    engine: dict[str, str] = {}
    updater: dict[str, str] = {}


class Signals:
    """What the supervisor says to a running actor (``stop``, ``drain``), and what the actor tells of itself."""

    def __init__(self, report: Callable[[dict[str, Any]], None] = lambda _status: None) -> None:
        self.stop = asyncio.Event()
        #: the node goes down in an orderly way: hand over the mastership (coordination) before stop
        self.drain = asyncio.Event()
        #: called with plain data now and then: ``{"applied": 12, "live": true}``
        self.report = report
        #: set by an actor that takes observations from the supervisor (coordination: Progress)
        self.notice: Callable[[Any], None] = lambda _observation: None


#: Each ``actors/<name>/actor.py`` has ``async def serve(setting, signals)``: runs until ``signals.stop``.
Serve = Callable[[Setting, Signals], Awaitable[None]]
