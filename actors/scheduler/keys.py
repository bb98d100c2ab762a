"""How a section's options become fields of a typed struct: one table of keys per section.

A reader takes one value (continuations joined) and the function that expands specifiers; it raises BadValue.
``many`` keys add up and are reset by an empty value; of others the last one counts, and an empty one is the default.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.scheduler import values
from actors.scheduler.syntax import BadValue, Option, UnitFileError, words
from actors.scheduler.values import Command

Expand = Callable[[str], str]
Reader = Callable[[str, Expand], Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    field: str
    read: Reader
    many: bool = False


def fields_of(
    unit: str, section: str, options: Iterable[Option], keys: Mapping[str, Key], harmless: Iterable[str], expand: Expand
) -> dict[str, Any]:
    """The fields that ``options`` of one section set. Raises UnitFileError with line and key."""
    found: dict[str, Any] = {}
    passed = frozenset(harmless)
    for option in options:
        key = keys.get(option.key)
        if key is None:
            if option.key in passed:
                continue
            raise UnitFileError(unit, option.line, option.key, unknown(section, option.key, [*keys, *passed]))
        if not option.value:
            found.pop(key.field, None)
            continue
        try:
            value = key.read(option.value, expand)
        except BadValue as error:
            raise UnitFileError(unit, option.line, option.key, str(error)) from None
        found[key.field] = (*found.get(key.field, ()), *value) if key.many else value
    return found


def unknown(section: str, key: str, known: Iterable[str]) -> str:
    """The words for a key that isn't honoured, with the nearest one that is."""
    near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    return f"this key of [{section}] is not honoured by this version" + (f"; did you mean {near[0]}?" if near else "")


# -- readers --------------------------------------------------------------------------------------------------


def text(value: str, expand: Expand) -> str:
    return expand(value)


def word(value: str, expand: Expand) -> str:
    """Exactly one word."""
    found = words(value)
    if len(found) != 1 or not found[0].text:
        raise BadValue(f"{value!r} is not one word")
    return expand(found[0].text)


def many_words(value: str, expand: Expand) -> list[str]:
    return [expand(found.text) for found in words(value)]


def one_line(value: str, expand: Expand) -> list[str]:
    """For keys that are repeated and whose value is taken whole."""
    return [expand(value)]


def pairs(value: str, expand: Expand) -> list[tuple[str, str]]:
    """``NAME=value`` words of Environment."""
    return [values.assignment(expand(found.text)) for found in words(value)]


def loose_pairs(value: str, expand: Expand) -> list[tuple[str, str]]:
    """``key=value`` words whose keys are free (labels, sysctls)."""
    found = []
    for item in words(value):
        name, equals, held = expand(item.text).partition("=")
        if not equals or not name:
            raise BadValue(f"{item.text[:60]!r} is not key=value")
        found.append((name, held))
    return found


def of(convert: Callable[[str], T]) -> Reader:
    """A reader of one converted value."""
    return lambda value, expand: convert(expand(value))


def choice(*allowed: str) -> Reader:
    def read(value: str, expand: Expand) -> str:
        if value not in allowed:
            raise BadValue(f"{value!r} is not one of {', '.join(allowed)}")
        return value

    return read


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """``optional`` (a leading ``-``): no error when it isn't there."""

    path: str
    optional: bool = False


def environment_files(value: str, expand: Expand) -> list[EnvironmentFile]:
    optional = value.startswith("-")
    return [EnvironmentFile(values.absolute(expand(value.removeprefix("-"))), optional)]


def exec_lines(value: str, expand: Expand) -> list[Command]:
    """The commands of an Exec line; specifiers are expanded after it was split, so they never split it."""
    found = []
    for command in values.commands(value):
        prefixes, path = values.split_prefixes(command[0].text)
        found.append(values.command(prefixes, expand(path), [expand(item.text) for item in command[1:]]))
    return found
