"""``corelog log verify|copy|move|void|trim``: the log itself, by its driver and not through a node."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from cyclopts import App, Parameter

from node.logmove import Place, place

from .client import CONFLICT, FALSE, NOT_FOUND, USAGE, Failure, note

T = TypeVar("T")
Data = Annotated[Path, Parameter(env_var="CORELOG_DATA", help="Data folder of a node on this machine.")]
Address = Annotated[
    str, Parameter(name="--log", env_var="CORELOG_LOG", help="The log's address (default: the data folder's).")
]
Options = Annotated[list[str] | None, Parameter(name="--log-option", help="KEY=VALUE for the driver; repeatable.")]


def register(app: App) -> None:
    """Add the tools to the family ``log``."""
    for tool in (verify, copy, move, void, trim):
        app.command(tool)


def _place(data: Path, log: str, options: dict[str, str]) -> Place:
    """The log that is meant: as said, else the data folder's."""
    found = place(data, "", options)
    return found if log in ("", found.address) else Place(log, options)


def _options(pairs: list[str] | None) -> dict[str, str]:
    options = dict(pair.partition("=")[::2] for pair in pairs or [])
    if bad := [key for key, value in options.items() if not key or not value]:
        raise Failure(f"--log-option {bad[0]!r} is not KEY=VALUE", USAGE)
    return options


def _run(work: Callable[[], Awaitable[T]]) -> T:
    async def run() -> T:
        return await work()

    return asyncio.run(run())


def verify(*, data: Data = Path("data"), log: Address = "", log_option: Options = None, json: bool = False) -> None:
    """Check frames, checksums, heads, events, the chain and its checkpoints. Exits with 1 if something is wrong."""
    from streams.log import tools_verify
    from streams.log.open import open_log

    place = _place(data, log, _options(log_option))
    address = place.address

    async def work() -> tools_verify.Report:
        if address.startswith("segments://"):
            folder = Path(address.removeprefix("segments://"))
            if not folder.is_dir():
                raise Failure(f"no log at {folder}", NOT_FOUND)
            return await tools_verify.verify(folder)
        opened = await open_log(address, place.options)
        try:
            return await tools_verify.verify(opened)
        finally:
            await opened.close()

    report = _run(work)
    print(msgspec.json.encode(report).decode() if json else report.text())
    if not report.whole:
        sys.exit(FALSE)


def copy(target: str, *, data: Data = Path("data"), log: Address = "", log_option: Options = None) -> None:
    """Copy the log to another address: same positions, times and chain. Goes on where an earlier copy ended."""
    from streams.log import tools
    from streams.log.open import open_log

    async def work() -> tools.Copied:
        options = _options(log_option)
        place = _place(data, log, options)
        source, into = await open_log(place.address, _for(place.address, place.options)), None
        try:
            into = await open_log(target, _for(target, options))
            return await tools.copy(source, into)
        finally:
            await source.close()
            if into is not None:
                await into.close()

    copied = _run(work)
    note(f"{copied.records} records copied, offsets {copied.first} to {copied.end - 1}, chain {copied.chain}")


def move(target: str, *, data: Data = Path("data"), log: Address = "", log_option: Options = None) -> None:
    """Move the log of a node to another address while it runs: copy, seal, open; the node goes on there by itself.

    Killed at any step the old log or the new one is in use, never both; call it again, or start the node. The data
    folder notes the new address and the options: `corelog up` finds it there, also with the old --log.
    """
    from node import logmove

    if not data.is_dir():
        raise Failure(f"no data folder at {data}: say --data", NOT_FOUND)
    options = _options(log_option)
    source = _place(data, log, options)
    source = Place(source.address, _for(source.address, source.options), source.before)
    moved = _run(lambda: logmove.move(data, source, target, _for(target, options)))
    note(f"sealed at {moved.sealed_at}, chain {moved.chain}")
    for fold, state in moved.state_hashes.items():
        note(f"state hash of {fold} at the seal, equal on both: {state}")
    note(f"it goes on at {target}; a node that runs goes on there by itself")


def _for(address: str, options: dict[str, str]) -> dict[str, str]:
    """Of the options for both logs of a copy those that this one's driver has."""
    segments = address.startswith("segments://")
    return {key: value for key, value in options.items() if (key == "segment_bytes") == segments}


def void(
    offset: int,
    *,
    reason: str,
    key: Path | None = None,
    data: Data = Path("data"),
    log: Address = "",
    log_option: Options = None,
) -> None:
    """Let every replica pass the record at OFFSET, which none can apply. Signed with the operator's key.

    Parameters
    ----------
    reason
        Why; it stands on the log for ever.
    key
        File with the operator's private key (default: operator.key of the data folder that founded the log).
    """
    from streams.log import tools
    from streams.log.open import open_log

    file = key or data / "operator.key"
    try:
        private = file.read_text().strip()
    except OSError as error:
        raise Failure(f"no operator's key at {file} ({error.strerror}); say --key", NOT_FOUND) from error

    async def work() -> int:
        where = _place(data, log, _options(log_option))
        opened = await open_log(where.address, where.options)
        try:
            return await tools.void(opened, offset, reason, private)
        finally:
            await opened.close()

    note(f"voided at {_run(work)}; restart what had halted")


def trim(
    before: int, *, archive: Path, data: Data = Path("data"), log: Address = "", log_option: Options = None
) -> None:
    """Forget records below BEFORE, after they stand in an archive; snapshots that cover them must exist.

    Parameters
    ----------
    archive
        Folder of segments that takes what is forgotten; it grows with each trim.
    """
    from streams.log import tools
    from streams.log.open import open_log

    async def work() -> tools.Trimmed:
        where = _place(data, log, _options(log_option))
        opened = await open_log(where.address, where.options)
        try:
            return await tools.trim(opened, before, archive, snapshots=data / "snapshots")
        finally:
            await opened.close()

    trimmed = _run(work)
    note(f"{trimmed.archived} records archived in {trimmed.archive}; the log starts at {trimmed.first}")
    if trimmed.first == trimmed.first_before:
        raise Failure("nothing was dropped: only whole segments below that offset are", CONFLICT)
