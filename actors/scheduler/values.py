"""Values of unit files: booleans, time spans, sizes, signals, ports, commands, environments.

Every reader takes the text of one value and raises BadValue with what would be right.
"""

import re
import signal
from dataclasses import dataclass
from fractions import Fraction

from actors.scheduler.syntax import BadValue, Word, words

_TRUE = ("1", "yes", "y", "true", "t", "on")
_FALSE = ("0", "no", "n", "false", "f", "off")

_US = {
    "us": 1,
    "usec": 1,
    "µs": 1,
    "μs": 1,
    "ms": 10**3,
    "msec": 10**3,
    "s": 10**6,
    "sec": 10**6,
    "second": 10**6,
    "seconds": 10**6,
    "m": 60 * 10**6,
    "min": 60 * 10**6,
    "minute": 60 * 10**6,
    "minutes": 60 * 10**6,
    "h": 3600 * 10**6,
    "hr": 3600 * 10**6,
    "hour": 3600 * 10**6,
    "hours": 3600 * 10**6,
    "d": 86400 * 10**6,
    "day": 86400 * 10**6,
    "days": 86400 * 10**6,
    "w": 7 * 86400 * 10**6,
    "week": 7 * 86400 * 10**6,
    "weeks": 7 * 86400 * 10**6,
    # systemd.time(7): a month is 30.44 days, a year 365.25 days
    "M": 2629800 * 10**6,
    "month": 2629800 * 10**6,
    "months": 2629800 * 10**6,
    "y": 31557600 * 10**6,
    "year": 31557600 * 10**6,
    "years": 31557600 * 10**6,
}
_SPAN = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{0,9})?)\s*([A-Za-zµμ]*)")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}")
SIZE_MAX = 2**63 - 1


def boolean(text: str) -> bool:
    lower = text.lower()
    if lower in _TRUE:
        return True
    if lower in _FALSE:
        return False
    raise BadValue(f"{text!r} is neither yes nor no")


def number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadValue(f"{text!r} is not a whole number")
    return int(text)


def span_ms(text: str) -> int | None:
    """A time span of systemd.time(7) in milliseconds, rounded up; None is ``infinity``. No unit means seconds."""
    text = text.strip()
    if text == "infinity":
        return None
    total, at = Fraction(0), 0
    while at < len(text):
        match = _SPAN.match(text, at)
        if match is None or (match[2] and match[2] not in _US):
            raise BadValue(f"{text!r} is not a time span (30, 1min 20s, 500ms, infinity)")
        total += Fraction(match[1].rstrip(".")) * _US[match[2] or "s"]
        at = match.end()
    if not text:
        raise BadValue("a time span is missing (30, 1min 20s, 500ms, infinity)")
    span = -(-total // 1000)
    if span > SIZE_MAX:
        raise BadValue(f"{text!r} is longer than can be counted; say infinity")
    return int(span)


def size_bytes(text: str) -> int:
    """``512M``, ``1.5G``, ``64KiB``: the units count by 1024, as in systemd."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadValue(f"{text!r} is not a size (512M, 1.5G, a number of bytes)")
    found = int(Fraction(match[1]) * 1024 ** " KMGTPE".index((match[2] or " ").upper()))
    if found > SIZE_MAX:
        raise BadValue(f"{text!r} is more than can be counted")
    return found


def cpu_millis(text: str) -> int:
    """Thousandths of a core: ``1.5`` cores, ``500m``, ``150%``."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(m|%)?", text.strip())
    if match is None or (match[2] == "m" and "." in match[1]):
        raise BadValue(f"{text!r} is not an amount of CPU (1.5 cores, 500m, 150%)")
    scale = {"m": 1, "%": 10, None: 1000}[match[2]]
    return int(Fraction(match[1]) * scale)


def signal_name(text: str) -> str:
    """``SIGTERM`` from ``SIGTERM``, ``TERM`` or ``15``."""
    name = text.upper()
    if text.isascii() and text.isdigit():
        found = next((known.name for known in signal.Signals if known.value == int(text[:9])), "")
    else:
        name = name if name.startswith("SIG") else "SIG" + name
        found = name if name in signal.Signals.__members__ else ""
    if not found:
        raise BadValue(f"{text!r} is not a signal (SIGTERM, HUP, 15)")
    return found


def absolute(text: str) -> str:
    if not text.startswith("/"):
        raise BadValue(f"{text!r} is not an absolute path")
    if "/../" in text + "/":
        raise BadValue(f"{text!r} has .. in it")
    return text


#: (number, protocol) of host ports
Port = tuple[int, str]


