"""``Template=SRC:DEST[:MODE[:USER[:GROUP]]]`` of [X-Corelog]: a file that the unit needs, rendered from keys."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from actors.scheduler import values
from actors.scheduler.syntax import BadValue

ON_CHANGE = ("restart", "reload", "none")
_KEY = "kv:"
_MODE = re.compile("0?[0-7]{3,4}")
_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """``source``: an absolute path, or ``kv:KEY``: the value of a key. ``mode`` empty: as the file is, or 0644;
    ``user`` and ``group`` empty: as the file's, or the node's."""

    source: str
    dest: str
    mode: str = ""
    user: str = ""
    group: str = ""


def template_file(value: str, expand: Callable[[str], str]) -> list[TemplateFile]:
    """Raises BadValue."""
    whole = expand(value)
    kind, rest = (_KEY, whole.removeprefix(_KEY)) if whole.startswith(_KEY) else ("", whole)
    source, *more = rest.split(":")
    if not source or not more or len(more) > 4:
        raise BadValue(f"{whole!r} is not SRC:DEST[:MODE[:USER[:GROUP]]]")
    if not kind:
        values.absolute(source)
    dest, mode, user, group = (*more, "", "", "")[:4]
    values.absolute(dest)
    if dest.endswith("/"):
        raise BadValue(f"{dest!r} is a folder, a file is expected")
    if mode and not _MODE.fullmatch(mode):
        raise BadValue(f"{mode!r} is no mode, such as 0644")
    for name in (user, group):
        if name and not _NAME.fullmatch(name):
            raise BadValue(f"{name!r} is not a user or group")
    return [TemplateFile(kind + source, dest, mode, user, group)]
