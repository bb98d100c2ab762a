"""Unit names (systemd.unit(5), fleet's limits) and the specifiers that unit files may use (``%i``, ``%H``, …)."""

import re
from dataclasses import dataclass

from actors.scheduler.syntax import BadValue

NAME_CHARS_MAX = 256
#: All of systemd's suffixes are names; only services can be run by an engine of this version.
SUFFIXES = (
    "service",
    "socket",
    "timer",
    "path",
    "mount",
    "automount",
    "device",
    "swap",
    "target",
    "slice",
    "scope",
    "snapshot",
    "nspawn",
)
#: With ``@`` fleet takes these only.
TEMPLATE_SUFFIXES = ("path", "service", "socket", "target", "timer")
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")


@dataclass(frozen=True, slots=True)
class Name:
    """``foo@1.service``: prefix ``foo``, instance ``1``, suffix ``service``, template ``foo@.service``."""

    full: str
    prefix: str
    instance: str
    suffix: str
    template: str

    @property
    def is_template(self) -> bool:
        return bool(self.template) and not self.instance

    @property
    def is_instance(self) -> bool:
        return bool(self.template and self.instance)


def name_of(text: str) -> Name:
    """Parse a unit name. Raises BadValue that says which rule it breaks."""
    if len(text) > NAME_CHARS_MAX:
        raise BadValue(f"the name has {len(text)} characters, more than {NAME_CHARS_MAX}")
    if not _NAME.fullmatch(text):
        raise BadValue(f"{text!r} is not a unit name: only letters, digits and : _ . \\ @ - may stand in it")
    stem, dot, suffix = text.rpartition(".")
    if not dot or suffix not in SUFFIXES:
        raise BadValue(f"{text!r} is not a unit name: it must end in .service (or another of systemd's suffixes)")
    prefix, at, instance = stem.partition("@")
    if not prefix:
        raise BadValue(f"{text!r} is not a unit name: nothing stands before {'@' if at else '.' + suffix}")
    if at and suffix not in TEMPLATE_SUFFIXES:
        raise BadValue(f"{text!r}: a .{suffix} unit can't be a template or an instance")
    return Name(text, prefix, instance, suffix, f"{prefix}@.{suffix}" if at else "")


def unescape(text: str) -> str:
    """systemd-escape --unescape: ``-`` is ``/``, ``\\xHH`` a byte. Bytes that aren't UTF-8 stay escaped."""
    out = bytearray()
    at = 0
    while at < len(text):
        match = re.compile(r"\\x([0-9a-fA-F]{2})").match(text, at)
        if match:
            out.append(int(match[1], 16))
            at = match.end()
        else:
            out += b"/" if text[at] == "-" else text[at].encode()
            at += 1
    try:
        return out.decode()
    except UnicodeDecodeError:
        return text


def escape(text: str) -> str:
    """systemd-escape: ``/`` becomes ``-``; all but letters, digits, ``:``, ``_`` and ``.`` become ``\\xHH``."""
    out = []
    for index, byte in enumerate(text.encode()):
        char = chr(byte)
        if char == "/":
            out.append("-")
        elif (char.isascii() and char.isalnum()) or char in ":_" or (char == "." and index > 0):
            out.append(char)
        else:
            out.append(f"\\x{byte:02x}")
    return "".join(out)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What only the machine knows: ``machine`` (its id in the cluster), host name, boot id, kernel release."""

    machine: str
    host: str
    boot_id: str
    kernel: str
    arch: str = ""


#: Same on every machine: the system manager's folders and user.
_FIXED = {
    "C": "/var/cache",
    "E": "/etc",
    "L": "/var/log",
    "S": "/var/lib",
    "t": "/run",
    "T": "/tmp",
    "V": "/var/tmp",
    "u": "root",
    "U": "0",
    "g": "root",
    "G": "0",
    "h": "/root",
    "%": "%",
}
_OF_HOST = {"m": "machine", "H": "host", "b": "boot_id", "v": "kernel", "a": "arch"}
_SPECIFIER = re.compile(r"%(.?)", re.DOTALL)


def expand(text: str, name: Name, host: HostFacts | None = None, *, on_machine: bool = True) -> str:
    """Replace specifiers. Without ``host`` those of the machine stay as they are (``%H``), to be shown.

    ``on_machine`` false: placement options, which are decided before there is a machine: they are refused.
    Raises BadValue for a specifier that systemd or this version doesn't know.
    """
    if "%" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        letter = match[1]
        if letter in _FIXED and letter:
            return _FIXED[letter] if host is not None or letter != "%" or not on_machine else "%%"
        if letter in _OF_HOST or letter == "l":
            if not on_machine:
                raise BadValue(f"%{letter} is known only on the machine, and can't be used to choose one")
            if host is None:
                return match[0]
            return host.host.partition(".")[0] if letter == "l" else str(getattr(host, _OF_HOST[letter]))
        of_name = _of_name(letter, name)
        if of_name is None:
            raise BadValue(f"unknown specifier {match[0]!r} (a literal percent sign is written %%)")
        return of_name

    return _SPECIFIER.sub(replace, text)


def _of_name(letter: str, name: Name) -> str | None:
    last = name.prefix.rpartition("-")[2]
    # a template never runs; so that it can be checked like its instances, it is read as the instance "i"
    instance = "i" if name.is_template else name.instance
    match letter:
        case "n":
            return name.full
        case "N":
            return name.full.removesuffix("." + name.suffix)
        case "p":
            return name.prefix
        case "P":
            return unescape(name.prefix)
        case "i":
            return instance
        case "I":
            return unescape(instance)
        case "j":
            return last
        case "J":
            return unescape(last)
        case "f":
            return "/" + unescape(instance or name.prefix).lstrip("/")
        case _:
            return None
