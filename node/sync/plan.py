"""What is to be done to a file, and why. Pure."""

from typing import NamedTuple


class State(NamedTuple):
    """A file as it is. ``kind``: file, missing, link or other (a folder, a device)."""

    kind: str
    content: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0


class Wanted(NamedTuple):
    """A file as it shall be. None: as it is; of a new one 0644 and whoever makes it."""

    content: bytes
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class Plan(NamedTuple):
    """``reasons`` empty: nothing is to be done. ``refused``: it can't be, and why.

    ``mode``, ``uid``, ``gid``: of the new file; ids of None: whoever makes it.
    """

    reasons: tuple[str, ...]
    mode: int = 0o644
    uid: int | None = None
    gid: int | None = None
    refused: str = ""


def plan(now: State, wanted: Wanted) -> Plan:
    """How the one becomes the other: a link is replaced, never followed; a folder is never replaced."""
    if now.kind == "other":
        return Plan((), refused="it is there, and no file")
    there = now.kind == "file"
    mode = wanted.mode if wanted.mode is not None else now.mode if there else 0o644
    uid = wanted.uid if wanted.uid is not None else now.uid if there else None
    gid = wanted.gid if wanted.gid is not None else now.gid if there else None
    if not there:
        return Plan(("it was not there" if now.kind == "missing" else "it was a link",), mode, uid, gid)
    reasons = []
    if now.content != wanted.content:
        reasons.append("the content differs")
    if now.mode != mode:
        reasons.append(f"mode {now.mode:04o} → {mode:04o}")
    if (now.uid, now.gid) != (uid, gid):
        reasons.append(f"owner {now.uid}:{now.gid} → {uid}:{gid}")
    return Plan(tuple(reasons), mode, uid, gid)
