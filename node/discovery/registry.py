"""What is done with a token, whoever keeps it; and the way from there to a cluster: :func:`join`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from node.discovery import decide
from node.discovery.decide import DuplicateId, Registration, TooManyRetries

#: A request waits so long; a request that waits for others is asked again after this.
REQUEST_S, WAIT_S = 5.0, 60.0
RETRIES_MAX = 2**32 - 1


class Unreachable(Exception):
    """Nobody answered, or not as one who can: try again."""


class Registry(Protocol):
    """A token's folder. All raise Unreachable, and DiscoveryError when there is no sense in trying again."""

    def size(self) -> str:
        """How many members are wanted, as it stands there. Raises SizeNotFound."""
        ...

    def log(self) -> str:
        """The address of the log that they share; empty: it isn't told."""
        ...

    def members(self) -> tuple[list[Registration], int]:
        """Who is registered, and the index that this is of."""
        ...

    def register(self, member: str, value: str) -> None:
        """Raises DuplicateId: it is there."""
        ...

    def wait(self, index: int) -> None:
        """Until something happened after ``index``, or a while."""
        ...

    def close(self) -> None: ...


class Joining:
    """One machine's way into its cluster. ``sleep`` (seconds) and ``say`` (a line about how it goes) are its world."""

    def __init__(
        self, registry: Registry, sleep: Callable[[float], None], say: Callable[[str], None], retries: int = RETRIES_MAX
    ) -> None:
        self._registry, self._sleep, self._say = registry, sleep, say
        self._retries_max, self._failed = retries, 0

    def config(self) -> tuple[int, str]:
        """The size, and the log's address or nothing. Raises DiscoveryError."""
        while True:
            with self._patience():
                return decide.size_of(self._registry.size()), self._registry.log()

    def join(self, size: int, member: str, value: str) -> list[Registration]:
        """Register and wait for the others; the cluster, in the order of its registrations.

        Raises DiscoveryError; Full: the cluster is whole without this machine.
        """
        told = -1
        while True:
            with self._patience():
                found, index = self._registry.members()
                match decide.step(size, found, member, value):
                    case decide.Complete(members):
                        return members
                    case decide.Register():
                        self._register(member, value)
                    case decide.Wait(have):
                        if len(have) != told:
                            told = len(have)
                            self._say(f"{told} of {size} members are registered; waiting for more")
                        self._registry.wait(index)

    def _register(self, member: str, value: str) -> None:
        try:
            self._registry.register(member, value)
        except DuplicateId:
            # an earlier try of ours, whose answer was lost, or another's: the next look tells
            if all(one.member != member for one in self._registry.members()[0]):
                raise Unreachable("it knows this machine, and doesn't list it") from None

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Sleep after what could not be reached. Raises TooManyRetries."""
        try:
            yield
            self._failed = 0
        except Unreachable as error:
            self._failed += 1
            if self._failed > self._retries_max:
                raise TooManyRetries from error
            wait_s = decide.backoff_s(self._failed)
            self._say(f"the discovery service doesn't answer ({error}); again in {wait_s} s")
            self._sleep(wait_s)
