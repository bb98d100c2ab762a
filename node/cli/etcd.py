"""``corelog etcd``, also linked as ``etcd``: starts a node by etcd's flags, ``ETCD_*`` or ``--config-file``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.kv.rpc.maintenance import VERSION
from node import etcdflags
from node.config import Config, ConfigError, load
from node.etcdnames import MEANINGLESS, NODE, SERVING, FlagError
from node.etcdvalues import members as named_members
from node.identity import has_joined

_HELP = """\
Usage:

  etcd [flags]
    Start a node that serves etcd's clients. A setting is a flag or an ETCD_* variable, never both.

  etcd --config-file FILE
    They come from a YAML or JSON file alone.

  etcd --version
  etcd --help

CORELOG_* variables set what etcd doesn't know: CORELOG_LOG=kafka://host:port,... is the log that several members
share (it takes the place of --initial-cluster), CORELOG_GATEWAY_LISTEN opens corelog's own HTTP API.

Flags (with one dash or two, --name=value or --name value):
"""


def etcd(argv: Sequence[str]) -> int:
    """Run the node. Raises what ``node.daemon.up`` raises, FlagError and ConfigError."""
    words = [word.lstrip("-") for word in argv if word.startswith("-")]
    if "help" in words or "h" in words:
        print(_HELP + "\n".join(f"  --{name}" for name in sorted({*SERVING, *NODE})))
        print("\nAll others of etcd's are taken and have no effect here: " + " ".join(sorted(MEANINGLESS)))
        return 0
    if "version" in words:
        print(f"etcd Version: {VERSION}\ncorelog Version: {_version()}")
        return 0
    if argv and not argv[0].startswith("-"):
        raise FlagError(f"{argv[0]!r} is not a valid flag; corelog etcd starts a server only")
    asked = etcdflags.gather(argv, os.environ)
    config = made(asked, os.environ)
    for warning in asked.warnings:
        print(f"etcd: {warning}", file=sys.stderr)
    from node.daemon import up

    return up(config)


def made(asked: etcdflags.Asked, environ: Any) -> Config:
    """The node's settings. Raises ConfigError, FlagError."""
    node = asked.node
    name = node.get("name", "default")
    flags: dict[str, Any] = {
        "name": name,
        "data": node.get("data-dir") or f"{name}.etcd",
        "etcd_listen": node.get("listen-client-urls", "http://localhost:2379"),
        "etcd": dict(asked.serving),
    }
    if "CORELOG_GATEWAY_LISTEN" not in environ:
        flags["gateway_listen"] = "none"
    members = named_members(asked.serving.get("initial-cluster", ""))
    if node.get("discovery") and members:
        raise FlagError(
            'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery", '
            '"discovery-endpoints" or "discovery-srv"'
        )
    for flag in ("discovery-token", "discovery-srv"):
        if node.get(flag) and not environ.get("CORELOG_LOG"):
            raise FlagError(
                f"--{flag} isn't asked here, and several members need one log: set CORELOG_LOG=kafka://HOST:PORT,... "
                f"for each of them, or use --discovery"
            )
    for flag in ("discovery", "discovery-proxy", "discovery-fallback"):
        if node.get(flag):
            flags[flag.replace("-", "_")] = node[flag]
    # as etcd, which looks at what makes a cluster only when it makes one
    if members and name not in members and not has_joined(Path(flags["data"])):
        raise FlagError(f"couldn't find local name {name!r} in the initial cluster configuration")
    try:
        return load(None, environ, flags)
    except ConfigError as error:
        raise FlagError(str(error)) from error


def _version() -> str:
    from node.daemon import version

    return version()


def main() -> None:
    """The program ``etcd``."""
    from node.cli.main import main as corelog

    corelog(["etcd", *sys.argv[1:]])
