"""``corelog unit``: what runs in the cluster."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from . import output
from .client import COMMON, CONFLICT, DOING, NOT_FOUND, At, Client, Common, Doing, Failure, note, segment

app = App(name="unit", help="Units: submit, start, stop, list, journal.")

_SUFFIXES = (".service", ".socket", ".timer", ".path", ".mount", ".target", ".slice", ".container")


def _name(text: str) -> str:
    """``web`` means ``web.service``; a path means its last part."""
    name = Path(text).name
    return name if name.endswith(_SUFFIXES) else name + ".service"


def _file(text: str) -> tuple[str, str] | None:
    """Name and content if ``text`` is a file of a unit, else None."""
    path = Path(text)
    if not path.is_file():
        if "/" in text:
            raise Failure(f"no file {text}", NOT_FOUND)
        return None
    return _name(path.name), path.read_text()


def _submit(client: Client, text: str, desired: str, replace: bool, doing: Doing) -> str:
    """Submit the file named by ``text`` (or ask for a known unit's state); returns the unit's name."""
    found = _file(text)
    if found is None:
        name = _name(text)
        if desired:
            client.command("POST", f"/v1/units/{segment(name)}/desire", {"state": desired}, doing)
        else:
            raise Failure(f"no file {text}", NOT_FOUND)
        return name
    name, content = found
    body = {"content": content, "desired": desired, "replace": replace}
    client.command("PUT", f"/v1/units/{segment(name)}", body, doing)
    return name


def _wait(client: Client, name: str, done: tuple[str, ...], bad: tuple[str, ...], common: Common) -> None:
    """Poll until the unit is in one of the states; says where it is on the way. Raises Failure."""
    until = time.monotonic() + common.timeout
    said = ""
    while True:
        try:
            row = client.get(f"/v1/units/{segment(name)}", {"consistency": "serializable"})
        except Failure as error:
            if error.exit_code == NOT_FOUND and "gone" in done:
                return
            raise
        now = f"{row['state']} on {row['machine_name']}" if row["machine"] else f"{row['state']}: {row['reason']}"
        if row["state"] in done:
            note(f"{name} {now}")
            return
        if row["state"] in bad:
            raise Failure(f"{name} {row['state']}: {row['reason']}", CONFLICT)
        if now != said and row["state"] in ("waiting", "placed"):
            note(f"{name} {now}")
            said = now
        if time.monotonic() > until:
            raise Failure(f"{name} is {now} after {common.timeout:g} s; `corelog why unit {name}` tells more", 1)
        time.sleep(0.05)


Replace = Annotated[bool, Parameter(help="Replace the unit if it exists with another content.")]


@app.command
def submit(files: list[str], *, replace: Replace = False, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Submit unit files without starting them."""
    for file in files:
        _submit(Client(common), file, "", replace, doing)


@app.command
def start(units: list[str], *, replace: Replace = False, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Start units (names or files), and wait until they are ready."""
    _to(units, "launched", ("ready", "exited", "started"), ("failed",), replace, common, doing)


@app.command
def load(units: list[str], *, replace: Replace = False, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Place units on machines without starting them."""
    _to(units, "loaded", ("loaded", "stopped", "ready", "started"), ("failed",), replace, common, doing)


@app.command
def stop(units: list[str], *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Stop units; they stay on their machines."""
    _to(units, "loaded", ("loaded", "stopped", "exited", "failed", "inactive"), (), False, common, doing)


@app.command
def unload(units: list[str], *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Stop units and take them off their machines."""
    _to(units, "inactive", ("inactive",), (), False, common, doing)


def _to(
    units: list[str],
    state: str,
    done: tuple[str, ...],
    bad: tuple[str, ...],
    replace: bool,
    common: Common,
    doing: Doing,
) -> None:
    client = Client(common)
    names = [_submit(client, unit, state, replace, doing) for unit in units]
    if doing.wait and not doing.dry_run:
        for name in names:
            _wait(client, name, done, bad, common)


@app.command
def restart(units: list[str], *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Stop and start units in place."""
    client = Client(common)
    for unit in units:
        client.command("POST", f"/v1/units/{segment(_name(unit))}/restart", None, doing)


@app.command
def destroy(units: list[str], *, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Stop units and forget them."""
    client = Client(common)
    for unit in units:
        client.command("DELETE", f"/v1/units/{segment(_name(unit))}", None, doing)
        if doing.wait and not doing.dry_run:
            _wait(client, _name(unit), ("gone",), (), common)


@app.command(name="list")
def list_(
    *, at: At = None, watch: Annotated[bool, Parameter(["--watch", "-w"])] = False, common: Common = COMMON
) -> None:
    """List units: where each runs, or why not."""
    client = Client(common)

    def render(rows: list[output.Row]) -> None:
        shown = (
            [{**row, "machine": row["machine_name"]} for row in rows] if common.output in ("table", "wide") else rows
        )
        output.show(shown, ("name", "desired", "state", "machine", "reason"), common, ("generation",), "name")

    if watch:
        output.watch(lambda: client.get("/v1/units"), render)
    render(client.get("/v1/units", {"at": at}))


@app.command
def status(unit: str, *, at: At = None, common: Common = COMMON) -> None:
    """One unit: its runs, and on which machine it can't run and why."""
    row: dict[str, Any] = Client(common).get(f"/v1/units/{segment(_name(unit))}", {"at": at})
    row.pop("content")
    if common.output != "table":
        output.one(row, common)
        return
    runs, waiting = row.pop("placements"), row.pop("waiting_machines")
    output.one({key: row[key] for key in ("name", "desired", "state", "reason")}, common)
    if runs:
        print()
        output.show(runs, ("name", "state", "fence", "pid", "container", "restarts", "at", "detail"), common)
    for machine, reason in waiting.items():
        print(f"not on {machine}: {reason}")


@app.command
def cat(unit: str, *, at: At = None, common: Common = COMMON) -> None:
    """Print a unit's file."""
    sys.stdout.write(Client(common).get(f"/v1/units/{segment(_name(unit))}", {"at": at})["content"])


@app.command
def verify(files: list[str], *, common: Common = COMMON) -> None:
    """Check unit files; nothing is published."""
    from actors.scheduler import unitfile

    for file in files:
        found = _file(file)
        if found is None:
            raise Failure(f"no file {file}", NOT_FOUND)
        try:
            unitfile.parse(*found)
        except unitfile.UnitFileError as error:
            raise Failure(str(error), 2) from error
        note(f"{file}: ok")


@app.command
def journal(
    unit: str,
    *,
    follow: Annotated[bool, Parameter(["-f", "--follow"])] = False,
    lines: Annotated[int, Parameter(["-n", "--lines"])] = 200,
    times: Annotated[bool, Parameter(["-t", "--times"])] = False,
    common: Common = COMMON,
) -> None:
    """Print the output of a unit on this node; -f goes on."""
    client = Client(common)
    query = {"lines": lines, "follow": "1" if follow else None, "times": "1" if times else None}
    response = client.open("GET", f"/v1/units/{segment(_name(unit))}/journal", query, timeout_s=None)
    while piece := response.read1(65536):
        sys.stdout.write(piece.decode("utf-8", "replace"))
        sys.stdout.flush()
