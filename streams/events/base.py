"""What every event is made of, and how events become bytes and bytes become events.

An event is CloudEvents-shaped JSON: attributes (``type``, ``subject``, ``principal``, …) around ``data``.
Each payload class is declared once with :func:`event`; its envelope class is derived, so that a whole
record (a JSON array) is decoded by one C call into ``Event`` objects whose ``data`` is the typed payload.

``id``, ``source`` and ``time`` of CloudEvents are written once per record, in its head
(:mod:`streams.records`), because all events of a record share them.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, Union

import msgspec

from streams.events.base64 import Base64 as Base64
from streams.events.base64 import Blob as Blob
from streams.events.blobs import blob as blob
from streams.events.blobs import carried as carried
from streams.events.blobs import unblob as unblob

STREAMS = ("log", "cluster", "kv", "unit", "engine", "update")


class Data(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all payloads. Strict: a field that this version doesn't know is an error, not ignored."""

    TYPE: ClassVar[str]
    STREAM: ClassVar[str]
    COMMAND: ClassVar[bool]
    IGNORABLE: ClassVar[bool]


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True, tag_field="type"):
    """An immutable thing said on the log. Built with :func:`say`, never directly.

    subject      key, unit, machine or version that it is about; empty where ``data.key`` says it (kv)
    principal    who asked, on commands: ``uid:0``, ``token:ops``, ``addr:127.0.0.1``, ``machine:ID``
    source       where a command came from, on those whose principal is a user of etcd's: ``addr:10.0.0.7``
    correlation  id of the command that started it all
    cause        position (``1234.7``) that made its actor act
    term         on what only the master may say: its term; 0 on everything else
    client, sequence, floor
                 make a retry harmless: outcomes of (client, sequence) are kept at and above the floor
    """

    subject: str = ""
    principal: str = ""
    source: str = ""
    correlation: str = ""
    cause: str = ""
    term: int = 0
    client: str = ""
    sequence: int = 0
    floor: int = 0
    #: real envelopes type it as their payload; ``match event.data`` narrows it
    data: Any

    @property
    def type(self) -> str:
        return str(self.data.TYPE)


class Unknown(msgspec.Struct, frozen=True):
    """An event of a type this version doesn't know, which its writer marked as ignorable."""

    type: str


_PAYLOADS: dict[str, type[Data]] = {}
_ENVELOPES: dict[type[Data], type[Event]] = {}
_decoders: dict[str, msgspec.json.Decoder[list[Event]]] = {}
_encoder = msgspec.json.Encoder()
D = TypeVar("D", bound=type[Data])


def event(name: str, stream: str, *, command: bool = False, ignorable: bool = False) -> Callable[[D], D]:
    """Class decorator: registers a payload as event type ``name`` (``kv.set.v1``) of ``stream``.

    command: it asks (has a principal and an outcome) rather than tells.
    ignorable: a reader that doesn't know the type may skip it; others halt (the type name ends in ``?`` then).
    """
    assert stream in STREAMS, stream

    def register(cls: D) -> D:
        tag = name + "?" if ignorable else name
        assert tag not in _PAYLOADS, tag
        cls.TYPE, cls.STREAM, cls.COMMAND, cls.IGNORABLE = tag, stream, command, ignorable
        _PAYLOADS[tag] = cls
        _ENVELOPES[cls] = msgspec.defstruct(  # type: ignore[assignment]
            cls.__name__ + "Event",
            [("data", cls)],
            bases=(Event,),
            tag=tag,
            tag_field="type",
            frozen=True,
            gc=False,
            omit_defaults=True,
            kw_only=True,
        )
        _decoders.pop(stream, None)
        return cls

    return register


def payloads(stream: str | None = None) -> list[type[Data]]:
    """All registered payload classes (of one stream), ordered by type name."""
    return [cls for _, cls in sorted(_PAYLOADS.items()) if stream in (None, cls.STREAM)]


def say(data: Data, **attributes: Any) -> Event:
    """An event that says ``data``; keyword arguments are the attributes of :class:`Event`."""
    return _ENVELOPES[type(data)](data=data, **attributes)


def said(data: Data, principal: str) -> Event:
    """The same of most commands, sooner."""
    return _ENVELOPES[type(data)](data=data, principal=principal)


def encode(events: Iterable[Event]) -> bytes:
    """A record's payload: the JSON array of ``events``."""
    return _encoder.encode(events if isinstance(events, list) else list(events))


class UndecodableEvent(ValueError):
    """Ours, but not to be understood: malformed, or of a type that may not be ignored. The reader halts."""


class _Head(msgspec.Struct):
    type: str


_heads = msgspec.json.Decoder(list[msgspec.Raw])
_head = msgspec.json.Decoder(_Head)


def _decoder(stream: str) -> msgspec.json.Decoder[list[Event]]:
    found = _decoders.get(stream)
    if found is None:
        union: Any = Union[tuple(_ENVELOPES[cls] for cls in payloads(stream))]  # noqa: UP007 - built at run time
        found = _decoders[stream] = msgspec.json.Decoder(list[union])
    return found


def decode(stream: str, payload: bytes | memoryview) -> list[Event | Unknown]:
    """Decode a record's payload. Raises UndecodableEvent (with index and field) on anything not understood."""
    try:
        return _decoder(stream).decode(payload)  # type: ignore[return-value]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        return _decode_one_by_one(stream, payload, error)


def _decode_one_by_one(stream: str, payload: bytes | memoryview, first: Exception) -> list[Event | Unknown]:
    """The slow way, taken when the fast one failed: skip ignorable strangers, name what is wrong."""
    if stream not in STREAMS:
        raise UndecodableEvent(f"stream {stream!r} is not known to this version; upgrade corelog") from first
    try:
        raws = _heads.decode(payload)
    except msgspec.DecodeError as error:
        raise UndecodableEvent(f"payload is not a JSON array: {error}") from error
    out: list[Event | Unknown] = []
    for index, raw in enumerate(raws):
        try:
            kind = _head.decode(raw).type
            cls = _PAYLOADS.get(kind)
            if cls is None and kind.endswith("?"):
                out.append(Unknown(kind))
                continue
            if cls is None or stream != cls.STREAM:
                raise UndecodableEvent(f"event {index}: type {kind!r} is not known in stream {stream!r}")
            out.append(msgspec.json.decode(raw, type=_ENVELOPES[cls]))
        except msgspec.DecodeError as error:
            raise UndecodableEvent(f"event {index}: {error}") from error
    return out
