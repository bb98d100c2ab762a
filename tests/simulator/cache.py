"""Parsing and decoding are pure, and a simulated record is read by some twenty replicas: do it once for all.

The chain is remembered by (previous hash, bytes), so a replica that differs still gets its own chain.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streams import records, replay
from streams.events import base

_parsed: dict[int, tuple[bytes, Any]] = {}
_decoded: dict[bytes, Any] = {}
_chained: dict[tuple[bytes, bytes], bytes] = {}


def clear() -> None:
    _parsed.clear()
    _decoded.clear()
    _chained.clear()


def parsed(entry: records.Entry) -> records.Record:
    found = _parsed.get(entry.offset)
    if found is None or found[0] is not entry.raw:
        found = _parsed[entry.offset] = (entry.raw, records.parse(entry))
    return found[1]


def decoded(stream: str, payload: bytes) -> Any:
    found = _decoded.get(payload)
    if found is None:
        found = _decoded[payload] = base.decode(stream, payload)
    return found


def _chain(previous: bytes, raw: bytes) -> bytes:
    key = (previous, raw)
    found = _chained.get(key)
    if found is None:
        found = _chained[key] = records.chained(previous, raw)
    return found


@contextmanager
def shared() -> Iterator[None]:
    """Within it, all replicas share what is pure. Restores the product's functions at the end."""
    kept = (replay.parse, replay.decode, replay.chained)
    replay.parse, replay.decode, replay.chained = parsed, decoded, _chain  # type: ignore[assignment]
    clear()
    try:
        yield
    finally:
        replay.parse, replay.decode, replay.chained = kept  # type: ignore[assignment]
        clear()
