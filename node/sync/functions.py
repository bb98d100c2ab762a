"""What templates may call: confd's and consul-template's functions, on keys that are known. Pure.

Every key is as the resource's ``prefix`` makes it; names that are given back are without it. What isn't known yet
raises :class:`node.sync.keys.Missing`, what can't be raises :class:`Fault`.
"""

import base64
import binascii
import json
import posixpath
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from node.sync import keys
from node.sync.keys import Known, Range
from node.sync.resource import Resource

#: What fits into the head of a v2 request, with each byte as three.
KEY_BYTES_MAX = 16 << 10


class Fault(Exception):
    """``key``: which one it is about, or empty."""

    def __init__(self, words: str, key: str = "") -> None:
        super().__init__(words)
        self.key = key


class Entry(NamedTuple):
    """A key and its value; also under the names that Go's templates use. As text: the value."""

    key: str
    value: str

    @property
    def Key(self) -> str:
        return self.key

    @property
    def Value(self) -> str:
        return self.value

    def __str__(self) -> str:
        return self.value


_NONE = object()


class Lookups:
    """The functions that look at keys. ``asked``: every range that one was about."""

    def __init__(self, known: Known, resource: Resource) -> None:
        self._known, self._resource = known, resource
        self.asked: set[Range] = set()

    def _value(self, key: Any) -> str | None:
        wanted = point(self._resource, key)
        self.asked.add(wanted)
        found = self._known.value(wanted.start)
        return None if found is None else keys.text(found)

    def _below(self, wanted: Range) -> list[Entry]:
        self.asked.add(wanted)
        return [Entry(keys.text(key), keys.text(value)) for key, value in self._known.below(wanted)]

    def getv(self, key: Any, default: Any = _NONE) -> Any:
        found = self._value(key)
        if found is not None:
            return found
        if default is _NONE:
            raise Fault(f"there is no key {self._resource.full(key)}", self._resource.full(key))
        return default

    def get(self, key: Any) -> Entry:
        return Entry(_name(key), self.getv(key))

    def exists(self, key: Any) -> bool:
        return self._value(key) is not None

    def gets(self, pattern: Any) -> list[Entry]:
        """Keys that fit; ``*``, ``?`` and ``[…]`` fit no slash."""
        whole = self._resource.full(_name(pattern))
        fits = shaped(whole)
        found = self._below(keys.prefix(_raw(literal(whole))))
        return [Entry(self._resource.short(key), value) for key, value in found if fits.fullmatch(key)]

    def getvs(self, pattern: Any) -> list[str]:
        return [value for _, value in self.gets(pattern)]

    def tree(self, folder: Any = "") -> list[Entry]:
        """All keys below; their names begin behind it."""
        wanted = below(self._resource, folder)
        size = len(keys.text(b"" if wanted.start == b"\0" else wanted.start))
        return [Entry(key[size:], value) for key, value in self._below(wanted)]

    def ls(self, folder: Any = "") -> list[str]:
        """Names right below, of keys and of what holds keys."""
        return list(dict.fromkeys(key.partition("/")[0] for key, _ in self.tree(folder)))

    def lsdir(self, folder: Any = "") -> list[str]:
        """Of what holds keys only."""
        return list(dict.fromkeys(key.partition("/")[0] for key, _ in self.tree(folder) if "/" in key))

    def table(self) -> dict[str, Callable[..., Any]]:
        return {
            "get": self.get, "getv": self.getv, "exists": self.exists, "gets": self.gets, "getvs": self.getvs,
            "ls": self.ls, "lsdir": self.lsdir, "tree": self.tree,
            "key": self.getv, "keyOrDefault": self.getv, "keyExists": self.exists,
        }  # fmt: skip


#: Functions whose first argument is a key, a pattern, a folder.
OF_KEY = frozenset({"get", "getv", "exists", "key", "keyOrDefault", "keyExists"})
OF_PATTERN = frozenset({"gets", "getvs"})
OF_FOLDER = frozenset({"ls", "lsdir", "tree"})


def range_of(resource: Resource, function: str, argument: str) -> Range:
    """What a call of one of these functions is about."""
    if function in OF_KEY:
        return point(resource, argument)
    if function in OF_PATTERN:
        return keys.prefix(_raw(literal(resource.full(argument))))
    return below(resource, argument)


