"""etcd's ``--config-file``: YAML or JSON, with sections for what flags say by a prefix."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.kv.durations import duration_s
from node.etcdnames import FILE_ONLY, KNOWN, FlagError, Given, near, reader

#: What stands in a section for which setting; others of a section of TLS are flags' names, the peers' without "peer-".
_SECTIONS: dict[str, dict[str, str]] = {
    "client-transport-security": {
        "allowed-cn": "client-cert-allowed-cn",
        "allowed-hostname": "client-cert-allowed-hostname",
        "skip-client-san-verification": "client-skip-client-san-verification",
    },
    "peer-transport-security": {
        "allowed-cn": "peer-cert-allowed-cn",
        "allowed-hostname": "peer-cert-allowed-hostname",
    },
    "socket-options": {"reuse-port": "socket-reuse-port", "reuse-address": "socket-reuse-address"},
    "discovery-config": {"token": "discovery-token"},
    "client": {
        "endpoints": "discovery-endpoints",
        "dial-timeout": "discovery-dial-timeout",
        "request-timeout": "discovery-request-timeout",
        "keepalive-time": "discovery-keepalive-time",
        "keepalive-timeout": "discovery-keepalive-timeout",
    },
    "secure": {
        "cert": "discovery-cert",
        "key": "discovery-key",
        "cacert": "discovery-cacert",
        "server-name": "discovery-server-name",
        "insecure-transport": "discovery-insecure-transport",
        "insecure-skip-tls-verify": "discovery-insecure-skip-tls-verify",
    },
    "auth": {"username": "discovery-user", "password": "discovery-password"},
}
_WITHIN = {"discovery-config": ("client",), "client": ("secure", "auth")}
_OUTERMOST = ("client-transport-security", "peer-transport-security", "socket-options", "discovery-config")
#: Lists that let somebody in: an item must be one name, and none may get lost.
_ALLOWING = frozenset(("client-cert-allowed-cn", "client-cert-allowed-hostname"))


def read_file(file: Path) -> list[Given]:
    """The settings of a ``--config-file`` (YAML or JSON). Raises FlagError with file and line."""
    try:
        source = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FlagError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FlagError(f"{file}: byte {error.start} is not UTF-8") from error
    return parse_file(source, str(file))


def parse_file(source: str, file: str) -> list[Given]:
    """Raises FlagError with file and line."""
    import yaml

    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FlagError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise FlagError(f"{file}:1: a mapping of settings is wanted")
    return [one for one in _entries(root, "", _OUTERMOST, file) if one is not None]


def _entries(mapping: Any, section: str, within: Sequence[str], file: str) -> Iterator[Given | None]:
    import yaml

    for key, value in mapping.value:
        place = f"{file}:{key.start_mark.line + 1}"
        name = key.value if isinstance(key.value, str) else ""
        if name not in within:
            yield _entry(_name(name, section, place), value, place)
        elif isinstance(value, yaml.MappingNode):
            yield from _entries(value, name, _WITHIN.get(name, ()), file)
        elif value.value:
            raise FlagError(f"{place}: {name} is a mapping of settings")


def _name(name: str, section: str, place: str) -> str:
    """The setting that ``name`` stands for. Raises FlagError."""
    found = _SECTIONS.get(section, {}).get(name, "")
    if section == "peer-transport-security":
        found = found or (name if name.startswith("peer-") else f"peer-{name}")
    elif section in ("", "client-transport-security"):
        found = found or name
    if found not in KNOWN and found not in FILE_ONLY:
        raise FlagError(f"{place}: unknown key {name!r}{near(name)}")
    return found


def _entry(name: str, value: Any, place: str) -> Given | None:
    """None: nothing is said."""
    import yaml

    if isinstance(value, yaml.SequenceNode) and all(isinstance(one, yaml.ScalarNode) for one in value.value):
        items = [one.value for one in value.value]
        if name in _ALLOWING and not all(item.strip() and "," not in item for item in items):
            raise FlagError(f"{place}: {name}: each item of the list is one name, without a comma")
        return Given(name, ",".join(items), place) if items else None
    if not isinstance(value, yaml.ScalarNode):
        raise FlagError(f"{place}: {name} is a text, a number or a list of texts")
    text = "" if value.tag == "tag:yaml.org,2002:null" else value.value
    if name == "auth-token" and value.tag == "tag:yaml.org,2002:str":
        return Given(name, text, place)  # an empty one says something
    if value.tag == "tag:yaml.org,2002:bool":
        text = "true" if text.lower() in ("true", "yes", "on") else "false"
    if reader(name) is duration_s and text.isdigit():
        text += "ns"  # in its files etcd's durations are nanoseconds
    if name in _ALLOWING and "," in text:
        raise FlagError(f"{place}: {name}: write several names as a list: [a, b]")
    return Given(name, text, place) if text else None
