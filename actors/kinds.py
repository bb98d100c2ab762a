"""What passes between a host, its actor and its shell: plain data, which stays interpreted.

(A compiled class has no options, see docs/decisions/0014-native.md.)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from streams.events.base import Event
from streams.kinds import Applied, Record
from streams.replay import Replica


class Now(NamedTuple):
    """``boot_s``: the boot-time clock (counts suspend, never set); ``wall_ms``: for people and record heads."""

    boot_s: float
    wall_ms: int


class Plan(msgspec.Struct, frozen=True):
    """What an actor decided. ``wake_at_s``: boot time at which to ask again even if nothing happens."""

    events: Sequence[Event] = ()
    effects: Sequence[Any] = ()
    wake_at_s: float | None = None


IDLE = Plan()


class Actor(Protocol):
    """The three inputs and one output of an actor. All methods are called from one thread; none may block."""

    name: str

    def live(self, replica: Replica, now: Now) -> None:
        """The actor's own barrier is applied (also after each reincarnation)."""
        ...

    def applied(self, batch: Sequence[Applied], replica: Replica, now: Now, live: bool) -> None:
        """Events were applied to the fold; called in replay too (``live`` False)."""
        ...

    def landed(self, events: Sequence[Applied], sent_s: float, replica: Replica, now: Now) -> None:
        """A plan of its own that was handed to the log at ``sent_s`` is applied."""
        ...

    def noticed(self, observation: Any, now: Now) -> None:
        """Something was learnt about the world (by an effect, a watcher, a caller)."""
        ...

    def decide(self, replica: Replica, now: Now) -> Plan:
        """What to say and do next. Called only when live and with no plan in flight."""
        ...


class Append(NamedTuple):
    """``commands``: how many of callers are in it; of an actor's own plan: 0."""

    records: list[Record]
    commands: int = 0


class Perform(NamedTuple):
    effects: Sequence[Any]


Output = Append | Perform


#: Called with the applied events of a submission, or with an error: Unwritten or Unknown.
Done = Callable[["list[Applied] | Unwritten | Unresolved"], None]


class Unwritten(Exception):
    """The command was not and will never be written (log unavailable, too large, or voided by a barrier)."""

    exit_code = 5


class Unsayable(Unwritten):
    """An event of the submission has no form on a log; the others weren't written either."""


class Unresolved(Exception):
    """The node stops before it learnt whether the command was written."""

    exit_code = 6


class Sealed(Exception):
    """The log ended with ``log.sealed``: what this node says is void from there on; it goes on at ``next_log``."""

    exit_code = 4
    #: for the supervisor: the node makes its actors anew, on the other log
    stops_node = True

    def __init__(self, at: int, next_log: str) -> None:
        super().__init__(f"the log was sealed at {at} and goes on at {next_log}")
        self.sealed_at = at
        self.next_log = next_log


class Superseded(Exception):
    """This process's actor was opened by another process: two nodes on one data folder, or a slow stop."""

    exit_code = 4
    #: for the supervisor: another start would not help
    stops_node = True
