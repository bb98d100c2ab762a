"""``corelog up``: start a node here."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Flag = Annotated[bool | None, Parameter(negative=())]
Many = Annotated[list[str] | None, Parameter(negative=())]


def up(
    *,
    config: Path | None = None,
    config_check: Annotated[bool, Parameter(negative=())] = False,
    data: str | None = None,
    log: str | None = None,
    log_option: Many = None,
    discovery: str | None = None,
    discovery_proxy: str | None = None,
    discovery_fallback: str | None = None,
    name: str | None = None,
    metadata: Many = None,
    cpu: str | None = None,
    memory: str | None = None,
    etcd_listen: str | None = None,
    etcd: Many = None,
    gateway_listen: str | None = None,
    gateway_advertise: str | None = None,
    lease: str | None = None,
    machine_ttl: str | None = None,
    fence: str | None = None,
    engine: Many = None,
    updater: Many = None,
    role: str | None = None,
    control: bool | None = None,
    one_process: Flag = None,
    color: str | None = None,
) -> int:
    """Start a node on this machine and run it until Ctrl-C or SIGTERM.

    Settings come from the file, then from CORELOG_* variables, then from these flags; the later wins.

    Parameters
    ----------
    config
        TOML file with settings (also CORELOG_CONFIG).
    config_check
        Say whether the settings are right, and start nothing.
    data
        Data folder: ids, log, sockets (default ./data).
    log
        segments:///folder (default: in the data folder) or kafka://host:port,host:port,...
    log_option
        KEY=VALUE for the log's driver, such as security.protocol=SSL; repeatable.
    discovery
        URL of a token that a new machine finds its cluster by (/new?size=3&log=kafka://... of a node answers one).
    discovery_proxy
        HTTP proxy on the way to it.
    discovery_fallback
        When that cluster is full: proxy (default; serve clients without being a member) or exit.
    name
        This machine's name for people (default: its host name).
    metadata
        KEY=VALUE that units can ask for; repeatable.
    cpu
        Cores that units may take (2, 0.5, 1500m; default: all).
    memory
        Memory that units may take (4GiB; default: all).
    etcd_listen
        Addresses or URLs for etcd's clients, with commas (default 127.0.0.1:2379; none: not at all).
    etcd
        KEY=VALUE for etcd's port, by the names of etcd's flags, such as cert-file=cert.pem; repeatable.
    gateway_listen
        Addresses of the HTTP API, with commas (default 127.0.0.1:7379; none: only the unix socket).
    gateway_advertise
        How other machines reach this one's gateway.
    lease
        L of the election (default 1s).
    machine_ttl
        A machine unheard for so long is lost (default 3s).
    fence
        How long a fenced unit may run after its machine was last heard (default 10s).
    engine
        KEY=VALUE for the engine; repeatable.
    updater
        KEY=VALUE for the updater; repeatable.
    role
        control (default), or replica: serves etcd's clients, takes no units, never becomes master, is no member.
    control
        Whether this machine may become master.
    one_process
        Run all actors in this process.
    color
        auto, always or never.
    """
    from node.config import load

    flags = {key: value for key, value in locals().items() if key not in ("config", "config_check", "load")}
    flags["log_options"] = flags.pop("log_option")
    settings = load(config, os.environ, flags)
    if config_check:
        print(f"settings are right: {config or 'no file'}, data {settings.folder}, log {settings.log_address}")
        return 0
    from node.daemon import up as run

    return run(settings)
