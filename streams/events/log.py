"""Stream ``log``: what the log says of itself, its writers and its readers. Every fold reads it."""

from streams.events.base import Data, event


@event("log.opened.v1", "log")
class LogOpened(Data, frozen=True):
    """Founds the log: the first one wins, later ones are void. ``base`` + driver's offset = offset shown."""

    id: str
    level: int = 1
    operator_key: str = ""
    previous: str = ""
    base: int = 0
    chain: str = ""
    snapshot: str = ""


@event("log.sealed.v1", "log", command=True)
class LogSealed(Data, frozen=True):
    """Ends this log; what follows it is void. ``next`` is the address of the log that goes on."""

    next: str


@event("log.voided.v1", "log", command=True)
class LogVoided(Data, frozen=True):
    """An operator's way past a poisonous record: the record at ``offset`` has no effect. Signed."""

    offset: int
    reason: str
    signature: str = ""


@event("actor.opened.v1", "log")
class ActorOpened(Data, frozen=True):
    """A start of an actor, and its catch-up barrier. Records of older incarnations after it are void.

    The incarnation itself stands in the record's head; ``nonce`` tells two that chose the same one apart.
    """

    nonce: str
    level: int = 1


@event("actor.restarted.v1", "log")
class ActorRestarted(Data, frozen=True):
    """The node's root actor replaced one that died; subject is the writer (``kv@MACHINE``)."""

    reason: str
    restarts: int
    backoff_ms: int = 0


@event("log.barrier.v1", "log")
class Barrier(Data, frozen=True):
    """Says nothing; who sees it applied has applied all before it (linearizable reads, liveness of the log)."""


@event("log.checkpoint.v1", "log")
class Checkpoint(Data, frozen=True):
    """The master's replica says what it has at ``position``; others compare and halt on a mismatch. Hex hashes."""

    fold: str
    position: str
    chain: str
    outcomes: str


@event("snapshot.taken.v1", "log")
class SnapshotTaken(Data, frozen=True):
    fold: str
    position: str
    state_hash: str


@event("level.raised.v1", "log", command=True)
class LevelRaised(Data, frozen=True):
    """Raises the feature level of evolve; void unless every writer announced it, but those of ``removed``.

    removed: machines that an operator removed from the cluster before they announced it; their writers are over.
    """

    level: int
    removed: list[str] = []
