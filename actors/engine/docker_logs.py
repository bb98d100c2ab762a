"""A container's output, copied from dockerd into the unit's journal."""

import struct
from datetime import datetime
from pathlib import Path

from actors.engine import journal
from actors.engine.docker_api import DockerApi
from actors.engine.journal_file import JournalFile

#: Newest lines in which the last one of the container's own is looked for.
_LOOK_BACK = 200


async def copy(api: DockerApi, container: str, folder: Path, unit: str, size_max_bytes: int) -> None:
    """Copy until the container's output ends. ``folder``: the node's data folder. Raises DockerAway, DockerError."""
    where = journal.unit_folder(folder, unit)
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker = where / "logs-of"
    query = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1"}
    if _read(marker) == container and (last_us := _last_us(folder, unit)):
        query["since"] = f"{(last_us + 1) // 1_000_000}.{(last_us + 1) % 1_000_000:06d}000"
    else:
        marker.write_text(container)
    file = JournalFile(str(where), size_max_bytes)
    try:
        rest = b""
        async for chunk in api.stream("GET", f"/containers/{container}/logs", query):
            rest = _frames(rest + chunk, file)
    finally:
        file.close()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _last_us(folder: Path, unit: str) -> int:
    try:
        lines = journal.read(folder, unit, _LOOK_BACK)
    except journal.NoJournal:
        return 0
    return max((line.time_us for line in lines if line.stream != "corelog"), default=0)


def _frames(raw: bytes, file: JournalFile) -> bytes:
    """Write whole frames (stream type, three zeros, big-endian length, line with its time); returns the rest."""
    at = 0
    while len(raw) - at >= 8:
        kind, size = struct.unpack_from(">BxxxI", raw, at)
        if len(raw) - at - 8 < size:
            break
        stamp, _, text = raw[at + 8 : at + 8 + size].partition(b" ")
        file.line("E" if kind == 2 else "O", text.removesuffix(b"\n"), time_us(stamp))
        at += 8 + size
    return raw[at:]


def time_us(stamp: bytes) -> int:
    """Microseconds of an RFC 3339 time with up to nanoseconds; 0 if it is none."""
    text = stamp.decode("ascii", "replace").removesuffix("Z")
    whole, _, fraction = text.partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
        return seconds * 1_000_000 + int((fraction or "0")[:6].ljust(6, "0"))
    except ValueError:
        return 0
