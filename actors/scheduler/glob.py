"""Shell globs by the rules of Go's ``path.Match``, which fleet's Conflicts and Replaces use.

``*`` any run of characters but ``/``; ``?`` one of them; ``[a-z]`` and ``[^a-z]`` a class, which may not be empty;
``\\`` takes the next character as it is. The whole name must match.
"""

import re
from functools import lru_cache

from actors.scheduler.syntax import BadValue


@lru_cache(maxsize=65536)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression. Raises BadValue where Go says ErrBadPattern."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if out[-1:] != ["[^/]*"]:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, at = _class(pattern, at)
            out.append(text)
        elif char == "\\":
            if at == len(pattern):
                raise BadValue(f"glob {pattern!r} ends in a backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def matches(pattern: str, name: str) -> bool:
    return compiled(pattern).fullmatch(name) is not None


def is_plain(pattern: str) -> bool:
    """No character with a meaning stands in it: it matches only itself."""
    return not any(char in pattern for char in "*?[\\")


def _class(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            break
        low, at = _bound(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _bound(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")  # Go: a range turned round matches nothing
    inside = "".join(ranges)
    if not inside:
        return (r"[\s\S]" if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _bound(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise BadValue(f"glob {pattern!r} has a broken [class]")
    if char == "\\":
        char = pattern[at + 1 : at + 2]
        at += 1
        if not char:
            raise BadValue(f"glob {pattern!r} has a broken [class]")
    if at + 1 >= len(pattern):
        raise BadValue(f"glob {pattern!r} has a [class] that is never closed")
    return char, at + 1
