"""What an engine is asked to run: a unit file, reduced to what the machine needs. Plain data."""

import signal

import msgspec

#: TimeoutStartSec=infinity and TimeoutStopSec=infinity are 0 here.
DEFAULT_TIMEOUT_S = 90.0


class Command(msgspec.Struct, frozen=True):
    """One command. ``argv`` has variables in it still; ``path`` without a slash is looked for in PATH.

    ignore       ``-``: its failure is none
    plain        ``:``: no variables are expanded
    privileged   ``+`` and ``!``: as the supervisor's user, not as User=
    """

    path: str
    argv: tuple[str, ...]
    ignore: bool = False
    plain: bool = False
    privileged: bool = False


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """[Service] for the engine ``process``. ``type``: simple, exec, oneshot, notify. ``kill_mode``: control-group,
    mixed, process. ``environment_files``: (path, whether it may be missing)."""

    type: str = "simple"
    remain: bool = False
    pre: tuple[Command, ...] = ()
    start: tuple[Command, ...] = ()
    post: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    stop_post: tuple[Command, ...] = ()
    environment: dict[str, str] = {}
    environment_files: tuple[tuple[str, bool], ...] = ()
    cwd: str = ""
    user: str = ""
    group: str = ""
    umask: int = 0o022
    kill_signal: int = signal.SIGTERM
    kill_mode: str = "control-group"
    start_timeout_s: float = DEFAULT_TIMEOUT_S
    stop_timeout_s: float = DEFAULT_TIMEOUT_S


class Port(msgspec.Struct, frozen=True):
    """PublishPort: ``host_port`` 0 lets dockerd choose."""

    container_port: int
    host_port: int = 0
    protocol: str = "tcp"
    host_ip: str = ""


class Health(msgspec.Struct, frozen=True):
    """HealthCmd and its times in seconds; 0 leaves dockerd's default."""

    command: str
    interval_s: float = 0
    timeout_s: float = 0
    start_period_s: float = 0
    retries: int = 0


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """[Container] (Podman Quadlet's keys) for the engine ``docker``. ``pull``: always, missing, never."""

    image: str
    exec: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    environment_files: tuple[tuple[str, bool], ...] = ()
    ports: tuple[Port, ...] = ()
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    ulimits: tuple[str, ...] = ()
    user: str = ""
    group: str = ""
    cwd: str = ""
    hostname: str = ""
    name: str = ""
    ip: str = ""
    read_only: bool = False
    init: bool = False
    no_new_privileges: bool = False
    pids_limit: int = 0
    shm_size_bytes: int = 0
    memory_bytes: int = 0
    cpu_millis: int = 0
    stop_signal: int = signal.SIGTERM
    health: Health | None = None
    #: Notify=healthy: started counts as ready only when healthy. Without a health check it is ready at once.
    notify_healthy: bool = True
    pull: str = "missing"
    remain: bool = False
    start_timeout_s: float = DEFAULT_TIMEOUT_S
    stop_timeout_s: float = 10.0


class RestartPolicy(msgspec.Struct, frozen=True):
    """Restart=, RestartSec=, StartLimitIntervalSec= (0: no limit), StartLimitBurst=: systemd's defaults."""

    when: str = "no"
    delay_s: float = 0.1
    limit_interval_s: float = 10.0
    limit_burst: int = 5


class UnitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """``engine``: process or docker; ``fenced``: never two copies in the cluster, whatever happens."""

    name: str
    engine: str = "process"
    fenced: bool = False
    restart: RestartPolicy = RestartPolicy()
    oneshot: bool = False
    process: ProcessSpec | None = None
    container: ContainerSpec | None = None
