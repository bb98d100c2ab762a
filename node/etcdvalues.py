"""How the values of etcd's flags are read: numbers and durations as Go reads them, URLs, members, tokens.

Each takes a text and raises ValueError, whose words the caller puts after the place where the text stood.
"""

import re
from collections.abc import Callable

from actors.kv import ciphers, places

#: Go's: decimal, or with 0x, 0o, 0b or a leading 0; ``_`` between digits.
_WHOLE = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<binary>(?:_?[01])+)|0[oO]?(?P<octal>(?:_?[0-7])+)"
    r"|(?P<decimal>0|[1-9](?:_?[0-9])*))"
)
_BASES = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}


def whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers as Go's flags take them; those that begin at 0 take no sign."""

    def read(text: str) -> int:
        # no number that fits has more digits than 64 bits and their sign, prefix and marks
        matched = _WHOLE.fullmatch(text) if len(text) < 200 else None
        if matched is None or (least == 0 and matched["sign"]):
            raise ValueError(f"{text!r} is no whole number{' without a sign' if least == 0 else ''}: parse error")
        base = next(base for base in _BASES if matched[base])
        found = int(matched[base].replace("_", ""), _BASES[base]) * (-1 if matched["sign"] == "-" else 1)
        if not least <= found <= most:
            raise ValueError(f"{text}: value out of range: {least} to {most}")
        return found

    return read


signed = whole(-(2**63), 2**63 - 1)
unsigned = whole(0, 2**64 - 1)
unsigned32 = whole(0, 2**32 - 1)


def truth(text: str) -> bool:
    """Go's words for it."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def texts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def text_of(text: str) -> str:
    return text


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(word or 'nothing' for word in words)}")
        return text

    return read


def suites(text: str) -> list[str]:
    """Cipher suites that can be had; looked at also where nothing is served by TLS."""
    found = texts(text)
    ciphers.check(found)
    return found


def urls(text: str) -> list[str]:
    """Where to listen."""
    found = texts(text)
    for one in found:
        if "://" not in one:
            raise ValueError(f"{one!r}: URL scheme must be http, https, unix, or unixs")
        places.parse(one)
    return found


def told_urls(text: str) -> list[str]:
    """URLs that others are told."""
    found = texts(text)
    for one in found:
        if not re.match(r"(https?|unixs?)://[^/\s]", one):
            raise ValueError(f"{one!r}: URL scheme must be http, https, unix, or unixs")
    return found


def members(text: str) -> list[str]:
    """The names in ``name=url,name=url``."""
    found: dict[str, str] = {}
    for part in texts(text):
        name, equals, url = part.partition("=")
        if not equals or not name or not url:
            raise ValueError(f"{part!r} is no member: write NAME=URL,NAME=URL")
        found[name] = url
    return list(found)


def token(text: str) -> str:
    """``simple`` or ``jwt,…``; nothing: no password gets a token."""
    if text not in ("", "simple"):
        from actors.kv.rpc.jwts import Jwts

        Jwts(text)
    return text


def eased_token(text: str) -> tuple[str, str]:
    """Without the options that have no meaning, and what is to be said of them."""
    from actors.kv.rpc.jwts import OPTIONS, parts_of

    kind, given = parts_of(text)
    known = OPTIONS if kind == "jwt" else frozenset[str]()
    strange = [key for key in given if key not in known]
    if not strange or kind not in ("jwt", "simple"):
        return text, ""
    kept = ",".join([kind, *(f"{key}={value}" for key, value in given.items() if key in known)])
    return kept, f"without effect: {', '.join(strange)}: no option of {kind}"


def cost(text: str) -> int:
    found = unsigned(text)
    if not 4 <= found <= 31:
        raise ValueError("the cost of bcrypt is between 4 and 31")
    return found


def eased_cost(text: str) -> tuple[str, str]:
    if 4 <= unsigned(text) <= 31:
        return text, ""
    return "10", f"the cost of bcrypt is between 4 and 31: 10 is taken instead of {text}"


def eased_metrics(text: str) -> tuple[str, str]:
    if text in ("basic", "extensive"):
        return text, ""
    return "basic", f"{text!r} is neither basic nor extensive: basic is taken"


def log_level(text: str) -> str:
    """zap's, in small letters or capitals; nothing: info."""
    if text.lower() not in ("", "debug", "info", "warn", "warning", "error", "dpanic", "panic", "fatal"):
        raise ValueError(f'unrecognized level: "{text}": write debug, info, warn, error, panic or fatal')
    return text
