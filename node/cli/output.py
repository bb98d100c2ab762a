"""Rows to the terminal or to a program: table, wide, json, jsonl, yaml, name."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .client import USAGE, Common, Failure

Row = dict[str, Any]
FORMATS = ("table", "wide", "json", "jsonl", "yaml", "name")
_GREEN, _RED, _YELLOW, _DIM, _BOLD = "32", "31", "33", "2", "1"
_PAINT = {
    **dict.fromkeys(("ready", "alive", "healthy", "launched"), _GREEN),
    **dict.fromkeys(("failed", "lost", "unhealthy", "rolledback"), _RED),
    **dict.fromkeys(("waiting", "placed", "exited", "left", "drained"), _YELLOW),
}


def show(rows: Sequence[Row], columns: Sequence[str], common: Common, wide: Sequence[str] = (), name: str = "") -> None:
    """Print rows. ``columns``: shown in a table; ``wide``: added by -o wide; ``name``: the column of -o name."""
    if common.output not in FORMATS:
        raise Failure(f"-o {common.output}: it takes {', '.join(FORMATS)}", USAGE)
    chosen = [field.strip() for field in common.fields.split(",") if field.strip()]
    if unknown := [field for field in chosen if rows and field not in rows[0]]:
        raise Failure(f"--fields: no column {unknown[0]!r}; there are {', '.join(rows[0])}", USAGE)
    if chosen:
        rows = [{field: row.get(field) for field in chosen} for row in rows]
    if common.output == "json":
        print(json.dumps(list(rows), indent=2))
    elif common.output == "jsonl":
        for row in rows:
            print(json.dumps(row))
    elif common.output == "yaml":
        import yaml

        print(yaml.safe_dump(list(rows), sort_keys=False), end="")
    elif common.output == "name":
        for row in rows:
            print(row[name or columns[0]])
    else:
        shown = chosen or [*columns, *(wide if common.output == "wide" else ())]
        for line in table(rows, shown, legend=common.legend, color=colored(common)):
            print(line)


def one(row: Row, common: Common) -> None:
    """Print one thing: ``field  value`` lines, or as JSON or YAML."""
    if common.output in ("json", "jsonl"):
        print(json.dumps(row, indent=2 if common.output == "json" else None))
    elif common.output == "yaml":
        import yaml

        print(yaml.safe_dump(row, sort_keys=False), end="")
    else:
        width = max((len(key) for key in row), default=0)
        for key, value in row.items():
            print(f"{key.replace('_', ' '):<{width}}  {text(value)}")


def text(value: Any) -> str:
    """A cell: lists joined, dicts as k=v, nothing as a dash."""
    if isinstance(value, dict):
        return ",".join(f"{key}={inner}" for key, inner in value.items()) or "-"
    if isinstance(value, list):
        return ",".join(text(inner) for inner in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value not in (None, "") else "-"


def table(rows: Sequence[Row], columns: Sequence[str], *, legend: bool, color: bool) -> Iterable[str]:
    """Lines of aligned columns; the last one is not padded."""
    cells = [[text(row.get(column)) for column in columns] for row in rows]
    heads = [column.upper().replace("_", " ") for column in columns]
    widths = [max([len(line[i]) for line in cells] + ([len(heads[i])] if legend else [0])) for i in range(len(columns))]
    if legend:
        yield paint(
            "  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip(), _BOLD, color
        )
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        painted = [paint(pad, _PAINT.get(cell, ""), color) for pad, cell in zip(padded, line, strict=True)]
        yield "  ".join(painted).rstrip()


def paint(words: str, code: str, color: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if color and code else words


def dim(words: str, common: Common) -> str:
    return paint(words, _DIM, colored(common))


def colored(common: Common) -> bool:
    if common.color == "always":
        return True
    return common.color == "auto" and sys.stdout.isatty() and "NO_COLOR" not in os.environ


def watch(fetch: Callable[[], list[Row]], render: Callable[[list[Row]], None]) -> None:
    """Render again whenever the rows change, until interrupted; a terminal is cleared before each picture."""
    before: list[Row] | None = None
    while True:
        rows = fetch()
        if rows != before:
            if sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            render(rows)
            sys.stdout.flush()
            before = rows
        time.sleep(0.5)


def clock_time(time_ms: int) -> str:
    """Local time of a record, to the millisecond."""
    moment = time.localtime(time_ms / 1000)
    return time.strftime("%Y-%m-%d %H:%M:%S", moment) + f".{time_ms % 1000:03d}"
