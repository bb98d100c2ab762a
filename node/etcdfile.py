"""etcd's ``--config-file``: YAML or JSON, with sections for what flags say by a prefix."""

from pathlib import Path
from typing import Any

from actors.kv.durations import duration_s
from node.etcdnames import KNOWN, FlagError, Given, near, reader

_SECURITY = {"client-transport-security": "", "peer-transport-security": "peer-"}


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
    found: list[Given] = []
    for key, value in root.value:
        place = f"{file}:{key.start_mark.line + 1}"
        prefix = _SECURITY.get(key.value) if isinstance(key.value, str) else None
        if prefix is None:
            found.append(_entry(key, value, "", place))
        elif isinstance(value, yaml.MappingNode):
            for inner, text in value.value:
                found.append(_entry(inner, text, prefix, f"{file}:{inner.start_mark.line + 1}"))
        elif value.value:
            raise FlagError(f"{place}: {key.value} is a mapping of settings")
    return [one for one in found if one.text]


def _entry(key: Any, value: Any, prefix: str, place: str) -> Given:
    import yaml

    name = key.value if isinstance(key.value, str) else ""
    name = name if prefix + name not in KNOWN else prefix + name
    if name not in KNOWN:
        raise FlagError(f"{place}: unknown key {name!r}{near(name)}")
    if isinstance(value, yaml.SequenceNode) and all(isinstance(one, yaml.ScalarNode) for one in value.value):
        return Given(name, ",".join(one.value for one in value.value), place)
    if not isinstance(value, yaml.ScalarNode):
        raise FlagError(f"{place}: {name} is a text, a number or a list of texts")
    text = "" if value.tag == "tag:yaml.org,2002:null" else value.value
    if value.tag == "tag:yaml.org,2002:bool":
        text = "true" if text.lower() in ("true", "yes", "on") else "false"
    if reader(name) is duration_s and text.isdigit():
        text += "ns"  # in its files etcd's durations are nanoseconds
    return Given(name, text, place)
