"""Machines and the cluster: list, drain, label, remove, status."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from actors.control import Control
from node import views
from streams.events import cluster as says

from .context import body, context, read
from .problem import Problem


class LabelBody(msgspec.Struct, forbid_unknown_fields=True):
    """Metadata to set; null removes a key."""

    metadata: dict[str, str | None]


async def list_machines(request: Request) -> Response:
    """All machines that ever joined and weren't removed."""
    control, replica = await context(request).control(request)
    return read([views.machine_row(control, machine) for machine in control.cluster.machines.values()], replica)


async def get_machine(request: Request) -> Response:
    control, replica = await context(request).control(request)
    machine = control.cluster.machines[_resolve(control, request.path_params["machine"])]
    return read(views.machine_row(control, machine), replica)


def _resolve(control: Control, text: str) -> str:
    try:
        return views.resolve_machine(control, text)
    except KeyError as error:
        raise Problem(404, "unknown-machine", str(error.args[0])) from error


async def drain(request: Request) -> Response:
    """Place nothing here any more and move what is here (``undrain``: back to normal)."""
    control, _ = await context(request).control(request)
    machine = _resolve(control, request.path_params["machine"])
    draining = request.url.path.endswith("/drain")
    return await context(request).command(request, says.MachineDrain(draining), machine)


async def label(request: Request) -> Response:
    """Set or remove metadata."""
    asked = await body(request, LabelBody)
    control, _ = await context(request).control(request)
    machine = _resolve(control, request.path_params["machine"])
    return await context(request).command(request, says.MachineLabelled(asked.metadata), machine)


async def remove(request: Request) -> Response:
    """Remove a lost or left machine for good."""
    control, _ = await context(request).control(request)
    machine = _resolve(control, request.path_params["machine"])
    return await context(request).command(request, says.MachineRemoved(), machine)


async def status(request: Request) -> Response:
    """Log, position, term, master, counts."""
    here = context(request)
    control, replica = await here.control(request)
    row = views.cluster_row(replica, control, here.shell.log.address)
    return read({**row, "machine": here.setting.machine, "live": here.shell.host.live}, replica)
