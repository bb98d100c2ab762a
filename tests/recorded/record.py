"""Makes a recorded log of a release: ``python -m tests.recorded.record SEGMENTS_FOLDER NAME``.

Run once per release, against the log of a node that did a bit of everything; never again for that release. The file
holds a JSON line per record (offset and canonical bytes) and, last, the hashes that this version computed.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from actors.folds import FOLDS
from streams.events.base import Blob, blob, unblob
from streams.history.at import entries
from streams.log.open import open_log
from streams.records import Entry
from streams.replay import Replica

FOLDER = Path(__file__).parent


class Line(msgspec.Struct):
    offset: int
    raw: Blob


def hashes(log: list[Entry]) -> dict[str, Any]:
    """What each fold makes of the log: state hash, chain, outcome hash."""
    found = {}
    for name, make in FOLDS.items():
        replica = Replica(make())
        for entry in log:
            replica.apply(entry)
        found[name] = {
            "state": replica.state_hash(),
            "chain": replica.log.chain.hex(),
            "outcomes": replica.log.outcomes.hex(),
            "events": replica.log.events,
        }
    return found


def load(path: Path) -> tuple[list[Entry], dict[str, Any]]:
    lines = path.read_bytes().splitlines()
    log = [Entry(line.offset, unblob(line.raw)) for line in map(_decode, lines[:-1])]
    return log, msgspec.json.decode(lines[-1])


def _decode(line: bytes) -> Line:
    return msgspec.json.decode(line, type=Line)


async def record(folder: str, name: str) -> None:
    log = await open_log(f"segments://{folder}")
    read: list[Entry] = []
    async for batch in entries(log, 0, await log.end()):
        read += batch
    await log.close()
    out = [msgspec.json.encode(Line(entry.offset, blob(entry.raw))) for entry in read]
    out.append(msgspec.json.encode(hashes(read)))
    (FOLDER / f"{name}.jsonl").write_bytes(b"\n".join(out) + b"\n")


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], sys.argv[2]))
