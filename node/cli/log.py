"""``corelog log``: what was said, live or long ago; and the log as files (verify, copy, move, void, trim)."""

import json
from typing import Annotated, Any

from cyclopts import App, Parameter

from . import logtools
from .client import COMMON, Client, Common, Failure, sse
from .output import clock_time, dim
from .output import show as show_rows

app = App(name="log", help="The log: list, follow, show; verify, copy, move, void, trim.")
logtools.register(app)


@app.default
def lines(
    *,
    follow: Annotated[bool, Parameter(["-f", "--follow"])] = False,
    number: Annotated[int, Parameter(["-n", "--number"])] = 20,
    start: Annotated[str | None, Parameter("--from")] = None,
    stream: str | None = None,
    subject: str | None = None,
    type: str | None = None,
    jsonl: bool = False,
    common: Common = COMMON,
) -> None:
    """List the newest events, oldest first.

    Parameters
    ----------
    follow
        Go on with new ones until interrupted.
    number
        How many.
    start
        From this position on.
    stream
        Only this stream: log, cluster, kv, unit, engine, update.
    subject
        Only about this unit, machine, key or version.
    type
        Only types that begin so (unit.placed).
    jsonl
        Every command with its principal and outcome as JSON lines: the audit trail.
    """
    client = Client(common)
    if jsonl:
        response = client.open("GET", "/v1/log/audit", timeout_s=None)
        while piece := response.read1(65536):
            print(piece.decode(), end="")
        return
    filters = {"stream": stream, "subject": subject, "type": type}
    rows = client.get("/v1/log", {"from": start, "limit": number, **filters})
    for row in rows:
        _print(row, common)
    if follow:
        last = rows[-1]["position"] if rows else None
        for row in sse(client.open("GET", "/v1/log/stream", {"from": last, **filters}, timeout_s=None)):
            _print(row, common)


def _print(row: dict[str, Any], common: Common) -> None:
    if common.output in ("json", "jsonl"):
        print(json.dumps(row), flush=True)
        return
    when = clock_time(row["time_ms"]) if "time_ms" in row else ""
    data = row.get("data", {})
    about = row.get("subject") or data.get("key") or ""
    rest = {key: value for key, value in data.items() if key not in ("key", "content")}
    who = row.get("principal") or row.get("writer", "")
    words = " ".join(f"{key}={_short(value)}" for key, value in rest.items()) or row.get("detail", "")
    print(
        f"{dim(row['position'].rjust(8), common)}  {dim(when, common)}  {row['type']:<22} {about}  {words}"
        f"  {dim('by ' + who if who else '', common)}".rstrip(),
        flush=True,
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@app.command
def show(position: str, *, common: Common = COMMON) -> None:
    """The record at a position, as it stands on the log."""
    record = Client(common).get(f"/v1/log/{position}")
    if common.output in ("json", "jsonl"):
        print(json.dumps(record, indent=2))
        return
    head, _, _ = record["canonical"].partition("\n")
    print(dim(head, common))
    for event in record["events"]:
        print(json.dumps(event, indent=2))
    if not record["events"]:
        raise Failure(f"{position} holds no event", 3)


@app.command
def snapshot(*, common: Common = COMMON) -> None:
    """Write snapshots of the node's state now."""
    rows = json.loads(Client(common).open("POST", "/v1/log/snapshot", timeout_s=None).read())
    show_rows(rows, ("fold", "offset", "state_hash"), common)
