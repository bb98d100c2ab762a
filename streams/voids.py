"""Voids: an operator's signed word that lets every replica pass a record that none can apply.

The word stands further on in the log than the record it voids, so a replica that starts reads the voids ahead
(:func:`foreseen`) before it replays.
"""

from typing import Any

from streams.events import log as says
from streams.events.base import UndecodableEvent, Unknown, decode
from streams.log.port import Log
from streams.records import Entry, parse


def statement(log_id: str, offset: int, reason: str) -> bytes:
    """The bytes that the operator signs."""
    return f"corelog log void {log_id} {offset} {reason}".encode()


def sign(private_key: bytes, log_id: str, offset: int, reason: str) -> str:
    """Hex of the Ed25519 signature (RFC 8032) by a raw 32-byte private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).sign(statement(log_id, offset, reason)).hex()


def valid(void: says.LogVoided, log_id: str, operator_key: str) -> bool:
    """Whether the void is signed by the log's operator; a log founded without a key takes any void."""
    if not operator_key:
        return True
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(operator_key))
        public.verify(bytes.fromhex(void.signature), statement(log_id, void.offset, void.reason))
    except (InvalidSignature, ValueError):
        return False
    return True


async def foreseen(log: Log, start: int, log_id: str, operator_key: str) -> dict[int, str]:
    """Valid voids from ``start`` to the end, of offsets at or after ``start``: what to give a replica."""
    from streams.history.at import entries

    found: dict[int, str] = {}
    async for batch in entries(log, start, await log.end()):
        for entry in batch:
            if b'"log.voided.' in entry.raw:
                for void in _voids(entry):
                    if void.offset >= start and valid(void, log_id, operator_key):
                        found[void.offset] = void.reason
    return found


def _voids(entry: Entry) -> list[Any]:
    try:
        record = parse(entry)
        events = decode(record.stream, record.payload)
    except (ValueError, UndecodableEvent):
        return []
    return [event.data for event in events if not isinstance(event, Unknown) and isinstance(event.data, says.LogVoided)]
