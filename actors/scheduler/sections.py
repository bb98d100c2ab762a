"""The sections of a unit file as typed structs, and the tables of keys that fill them.

[Service] is systemd's, [Container] Podman Quadlet's (podman-systemd.unit(5)), [X-Corelog] ours.
"""

from dataclasses import dataclass

from actors.scheduler import values
from actors.scheduler.keys import (
    EnvironmentFile,
    Expand,
    Key,
    choice,
    environment_files,
    exec_lines,
    loose_pairs,
    many_words,
    of,
    one_line,
    pairs,
    text,
    word,
)
from actors.scheduler.syntax import BadValue, words
from actors.scheduler.templates import ON_CHANGE, TemplateFile, template_file
from actors.scheduler.values import Command, Port

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSection:
    """[Unit]. Ordering and dependencies are accepted by name: what they mean is between units of one machine."""

    description: str = ""
    documentation: tuple[str, ...] = ()
    start_limit_interval_ms: int | None = 10_000
    start_limit_burst: int = 5


UNIT_KEYS = {
    "Description": Key("description", text),
    "Documentation": Key("documentation", many_words, many=True),
    "StartLimitIntervalSec": Key("start_limit_interval_ms", of(values.span_ms)),
    "StartLimitInterval": Key("start_limit_interval_ms", of(values.span_ms)),
    "StartLimitBurst": Key("start_limit_burst", of(values.number)),
}
UNIT_HARMLESS = (
    "After",
    "Before",
    "Wants",
    "Requires",
    "BindsTo",
    "PartOf",
    "Requisite",
    "DefaultDependencies",
    "SourcePath",
)
INSTALL_HARMLESS = ("WantedBy", "RequiredBy", "UpheldBy", "Alias", "Also", "DefaultInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """[Service]. Times in milliseconds, None is for ever. ``working_directory``: ``~`` is the user's home.

    ``environment`` in order; a later entry of a name counts. Commands still hold environment variables.
    """

    type: str = "simple"
    exec_start_pre: tuple[Command, ...] = ()
    exec_start: tuple[Command, ...] = ()
    exec_start_post: tuple[Command, ...] = ()
    exec_reload: tuple[Command, ...] = ()
    exec_stop: tuple[Command, ...] = ()
    exec_stop_post: tuple[Command, ...] = ()
    environment: Pairs = ()
    environment_files: tuple[EnvironmentFile, ...] = ()
    working_directory: str = ""
    user: str = ""
    group: str = ""
    restart: str = "no"
    restart_ms: int | None = 100
    start_limit_interval_ms: int | None = None
    start_limit_burst: int | None = None
    timeout_start_ms: int | None = 90_000
    timeout_stop_ms: int | None = 90_000
    kill_signal: str = "SIGTERM"
    kill_mode: str = "control-group"
    remain_after_exit: bool = False


def _working_directory(value: str, expand: Expand) -> str:
    bare = value.removeprefix("-")
    return value[: len(value) - len(bare)] + (bare if bare == "~" else values.absolute(expand(bare)))


def _user(value: str, expand: Expand) -> str:
    found = expand(value)
    if not found or any(char in found for char in " \t:/"):
        raise BadValue(f"{found!r} is not a user or group")
    return found


RESTARTS = ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort")
SERVICE_KEYS = {
    "Type": Key("type", choice("simple", "exec", "oneshot", "notify")),
    "ExecStartPre": Key("exec_start_pre", exec_lines, many=True),
    "ExecStart": Key("exec_start", exec_lines, many=True),
    "ExecStartPost": Key("exec_start_post", exec_lines, many=True),
    "ExecReload": Key("exec_reload", exec_lines, many=True),
    "ExecStop": Key("exec_stop", exec_lines, many=True),
    "ExecStopPost": Key("exec_stop_post", exec_lines, many=True),
    "Environment": Key("environment", pairs, many=True),
    "EnvironmentFile": Key("environment_files", environment_files, many=True),
    "WorkingDirectory": Key("working_directory", _working_directory),
    "User": Key("user", _user),
    "Group": Key("group", _user),
    "Restart": Key("restart", choice(*RESTARTS)),
    "RestartSec": Key("restart_ms", of(values.span_ms)),
    "StartLimitInterval": Key("start_limit_interval_ms", of(values.span_ms)),
    "StartLimitIntervalSec": Key("start_limit_interval_ms", of(values.span_ms)),
    "StartLimitBurst": Key("start_limit_burst", of(values.number)),
    "TimeoutStartSec": Key("timeout_start_ms", of(values.span_ms)),
    "TimeoutStopSec": Key("timeout_stop_ms", of(values.span_ms)),
    "KillSignal": Key("kill_signal", of(values.signal_name)),
    "KillMode": Key("kill_mode", choice("control-group", "mixed", "process")),
    "RemainAfterExit": Key("remain_after_exit", of(values.boolean)),
}
SERVICE_HARMLESS = (
    "CPUAccounting",
    "IOAccounting",
    "MemoryAccounting",
    "TasksAccounting",
    "IPAccounting",
    "GuessMainPID",
    "SyslogIdentifier",
)
#: What [Service] may say beside a [Container].
SERVICE_WITH_CONTAINER = frozenset(
    {
        "Restart",
        "RestartSec",
        "StartLimitBurst",
        "StartLimitInterval",
        "StartLimitIntervalSec",
        "TimeoutStartSec",
        "TimeoutStopSec",
        *SERVICE_HARMLESS,
    }
)


@dataclass(frozen=True, slots=True)
class Publish:
    """A published port; ``host_port`` 0: the engine chooses one. ``address`` empty: all."""

    container_port: int
    protocol: str = "tcp"
    host_port: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """``source``: a host path or a volume's name, empty for an anonymous one. ``options``: ro, rw, z, Z, …"""

    source: str
    target: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """[Container]. ``exec``: the arguments, ``entrypoint`` replaces the image's. Sizes in bytes, times in ms."""

    image: str = ""
    container_name: str = ""
    exec: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Pairs = ()
    environment_files: tuple[EnvironmentFile, ...] = ()
    publish_ports: tuple[Publish, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    user: str = ""
    group: str = ""
    working_dir: str = ""
    health_cmd: str = ""
    health_interval_ms: int | None = 30_000
    health_timeout_ms: int | None = 30_000
    health_start_period_ms: int | None = 0
    health_retries: int = 3
    labels: Pairs = ()
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    read_only: bool = False
    no_new_privileges: bool = False
    ulimits: Pairs = ()
    sysctls: Pairs = ()
    shm_size_bytes: int = 0
    memory_bytes: int = 0
    pids_limit: int = 0
    stop_signal: str = ""
    stop_timeout_ms: int | None = 10_000
    host_name: str = ""
    dns: tuple[str, ...] = ()
    add_hosts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    run_init: bool = False
    pull: str = "missing"
    log_driver: str = ""


def _publish(value: str, expand: Expand) -> list[Publish]:
    """``[[address:][host]:]container[/protocol]``, with ranges; an IPv6 address stands in brackets."""
    whole = expand(value)
    rest, slash, protocol = whole.partition("/")
    address = ""
    if rest.startswith("["):
        address, closed, rest = rest[1:].partition("]:")
        if not closed:
            raise BadValue(f"{whole!r}: the address has no closing bracket")
    elif rest.count(":") == 2:
        address, _, rest = rest.partition(":")
    host, colon, inner = rest.rpartition(":")
    suffix = slash + protocol
    inside = values.ports(inner + suffix)
    outside = [port for port, _ in values.ports(host + suffix)] if colon and host else [0] * len(inside)
    if len(outside) != len(inside):
        raise BadValue(f"{whole!r}: the two ranges have different lengths")
    return [Publish(port, kind, out, address) for (port, kind), out in zip(inside, outside, strict=True)]


def _volume(value: str, expand: Expand) -> list[Volume]:
    parts = expand(value).split(":")
    if len(parts) == 1:
        return [Volume("", values.absolute(parts[0]))]
    if len(parts) > 3 or not parts[0]:
        raise BadValue(f"{value!r} is not source:target[:options]")
    if "/" in parts[0]:
        values.absolute(parts[0])
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    return [Volume(parts[0], values.absolute(parts[1]), options)]


def _ulimits(value: str, expand: Expand) -> list[tuple[str, str]]:
    found = loose_pairs(value, expand)
    for name, limit in found:
        if not all(part.isdigit() or part == "-1" for part in limit.split(":")) or limit.count(":") > 1:
            raise BadValue(f"{name}={limit} is not name=soft[:hard]")
    return found


def _command_line(value: str, expand: Expand) -> list[str]:
    return [expand(found.text) for found in words(value)]


def _capabilities(value: str, expand: Expand) -> list[str]:
    return [expand(found.text).upper().removeprefix("CAP_") for found in words(value)]


CONTAINER_KEYS = {
    "Image": Key("image", word),
    "ContainerName": Key("container_name", word),
    "Exec": Key("exec", lambda value, expand: tuple(_command_line(value, expand))),
    "Entrypoint": Key("entrypoint", lambda value, expand: tuple(_command_line(value, expand))),
    "Environment": Key("environment", pairs, many=True),
    "EnvironmentFile": Key("environment_files", environment_files, many=True),
    "PublishPort": Key("publish_ports", _publish, many=True),
    "Volume": Key("volumes", _volume, many=True),
    "Tmpfs": Key("tmpfs", one_line, many=True),
    "Network": Key("networks", one_line, many=True),
    "User": Key("user", _user),
    "Group": Key("group", _user),
    "WorkingDir": Key("working_dir", of(values.absolute)),
    "HealthCmd": Key("health_cmd", text),
    "HealthInterval": Key("health_interval_ms", of(values.span_ms)),
    "HealthTimeout": Key("health_timeout_ms", of(values.span_ms)),
    "HealthStartPeriod": Key("health_start_period_ms", of(values.span_ms)),
    "HealthRetries": Key("health_retries", of(values.number)),
    "Label": Key("labels", loose_pairs, many=True),
    "AddCapability": Key("add_capabilities", _capabilities, many=True),
    "DropCapability": Key("drop_capabilities", _capabilities, many=True),
    "ReadOnly": Key("read_only", of(values.boolean)),
    "NoNewPrivileges": Key("no_new_privileges", of(values.boolean)),
    "Ulimit": Key("ulimits", _ulimits, many=True),
    "Sysctl": Key("sysctls", loose_pairs, many=True),
    "ShmSize": Key("shm_size_bytes", of(values.size_bytes)),
    "Memory": Key("memory_bytes", of(values.size_bytes)),
    "PidsLimit": Key("pids_limit", of(values.number)),
    "StopSignal": Key("stop_signal", of(values.signal_name)),
    "StopTimeout": Key("stop_timeout_ms", of(values.span_ms)),
    "HostName": Key("host_name", word),
    "DNS": Key("dns", many_words, many=True),
    "AddHost": Key("add_hosts", many_words, many=True),
    "AddDevice": Key("devices", one_line, many=True),
    "RunInit": Key("run_init", of(values.boolean)),
    "Pull": Key("pull", choice("always", "missing", "never", "newer")),
    "LogDriver": Key("log_driver", word),
}
CONTAINER_HARMLESS = ("AutoUpdate", "StartWithPod")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """[X-Corelog]. ``engine`` empty: docker if there is a [Container], else process. Nought isn't counted.

    ``ports``: (number, protocol) that the unit listens on at its machine; no other unit gets them there.
    ``template_on_change``: what is done to the unit when one of its files is new: restart, reload, none.
    """

    engine: str = ""
    fence: bool = False
    cpu_millis: int = 0
    memory_bytes: int = 0
    ports: tuple[Port, ...] = ()
    templates: tuple[TemplateFile, ...] = ()
    template_on_change: str = "restart"


ENGINES = ("process", "docker")


def _engine(value: str, expand: Expand) -> str:
    if value not in ENGINES:
        raise BadValue(f"unknown engine {value!r}; this version has {' and '.join(ENGINES)}")
    return value


def _ports(value: str, expand: Expand) -> list[Port]:
    return [port for found in words(value.replace(",", " ")) for port in values.ports(expand(found.text))]


LIMIT_KEYS = {
    "Engine": Key("engine", _engine),
    "Fence": Key("fence", of(values.boolean)),
    "CPU": Key("cpu_millis", of(values.cpu_millis)),
    "Memory": Key("memory_bytes", of(values.size_bytes)),
    "Ports": Key("ports", _ports, many=True),
    "Template": Key("templates", template_file, many=True),
    "TemplateOnChange": Key("template_on_change", choice(*ON_CHANGE)),
}
