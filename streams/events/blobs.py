"""Bytes ↔ their form in JSON."""

from streams.events.base64 import Base64, Blob


def blob(raw: bytes) -> Blob:
    """The one JSON form of ``raw``: text if it is valid UTF-8, otherwise base64."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Base64(raw)


def unblob(value: Blob) -> bytes:
    """The bytes that :func:`blob` was given."""
    return value.encode() if isinstance(value, str) else value.base64
