"""What the node's root actor and the others say to each other: start, stop, drain, status. Never events."""

from typing import NamedTuple

import msgspec

from actors.setting import Setting


class Spec(NamedTuple):
    """An actor to run: ``serve`` is the dotted name of its ``async def serve(setting, signals)``.

    ``actors.kv.actor:serve``; a dotted name, so that an actor of another package needs no import from here.
    """

    name: str
    serve: str


#: The five, in the order in which they are created.
FIVE = tuple(
    Spec(name, f"actors.{name}.actor:serve") for name in ("coordination", "kv", "scheduler", "engine", "updater")
)


class Start(NamedTuple):
    """To an inner actor: run ``spec.serve(setting, signals, *arguments)`` in slot ``slot`` of the board.

    once       it may return by itself; that is no failure
    watches    (name, slot) of those whose progress this one must be told of (coordination: it resigns without)
    """

    spec: Spec
    slot: int
    setting: Setting
    arguments: tuple[object, ...] = ()
    once: bool = False
    watches: tuple[tuple[str, int], ...] = ()


class StartAll(NamedTuple):
    """To the root: create an actor for each spec. ``fallen``: facts to say first (a root that died before)."""

    specs: tuple[Spec, ...]
    setting: Setting
    fallen: tuple["Fallen", ...] = ()


class Drain(NamedTuple):
    """The node goes down in an orderly way: hand over what can be handed over."""


class Stop(NamedTuple):
    """End. To the root: these actors (all of them if empty), and start none of them again."""

    names: tuple[str, ...] = ()


class Turn(NamedTuple):
    """To a root on the simple base, which has no time of its own: look after your actors."""


class Gone(NamedTuple):
    """To the root: process ``pid`` of this actor has ended (0: never began). Thespian loses such news of a child
    that ends before it is connected."""

    name: str
    pid: int


class Query(NamedTuple):
    """To the root: answered by a :class:`Status`."""


class ActorStatus(NamedTuple):
    name: str
    pid: int
    state: str
    restarts: int


class Status(NamedTuple):
    root_pid: int
    actors: tuple[ActorStatus, ...]


class Fallen(msgspec.Struct, frozen=True):
    """A fact to be said: ``actor.restarted``."""

    actor: str
    reason: str
    restarts: int
    backoff_ms: int
