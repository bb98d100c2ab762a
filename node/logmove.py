"""Which log a data folder goes on with, and the move there: what ``corelog log move`` and a running node share.

    log-address    the address that the log was moved to; then a line ``from ADDRESS`` for each that it was moved from,
                   and a line ``option KEY=VALUE`` for each of the driver's options
    log-move       a move under way (JSON): from where, to where, with which options; made before the seal
    log-move.lock  flock of who is at it

The steps of the copying itself, and why there is no instant at which two logs are in use, are told in
``streams/log/tools_move.py``. Around them:

1. The mover takes the lock and writes ``log-move``. A kill until the seal leaves the old log in use.
2. It copies, seals, copies the rest and opens the target. The node's actors end at the seal; the node waits for the
   lock, and finds the move done, or its mover dead: then it does what is left itself (a move can be called again). So
   it does after its own kill, when its actors meet the seal again.
3. ``log-address`` is written, durably, and ``log-move`` removed. The node makes its actors anew on that log; its units
   run on under their shims. A kill before this leaves a node that starts on the old log, meets the seal, and gets here.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from node.discovery.kept import kept

if TYPE_CHECKING:
    from streams.log.port import Log
    from streams.log.tools_move import Moved

ADDRESS, INTENT, LOCK = "log-address", "log-move", "log-move.lock"
#: How often is looked whether the mover is done, and how long is waited after something didn't answer.
LOOK_S, RETRY_S, RETRY_MAX_S = 0.1, 0.5, 10.0
#: What a killed mover had sent may still land: its target must stand still for so long.
SETTLED_S = 1.0


class MoveError(Exception):
    """The move can't go on. ``exit_code`` as the command line's."""

    def __init__(self, message: str, exit_code: int = 4) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Place(msgspec.Struct, frozen=True):
    """A log's address, its driver's options, and the addresses that it was moved from, oldest first."""

    address: str
    options: dict[str, str] = {}
    before: tuple[str, ...] = ()


class Intent(msgspec.Struct, frozen=True):
    source: str
    target: str
    options: dict[str, str] = {}


def moved(folder: Path, log: str = "") -> Place | None:
    """Where the folder's log was moved to; None if it wasn't. ``log``: only if it was moved away from there.

    Raises MoveError when the file is damaged.
    """
    try:
        lines = (folder / ADDRESS).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    options: dict[str, str] = {}
    before: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        word, _, rest = line.partition(" ")
        key, equals, value = rest.partition("=")
        if word == "from" and rest:
            before.append(rest)
        elif word == "option" and key and equals:
            options[key] = value
        elif line.strip():
            raise MoveError(
                f"{folder / ADDRESS}:{number}: {line[:60]!r} is neither `from ADDRESS` nor `option KEY=VALUE`"
            )
    if not lines or "://" not in lines[0]:
        raise MoveError(f"{folder / ADDRESS} holds no address of a log: restore it, or say --log")
    if log and log not in (lines[0].strip(), *before):
        return None
    return Place(lines[0].strip(), options, tuple(before))


def place(folder: Path, log: str = "", options: Mapping[str, str] | None = None) -> Place:
    """The log of a data folder: ``log`` (or the discovered one) if it wasn't moved, else where it was moved to, else
    its own.

    ``options`` are those for ``log``; of them a moved log takes what its driver knows. Raises MoveError, and
    DiscoveryError when that file is damaged.
    """
    given = dict(options or {})
    discovered = kept(folder)
    log = log or (discovered.log if discovered is not None else "")
    found = moved(folder, log)
    if found is None:
        return Place(log or f"segments://{folder.absolute() / 'log'}", given)
    segments = found.address.startswith("segments://")
    fit = {key: value for key, value in given.items() if (key == "segment_bytes") == segments}
    return Place(found.address, found.options | fit, found.before)


async def move(folder: Path, source: Place, target: str, options: Mapping[str, str]) -> "Moved":
    """What ``corelog log move`` does. Raises MoveError if another move is under way, and what a move raises."""
    async with _locked(folder, wait=False):
        interrupted = (folder / INTENT).exists()
        intent = Intent(source.address, target, dict(options))
        old, new = await _open(source.address, source.options), None
        try:
            new = await _open(target, intent.options)
            _write(folder, INTENT, msgspec.json.encode(intent).decode())
            return await _move(folder, intent, source.before, old, new, settle=interrupted)
        finally:
            await old.close()
            if new is not None:
                await new.close()


async def follow(folder: Path, source: Place, log_id: str, sealed_at: int, next_log: str) -> None:
    """The log of a node was sealed: return when it goes on at ``next_log`` and the folder says so.

    Waits for the mover; goes on in its stead if it is dead and its move is of this folder; tries again as long as
    logs can't be reached. Raises MoveError, ForeignLog, Halt: then an operator must look.
    """
    from streams.log.port import LogUnavailable, OutcomeUnknown

    logger = structlog.get_logger(actor="node")
    wait_s = RETRY_S
    while True:
        try:
            async with _locked(folder, wait=True):
                if await _followed(folder, source, log_id, sealed_at, next_log):
                    return
        except (LogUnavailable, OutcomeUnknown) as error:
            logger.warning("the log was sealed, and the move can't go on now; trying again", error=str(error))
        await asyncio.sleep(wait_s)
        wait_s = min(RETRY_MAX_S, wait_s * 2)


async def _followed(folder: Path, source: Place, log_id: str, sealed_at: int, next_log: str) -> bool:
    """Under the lock: whether the folder says by now that the log goes on at ``next_log``."""
    from streams.log.tools_move import check_opened

    found = moved(folder, source.address)
    if found is not None and found.address != source.address:
        return True
    intent = _intent(folder)
    ours = intent is not None and (intent.source, intent.target) == (source.address, next_log)
    options = intent.options if intent is not None and ours else _fitting(source, next_log)
    new = await _open(next_log, options)
    try:
        if intent is not None and ours:
            old = await _open(source.address, source.options)
            try:
                await _move(folder, intent, source.before, old, new, settle=True)
            finally:
                await old.close()
            return True
        # the move is another machine's: only look whether it is done
        if await new.end() <= sealed_at:
            return False
        await check_opened(new, sealed_at, log_id)
        _note(folder, Place(next_log, options, (*source.before, source.address)))
        return True
    finally:
        await new.close()


async def _move(folder: Path, intent: Intent, before: tuple[str, ...], old: "Log", new: "Log", settle: bool) -> "Moved":
    from actors.folds import FOLDS
    from streams.log import tools_move

    if settle:
        await _settled(new)
    done = await tools_move.move(old, new, FOLDS, next_address=intent.target, snapshots=folder / "snapshots")
    _note(folder, Place(intent.target, intent.options, (*before, intent.source)))
    return done


def _fitting(source: Place, address: str) -> dict[str, str]:
    """The options of one log, for another one of the same driver."""
    same = source.address.partition("://")[0] == address.partition("://")[0]
    return source.options if same else {}


async def _settled(log: "Log") -> None:
    """Wait until what was sent to the log earlier has landed, or is lost."""
    end = await log.end()
    while True:
        await asyncio.sleep(SETTLED_S if log.address.startswith("kafka://") else 0)
        before, end = end, await log.end()
        if end == before:
            return


async def _open(address: str, options: Mapping[str, str]) -> "Log":
    from streams.log.open import open_log

    return await open_log(address, options)


# -- the files ------------------------------------------------------------------------------------------------------


def _note(folder: Path, place: Place) -> None:
    """Say where the log goes on; from here on every start of the node finds it."""
    lines = [place.address]
    lines += [f"from {address}" for address in place.before]
    lines += [f"option {key}={value}" for key, value in place.options.items()]
    _write(folder, ADDRESS, "\n".join(lines) + "\n")
    (folder / INTENT).unlink(missing_ok=True)


def _intent(folder: Path) -> Intent | None:
    try:
        return msgspec.json.decode((folder / INTENT).read_bytes(), type=Intent)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise MoveError(
            f"{folder / INTENT} is damaged ({error}): remove it, and call `corelog log move` again"
        ) from error


def _write(folder: Path, name: str, text: str) -> None:
    """Replace a file, mode 0600 (options may hold a password), whole and durable."""
    from streams.snapshots import sync_folder

    aside = folder / f".{name}.new"
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(folder / name)
    sync_folder(folder)


@contextlib.asynccontextmanager
async def _locked(folder: Path, wait: bool) -> AsyncIterator[None]:
    """The lock ends with its process, however that ends."""
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    raise MoveError(f"another move of the log of {folder} is under way: wait for its end") from None
            await asyncio.sleep(LOOK_S)
        yield
    finally:
        os.close(fd)
