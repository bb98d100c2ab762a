"""Bytes in JSON: the types. What makes them stands in :mod:`streams.events.blobs`, which may be compiled."""

import msgspec


class Base64(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are not UTF-8, or that escapes would make longer as text, as ``{"base64": "…"}``."""

    base64: bytes


#: Bytes in JSON: a string where they are UTF-8 (so that any consumer can read them), else :class:`Base64`.
Blob = str | Base64
