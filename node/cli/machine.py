"""``corelog machine``: the machines of the cluster."""

from typing import Annotated

from cyclopts import App, Parameter

from . import output
from .client import COMMON, DOING, USAGE, At, Client, Common, Doing, Failure, segment

app = App(name="machine", help="Machines: list, drain, label, remove.")


@app.command(name="list")
def list_(
    *, at: At = None, watch: Annotated[bool, Parameter(["--watch", "-w"])] = False, common: Common = COMMON
) -> None:
    """List the machines."""
    client = Client(common)

    def render(rows: list[output.Row]) -> None:
        short = [
            {**row, "id": row["id"] if common.output != "table" else row["id"][:8], "units": len(row["units"])}
            if common.output in ("table", "wide")
            else row
            for row in rows
        ]
        output.show(
            short,
            ("id", "name", "state", "master", "drained", "units", "metadata"),
            common,
            ("gateway", "cpu_millis", "memory_bytes", "version"),
            "id",
        )

    if watch:
        output.watch(lambda: client.get("/v1/machines"), render)
    render(client.get("/v1/machines", {"at": at}))


@app.command
def show(machine: str, *, at: At = None, common: Common = COMMON) -> None:
    """One machine, by id, unique prefix or name."""
    output.one(Client(common).get(f"/v1/machines/{segment(machine)}", {"at": at}), common)


@app.command
def drain(machine: str, *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Move its units away and place none there."""
    Client(common).command("POST", f"/v1/machines/{segment(machine)}/drain", None, doing)


@app.command
def undrain(machine: str, *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Let units be placed there again."""
    Client(common).command("POST", f"/v1/machines/{segment(machine)}/undrain", None, doing)


@app.command
def label(machine: str, pairs: list[str], *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Set metadata: KEY=VALUE, or KEY- to remove it."""
    metadata: dict[str, str | None] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and key:
            metadata[key] = value
        elif pair.endswith("-") and len(pair) > 1:
            metadata[pair[:-1]] = None
        else:
            raise Failure(f"{pair!r} is neither KEY=VALUE nor KEY-", USAGE)
    Client(common).command("PATCH", f"/v1/machines/{segment(machine)}", {"metadata": metadata}, doing)


@app.command
def remove(machine: str, *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Forget a machine that is lost or left."""
    Client(common).command("DELETE", f"/v1/machines/{segment(machine)}", None, doing)
