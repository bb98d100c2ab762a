"""A small fold and a writer of entries, for tests of what is the same for every fold."""

from collections.abc import Iterable, Iterator

from streams.events import encode, say
from streams.events import kv as kv_says
from streams.events import log as says
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Entry, Record
from streams.replay import Context

LOG = "ab" * 16


class Counting:
    """A fold that remembers keys in order; ``boom`` makes it raise."""

    name = "counting"
    streams = frozenset({"kv"})

    def __init__(self) -> None:
        self.keys: list[str] = []

    def guard(self, event: object, context: Context) -> Outcome | None:
        return None

    def evolve(self, event: object, context: Context) -> Outcome:
        key = event.data.key  # type: ignore[attr-defined]
        if key == "boom":
            raise ZeroDivisionError("boom")
        self.keys.append(key)
        return Accepted(len(self.keys))

    def encode(self) -> Iterator[bytes]:
        yield ",".join(self.keys).encode()

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.keys = [key for key in b"".join(chunks).decode().split(",") if key]


class Writer:
    """Makes entries with growing offsets, as a log would hold them."""

    def __init__(self) -> None:
        self.offset = 0

    def entry(self, *events: object, writer: str = "kv@m", incarnation: int = 1, log_id: str = LOG) -> Entry:
        stream = events[0].data.STREAM  # type: ignore[attr-defined]
        record = Record(log_id, stream, writer, incarnation, self.offset + 1, 1000 + self.offset, encode(list(events)))  # type: ignore[arg-type]
        return self.raw(record.canonical())

    def raw(self, raw: bytes) -> Entry:
        entry = Entry(self.offset, raw)
        self.offset += 1
        return entry


def put(key: str, **attributes: object) -> object:
    return say(kv_says.Set(key=key), **attributes)


def opened(incarnation: int = 1) -> object:
    return say(says.ActorOpened(nonce=f"n{incarnation}"))


def code(applied: list) -> list[str]:
    return [one.outcome.code if isinstance(one.outcome, Rejected) else "ok" for one in applied]
