"""``corelog audit``: who asked for what, when, and what came of it, from the log on Kafka and its outcomes topic."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from .client import COMMON, USAGE, Client, Common, Failure

app = App(name="audit", help="Who did what and when, from the log on Kafka.")

Address = Annotated[
    str, Parameter(name="--log", env_var="CORELOG_LOG", help="kafka://host:port,… (default: the log of the node).")
]
Options = Annotated[list[str] | None, Parameter(name="--log-option", help="KEY=VALUE for the driver; repeatable.")]


@app.command
def export(
    *,
    log: Address = "",
    log_option: Options = None,
    principal: str = "",
    subject: str = "",
    refused: bool = False,
    common: Common = COMMON,
) -> None:
    """Print each command up to now with its principal and outcome, a JSON object a line.

    Parameters
    ----------
    principal
        Only what this one asked.
    subject
        Only about this key, unit, machine or version.
    refused
        Only what was refused.
    """
    from streams.audit import cli
    from streams.audit.trail import Wanted

    cli.export(_address(log, common), _options(log_option), Wanted(principal, subject, refused))


@app.command
def run(
    *,
    log: Address = "",
    log_option: Options = None,
    file: Path | None = None,
    limit: int = 5,
    window: float = 60.0,
    common: Common = COMMON,
) -> None:
    """Keep the trail while the cluster runs, and alert when a principal is refused often. Needs corelog[audit].

    Parameters
    ----------
    file
        Also append each command with its outcome to this file.
    limit
        Alert at so many refusals of one principal …
    window
        … within so many seconds.
    """
    from streams.audit import cli

    cli.run(_address(log, common), _options(log_option), file=file, limit=limit, window_s=window)


def _address(log: str, common: Common) -> str:
    """The log that was named, else the one of the node that answers."""
    return log or str(Client(common).get("/v1/cluster", {"consistency": "serializable"})["log"])


def _options(pairs: list[str] | None) -> dict[str, str]:
    options = dict(pair.partition("=")[::2] for pair in pairs or [])
    if bad := [key for key, value in options.items() if not key or not value]:
        raise Failure(f"--log-option {bad[0]!r} is not KEY=VALUE", USAGE)
    return options