def port_number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise BadValue(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def ports(text: str) -> list[Port]:
    """``8080``, ``53/udp``, ``7000-7010/tcp``: one word."""
    numbers, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise BadValue(f"{text!r}: the protocol is tcp, udp or sctp")
    first, dash, last = numbers.partition("-")
    low = port_number(first)
    high = port_number(last) if dash else low
    if high < low or high - low >= 1000:
        raise BadValue(f"{text!r} is not a range of at most 1000 ports")
    return [(port, protocol) for port in range(low, high + 1)]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of an Exec line. ``argv`` has specifiers expanded, but no environment variables yet.

    ``ignore_failure`` (-), ``own_argv0`` (@: the first of argv is the path, the second its argv[0]), ``plain`` (:
    no variables are expanded), ``privileges``: "", "+", "!" or "!!".
    """

    path: str
    argv: tuple[str, ...]
    ignore_failure: bool = False
    plain: bool = False
    privileges: str = ""


def commands(text: str) -> list[list[Word]]:
    """The commands of an Exec line, split at a ``;`` that stands alone."""
    found: list[list[Word]] = [[]]
    for word in words(text):
        if word.text == ";" and not word.quoted:
            found.append([])
        else:
            found[-1].append(word)
    if len(found) > 1 and not found[-1]:
        found.pop()
    if any(not command for command in found):
        raise BadValue("a command is missing before or after ';'")
    return found


def split_prefixes(word: str) -> tuple[str, str]:
    """``-@/bin/x`` is (``-@``, ``/bin/x``)."""
    bare = word.lstrip("-@:+!")
    return word[: len(word) - len(bare)], bare


def command(prefixes: str, path: str, arguments: list[str]) -> Command:
    """Assemble a command. Raises BadValue for prefixes that exclude each other or a path that can't be run."""
    for char in "-@:+":
        if prefixes.count(char) > 1:
            raise BadValue(f"prefix {char!r} stands twice")
    bangs = prefixes.count("!")
    if bangs > 2 or (bangs == 2 and "!!" not in prefixes) or (bangs and "+" in prefixes):
        raise BadValue("only one of the prefixes '+', '!' and '!!' can be used")
    if not path or path.endswith("/"):
        raise BadValue(f"{path!r} is not a program's path")
    if "/" in path:
        absolute(path)
    elif path in (".", ".."):
        raise BadValue(f"{path!r} is not a program's name")
    if "@" in prefixes and not arguments:
        raise BadValue("the prefix '@' needs a second word, the program's own name")
    argv = tuple(arguments) if "@" in prefixes else (path, *arguments)
    return Command(path, argv, "-" in prefixes, ":" in prefixes, "+" if "+" in prefixes else "!" * bangs)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def assignment(text: str) -> tuple[str, str]:
    """``NAME=value`` of Environment=."""
    name, equals, value = text.partition("=")
    if not equals or not _VARIABLE.fullmatch(name):
        raise BadValue(f"{text[:60]!r} is not NAME=value")
    return name, value


def expand_environment(argv: tuple[str, ...] | list[str], environment: dict[str, str]) -> list[str]:
    """Variables in a command's arguments, as systemd.service(5) says: ``${FOO}`` anywhere is put in as it is; a
    word that is only ``$FOO`` is split at blanks into no, one or several arguments; ``$$`` is one dollar sign.

    The first word is left alone. Variables that aren't set are empty.
    """
    out = list(argv[:1])
    for word in argv[1:]:
        if word.startswith("$") and _VARIABLE.fullmatch(word[1:]):
            value = environment.get(word[1:], "")
            try:
                out += [part.text for part in words(value)]
            except BadValue:
                out += value.split()
        else:
            out.append(_in_word(word, environment))
    return out


_IN_WORD = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _in_word(word: str, environment: dict[str, str]) -> str:
    return _IN_WORD.sub(lambda match: environment.get(match[1], "") if match[1] else "$", word)


def environment_file(text: str) -> dict[str, str]:
    """The variables of an EnvironmentFile=. Lines that aren't NAME=value raise BadValue with their number."""
    found: dict[str, str] = {}
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line, number_of = lines[at].strip(), at + 1
        at += 1
        if not line or line[0] in "#;":
            continue
        while line.endswith("\\") and not line.endswith("\\\\") and at < len(lines):
            line = line[:-1] + lines[at].strip()
            at += 1
        name, equals, value = line.partition("=")
        if not equals or not _VARIABLE.fullmatch(name.strip()):
            raise BadValue(f"line {number_of}: {line[:60]!r} is not NAME=value")
        found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    """Quotes group, ``\\`` takes the next character as it is; nothing is an error, as in the shell-like original."""
    out, quote, at = [], "", 0
    while at < len(value):
        char = value[at]
        at += 1
        if char == "\\" and quote != "'" and at < len(value):
            out.append(value[at] if not quote or value[at] in '"\\`$' else "\\" + value[at])
            at += 1
        elif quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "\"'":
            quote = char
        else:
            out.append(char)
    return "".join(out)
