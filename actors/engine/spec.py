"""What an engine is asked to run: a unit file, reduced to what the machine needs. Plain data."""

import signal

import msgspec

from actors.scheduler import values
from actors.scheduler.sections import Container, Service
from actors.scheduler.templates import TemplateFile
from actors.scheduler.unitfile import UnitFile

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
    reload: tuple[Command, ...] = ()
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


class Volume(msgspec.Struct, frozen=True):
    """Volume: a host's path, a volume's name, or (empty) an anonymous one, at ``target``."""

    source: str
    target: str
    options: tuple[str, ...] = ()


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """[Container] (Podman Quadlet's keys) for the engine ``docker``. ``pull``: always, newer, missing, never.

    With a health check the unit is ready when it is healthy, without one when it runs.
    """

    image: str
    name: str = ""
    exec: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    environment_files: tuple[tuple[str, bool], ...] = ()
    ports: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    ulimits: tuple[tuple[str, str], ...] = ()
    user: str = ""
    group: str = ""
    cwd: str = ""
    hostname: str = ""
    read_only: bool = False
    init: bool = False
    no_new_privileges: bool = False
    pids_limit: int = 0
    shm_size_bytes: int = 0
    memory_bytes: int = 0
    stop_signal: str = ""
    log_driver: str = ""
    health: Health | None = None
    pull: str = "missing"
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
    #: host ports that it listens on: (number, protocol)
    ports: tuple[tuple[int, str], ...] = ()
    #: files that are rendered from keys before it starts, and what is done when one is new: restart, reload, none
    templates: tuple[TemplateFile, ...] = ()
    on_change: str = "restart"
    process: ProcessSpec | None = None
    container: ContainerSpec | None = None


def spec_of(file: UnitFile) -> UnitSpec:
    """What an engine is asked to run, from a parsed unit file (parsed with the facts of this machine)."""
    service = file.service
    restart = RestartPolicy(
        when=service.restart if service.restart_ms is not None else "no",
        delay_s=(service.restart_ms or 0) / 1000,
        limit_interval_s=_seconds(service.start_limit_interval_ms, FOR_EVER_S),
        limit_burst=service.start_limit_burst if service.start_limit_burst is not None else 5,
    )
    return UnitSpec(
        name=file.name.full,
        engine=file.engine,
        fenced=file.fence,
        restart=restart,
        ports=file.ports,
        templates=file.limits.templates,
        on_change=file.limits.template_on_change,
        oneshot=service.type == "oneshot" and file.container is None,
        process=_process(service) if file.container is None else None,
        container=_container(file.container, service) if file.container is not None else None,
    )


#: StartLimitIntervalSec=infinity.
FOR_EVER_S = 1e12


def _seconds(span_ms: int | None, for_ever: float = 0.0) -> float:
    return for_ever if span_ms is None else span_ms / 1000


def _commands(commands: tuple[values.Command, ...]) -> tuple[Command, ...]:
    return tuple(Command(c.path, c.argv, c.ignore_failure, c.plain, bool(c.privileges)) for c in commands)


def _process(service: Service) -> ProcessSpec:
    return ProcessSpec(
        type=service.type,
        remain=service.remain_after_exit,
        pre=_commands(service.exec_start_pre),
        start=_commands(service.exec_start),
        post=_commands(service.exec_start_post),
        reload=_commands(service.exec_reload),
        stop=_commands(service.exec_stop),
        stop_post=_commands(service.exec_stop_post),
        environment=dict(service.environment),
        environment_files=tuple((each.path, each.optional) for each in service.environment_files),
        cwd=service.working_directory,
        user=service.user,
        group=service.group,
        kill_signal=signal.Signals[service.kill_signal],
        kill_mode=service.kill_mode,
        start_timeout_s=_seconds(service.timeout_start_ms),
        stop_timeout_s=_seconds(service.timeout_stop_ms),
    )


def _container(container: Container, service: Service) -> ContainerSpec:
    health = None
    if container.health_cmd and container.health_cmd != "none":
        health = Health(
            container.health_cmd,
            _seconds(container.health_interval_ms),
            _seconds(container.health_timeout_ms),
            _seconds(container.health_start_period_ms),
            container.health_retries,
        )
    return ContainerSpec(
        image=container.image,
        name=container.container_name,
        exec=container.exec,
        entrypoint=container.entrypoint,
        environment=dict(container.environment),
        environment_files=tuple((each.path, each.optional) for each in container.environment_files),
        ports=tuple(Port(p.container_port, p.host_port, p.protocol, p.address) for p in container.publish_ports),
        volumes=tuple(Volume(v.source, v.target, v.options) for v in container.volumes),
        tmpfs=container.tmpfs,
        networks=container.networks,
        labels=dict(container.labels),
        add_hosts=container.add_hosts,
        dns=container.dns,
        cap_add=container.add_capabilities,
        cap_drop=container.drop_capabilities,
        devices=container.devices,
        sysctls=dict(container.sysctls),
        ulimits=container.ulimits,
        user=container.user,
        group=container.group,
        cwd=container.working_dir,
        hostname=container.host_name,
        read_only=container.read_only,
        init=container.run_init,
        no_new_privileges=container.no_new_privileges,
        pids_limit=container.pids_limit,
        shm_size_bytes=container.shm_size_bytes,
        memory_bytes=container.memory_bytes,
        stop_signal=container.stop_signal,
        log_driver=container.log_driver,
        health=health,
        pull=container.pull,
        start_timeout_s=_seconds(service.timeout_start_ms),
        stop_timeout_s=_seconds(container.stop_timeout_ms),
    )
