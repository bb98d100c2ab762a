"""The audit's command line: ``run`` and ``export``; the node's own command line calls the same functions.

Faust is an extra: it is imported only when the application is run, and its absence is said in words.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from streams.audit.trail import Wanted
from streams.log.port import ForeignLog, LogError


class MissingExtra(Exception):
    """Faust isn't installed."""

    exit_code = 2


def run(
    log_address: str, options: dict[str, str] | None = None, *, file: Path | None = None, limit: int = 5,
    window_s: float = 60.0,
) -> None:  # fmt: skip
    """Run the audit until SIGINT or SIGTERM (see streams.audit.app.run). Raises MissingExtra, ForeignLog."""
    if not log_address.startswith("kafka://"):
        raise ForeignLog(f"{log_address!r}: the audit reads Kafka only; on the embedded log use `corelog log --jsonl`")
    try:
        from streams.audit import app
    except ModuleNotFoundError as error:
        if error.name not in ("faust", "mode", "aiokafka"):
            raise
        raise MissingExtra(f"the audit needs the extra: pip install 'corelog[audit]' ({error})") from error
    app.run(log_address, options, file=file, limit=limit, window_s=window_s)


def export(log_address: str, options: dict[str, str] | None = None, wanted: Wanted | None = None) -> int:
    """Print the trail as JSON lines (see streams.audit.export.export); returns how many. Raises LogError."""
    from streams.audit.export import export as exported

    return asyncio.run(
        exported(log_address, options, wanted, bad=lambda error: print(f"passed over: {error}", file=sys.stderr))
    )


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 ok, 2 usage, 4 not a log, 5 unreachable."""
    parser = argparse.ArgumentParser(prog="corelog audit", description="Who asked for what, when, and what came of it.")
    parser.add_argument("verb", choices=("run", "export"))
    parser.add_argument("log", help="kafka://host:port[,host:port…][/topic]")
    parser.add_argument("--option", "-O", action="append", default=[], metavar="KEY=VALUE", help="a log option")
    parser.add_argument("--file", type=Path, help="run: also append the trail to this file")
    parser.add_argument("--limit", type=int, default=5, help="run: alert at so many refusals of one principal …")
    parser.add_argument("--window", type=float, default=60.0, help="run: … within so many seconds")
    parser.add_argument("--principal", default="", help="export: only what this one asked")
    parser.add_argument("--subject", default="", help="export: only about this key, unit, machine or version")
    parser.add_argument("--refused", action="store_true", help="export: only what was refused")
    given = parser.parse_args(argv)
    try:
        options = dict(option.split("=", 1) for option in given.option)
    except ValueError:
        parser.error("--option needs KEY=VALUE")
    try:
        if given.verb == "run":
            run(given.log, options, file=given.file, limit=given.limit, window_s=given.window)
        else:
            export(given.log, options, Wanted(given.principal, given.subject, given.refused))
    except (LogError, MissingExtra, ValueError) as error:
        print(f"corelog audit: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 4))
    return 0
