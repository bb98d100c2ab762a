"""``corelog why`` and ``corelog diff``: causes and differences."""

import json
import sys
from typing import Any, Literal

from .client import COMMON, FALSE, At, Client, Common
from .output import clock_time, colored, dim, paint


def why(
    kind: Literal["unit", "machine", "key", "version"], name: str, *, at: At = None, common: Common = COMMON
) -> None:
    """Why is it so: the chain of causes, oldest first, down to who asked."""
    from urllib.parse import quote

    if kind == "unit" and "." not in name:
        name += ".service"
    steps = Client(common).get(f"/v1/why/{kind}/{quote(name.lstrip('/'))}", {"at": at})
    if common.output in ("json", "jsonl"):
        print(json.dumps(steps, indent=2))
        return
    width = max(len(step["position"]) for step in steps)
    for step in steps:
        head = dim(f"{step['position']:>{width}}  {clock_time(step['time_ms'])}", common)
        refused = paint(f"  REFUSED: {step['refused']}", "31", colored(common)) if step["refused"] else ""
        print(f"{head}  {step['words']}{refused}")


def diff(span: str, *, common: Common = COMMON) -> None:
    """What differs in the whole cluster between two instants: A..B (positions or times), or A.. for until now.

    Exits with 1 when there is a difference, 0 when there is none.
    """
    differences(span, None, common)


def differences(span: str, below: str | None, common: Common) -> None:
    """Print what differs, of everything or only of the keys at and below one; exits with 1 when something does."""
    changes = changed(span, below, common)
    if common.output in ("json", "jsonl"):
        print(json.dumps(changes, indent=2))
    else:
        print_changed(changes, common)
    if changes:
        sys.exit(FALSE)


def changed(span: str, below: str | None, common: Common) -> list[dict[str, Any]]:
    start, dots, end = span.partition("..")
    found: list[dict[str, Any]] = Client(common).get(
        "/v1/diff", {"from": start, "to": end if dots else None, "below": below}
    )
    return found


def print_changed(changes: list[dict[str, Any]], common: Common) -> None:
    color = colored(common)
    for change in changes:
        sign, code = {"add": ("+", "32"), "remove": ("-", "31"), "change": ("~", "33")}[change["op"]]
        line = f"{sign} {change['path']}"
        if "before" in change and "after" in change:
            line += f": {_short(change['before'])} -> {_short(change['after'])}"
        else:
            line += f": {_short(change.get('after', change.get('before')))}"
        print(paint(line, code, color))


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."
