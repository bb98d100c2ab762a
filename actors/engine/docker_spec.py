"""A [Container] section as the body of dockerd's ``POST /containers/create``."""

from typing import Any

from actors.engine.spec import ContainerSpec

#: StopTimeout=infinity.
FOR_EVER_S = 10**9


def body_of(spec: ContainerSpec, environment: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    """The request. ``labels`` are ours and win over the unit's own."""
    ports: dict[str, Any] = {f"{port.container_port}/{port.protocol}": {} for port in spec.ports}
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in spec.ports:
        host = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(host)
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {**spec.labels, **labels},
        "ExposedPorts": ports,
        "Volumes": {volume.target: {} for volume in spec.volumes if not volume.source},
        "StopTimeout": int(-(-spec.stop_timeout_s // 1)) or FOR_EVER_S,
        "HostConfig": _host_config(spec, bindings),
    }
    given = (
        ("Cmd", list(spec.exec)),
        ("Entrypoint", list(spec.entrypoint)),
        ("User", spec.user + (f":{spec.group}" if spec.group else "")),
        ("WorkingDir", spec.cwd),
        ("Hostname", spec.hostname),
        ("StopSignal", spec.stop_signal),
        ("Healthcheck", _health(spec)),
    )
    return body | {key: value for key, value in given if value}


def _host_config(spec: ContainerSpec, bindings: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    binds = []
    for volume in spec.volumes:
        if volume.source:
            source = volume.source.removesuffix(".volume") if not volume.source.startswith("/") else volume.source
            binds.append(":".join([source, volume.target, *([",".join(volume.options)] if volume.options else [])]))
    host: dict[str, Any] = {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": spec.log_driver} if spec.log_driver else _LOGS,
        "PortBindings": bindings,
        "Binds": binds,
        "Tmpfs": {path: options for path, _, options in (each.partition(":") for each in spec.tmpfs)},
        "CapAdd": list(spec.cap_add),
        "CapDrop": list(spec.cap_drop),
        "ReadonlyRootfs": spec.read_only,
        "Init": spec.init,
        "SecurityOpt": ["no-new-privileges"] if spec.no_new_privileges else [],
        "Ulimits": [_ulimit(name, limit) for name, limit in spec.ulimits],
        "Sysctls": spec.sysctls,
        "Dns": list(spec.dns),
        "ExtraHosts": list(spec.add_hosts),
        "Devices": [_device(each) for each in spec.devices],
    }
    given = (
        ("PidsLimit", spec.pids_limit),
        ("ShmSize", spec.shm_size_bytes),
        ("Memory", spec.memory_bytes),
        ("NetworkMode", spec.networks[0].removesuffix(".network") if spec.networks else ""),
    )
    return host | {key: value for key, value in given if value}


#: What a container says is kept by the unit's journal; dockerd's own copy is bounded.
_LOGS = {"Type": "json-file", "Config": {"max-size": "8m", "max-file": "2"}}


def _health(spec: ContainerSpec) -> dict[str, Any]:
    if spec.health is None:
        return {}
    health = spec.health
    return {
        "Test": ["CMD-SHELL", health.command],
        "Interval": int(health.interval_s * 1e9),
        "Timeout": int(health.timeout_s * 1e9),
        "StartPeriod": int(health.start_period_s * 1e9),
        "Retries": health.retries,
    }


def _ulimit(name: str, limit: str) -> dict[str, Any]:
    soft, colon, hard = limit.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard if colon else soft)}


def _device(text: str) -> dict[str, str]:
    outside, _, rest = text.partition(":")
    inside, _, rights = rest.partition(":")
    return {"PathOnHost": outside, "PathInContainer": inside or outside, "CgroupPermissions": rights or "rwm"}
