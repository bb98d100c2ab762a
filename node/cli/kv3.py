"""v3's keys on the command line, now and in the past: which of etcd's key spaces is meant, and how bytes are shown."""

import base64
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote_from_bytes

from cyclopts import Parameter

from .client import NOT_FOUND, USAGE, Client, Common, Failure, note
from .output import clock_time, colored, paint, show

Row = dict[str, Any]
Api = Literal["v2", "v3"]
#: A revision as ``--at`` takes it.
_REVISION = re.compile(r"\s*(r|rev|rev:|revision )\s?\d+\s*")
#: Characters of a value in a table's cell; -o wide and the other forms show all.
CELL_MAX = 60


@Parameter(name="*", group="Which keys, and how they are written")
@dataclass(frozen=True)
class Form:
    """Options of commands that know both of etcd's key spaces.

    Parameters
    ----------
    api
        v2 or v3: only these keys. Without it both are looked at, and what is v3's says so.
    hex
        Show keys and values of v3 byte by byte, as etcdctl does.
    key_as
        How keys of v3 are written on the command line: text, hex or base64.
    """

    api: Annotated[Api | None, Parameter(env_var="CORELOG_KV_API")] = None
    hex: bool = False
    key_as: Literal["text", "hex", "base64"] = "text"


FORM = Form()


def spaces(form: Form, of_v3: dict[str, Any], of_v2: dict[str, Any], *instants: str | None) -> tuple[Api, ...]:
    """The key spaces that are meant: as said, or as an option that only one of them has tells, else both.

    of_v3, of_v2: such options as given, by name. Raises Failure where they contradict each other.
    """
    third = [name for name, value in {**of_v3, "--hex": form.hex}.items() if value]
    third += ["--key-as"] if form.key_as != "text" else []
    third += [f"the revision {one.strip()}" for one in instants if one and _REVISION.fullmatch(one)]
    second = [name for name, value in of_v2.items() if value]
    if second and third:
        raise Failure(f"{second[0]} is for v2's keys, {third[0]} for v3's: not both", USAGE)
    if form.api == "v2" and third:
        raise Failure(f"{third[0]} is for v3's keys, not with --api v2", USAGE)
    if form.api == "v3" and second:
        raise Failure(f"{second[0]} is for v2's keys, not with --api v3", USAGE)
    if form.api:
        return (form.api,)
    return ("v3",) if third else ("v2",) if second else ("v3", "v2")


# -- bytes --------------------------------------------------------------------------------------------------------


def key_bytes(text: str, form: Form) -> bytes:
    """A key as it stands on the command line. Raises Failure."""
    try:
        if form.key_as == "hex":
            return bytes.fromhex(text.replace("\\x", ""))
        if form.key_as == "base64":
            return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Failure(f"{text!r} is no key in {form.key_as}: {error}", USAGE) from error
    return text.encode("utf-8", "surrogateescape")


def unblob(blob: Any) -> bytes:
    """Bytes as answers have them: text, or base64 where they are none."""
    return blob.encode() if isinstance(blob, str) else base64.b64decode(blob["base64"])


def blob(raw: bytes) -> Any:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def shown(found: Any, form: Form) -> str:
    """For people: what can't be printed is escaped."""
    raw = unblob(found)
    if form.hex:
        return "".join(f"\\x{byte:02x}" for byte in raw)
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _hexed(row: Row, form: Form) -> Row:
    if not form.hex:
        return row
    named = ("key", "value", "previous", "before", "after")
    return {name: shown(value, form) if name in named and value is not None else value for name, value in row.items()}


# -- asking -------------------------------------------------------------------------------------------------------


def query(**bytes_of: list[bytes]) -> str:
    """``?key=…&prefix=…`` of any bytes; more goes behind it."""
    pairs = [f"{name}={quote_from_bytes(one, safe='')}" for name, given in bytes_of.items() for one in given]
    return "&".join(pairs)


def asked(common: Common, path: str, ranges: str, **more: Any) -> Any:
    """Raises Failure."""
    given = {name.rstrip("_"): "true" if value is True else value for name, value in more.items()}
    rest = "&".join(f"{name}={quote_from_bytes(str(value).encode())}" for name, value in given.items() if value)
    return Client(common).get(f"/v1/kv3/{path}?" + "&".join(part for part in (ranges, rest) if part))


