"""Unit files: systemd's syntax, read into typed sections; what isn't honoured is refused by name.

    spec = parse("web@1.service", text)                    # anywhere: placement, checks, display
    spec = parse("web@1.service", text, host=HostFacts(…))  # on the machine: %H, %m, … are filled in too

``parse`` is pure and raises nothing but UnitFileError (unit, line, key, what to do).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from actors.scheduler import glob
from actors.scheduler.keys import Key, fields_of, many_words, unknown
from actors.scheduler.sections import (
    CONTAINER_HARMLESS,
    CONTAINER_KEYS,
    INSTALL_HARMLESS,
    LIMIT_KEYS,
    SERVICE_HARMLESS,
    SERVICE_KEYS,
    SERVICE_WITH_CONTAINER,
    UNIT_HARMLESS,
    UNIT_KEYS,
    Container,
    Limits,
    Service,
    UnitSection,
)
from actors.scheduler.specifiers import HostFacts, Name, expand, name_of
from actors.scheduler.syntax import BadValue, Option, UnitFileError, digest, read, serialize
from actors.scheduler.values import Command, Port, boolean, environment_file, expand_environment

__all__ = [
    "Command",
    "Fleet",
    "HostFacts",
    "Option",
    "UnitFile",
    "UnitFileError",
    "environment_file",
    "expand_environment",
    "name_of",
    "parse",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """[X-Fleet]. ``metadata``: for each key the values of which the machine must have one."""

    machine_id: str = ""
    machine_of: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    conflicts: tuple[str, ...] = ()
    is_global: bool = False
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitFile:
    """``engine``: process or docker. ``ports``, ``cpu_millis``, ``memory_bytes``: what it takes of its machine.

    ``hash``: fleet's SHA-1 of the options, 40 hex digits.
    """

    name: Name
    options: tuple[Option, ...]
    unit: UnitSection
    service: Service
    container: Container | None
    limits: Limits
    fleet: Fleet
    engine: str
    ports: tuple[Port, ...]
    hash: str

    @property
    def fence(self) -> bool:
        return self.limits.fence

    @property
    def cpu_millis(self) -> int:
        return self.limits.cpu_millis

    @property
    def memory_bytes(self) -> int:
        return self.limits.memory_bytes

    def serialize(self) -> str:
        return serialize(self.options)


@lru_cache(maxsize=32768)
def cached(name: str, text: str) -> UnitFile:
    """:func:`parse`, remembered: it is pure, so the cache is no state."""
    return parse(name, text)


def parse(name: str, text: str, host: HostFacts | None = None) -> UnitFile:
    """Read a unit file. Raises UnitFileError; see the module."""
    try:
        names = name_of(name)
    except BadValue as error:
        raise UnitFileError(name[:80], 0, "", str(error)) from None
    if names.suffix != "service":
        raise UnitFileError(name, 0, "", f"no engine of this version runs .{names.suffix} units, only .service")
    options = read(name, text)
    by_section: dict[str, list[Option]] = {}
    for option in options:
        by_section.setdefault(option.section, []).append(option)
    _known_sections(name, by_section)

    def on_machine(value: str) -> str:
        return expand(value, names, host)

    def section(title: str, keys: dict[str, Key], harmless: tuple[str, ...]) -> dict[str, object]:
        return fields_of(name, title, by_section.get(title, ()), keys, harmless, on_machine)

    fields_of(name, "Install", by_section.get("Install", ()), {}, INSTALL_HARMLESS, on_machine)
    unit = UnitSection(**section("Unit", UNIT_KEYS, UNIT_HARMLESS))  # type: ignore[arg-type]
    limits = Limits(**section("X-Corelog", LIMIT_KEYS, ()))  # type: ignore[arg-type]
    container = None
    if "Container" in by_section:
        container = Container(**section("Container", CONTAINER_KEYS, CONTAINER_HARMLESS))  # type: ignore[arg-type]
    service = _service(section("Service", SERVICE_KEYS, SERVICE_HARMLESS), unit)
    fleet = _fleet(name, names, by_section.get("X-Fleet", []))
    engine = limits.engine or ("docker" if container is not None else "process")
    _agree(name, by_section, engine, service, container, limits, fleet)
    published = [(p.host_port, p.protocol) for p in container.publish_ports if p.host_port] if container else []
    ports = tuple(dict.fromkeys([*limits.ports, *published]))
    return UnitFile(names, options, unit, service, container, limits, fleet, engine, ports, digest(options))


SECTIONS = ("Unit", "Service", "Container", "X-Corelog", "X-Fleet", "Install")


def _known_sections(name: str, by_section: dict[str, list[Option]]) -> None:
    """systemd ignores sections that begin with X-; so do we, but for misspelt ones of ours."""
    for title, options in by_section.items():
        ours = title.lower() in ("x-corelog", "x-fleet")
        if title not in SECTIONS and (ours or not title.startswith("X-")):
            raise UnitFileError(
                name,
                options[0].line,
                options[0].key,
                f"section [{title}] is not known; there are {', '.join(SECTIONS)}",
            )


def _service(fields: dict[str, object], unit: UnitSection) -> Service:
    """Start limits may stand in [Unit] (now) or [Service] (before systemd 230); a oneshot may start for ever."""
    fields.setdefault("start_limit_interval_ms", unit.start_limit_interval_ms)
    fields.setdefault("start_limit_burst", unit.start_limit_burst)
    if fields.get("type") == "oneshot":
        fields.setdefault("timeout_start_ms", None)
    return Service(**fields)  # type: ignore[arg-type]


def _agree(
    name: str,
    by_section: dict[str, list[Option]],
    engine: str,
    service: Service,
    container: Container | None,
    limits: Limits,
    fleet: Fleet,
) -> None:
    """What can be said only about the sections together."""

    def wrong(section: str, key: str, message: str) -> UnitFileError:
        found = next((o for o in by_section.get(section, ()) if not key or o.key == key), None)
        return UnitFileError(name, found.line if found else 0, key, message)

    if engine == "docker" and container is None:
        raise wrong("X-Corelog", "Engine", "engine docker needs a [Container] section with Image=")
    if engine == "process" and container is not None:
        raise wrong(
            "X-Corelog", "Engine", "a [Container] can't be run by engine process; say docker, or leave Engine out"
        )
    if container is not None:
        if not container.image:
            raise wrong("Container", "", "[Container] needs Image=")
        if container.group and not container.user:
            raise wrong("Container", "Group", "Group needs User")
        for option in by_section.get("Service", ()):
            if option.key not in SERVICE_WITH_CONTAINER:
                raise UnitFileError(name, option.line, option.key, "is not honoured in [Service] beside a [Container]")
    else:
        if not service.exec_start:
            raise wrong("Service", "", "[Service] needs ExecStart= (or the file a [Container] section)")
        if service.type != "oneshot" and len(service.exec_start) > 1:
            raise wrong(
                "Service", "ExecStart", f"only Type=oneshot may have several commands, Type={service.type} has one"
            )
        if service.type == "oneshot" and service.restart in ("always", "on-success"):
            raise wrong("Service", "Restart", f"Type=oneshot can't have Restart={service.restart}")
    if limits.template_on_change == "reload" and not service.exec_reload:
        why = (
            "a container can't be told to reload" if container is not None else "reload needs ExecReload= in [Service]"
        )
        raise wrong("X-Corelog", "TemplateOnChange", why)
    dests = [file.dest for file in limits.templates]
    if twice := next((dest for dest in dests if dests.count(dest) > 1), ""):
        raise wrong("X-Corelog", "Template", f"{twice} is rendered twice")
    if fleet.is_global and limits.fence:
        raise wrong("X-Corelog", "Fence", "a global unit runs on every machine; Fence=yes is for one copy only")


# -- [X-Fleet] ------------------------------------------------------------------------------------------------

_FLEET_SPELLINGS = {
    "X-ConditionMachineID": "MachineID",
    "X-ConditionMachineBootID": "MachineID",
    "X-ConditionMachineOf": "MachineOf",
    "X-ConditionMachineMetadata": "MachineMetadata",
    "X-Conflicts": "Conflicts",
}
_FLEET_KEYS = ("MachineID", "MachineOf", "MachineMetadata", "Conflicts", "Global", "Replaces")
_MACHINE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{7,127}")


def _fleet(name: str, names: Name, options: list[Option]) -> Fleet:
    """The placement options. Raises UnitFileError; rules that two options break together name the later one."""

    def on_none(value: str) -> str:
        return expand(value, names, on_machine=False)

    found: dict[str, list[tuple[Option, str]]] = {key: [] for key in _FLEET_KEYS}
    for option in options:
        key = _FLEET_SPELLINGS.get(option.key, option.key)
        if key not in found:
            known = [*_FLEET_KEYS, *_FLEET_SPELLINGS]
            raise UnitFileError(name, option.line, option.key, unknown("X-Fleet", option.key, known))
        if not option.value:
            found[key] = []
            continue
        found[key] += [(option, value) for value in _checked(name, option, lambda v: many_words(v, on_none))]
    _exclusions(name, {key: values[-1][0] for key, values in found.items() if values})
    metadata: dict[str, list[str]] = {}
    for option, pair in found["MachineMetadata"]:
        key, equals, value = pair.partition("=")
        if not (equals and key and value) or "=" in value:
            raise UnitFileError(name, option.line, option.key, f"{pair!r} is not key=value")
        metadata.setdefault(key, []).append(value)
    for key in ("Conflicts", "Replaces"):
        for option, pattern in found[key]:
            _checked(name, option, lambda _, pattern=pattern: [str(glob.compiled(pattern))])  # type: ignore[misc]
    for option, peer in found["MachineOf"]:
        _checked(name, option, lambda _, peer=peer: [name_of(peer).full])  # type: ignore[misc]
        _check_peer(name, option, peer, [p for k in ("Conflicts", "Replaces") for _, p in found[k]])
    if found["MachineID"] and not _MACHINE_ID.fullmatch(found["MachineID"][0][1]):
        option, value = found["MachineID"][0]
        raise UnitFileError(
            name, option.line, option.key, f"{value!r} is not a machine id (or 8 or more of its digits)"
        )
    flags = [bool(_checked(name, o, lambda _, v=v: ["y"] if boolean(v) else [])) for o, v in found["Global"]]  # type: ignore[misc]
    return Fleet(
        machine_id=found["MachineID"][0][1] if found["MachineID"] else "",
        machine_of=tuple(dict.fromkeys(value for _, value in found["MachineOf"])),
        metadata=tuple((key, tuple(dict.fromkeys(values))) for key, values in metadata.items()),
        conflicts=tuple(dict.fromkeys(value for _, value in found["Conflicts"])),
        is_global=flags[-1] if flags else False,
        replaces=tuple(dict.fromkeys(value for _, value in found["Replaces"])),
    )


def _checked(name: str, option: Option, convert: Callable[[str], list[str]]) -> list[str]:
    try:
        return convert(option.value)
    except BadValue as error:
        raise UnitFileError(name, option.line, option.key, str(error)) from None


_EXCLUDES = (
    ("MachineID", ("MachineOf", "Conflicts", "Global", "Replaces")),
    ("Global", ("MachineOf", "Replaces")),
    ("Conflicts", ("Replaces",)),
)


def _exclusions(name: str, given: dict[str, Option]) -> None:
    for one, others in _EXCLUDES:
        for other in others:
            if one in given and other in given:
                later = max(given[one], given[other], key=lambda option: option.line)
                raise UnitFileError(name, later.line, later.key, f"{one} and {other} can't stand together")


def _check_peer(name: str, option: Option, peer: str, patterns: list[str]) -> None:
    if peer == name:
        raise UnitFileError(name, option.line, option.key, f"a cycle of MachineOf: {name} → {name}")
    for pattern in patterns:
        if glob.matches(pattern, peer):
            raise UnitFileError(
                name, option.line, option.key, f"{peer} is also matched by Conflicts or Replaces {pattern!r}"
            )
