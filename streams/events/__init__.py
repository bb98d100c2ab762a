"""All event types. Importing this package registers every stream's payloads."""

from streams.events import cluster, engine, kv, kv2, kv3, log, unit, update
from streams.events.base import (
    STREAMS,
    Base64,
    Blob,
    Data,
    Event,
    UndecodableEvent,
    Unknown,
    blob,
    decode,
    encode,
    payloads,
    say,
    unblob,
)

__all__ = [
    "STREAMS",
    "Base64",
    "Blob",
    "Data",
    "Event",
    "UndecodableEvent",
    "Unknown",
    "blob",
    "cluster",
    "decode",
    "encode",
    "engine",
    "kv",
    "kv2",
    "kv3",
    "log",
    "payloads",
    "say",
    "unblob",
    "unit",
    "update",
]
