"""Whole stores in and out, by the kv replica's own socket: etcd's snapshot files, and v2's data folders."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from .client import CONFLICT, UNREACHABLE, USAGE, Common, Failure, UnixConnection, note, socket_path

#: About so many bytes of a store are in one record of the log.
PART_BYTES = 384 * 1024


def import_file(file: Path, common: Common) -> None:
    """Raises Failure: nothing was taken."""
    from actors.kv.bolt.errors import FileError
    from actors.kv.bolt.imported import parts, store_of, taken_off

    try:
        store = store_of(file)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", USAGE) from error
    except FileError as error:
        raise Failure(f"{file}: {error}", USAGE) from error
    if store.empty:
        raise Failure(f"{file}: there is nothing in it", USAGE)
    if os.stat(file).st_size % 512 == 0:
        note(
            f"{file} has no SHA-256 behind it: it is taken as it is, unchecked, as a copy of a database "
            "(etcdutl would want --skip-hash-check); where it should be a snapshot, it was cut off"
        )
    if lost := taken_off(store):
        names = ", ".join(key[:100].decode("utf-8", "backslashreplace") for key in lost[:5])
        note(f"{len(lost)} keys were on leases that {file} lacks, and stay until they are deleted: {names}")
    position = _import(list(parts(store, PART_BYTES)), False, common)
    note(f"position {position}")
    revs = store.revs
    print(f"{len(revs.live)} keys, revision {revs.revision}, {len(store.leases.by_id)} leases, {_users(store)}")


def import_folder(folder: Path, common: Common) -> None:
    """A v2 data folder. Raises Failure: nothing was taken."""
    from actors.kv.bolt.errors import FileError
    from actors.kv.bolt.imported import joined
    from actors.kv.bolt.imported2 import store_of, twice_escaped
    from actors.kv.v2.auth import Auth
    from actors.kv.v2.imports import lines

    try:
        store, users = store_of(folder, time.time_ns() // 1_000_000)
    except OSError as error:
        raise Failure(f"{folder}: {error.strerror}", USAGE) from error
    except FileError as error:
        raise Failure(f"{folder}: {error}", USAGE) from error
    if not store.index:
        raise Failure(f"{folder}: there is nothing of v2 in it", USAGE)
    position = _import(list(joined(lines(store, users, twice_escaped), PART_BYTES)), True, common)
    note(f"position {position}; v3's keys of a data folder aren't taken: etcdctl snapshot save makes a file of them")
    known, on = (len(users.users), users.enabled) if isinstance(users, Auth) else (0, False)
    print(f"{len(store.files)} keys, index {store.index}, {known} users{' (auth is on)' if on else ''}")


def _import(pieces: list[str], v2: bool, common: Common) -> str:
    """The position of its end. Raises Failure."""
    ident = secrets.token_hex(8)
    with contextlib.closing(_connected(common)) as connection:
        _step(connection, {"begin": {"id": ident, "parts": len(pieces), "v2": v2}})
        for number, lines in enumerate(pieces):
            _step(connection, {"part": {"id": ident, "number": number, "lines": lines}})
        position: str = _step(connection, {"end": {"id": ident}})["position"]
    return position


def _users(store: Any) -> str:
    auth = store.auth
    return f"{len(auth.users)} users{' (auth is on)' if auth.enabled else ''}"


def _step(connection: http.client.HTTPConnection, body: dict[str, Any]) -> Any:
    """Raises Failure."""
    try:
        connection.request("POST", "/internal/import", json.dumps(body, ensure_ascii=False).encode())
        answer = connection.getresponse()
        told = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failure(f"the node went away: {error}; nothing was imported", UNREACHABLE) from error
    if answer.status != 200:
        code = CONFLICT if answer.status == 409 else UNREACHABLE
        raise Failure(f"{told.get('message', answer.status)}; nothing was imported", code)
    return told


def export_file(file: Path, common: Common) -> None:
    """Beside the file, then in its place. Raises Failure: the file is as it was."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "wb") as out:
            size = _written(common, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, file)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}", USAGE) from error
    finally:
        beside.unlink(missing_ok=True)
    print(f"{size} bytes in {file}")


def export_folder(folder: Path, common: Common) -> None:
    """v2's keys and users into a new data folder. Raises Failure: nothing is left there."""
    from actors.kv.bolt.exported2 import write
    from actors.kv.v2.imports import restored

    try:
        with contextlib.closing(_connected(common)) as connection:
            connection.request("GET", "/internal/v2")
            answer = connection.getresponse()
            store, users = restored(answer.read().splitlines())
    except (http.client.HTTPException, ValueError, ConnectionError) as error:
        raise Failure(f"the node went away: {error}", UNREACHABLE) from error
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        size = write(beside, store, users)
        os.rename(beside, folder)  # refused where there is something in it
    except OSError as error:
        raise Failure(f"{folder}: {error.strerror or error}", USAGE) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    print(f"{len(store.files)} keys, index {store.index}: {size} bytes in {folder}")


def _written(common: Common, out: Any) -> int:
    total, size, last = hashlib.sha256(), 0, b""
    try:
        with contextlib.closing(_connected(common)) as connection:
            connection.request("POST", "/v3/maintenance/snapshot", b"{}", {"content-type": "application/json"})
            for line in connection.getresponse():
                blob = _blob(json.loads(line))
                total.update(last)
                last = blob
                size += len(blob)
                out.write(blob)
    except (http.client.HTTPException, ValueError, ConnectionError) as error:
        raise Failure(f"the node went away: {error}", UNREACHABLE) from error
    if total.digest() != last:
        raise Failure("the snapshot was cut off, or changed on its way", UNREACHABLE)
    return size


def _blob(told: dict[str, Any]) -> bytes:
    """Raises Failure: it isn't a piece, but why there are no more."""
    if "result" not in told:
        words = told.get("error", told)
        raise Failure(f"no snapshot: {words.get('message', words) if isinstance(words, dict) else words}")
    return base64.b64decode(told["result"].get("blob", ""))


def _connected(common: Common) -> http.client.HTTPConnection:
    """By the socket beside the gateway's: who may open it may do this."""
    path = socket_path(common)
    connection = UnixConnection(path, common.timeout + 2)
    try:
        connection.connect()
    except OSError as error:
        raise Failure(
            f"no node answers at {path} ({error.strerror or error}); start one with `corelog up`", 5
        ) from error
    return connection
