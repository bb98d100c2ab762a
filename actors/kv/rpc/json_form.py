"""Messages ↔ JSON as etcd's gateway has them: names of the .proto text, bytes in base64, 64-bit integers as strings,
defaults left out. Reads what proto3's JSON mapping allows beside that; fields that it doesn't know are passed over.

Tables are made once from the descriptors: protobuf's own json_format is several times slower.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumValueDescriptor, FieldDescriptor
from google.protobuf.message import Message


class BadJson(ValueError):
    """Says which field can't be read and why."""


_INTEGER = re.compile("-?[0-9]{1,20}")
Shown = Callable[[Any], Any]
_WIDE = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64}
_shown: dict[str, tuple[str, Shown]] = {}
_known: dict[str, dict[str, FieldDescriptor]] = {}


def dumps(message: Message) -> bytes:
    return orjson.dumps(plain(message))


def plain(message: Message) -> dict[str, Any]:
    """As plain data."""
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        found = _shown.get(field.full_name)
        if found is None:
            found = _shown[field.full_name] = (field.name, _shower(field))
        out[found[0]] = found[1](value)
    return out


def _shower(field: FieldDescriptor) -> Shown:
    one: Shown
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        one = plain
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = _base64
    elif field.type in _WIDE:
        one = str
    elif field.type == FieldDescriptor.TYPE_ENUM:
        names = {value.number: name for name, value in _values(field).items()}
        one = lambda number: names.get(number, number)  # noqa: E731
    else:
        return list if field.is_repeated else lambda value: value
    return (lambda values: [one(value) for value in values]) if field.is_repeated else one


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


# -- reading --------------------------------------------------------------------------------------------------


def loads(text: bytes, kind: type[Message]) -> Message:
    """Raises BadJson."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadJson(str(error)) from error
    message = kind()
    _fill(message, data, "")
    return message


def load_all(text: bytes, kind: type[Message]) -> list[Message]:
    """JSON texts one after the other, as a client streams them. Raises BadJson."""
    decoder, out, rest = json.JSONDecoder(), [], text.decode("utf-8", "replace").strip()
    while rest:
        try:
            data, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError) as error:
            raise BadJson(str(error)) from error
        message = kind()
        _fill(message, data, "")
        out.append(message)
        rest = rest[end:].lstrip()
    return out


def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    found = _known.get(descriptor.full_name)
    if found is None:
        found = {field.camelcase_name: field for field in descriptor.fields}
        found |= {field.json_name: field for field in descriptor.fields}
        found |= {field.name: field for field in descriptor.fields}
        _known[descriptor.full_name] = found
    return found


def _fill(message: Any, data: Any, place: str) -> None:
    if not isinstance(data, dict):
        raise BadJson(f"{place or message.DESCRIPTOR.name}: an object is expected, not {_name(data)}")
    fields = _fields(message.DESCRIPTOR)
    oneofs: dict[str, str] = {}
    for name, value in data.items():
        field = fields.get(name)
        if field is None or value is None:
            continue
        here = f"{place}.{name}" if place else name
        if field.containing_oneof is not None:
            other = oneofs.setdefault(field.containing_oneof.name, name)
            if other != name:
                raise BadJson(f"{here}: {other} is given already, and only one of them can be")
        if not field.is_repeated:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                part = getattr(message, field.name)
                part.SetInParent()
                _fill(part, value, here)
            else:
                setattr(message, field.name, _scalar(field, value, here))
            continue
        if not isinstance(value, list):
            raise BadJson(f"{here}: a list is expected, not {_name(value)}")
        into = getattr(message, field.name)
        for at, one in enumerate(value):
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                _fill(into.add(), one, f"{here}[{at}]")
            else:
                into.append(_scalar(field, one, f"{here}[{at}]"))


def _scalar(field: FieldDescriptor, value: Any, place: str) -> Any:
    kind = field.type
    if kind == FieldDescriptor.TYPE_BYTES:
        return _bytes(value, place)
    if kind == FieldDescriptor.TYPE_STRING:
        if isinstance(value, str):
            return value
        raise BadJson(f"{place}: a string is expected, not {_name(value)}")
    if kind == FieldDescriptor.TYPE_BOOL:
        if isinstance(value, bool):
            return value
        raise BadJson(f"{place}: true or false is expected, not {_name(value)}")
    if kind == FieldDescriptor.TYPE_ENUM and isinstance(value, str):
        named = _values(field).get(value)
        if named is None:
            raise BadJson(f"{place}: {value!r} is none of {', '.join(_values(field))}")
        return named.number
    return _integer(field, value, place)


def _values(field: FieldDescriptor) -> Mapping[str, EnumValueDescriptor]:
    assert field.enum_type is not None
    return field.enum_type.values_by_name


def _bytes(value: Any, place: str) -> bytes:
    if not isinstance(value, str):
        raise BadJson(f"{place}: base64 text is expected, not {_name(value)}")
    try:
        text = value.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadJson(f"{place}: illegal base64 data: {error}") from error


def _integer(field: FieldDescriptor, value: Any, place: str) -> int:
    signed = field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM)
    bits = 64 if field.type in _WIDE else 32
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    number: int | None = None
    if isinstance(value, str):
        number = int(value) if _INTEGER.fullmatch(value) else None
    elif not isinstance(value, bool) and isinstance(value, int | float) and value == value // 1:
        number = int(value)
    if number is None or not low <= number <= high:
        raise BadJson(f"{place}: an integer of {bits} bits is expected, not {str(value)[:40]!r}")
    return number


def _name(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")
