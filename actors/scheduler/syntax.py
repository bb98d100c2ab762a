"""systemd's unit file syntax (systemd.syntax(7)): lines, sections, continuation, quoting and C-style escapes.

What comes out are options in the order of the file; what they mean is not known here.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Longest line that fleet (go-systemd) takes, in bytes.
LINE_BYTES_MAX = 2048
#: Largest unit file.
FILE_BYTES_MAX = 256 * 1024

_SECTION = re.compile(r"\[([^\[\]\x00-\x1f]+)\]")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SIMPLE_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
#: letter → (digits, base) of numbered escapes; octal ones have no letter
_NUMBERED_ESCAPES = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}
_BLANK = " \t\n\r"


class UnitFileError(ValueError):
    """A unit file that can't be taken. ``line`` counts from 1 (0: the file as a whole); ``key`` may be empty."""

    exit_code = 2
    http_status = 400

    def __init__(self, name: str, line: int, key: str, message: str) -> None:
        where = f"{name}:{line}" if line else name
        super().__init__(f"{where}: {key + ': ' if key else ''}{message}")
        self.name = name
        self.line = line
        self.key = key
        self.message = message


class BadValue(ValueError):
    """What is wrong with a value; the caller adds where it stands."""


@dataclass(frozen=True, slots=True)
class Option:
    """``key=value`` of a section. ``value`` has continuations joined by a space; ``raw`` is as it was written,
    with backslash and newline. ``line`` is where it begins and takes no part in comparisons."""

    section: str
    key: str
    value: str
    raw: str
    line: int = field(default=0, compare=False)


def read(name: str, text: str) -> tuple[Option, ...]:
    """The options of a unit file in order. Raises UnitFileError with the line that can't be understood."""
    _check_text(name, text)
    options: list[Option] = []
    section = ""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at].strip(_BLANK)
        at += 1
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            match = _SECTION.fullmatch(line)
            if match is None:
                raise UnitFileError(name, number, "", f"broken section header {line!r}: it should be [Name]")
            section = match[1]
            continue
        pieces = [line]
        while _continues(pieces[-1]) and at < len(lines):
            following = lines[at].strip(_BLANK)
            at += 1
            if following[:1] in ("#", ";"):
                continue  # systemd: comments inside of a continuation are dropped
            if not following:
                break  # a blank line ends the value (go-systemd, and what systemd makes of it)
            pieces.append(following)
        options.append(_option(name, number, section, pieces))
    return tuple(options)


def _continues(line: str) -> bool:
    """An odd number of backslashes at the end: the last one isn't itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _check_text(name: str, text: str) -> None:
    if len(text) > FILE_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > FILE_BYTES_MAX:
        raise UnitFileError(name, 0, "", f"the file is larger than {FILE_BYTES_MAX // 1024} KiB")
    for number, line in enumerate(text.split("\n"), 1):
        try:
            size = len(line.encode())
        except UnicodeEncodeError:
            raise UnitFileError(name, number, "", "the line is not valid UTF-8") from None
        if size > LINE_BYTES_MAX:
            raise UnitFileError(name, number, "", f"the line has {size} bytes, more than {LINE_BYTES_MAX}")
        bad = next((c for c in line.removesuffix("\r") if c < " " and c != "\t"), None)
        if bad is not None:
            raise UnitFileError(name, number, "", f"control character {bad!r} in the line")


def _option(name: str, number: int, section: str, pieces: list[str]) -> Option:
    key, equals, first = pieces[0].partition("=")
    key = key.strip(_BLANK)
    if not equals:
        raise UnitFileError(
            name, number, "", f"broken line {pieces[0][:60]!r}: neither [Section], Key=value nor comment"
        )
    if not section:
        raise UnitFileError(name, number, key, "stands before the first [Section]")
    if not _KEY.fullmatch(key):
        raise UnitFileError(name, number, "", f"{key[:60]!r} is not a key: letters, digits, - and _ only")
    first = first.strip(_BLANK)
    # a backslash at the very end of the file or before a blank line continues nothing: systemd drops it
    pieces = [first, *pieces[1:]]
    while _continues(pieces[-1]) or (not pieces[-1] and len(pieces) > 1):
        if pieces[-1]:
            pieces[-1] = pieces[-1][:-1].rstrip(_BLANK)
        else:
            pieces.pop()
    value = " ".join([*(piece[:-1].rstrip(_BLANK) for piece in pieces[:-1]), pieces[-1]]).strip(_BLANK)
    return Option(section, key, value, "\n".join(pieces), number)


def serialize(options: Iterable[Option]) -> str:
    """fleet's form: comments dropped, same-named sections merged, one blank line between sections."""
    sections: dict[str, list[Option]] = {}
    for option in options:
        sections.setdefault(option.section, []).append(option)
    parts = []
    for section, held in sections.items():
        parts.append("".join([f"[{section}]\n", *(f"{option.key}={option.raw}\n" for option in held)]))
    return "\n".join(parts)


