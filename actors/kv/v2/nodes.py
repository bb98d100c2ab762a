"""What the v2 store is made of, laid out for a million keys: no garbage-collected object per key.

Text is ``str`` with surrogate escapes where the bytes are not UTF-8, so that comparison and order are those of
the bytes and the common case (ASCII) takes a byte per character and no conversion.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from streams.events.base import Base64, Blob, blob, carried, unblob
from streams.events.blobs import SHORT_BYTES


class File(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A file as it is, or (``value`` None) what a change shows of a directory. ``expires_ms`` 0: permanent.

    ``expires_ms`` is the expiration shown: the record's wall-clock time + TTL. Nothing is decided by it.
    """

    value: str | None
    created: int
    modified: int
    expires_ms: int


class Dir(msgspec.Struct, gc=False):
    """A directory. ``children``: the paths of its nodes, in the order of their making; the values mean nothing
    (the strings are shared with the store's own dictionaries, so that an entry here takes about 30 bytes)."""

    children: dict[str, None]
    created: int
    modified: int
    expires_ms: int = 0


Node = File | Dir

#: (index, action, key, node, prev, time_ms, refresh): one change of the store, as history and watchers see it.
#: ``node`` is None for delete, expire and compareAndDelete. A plain tuple: it is made once per put.
Change = tuple[int, str, str, File | None, File | None, int, bool]

#: Stands for the value of a file that isn't known any more (see :mod:`actors.kv.v2.again`); no client can give it, for
#: bytes that are no UTF-8 are of other surrogates. As plain data it is true.
LOST = "\ud800"

#: Path elements of a key and characters of it at most: listings and deletions recurse.
DEPTH_MAX = 128
KEY_CHARACTERS_MAX = 16384

_ESCAPED = re.compile("[\ud800-\udfff]")


def face(node: Node) -> File:
    """What a change shows of a node: the file itself, or a directory without its children."""
    if isinstance(node, File):
        return node
    return File(None, node.created, node.modified, node.expires_ms)


def text_of(value: Blob) -> str:
    """The store's form of a blob of an event."""
    return value if isinstance(value, str) else unblob(value).decode("utf-8", "surrogateescape")


def blob_of(text: str) -> Blob:
    """The inverse of :func:`text_of`, as states have it."""
    if text.isascii():
        return text
    return blob(text.encode("utf-8", "surrogateescape"))


def carried_of(text: str) -> Blob:
    """The inverse of :func:`text_of`, as events have it."""
    if len(text) <= SHORT_BYTES and text.isascii():
        return text
    return carried(text.encode("utf-8", "surrogateescape"))


def shown(text: str) -> str:
    """Valid Unicode for answers: each byte that isn't UTF-8 becomes U+FFFD, as Go's JSON does."""
    return text if text.isascii() else _ESCAPED.sub("\ufffd", text)


def clean(key: str) -> str:
    """The canonical key, without ``//``, ``.``, ``..`` and the last ``/``; the root is the empty string."""
    if key[:1] == "/" and key[-1] != "/" and "//" not in key and "/." not in key:
        return key
    parts: list[str] = []
    for part in key.split("/"):
        if part == "..":
            del parts[-1:]
        elif part and part != ".":
            parts.append(part)
    return "/" + "/".join(parts) if parts else ""


def plain_file(node: File | None) -> list[Any] | None:
    """JSON data of a node of a change."""
    if node is None:
        return None
    value = node.value
    shown_value = value if value is None else value == LOST or blob_of(value)
    return [shown_value, node.created, node.modified, node.expires_ms]


def plain_change(change: Change) -> list[Any]:
    """JSON data of a change, kept in sessions, snapshots and hashes; the inverse is :func:`change_of`."""
    index, action, key, node, prev, time_ms, refresh = change
    return [index, action, blob_of(key), plain_file(node), plain_file(prev), time_ms, refresh]


def change_of(plain: Sequence[Any]) -> Change:
    """The change itself, or the one that :func:`plain_change` was given."""
    if isinstance(plain, tuple):
        return plain
    index, action, key, node, prev, time_ms, refresh = plain
    return (index, action, text_in(key), _file_of(node), _file_of(prev), time_ms, refresh)


def _file_of(plain: Sequence[Any] | None) -> File | None:
    if plain is None:
        return None
    value, created, modified, expires_ms = plain
    return File(value if value is None else LOST if value is True else text_in(value), created, modified, expires_ms)


def text_in(value: Any) -> str:
    """Text from a blob, also in the form that JSON gives back untyped (``{"base64": "…"}``)."""
    if isinstance(value, dict):
        value = msgspec.convert(value, Base64)
    return text_of(value)
