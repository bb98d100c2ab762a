"""``corelog discovery``: the discovery service in front of another etcd."""

from typing import Annotated

from cyclopts import App, Parameter

from node.cli.client import USAGE, Failure

app = App(name="discovery", help="The discovery service in front of another etcd (a node serves it by itself).")


@app.command
def serve(
    *,
    listen: str = "127.0.0.1:8087",
    etcd: Annotated[list[str] | None, Parameter(negative=())] = None,
    host: str = "",
) -> int:
    """Serve discovery.etcd.io's protocol until Ctrl-C: /new, tokens, /health.

    Parameters
    ----------
    listen
        HOST:PORT.
    etcd
        Base URL of an etcd that serves v2 keys (default http://127.0.0.1:2379); repeatable, tried in turn.
    host
        What tokens' URLs begin with (default: as the caller named this service).
    """
    import uvicorn

    from node.config import address
    from node.discovery.service import Service

    etcds = etcd or ["http://127.0.0.1:2379"]
    for one in etcds:
        if not one.startswith(("http://", "https://")):
            raise Failure(f"--etcd {one}: write http://HOST:PORT", USAGE)
    try:
        where, _, port = address(listen).rpartition(":")
    except ValueError as error:
        raise Failure(f"--listen: {error}", USAGE) from None
    application = Service(etcds, host).application()
    uvicorn.run(application, host=where.strip("[]"), port=int(port), log_level="warning")
    return 0
