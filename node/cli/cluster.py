"""``corelog cluster``: the log, the term and the master."""

from cyclopts import App

from . import output
from .client import COMMON, At, Client, Common

app = App(name="cluster", help="The cluster as a whole.")


@app.command
def status(*, at: At = None, serializable: bool = False, common: Common = COMMON) -> None:
    """Log, position, term, master, machines and units."""
    query = {"at": at, "consistency": "serializable" if serializable else None}
    row = Client(common).get("/v1/cluster", query)
    output.one(row, common)
    if common.output in ("table", "wide"):
        print()
        rows = Client(common).get("/v1/machines", query)
        short = [{**machine, "id": machine["id"][:8], "units": len(machine["units"])} for machine in rows]
        output.show(short, ("id", "name", "state", "master", "units", "gateway"), common)


@app.command
def state(*, at: At = None, common: Common = COMMON) -> None:
    """The whole control state as JSON."""
    import json

    print(json.dumps(Client(common).get("/v1/state", {"at": at}), indent=2))
