"""Units: submit, desired state, restart, destroy, list, journal."""

import asyncio
import datetime
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from actors.control import Control
from actors.engine import journal
from actors.scheduler import unitfile
from actors.scheduler.state import Unit
from node import views
from streams.events import unit as says

from .context import Context, body, context, plain, read
from .problem import Problem
from .query import whole_number


class SubmitBody(msgspec.Struct, forbid_unknown_fields=True):
    """``content``: the unit file's text. ``desired``: inactive, loaded, launched or empty (leave it)."""

    content: str
    desired: str = ""
    replace: bool = False


class DesireBody(msgspec.Struct, forbid_unknown_fields=True):
    state: str


async def list_units(request: Request) -> Response:
    """All units with state, machine and reason."""
    control, replica = await context(request).control(request)
    return read([views.unit_row(control, unit) for unit in control.units.units.values()], replica)


async def get_unit(request: Request) -> Response:
    """One unit, with its placements, its file and why it waits."""
    control, replica = await context(request).control(request)
    return read(views.unit_row(control, _unit(control, request.path_params["name"])), replica)


def _unit(control: Control, name: str) -> Unit:
    found = control.units.units.get(name)
    if found is None:
        raise Problem(404, "unknown-unit", f"no unit {name!r}")
    return found


async def submit(request: Request) -> Response:
    """Submit a unit file (checked before it is published); with ``desired`` also start it."""
    asked = await body(request, SubmitBody)
    name = request.path_params["name"]
    try:
        unitfile.parse(name, asked.content)
    except unitfile.UnitFileError as error:
        raise Problem(400, "bad-unit", str(error)) from error
    return await context(request).command(request, says.Submit(asked.content, asked.desired, asked.replace), name)


async def desire(request: Request) -> Response:
    """Set the desired state: inactive, loaded or launched."""
    asked = await body(request, DesireBody)
    if asked.state not in ("inactive", "loaded", "launched"):
        raise Problem(400, "bad-state", f"{asked.state!r} is not a desired state: inactive, loaded, launched")
    return await context(request).command(request, says.Desire(asked.state), request.path_params["name"])


async def restart(request: Request) -> Response:
    """Stop and start it in place."""
    return await context(request).command(request, says.Restart(), request.path_params["name"])


async def destroy(request: Request) -> Response:
    """Stop it and forget it."""
    return await context(request).command(request, says.Destroy(), request.path_params["name"])


async def get_journal(request: Request) -> Response:
    """The unit's output on this node, as text; ``lines`` (200), ``follow``. 421 names the machine that runs it."""
    here = context(request)
    name = request.path_params["name"]
    lines = whole_number(request, "lines", 200)
    times = bool(request.query_params.get("times"))
    try:
        newest = await asyncio.to_thread(journal.read, here.folder, name, lines)
    except (journal.NoJournal, ValueError):
        raise _no_journal(here, name) from None
    if not request.query_params.get("follow"):
        return Response(b"".join(_line(line, times) for line in newest), media_type=_TEXT)

    async def stream() -> AsyncIterator[bytes]:
        async for line in journal.follow(here.folder, name, lines):
            yield _line(line, times)

    return StreamingResponse(stream(), media_type=_TEXT)


_TEXT = "text/plain; charset=utf-8"


def _line(line: journal.Line, times: bool) -> bytes:
    when = ""
    if times:
        moment = datetime.datetime.fromtimestamp(line.time_us / 1e6).astimezone()
        when = moment.isoformat(sep=" ", timespec="milliseconds") + " "
    return f"{when}{line.text}\n".encode()


def _no_journal(here: Context, name: str) -> Problem:
    """404, or 421 naming the machine that runs the unit."""
    control = here.shell.host.replica.fold.state  # type: ignore[attr-defined]
    unit = control.units.units.get(name)
    if unit is None:
        return Problem(404, "unknown-unit", f"no unit {name!r}")
    elsewhere = [machine for machine in unit.placements if machine != here.setting.machine]
    if not elsewhere:
        return Problem(404, "no-journal", f"{name} has no journal on this machine yet")
    machines = control.cluster.machines
    gateways = [machines[machine].gateway for machine in elsewhere if machine in machines]
    where = ", ".join(views.machine_name(control, machine) for machine in elsewhere)
    return Problem(421, "journal-elsewhere", f"{name} runs on {where}; ask there: --endpoint {' or '.join(gateways)}")


async def verify(request: Request) -> Response:
    """Check a unit file without publishing anything."""
    asked = await body(request, SubmitBody)
    try:
        unitfile.parse(request.path_params["name"], asked.content)
    except unitfile.UnitFileError as error:
        raise Problem(400, "bad-unit", str(error)) from error
    return plain({"ok": True})
