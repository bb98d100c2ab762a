"""Lines of a snapshot of the v3 store. Apart from the store for the same reason as :mod:`actors.kv.v3.kinds`."""

import msgspec

from actors.kv.v3 import imports, restores
from actors.kv.v3 import policies as policing
from actors.kv.v3.auth import Kept
from streams.events.base import Blob

Row = tuple[Blob, Blob, int, int, int, int, int]


class Line(msgspec.Struct, omit_defaults=True):
    """A line of the snapshot: the first is a head, the next ones have revisions."""

    v3: int
    revision: int = 0
    compacted: int = -1
    leases: list[tuple[int, int, int, int]] = []
    alarms: list[tuple[int, int]] = []
    revs: list[Row] = []
    auth: Kept | None = None
    staged: imports.Staged | None = None
    restoring: restores.Staged | None = None
    policies: list[policing.Limits] = []
    floors: list[tuple[Blob, int]] = []
    downgrade: str = ""