def maybe(meant: tuple[Api, ...], call: Callable[[], Any], none: Any) -> Any:
    """``call()`` of v3's keys. Where v2's are looked at as well, a reader without a token gets only those."""
    if "v3" not in meant:
        return none
    try:
        return call()
    except Failure as error:
        if error.kind != "token-needed" or "v2" not in meant:
            raise
        note("v3's keys are shown by the node's socket or with --token; these are v2's alone")
        return none


# -- showing ------------------------------------------------------------------------------------------------------


def print_value(row: Row, form: Form) -> None:
    """One value, as it is; on a terminal what could upset it is escaped."""
    raw = unblob(row["value"])
    if form.hex or (
        sys.stdout.isatty() and not all(one.isprintable() or one in "\n\t" for one in raw.decode("latin-1"))
    ):
        print(shown(row["value"], form))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(raw + b"\n")
    sys.stdout.buffer.flush()


def print_keys(rows: list[Row], common: Common, form: Form, keys_only: bool) -> None:
    """Keys as rows."""
    rows = [_cells(_hexed(row, form), common, form) for row in rows]
    columns = ("key",) if keys_only else ("key", "value")
    show(rows, columns, common, ("mod_revision", "create_revision", "version", "lease"), "key")


def print_changes(rows: list[Row], columns: tuple[str, ...], common: Common, form: Form) -> None:
    """Changes of either key space, or of both, as rows; on a table who made them stands in one column."""
    both = len({row["api"] for row in rows}) == 2
    third = any(row["api"] == "v3" for row in rows)
    if common.output in ("table", "wide", "name"):
        untold = sum(row["api"] == "v3" and not row["position"] for row in rows)
        for row in rows:
            row["time"] = clock_time(row["time_ms"]) if "time_ms" in row else ""
            row["by"] = _by(row)
        if untold:
            note(f"{untold} of these are older than what is kept of the log: who made them isn't known")
    rows = [_cells(_hexed(row, form), common, form) if row["api"] == "v3" else row for row in rows]
    if not third:
        columns = tuple(one for one in columns if one not in ("revision", "version", "lease"))
    wide = (
        ("previous", "index", "client", "writer", "correlation") if not third else ("previous", "created", "lease_at")
    )
    show(rows, (("api", *columns) if both else columns), common, (*wide, "source", "writer") if third else wide, "key")


def _by(row: Row) -> str:
    """Whoever asked; of what a lease took, whose lease it was."""
    who: str = row.get("principal") or ""
    if row.get("source"):
        who += f" ({row['source'].removeprefix('addr:')})"
    if row["action"].startswith("lease "):
        granted = f", granted by {row['lease_by']}" if row["lease_by"] else ""
        return f"{who + ', ' if who else ''}lease {row['lease']}{granted}"
    return who or (f"master of term {row['term']}" if row.get("term") else "")


def _cells(row: Row, common: Common, form: Form) -> Row:
    """A row for a table: text only, and not too much of it."""
    if common.output not in ("table", "wide", "name"):
        return row
    made = dict(row)
    for name in ("key", "value", "previous"):
        if made.get(name) is not None and not form.hex:
            made[name] = shown(made[name], form)
    if common.output == "table" and made.get("value") is not None and len(made["value"]) > CELL_MAX:
        made["value"] = made["value"][: CELL_MAX - 3] + "..."
    return made


def print_differences(rows: list[Row], common: Common, form: Form) -> None:
    """As ``diff`` shows them: + - ~, with both values and the revisions that they are of."""
    for row in rows:
        sign, code = {"add": ("+", "32"), "remove": ("-", "31"), "change": ("~", "33")}[row["op"]]
        sides = [
            f"{_quoted(row[side], form)} (r{row[side + '_revision']})" for side in ("before", "after") if side in row
        ]
        print(paint(f"{sign} v3 {shown(row['key'], form)}: {' -> '.join(sides)}", code, colored(common)))


def differences_as_data(rows: list[Row], form: Form) -> list[Row]:
    return [_hexed(row, form) for row in rows]


def _quoted(value: Any, form: Form) -> str:
    text = shown(value, form) if form.hex or not isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."


def nothing_there(words: str) -> Failure:
    return Failure(words, NOT_FOUND)