def point(resource: Resource, key: Any) -> Range:
    whole = _raw(resource.full(_name(key)))
    if not whole:
        raise Fault("a key can't be empty")
    return Range(whole)


def below(resource: Resource, folder: Any) -> Range:
    whole = resource.full(_name(folder))
    return keys.prefix(_raw(whole if whole.endswith("/") or not whole else whole + "/"))


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise Fault(f"a key is text, not {key!r}")
    return key


def _raw(key: str) -> bytes:
    """Raises Fault, so that what no store has isn't asked for: it would refuse the keys of other templates with it."""
    try:
        found = keys.raw(key)
    except UnicodeEncodeError:
        raise Fault(f"{key[:60]!r} is no key: it has half a character in it") from None
    if len(found) > KEY_BYTES_MAX:
        raise Fault(f"{key[:60]!r}… is no key: it has {len(found)} bytes, and may have {KEY_BYTES_MAX}")
    return found


_SPECIAL = re.compile(r"[*?\[\\]")


def literal(pattern: str) -> str:
    """What a pattern begins with."""
    found = _SPECIAL.search(pattern)
    return pattern[: found.start()] if found else pattern


def shaped(pattern: str) -> "re.Pattern[str]":
    """Go's path.Match as a regular expression. Raises Fault."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            if at == len(pattern):
                raise Fault(f"the pattern {pattern!r} ends with a backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            found = re.compile(r"\^?(?:[^\]\\]|\\.)+\]", re.DOTALL).match(pattern, at)
            if found is None:
                raise Fault(f"the pattern {pattern!r} has a [ without its ]")
            inner = re.sub(r"([\[&~|])", r"\\\1", found[0][:-1])
            out.append(f"(?!/)[{inner}]")
            at = found.end()
        else:
            out.append(re.escape(char))
    try:
        with warnings.catch_warnings():
            # of signs that a later Python may read otherwise, as in [a--]
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise Fault(f"the pattern {pattern!r} can't be read: {error}") from error


# -- of texts -------------------------------------------------------------------------------------------------


def _json(value: Any) -> Any:
    try:
        return json.loads(str(value))
    except (ValueError, RecursionError) as error:
        raise Fault(f"{str(value)[:60]!r} is no JSON: {error}") from error


def _json_array(value: Any) -> list[Any]:
    found = _json(value)
    if not isinstance(found, list):
        raise Fault(f"{str(value)[:60]!r} is JSON, but no array")
    return found


def _decode(value: Any) -> str:
    try:
        return keys.text(base64.b64decode(str(value), validate=True))
    except (binascii.Error, ValueError) as error:
        raise Fault(f"{str(value)[:60]!r} is no base64: {error}") from error


def _encode(value: Any) -> str:
    return base64.b64encode(keys.raw(str(value))).decode()


def _bool(value: Any) -> bool:
    known = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise Fault(f"{value!r} is neither true nor false") from None


def _int(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise Fault(f"{value!r} is no integer") from None


def texts(environ: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    """The functions that look at no key."""

    def getenv(name: str, default: str = "") -> str:
        return environ.get(name, default)

    return {
        "json": _json,
        "jsonArray": _json_array,
        "parseJSON": _json,
        "toJSON": lambda value: json.dumps(value),
        "base": lambda path: posixpath.basename(str(path).rstrip("/")),
        "dir": lambda path: posixpath.dirname(str(path)),
        "split": lambda value, separator: str(value).split(separator),
        "join": lambda values, separator="": str(separator).join(map(str, values)),
        "replace": lambda value, old, new, count=-1: str(value).replace(old, new, count),
        "contains": lambda value, part: part in value,
        "trimSuffix": lambda value, suffix: str(value).removesuffix(suffix),
        "trimSpace": lambda value: str(value).strip(),
        "toUpper": lambda value: str(value).upper(),
        "toLower": lambda value: str(value).lower(),
        "base64Encode": _encode,
        "base64Decode": _decode,
        "parseBool": _bool,
        "atoi": _int,
        "parseInt": _int,
        "getenv": getenv,
        "env": getenv,
        "reverse": lambda values: list(values)[::-1],
    }
