"""What is rendered whereto: confd's template resources (TOML files with a table ``[template]``). Pure."""

import difflib
import posixpath
import re
import shlex
import tomllib
from typing import Any

import msgspec

#: Of commands: where the path of the new file is put.
_PLACEHOLDER = re.compile(r"\{\{\s*\.?(src|dest)\s*\}\}")
KEY_SOURCE = "kv:"


class ResourceError(Exception):
    """A template resource is wrong; the message names its file and field."""

    exit_code = 2


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One template and its file.

    name       what messages call it
    source     path of the template, or ``kv:KEY``: it is the value of a key
    dest       path of the file
    prefix     stands before every key that the template names
    keys       keys, with all below them, that are asked for at once (others when the template asks)
    mode       None: as the file is, or 0644;  owner, group: empty: as the file's
    check      command that must succeed with the new file (``{{.src}}``) before it takes its place
    reload     command that is run after it did
    api        v3, or v2: the older store of keys
    variables  names that the template may use beside the functions
    """

    name: str
    source: str
    dest: str
    prefix: str = ""
    keys: tuple[str, ...] = ()
    mode: int | None = None
    owner: str = ""
    group: str = ""
    check: str = ""
    reload: str = ""
    api: str = "v3"
    variables: tuple[tuple[str, str], ...] = ()

    def full(self, key: str) -> str:
        """A key as the template names it → as the store has it."""
        if self.prefix:
            return self.prefix.rstrip("/") + "/" + key.lstrip("/")
        if self.api == "v2":
            return "/" + key.lstrip("/")
        return key

    def short(self, key: str) -> str:
        """The other way round."""
        return key[len(self.prefix.rstrip("/")) :] if self.prefix else key

    @property
    def source_key(self) -> str:
        """The key that holds the template, or empty."""
        return self.source.removeprefix(KEY_SOURCE) if self.source.startswith(KEY_SOURCE) else ""


def command(line: str, source: str, dest: str) -> str:
    """A shell's command line with the paths in it, quoted where that is needed."""
    paths = {"src": shlex.quote(source), "dest": shlex.quote(dest)}
    return _PLACEHOLDER.sub(lambda found: paths[found[1]], line)


def mode(value: Any) -> int:
    """``"0644"``. Raises ValueError."""
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3,4}", value):
        raise ValueError(f'{value!r} is no mode: write it in quotes, such as "0644"')
    return int(value, 8)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is no text")
    return value


def _filled(value: Any) -> str:
    if not _text(value).strip():
        raise ValueError("it is empty")
    return str(value)


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    return _text(value)


def _keys(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("it is no list of texts")
    return tuple(map(_text, value))


def _api(value: Any) -> str:
    if value not in ("v2", "v3"):
        raise ValueError(f"{value!r} is neither v2 nor v3")
    return str(value)


def _variables(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError("it is no table of texts")
    return tuple(sorted(value.items()))


#: Name in the file → field and reader. All but the last two are confd's.
_FIELDS = {
    "src": ("source", _filled),
    "dest": ("dest", _filled),
    "prefix": ("prefix", _text),
    "keys": ("keys", _keys),
    "owner": ("owner", _id),
    "group": ("group", _id),
    "uid": ("owner", _id),
    "gid": ("group", _id),
    "mode": ("mode", mode),
    "check_cmd": ("check", _text),
    "reload_cmd": ("reload", _text),
    "api": ("api", _api),
    "variables": ("variables", _variables),
}


def parse(name: str, source: str, templates: str) -> Resource:
    """A resource from the text of a TOML file ``name``; a relative ``src`` is in the folder ``templates``.

    Raises ResourceError.
    """
    try:
        table = tomllib.loads(source).get("template")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ResourceError(f"{name}: not TOML: {error}") from error
    if not isinstance(table, dict):
        raise ResourceError(f"{name}: there is no table [template]")
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_FIELDS)}"
            raise ResourceError(f"{name}: unknown key {key!r} in [template]; {hint}")
        field, read = _FIELDS[key]
        try:
            fields[field] = read(value)
        except ValueError as error:
            raise ResourceError(f"{name}: {key}: {error}") from error
    for key in ("src", "dest"):
        if _FIELDS[key][0] not in fields:
            raise ResourceError(f"{name}: [template] has no {key}")
    if not fields["source"].startswith(KEY_SOURCE):
        fields["source"] = posixpath.join(templates, fields["source"])
    if not fields["dest"].startswith("/"):
        raise ResourceError(f"{name}: dest: {fields['dest']!r} is no absolute path")
    return Resource(name=fields["dest"], **fields)
