"""Updates: versions, orders to machines, and the objects that updaters fetch from any gateway."""

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from actors.updater import objects
from node import views
from streams.events import update as says

from .context import body, context, read
from .machines import _resolve
from .problem import Problem


class OrderBody(msgspec.Struct, forbid_unknown_fields=True):
    """``machines``: names or ids; empty means all."""

    machines: list[str] = []
    keep: int = 3


async def list_versions(request: Request) -> Response:
    """Published versions, and where each is staged, runs or is pinned."""
    control, replica = await context(request).control(request)
    return read(views.version_rows(control), replica)


async def status(request: Request) -> Response:
    """What each machine runs, ran before and has staged, with the last result."""
    control, replica = await context(request).control(request)
    return read(views.update_status(control), replica)


async def publish(request: Request) -> Response:
    """Publish a version whose objects this node's store has already (``corelog update publish`` puts them there)."""
    asked = await body(request, says.Publish)
    here = context(request)
    if objects.manifest_path(here.folder, asked.tree) is None:
        raise Problem(409, "tree-missing", f"tree {asked.tree} is not in this node's store")
    gateways = asked.gateways or ([here.setting.gateway_advertise] if here.setting.gateway_advertise else [])
    full = msgspec.structs.replace(asked, machine=asked.machine or here.setting.machine, gateways=gateways)
    return await here.command(request, full, request.path_params["version"])


_ORDERS = {"stage": says.Stage, "switch": says.Switch}


async def order(request: Request) -> Response:
    """stage, switch, pin or unpin a version on machines."""
    asked = await body(request, OrderBody)
    here = context(request)
    control, _ = await here.control(request)
    machines = [_resolve(control, machine) for machine in asked.machines]
    verb, version = request.path_params["verb"], request.path_params["version"]
    if version not in control.updates.versions:
        known = ", ".join(control.updates.versions) or "none"
        raise Problem(404, "unknown-version", f"no version {version!r} is published; known: {known}")
    if verb in _ORDERS:
        return await here.command(request, _ORDERS[verb](machines), version)
    if verb in ("pin", "unpin"):
        return await here.command(request, says.Pin(machines, pinned=verb == "pin"), version)
    raise Problem(404, "unknown-order", f"{verb!r} is not an order: stage, switch, pin, unpin")


async def rollback(request: Request) -> Response:
    """Back to the version each machine ran before."""
    asked = await body(request, OrderBody)
    control, _ = await context(request).control(request)
    machines = [_resolve(control, machine) for machine in asked.machines]
    return await context(request).command(request, says.Rollback(machines))


async def collect(request: Request) -> Response:
    """Drop old versions but the newest ``keep``, what runs, ran before or is pinned."""
    asked = await body(request, OrderBody)
    control, _ = await context(request).control(request)
    machines = [_resolve(control, machine) for machine in asked.machines]
    return await context(request).command(request, says.Collect(machines, keep=asked.keep))


async def get_object(request: Request) -> Response:
    """A file of the store by its hash; ranges are honoured, so that a broken fetch is resumed."""
    return _file(objects.open_object(context(request).folder, request.path_params["hash"]))


async def get_tree(request: Request) -> Response:
    """A version's manifest by its hash."""
    return _file(objects.manifest_path(context(request).folder, request.path_params["hash"]))


def _file(path: object) -> Response:
    if path is None:
        raise Problem(404, "no-object", "this node's store doesn't have it")
    headers = {"cache-control": objects.CACHE_CONTROL}
    return FileResponse(str(path), media_type="application/octet-stream", headers=headers)
