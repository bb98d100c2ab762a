"""Bytes ↔ their form in JSON."""

from typing import Final

from streams.events.base64 import Base64, Blob

#: What is no longer isn't looked through: it costs more than it saves.
SHORT_BYTES: Final = 1024
#: What JSON writes in two characters or six, and of these the ones of six.
_ESCAPED: Final = bytes(range(32)) + b'"\\'
_SIX: Final = bytes(set(range(32)) - set(b"\b\t\n\f\r"))


def blob(raw: bytes) -> Blob:
    """The one JSON form of ``raw``, in states and answers: text if it is valid UTF-8, otherwise base64."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Base64(raw)


def carried(raw: bytes) -> Blob:
    """The form in an event, which a record has to hold: as :func:`blob`, but base64 where escapes make text longer."""
    if len(raw) > SHORT_BYTES and _swells(raw):
        return Base64(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Base64(raw)


def _swells(raw: bytes) -> bool:
    """Whether it grows by more than a third as text."""
    size = len(raw)
    escaped = size - len(raw.translate(None, _ESCAPED))
    if 15 * escaped <= size:  # not even if all of them took six
        return False
    return 3 * (escaped + 4 * (size - len(raw.translate(None, _SIX)))) > size


def unblob(value: Blob) -> bytes:
    """The bytes that :func:`blob` was given."""
    return value.encode() if isinstance(value, str) else value.base64
