"""A new node's first start by a token: who it is with, and on which log. Asked once, kept in the data folder."""

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from actors.coordination.membership import plain_id
from node.discovery import decide
from node.discovery.decide import DiscoveryError, Full
from node.discovery.kept import FILE, Discovered, kept
from node.discovery.registry import Joining, Registry

if TYPE_CHECKING:
    from node.config import Config
    from node.identity import DataFolder

#: etcd's, where nobody says another.
PEER_URL = "http://localhost:2380"


class NoLog(DiscoveryError):
    """Several members, and nobody says where their log is, or not all the same."""

    exit_code = 2


def discover(config: "Config", folder: "DataFolder", sleep: Callable[[float], None] = time.sleep) -> None:
    """Ask the discovery service, unless this folder belongs to a log already, and keep the answer.

    Raises DiscoveryError (see ``exit_code``).
    """
    if folder.log_id or kept(folder.path) is not None:
        return
    logger = structlog.get_logger(actor="discovery")
    registry = _registry(config)
    try:
        found = _found(config, folder.machine, Joining(registry, sleep, logger.info))
    finally:
        registry.close()
    logger.info("the cluster is found", members=found.members, log=found.log or "here", member=found.control)
    folder.keep(FILE, msgspec.json.encode(found).decode())


def _registry(config: "Config") -> Registry:
    from node.discovery.v2 import Folder

    return Folder(config.discovery, config.discovery_proxy)


def _found(config: "Config", machine: str, joining: Joining) -> Discovered:
    size, told = joining.config()
    log = _log(size, config.log, told)
    urls = config.serving.initial_advertise_peer_urls or [PEER_URL]
    value = "&".join(f"{config.name or socket.gethostname()}={url}" for url in urls)
    decide.names(value)
    try:
        members = joining.join(size, f"{plain_id(machine):x}", value)
    except Full:
        if config.discovery_fallback == "exit":
            raise
        return Discovered(log, control=False)
    return Discovered(log, members=[one.value for one in members])


def _log(size: int, ours: str, told: str) -> str:
    """The log's address; empty: a log of this machine's own. Raises NoLog."""
    if ours and told and ours != told:
        raise NoLog(
            f"the token names the log {told}, --log another one ({ours}): leave --log out, or ask for a new token"
        )
    if told:
        _check(told)
    log = ours or told
    if size > 1 and not log:
        raise NoLog(
            f"a cluster of {size} needs one log, and the token names none: say --log kafka://HOST:PORT,... (corelog "
            f"etcd: CORELOG_LOG), or get the token by /new?size={size}&log=kafka://HOST:PORT,..."
        )
    if size > 1 and not log.startswith("kafka://"):
        raise NoLog(f"a cluster of {size} can't share {log}: a log on one machine is that machine's alone")
    return log


def _check(told: str) -> None:
    from node.config import log_address

    try:
        log_address(told)
    except ValueError as error:
        raise NoLog(f"the token's log: {error}") from None
