"""Stream ``update``: versions of a tree, and what each machine's updater did with them. Subject: version."""

from streams.events.base import Data, event


@event("update.published.v1", "update", command=True)
class Publish(Data, frozen=True):
    """A version: ``tree`` is the content hash of its manifest; ``gateways`` are first places to fetch it from."""

    tree: str
    files: int
    size_bytes: int
    health: str = ""
    health_timeout_ms: int = 30000
    gateways: list[str] = []
    machine: str = ""


class _Order(Data, frozen=True):
    """A command to machines (empty: all joined ones)."""

    machines: list[str] = []


@event("update.stage.v1", "update", command=True)
class Stage(_Order, frozen=True):
    pass


@event("update.switch.v1", "update", command=True)
class Switch(_Order, frozen=True):
    """Stage if needed, then switch to the version in subject, older or newer alike."""


@event("update.rollback.v1", "update", command=True)
class Rollback(_Order, frozen=True):
    """Back to the version each machine ran before; subject is empty."""


@event("update.pinned.v1", "update", command=True)
class Pin(_Order, frozen=True):
    """Pinned: switch is refused and gc keeps it; ``pinned`` false undoes it."""

    pinned: bool = True


@event("update.gc.v1", "update", command=True)
class Collect(_Order, frozen=True):
    """Drop all but the ``keep`` newest versions, what runs, what ran before and what is pinned."""

    keep: int = 3


class _Fact(Data, frozen=True):
    machine: str
    detail: str = ""


@event("update.staged.v1", "update")
class Staged(_Fact, frozen=True):
    tree: str = ""
    fetched_bytes: int = 0


@event("update.switched.v1", "update")
class Switched(_Fact, frozen=True):
    previous: str = ""


@event("update.healthy.v1", "update")
class Healthy(_Fact, frozen=True):
    pass


@event("update.rolledback.v1", "update")
class RolledBack(_Fact, frozen=True):
    """Unhealthy or asked for: the machine runs ``previous`` (subject: the version it left)."""

    previous: str = ""


@event("update.failed.v1", "update")
class Failed(_Fact, frozen=True):
    """Could not be staged or switched; the old version runs on whole. ``step`` names where."""

    step: str = ""


@event("update.collected.v1", "update")
class Collected(_Fact, frozen=True):
    versions: list[str] = []
    freed_bytes: int = 0