def digest(options: Iterable[Option]) -> str:
    """fleet's hash of a unit: SHA-1 of :func:`serialize`, 40 hex digits (shown as the first 7)."""
    return hashlib.sha1(serialize(options).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Word:
    """``quoted``: quotes or an escape stood in it, so that ``;`` or ``$`` rules of plain words don't apply."""

    text: str
    quoted: bool


def words(value: str) -> list[Word]:
    """Split at blanks; single and double quotes group, backslash escapes as in C. Raises BadValue."""
    found: list[Word] = []
    at = 0
    while True:
        while at < len(value) and value[at] in _BLANK:
            at += 1
        if at == len(value):
            return found
        word, at = _word(value, at)
        found.append(word)


def _word(value: str, at: int) -> tuple[Word, int]:
    out: list[str] = []
    quote, quoted, began = "", False, at
    while at < len(value):
        char = value[at]
        if char == "\\":
            text, at = _escape(value, at)
            out.append(text)
            quoted = True
            continue
        at += 1
        if quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "\"'":
            quote, quoted = char, True
        elif char in _BLANK:
            break
        else:
            out.append(char)
    if quote:
        raise BadValue(f"the quote that opens at {value[began : began + 20]!r} is never closed")
    return Word("".join(out), quoted), at


def _escape(value: str, at: int) -> tuple[str, int]:
    """The text of the escape at ``value[at]`` (a backslash), and where it ends."""
    letter = value[at + 1 : at + 2]
    if letter in _SIMPLE_ESCAPES and letter:
        return _SIMPLE_ESCAPES[letter], at + 2
    if letter == ";":
        return ";", at + 2
    if letter in "01234567" and letter:
        digits, count, base, start = value[at + 1 : at + 4], 3, 8, at + 1
    elif letter in _NUMBERED_ESCAPES:
        count, base = _NUMBERED_ESCAPES[letter]
        start = at + 2
        digits = value[start : start + count]
    else:
        raise BadValue(f"unknown escape {value[at : at + 2]!r} (a literal backslash is written \\\\)")
    allowed = "01234567" if base == 8 else "0123456789abcdefABCDEF"
    if len(digits) != count or any(digit not in allowed for digit in digits):
        raise BadValue(f"broken escape {value[at : at + 2 + count]!r}: {count} digits of base {base} are needed")
    number = int(digits, base)
    if number == 0 or number > 0x10FFFF or 0xD800 <= number < 0xE000 or (base == 8 and number > 255):
        raise BadValue(f"escape {value[at : start + count]!r} is not a character that can be written here")
    return chr(number), start + count


def quoted(text: str) -> str:
    """The inverse of :func:`words` for one word."""
    if text and not any(char in text for char in " \t\"'\\;") and text.isprintable():
        return text
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'
