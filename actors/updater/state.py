"""Versions and what each machine runs: the ``update`` part of the control fold."""

from typing import TYPE_CHECKING

import msgspec

from streams.events.base import Event
from streams.outcomes import Outcome
from streams.replay import Context

if TYPE_CHECKING:
    from actors.control import Control


class Version(msgspec.Struct, frozen=True):
    version: str
    tree: str
    files: int
    size_bytes: int
    health: str = ""
    health_timeout_ms: int = 30000
    gateways: list[str] = []
    machine: str = ""
    at: str = ""


class Installed(msgspec.Struct):
    """One machine. ``wanted``/``order_at``: the last order to it (switch or stage), with its position."""

    running: str = ""
    previous: str = ""
    state: str = ""
    detail: str = ""
    staged: list[str] = []
    pinned: list[str] = []
    wanted: str = ""
    order: str = ""
    order_at: str = ""


class UpdateState(msgspec.Struct):
    versions: dict[str, Version] = {}
    machines: dict[str, Installed] = {}


def evolve(control: "Control", event: Event, context: Context) -> Outcome:
    raise NotImplementedError((control, event, context))
