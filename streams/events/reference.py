"""Prints docs/events.md, the reference of all event types, from the types: ``python -m streams.events.reference``."""

import inspect
from typing import Any

import msgspec

from streams.events import STREAMS, payloads
from streams.events.base import Data, Event

_INTRO = """# Events

Made from the types by `python -m streams.events.reference`; don't edit. A record on the log is a JSON array of
events of one stream. Every event has a `type` and `data`; the other attributes are left out where they are empty:

"""


def page() -> str:
    """The whole page."""
    doc = inspect.cleandoc(Event.__doc__ or "").split("\n\n", 1)[1]
    parts = [_INTRO + "```\n" + doc + "\n```\n"]
    for stream in STREAMS:
        module = inspect.getmodule(payloads(stream)[0])
        about = inspect.cleandoc((module.__doc__ if module else "") or "")
        parts.append(f"\n## {stream}\n\n{about}\n")
        parts += [_entry(cls) for cls in payloads(stream)]
    return "".join(parts)


def _entry(cls: type[Data]) -> str:
    kind = "command" if cls.COMMAND else "fact"
    doc = inspect.cleandoc(cls.__doc__ or "")
    lines = [f"\n### `{cls.TYPE}` ({kind})\n"]
    if doc and not doc.startswith(cls.__name__ + "("):
        lines.append(f"\n{doc}\n")
    fields = msgspec.structs.fields(cls)
    if fields:
        lines.append("\n| field | type | default |\n|---|---|---|\n")
        lines += [f"| `{field.name}` | {_type(field.type)} | {_default(field)} |\n" for field in fields]
    return "".join(lines)


def _type(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    text = text.replace("str | streams.events.base64.Base64", "Blob").replace("streams.events.base64.", "")
    return text.replace("typing.", "").replace("|", "or").replace("Union[str, Base64]", "Blob")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{field.default_factory()!r}`"
    return f"`{field.default!r}`"


if __name__ == "__main__":
    print(page(), end="")
