"""One line of docs/performance.md."""

from typing import NamedTuple


class Row(NamedTuple):
    """``ours``, ``peer``, ``ratio``, ``reach`` are texts with their units; ``ok``: whether the reach is met."""

    what: str
    ours: str
    peer: str
    ratio: str
    reach: str
    ok: bool
    note: str = ""
