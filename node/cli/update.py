"""``corelog update``: versions of a tree, on every machine."""

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from . import output
from .client import COMMON, CONFLICT, DOING, NOT_FOUND, At, Client, Common, Doing, Failure, note, segment

app = App(name="update", help="Publish, stage, switch and roll back versions.")

Machines = Annotated[list[str] | None, Parameter(name=["--machine", "-m"], help="Only there (name or id); repeatable.")]


@app.command
def publish(
    folder: Path,
    *,
    version: str,
    health: str = "",
    health_timeout: float = 30.0,
    common: Common = COMMON,
    doing: Doing = DOING,
) -> None:
    """Put a folder into the store of this machine's node and publish it as a version.

    Parameters
    ----------
    health
        Command that must succeed after a switch; otherwise the machine goes back by itself.
    health_timeout
        Seconds it may take to succeed.
    """
    from actors.updater.publish import publish_folder
    from actors.updater.store import UpdaterError

    if not folder.is_dir():
        raise Failure(f"{folder} is not a folder", NOT_FOUND)
    client = Client(common)
    data = _data_folder(client)
    try:
        payload = publish_folder(data, folder, version, health=health, health_timeout_ms=int(health_timeout * 1000))
    except (OSError, UpdaterError) as error:
        raise Failure(f"{folder} can't be published: {error}", CONFLICT) from error
    import msgspec

    client.command("PUT", f"/v1/updates/{segment(version)}", msgspec.to_builtins(payload), doing)
    note(f"version {version}: {payload.files} files, {payload.size_bytes} bytes, tree {payload.tree[:16]}")


def _data_folder(client: Client) -> Path:
    """The data folder of the node spoken to: objects are put into its store as files, not sent."""
    if client.common.data is not None:
        return client.common.data
    if client.where.startswith("/"):
        return Path(client.where).parent.parent
    raise Failure("publishing writes into the store of a node on this machine: say --data FOLDER", 2)


@app.command(name="list")
def list_(*, at: At = None, common: Common = COMMON) -> None:
    """List versions: where each runs and is staged."""
    rows = Client(common).get("/v1/updates", {"at": at})
    output.show(
        rows,
        ("version", "files", "size_bytes", "running", "staged", "pinned"),
        common,
        ("tree", "health", "at"),
        "version",
    )


@app.command
def status(*, at: At = None, common: Common = COMMON) -> None:
    """What each machine runs, ran before, has staged, and how its last order ended."""
    rows = Client(common).get("/v1/updates/status", {"at": at})
    output.show(
        rows,
        ("name", "running", "previous", "state", "detail", "staged"),
        common,
        ("machine", "wanted", "order", "order_at"),
        "machine",
    )


@app.command
def stage(version: str, *, machines: Machines = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Fetch a version and lay it out, without switching."""
    _order("stage", version, machines, common, doing, lambda row: version in row["staged"] or row["running"] == version)


@app.command
def switch(version: str, *, machines: Machines = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Switch to a version, newer or older; waits until each machine is healthy on it or went back."""
    _order(
        "switch", version, machines, common, doing, lambda row: row["running"] == version and row["state"] == "healthy"
    )


def _order(verb: str, version: str, machines: list[str] | None, common: Common, doing: Doing, done: Any) -> None:
    client = Client(common)
    answer = client.command("POST", f"/v1/updates/{segment(version)}/{verb}", {"machines": machines or []}, doing)
    if doing.wait and not doing.dry_run:
        _settle(client, answer["position"], machines, done, common)


def _settle(client: Client, position: str, machines: list[str] | None, done: Any, common: Common) -> None:
    """Wait until each machine ordered has done it; one that failed or went back is a Failure."""
    until = time.monotonic() + common.timeout
    while True:
        rows = client.get("/v1/updates/status", {"consistency": "serializable"})
        mine = [row for row in rows if row["order_at"] == position]
        left = [row for row in mine if not done(row) and row["state"] not in ("failed", "rolledback", "unhealthy")]
        if mine and not left:
            bad = [row for row in mine if not done(row)]
            for row in mine:
                note(f"{row['name']}: {row['state']} {row['running']} {row['detail']}".rstrip())
            if bad:
                raise Failure("; ".join(f"{row['name']}: {row['state']}: {row['detail']}" for row in bad), CONFLICT)
            return
        if time.monotonic() > until:
            names = ", ".join(row["name"] for row in left) or "any machine"
            raise Failure(f"no result from {names} after {common.timeout:g} s; see `corelog update status`", 1)
        time.sleep(0.1)


@app.command
def rollback(*, machines: Machines = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Back to the version that ran before."""
    client = Client(common)
    answer = client.command("POST", "/v1/updates/rollback", {"machines": machines or []}, doing)
    if doing.wait and not doing.dry_run:
        _settle(client, answer["position"], machines, lambda row: row["state"] in ("healthy", "rolledback"), common)


@app.command
def pin(version: str, *, machines: Machines = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Keep a version: gc never drops it."""
    Client(common).command("POST", f"/v1/updates/{segment(version)}/pin", {"machines": machines or []}, doing)


@app.command
def unpin(version: str, *, machines: Machines = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Undo pin."""
    Client(common).command("POST", f"/v1/updates/{segment(version)}/unpin", {"machines": machines or []}, doing)


@app.command
def gc(*, keep: int = 3, machines: Machines = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Drop old versions but the newest ones, what runs, ran before or is pinned."""
    body = {"machines": machines or [], "keep": keep}
    Client(common).command("POST", "/v1/updates/gc", body, doing)
