"""``corelog kv``: keys of the v2 store, now or at any instant."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from cyclopts import App, Parameter

from . import transfer
from .client import COMMON, DOING, NOT_FOUND, At, Client, Common, Doing, Failure, note
from .history import differences
from .output import clock_time, show

app = App(name="kv", help="Read and write keys.")


def _path(key: str) -> str:
    return "/v1/kv/" + quote(key.strip("/"))


def _rows(node: dict[str, Any]) -> list[dict[str, Any]]:
    """A node and all below it, as rows."""
    rows = [
        {
            "key": node.get("key", "/"),
            "value": node.get("value"),
            "dir": bool(node.get("dir")),
            "ttl": node.get("ttl"),
            "created": node.get("createdIndex"),
            "modified": node.get("modifiedIndex"),
        }
    ]
    for child in node.get("nodes", []):
        rows += _rows(child)
    return rows


def _write(common: Common, method: str, key: str, form: dict[str, Any], doing: Doing) -> dict[str, Any]:
    """PUT, POST or DELETE with etcd's parameters; prints the position."""
    given = {name: value for name, value in form.items() if value is not None}
    if doing.dry_run:
        print(json.dumps({"method": method, "key": "/" + key.strip("/"), **given}, indent=2))
        return {}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if doing.request_id:
        headers["idempotency-key"] = doing.request_id
    client = Client(common)
    if method == "DELETE":
        response = client.open(method, _path(key), given, None, headers)
    else:
        response = client.open(method, _path(key), None, urlencode(given).encode(), headers)
    note(f"position {response.headers.get('x-corelog-position', '?')}")
    answer: dict[str, Any] = json.loads(response.read())
    return answer


@app.command
def get(
    key: str,
    *,
    at: At = None,
    recursive: Annotated[bool, Parameter(["-r", "--recursive"])] = False,
    serializable: bool = False,
    common: Common = COMMON,
) -> None:
    """Print the value of a key (a directory: its keys)."""
    query = {"at": at, "recursive": "true" if recursive else None, "quorum": "false" if serializable else None}
    try:
        answer = Client(common).get(_path(key), query)
    except Failure as error:
        if error.body and error.body.get("errorCode") == 100:
            raise Failure(f"no key /{key.strip('/')}", NOT_FOUND) from error
        raise
    node = answer["node"]
    if node.get("dir") or common.output != "table":
        show(_rows(node), ("key", "value"), common, ("ttl", "created", "modified"), "key")
    else:
        print(node.get("value", ""))


@app.command
def ls(
    key: str = "/",
    *,
    at: At = None,
    recursive: Annotated[bool, Parameter(["-r", "--recursive"])] = False,
    common: Common = COMMON,
) -> None:
    """List the keys below a directory."""
    query = {"at": at, "recursive": "true" if recursive else None, "sorted": "true"}
    node = Client(common).get(_path(key), query)["node"]
    show(
        _rows(node)[1 if node.get("dir") else 0 :],
        ("key", "value"),
        common,
        ("dir", "ttl", "created", "modified"),
        "key",
    )


@app.command(name="set")
def set_(
    key: str,
    value: str,
    *,
    ttl: int | None = None,
    swap_with_value: str | None = None,
    swap_with_index: int | None = None,
    exists: bool | None = None,
    common: Common = COMMON,
    doing: Doing = DOING,
) -> None:
    """Set a key to a value ("-": standard input).

    Parameters
    ----------
    ttl
        Seconds until it expires.
    swap_with_value
        Only if this is its value now.
    swap_with_index
        Only if it was modified last at this index.
    exists
        Only if the key exists (--exists) or doesn't (--no-exists).
    """
    text = sys.stdin.read() if value == "-" else value
    form = {
        "value": text,
        "ttl": ttl,
        "prevValue": swap_with_value,
        "prevIndex": swap_with_index,
        "prevExist": None if exists is None else str(exists).lower(),
    }
    answer = _write(common, "PUT", key, form, doing)
    if answer and common.output != "table":
        show(_rows(answer["node"]), ("key", "value"), common, (), "key")


@app.command
def mkdir(key: str, *, ttl: int | None = None, common: Common = COMMON, doing: Doing = DOING) -> None:
    """Make a directory."""
    _write(common, "PUT", key, {"dir": "true", "ttl": ttl, "prevExist": "false"}, doing)


@app.command
def rm(
    key: str,
    *,
    recursive: Annotated[bool, Parameter(["-r", "--recursive"])] = False,
    dir: bool = False,
    with_value: str | None = None,
    with_index: int | None = None,
    common: Common = COMMON,
    doing: Doing = DOING,
) -> None:
    """Remove a key, or with --dir or -r a directory."""
    _write(
        common,
        "DELETE",
        key,
        {
            "recursive": "true" if recursive else None,
            "dir": "true" if dir else None,
            "prevValue": with_value,
            "prevIndex": with_index,
        },
        doing,
    )


@app.command
def watch(
    key: str = "/",
    *,
    recursive: Annotated[bool, Parameter(["-r", "--recursive"])] = False,
    after_index: int | None = None,
    common: Common = COMMON,
) -> None:
    """Print each change of a key (with -r: and of all below it), until interrupted."""
    client = Client(common)
    index = after_index
    while True:
        query = {"wait": "true", "recursive": "true" if recursive else None, "waitIndex": index}
        response = client.open("GET", _path(key), query, timeout_s=None)
        raw = response.read()
        if not raw.strip():
            continue
        event = json.loads(raw)
        node = event["node"]
        index = node["modifiedIndex"] + 1
        if common.output in ("json", "jsonl"):
            print(json.dumps(event), flush=True)
        else:
            print(f"{event['action']}  {node['key']}  {node.get('value', '')}", flush=True)


@app.command
def history(
    key: str,
    *,
    recursive: Annotated[bool, Parameter(["-r", "--recursive"])] = False,
    from_: Annotated[str | None, Parameter(name="--from", help="After this position or time.")] = None,
    to: Annotated[str | None, Parameter(help="Up to this position or time.")] = None,
    limit: Annotated[int, Parameter(["-n", "--limit"], help="The newest so many.")] = 100,
    common: Common = COMMON,
) -> None:
    """Print each change of a key (with -r: and of all below it): when, what, by whom, and where in the log."""
    query = {"recursive": "true" if recursive else None, "from": from_, "to": to, "limit": limit}
    rows = Client(common).get("/v1/history/" + quote(key.strip("/")), query)
    if not rows:
        raise Failure(f"the log tells of no such change of /{key.strip('/')}", NOT_FOUND)
    _told(rows, ("position", "time", "action", "key", "value", "by"), common)


@app.command
def blame(prefix: str = "/", *, at: At = None, common: Common = COMMON) -> None:
    """Print of each key that is there, at and below one, who set it last, when, and where in the log."""
    rows = Client(common).get("/v1/blame/" + quote(prefix.strip("/")), {"at": at})
    _told(rows, ("key", "value", "by", "time", "position"), common)


@app.command
def diff(span: str, key: str = "/", *, common: Common = COMMON) -> None:
    """What differs at and below a key between two instants: A..B (positions or times), or A.. for until now.

    Exits with 1 when there is a difference, 0 when there is none.
    """
    differences(span, key, common)


@app.command(name="import")
def import_(file: Path, *, common: Common = COMMON) -> None:
    """Take a snapshot of etcd's (etcdctl snapshot save) into an empty store: all of it or nothing.

    Keys with all their revisions since the compaction, leases, users, roles and alarms, as they were.
    A folder is one of v2 (etcdctl backup, or the data folder of a stopped etcd up to 3.4): v2's keys, what their TTLs
    have left, users and roles.
    """
    if file.is_dir():
        transfer.import_folder(file, common)
    else:
        transfer.import_file(file, common)


@app.command(name="export")
def export_(file: Path, *, v2: bool = False, common: Common = COMMON) -> None:
    """Write the store into a snapshot file that etcd 3.4 and later restore (etcdutl snapshot restore).

    Parameters
    ----------
    v2
        v2's keys and users instead, into a new folder on which etcd 3.4 starts (etcd --enable-v2 --force-new-cluster).
    """
    if v2:
        transfer.export_folder(file, common)
    else:
        transfer.export_file(file, common)


def _told(rows: list[dict[str, Any]], columns: tuple[str, ...], common: Common) -> None:
    """Changes as rows: on a table the time of a clock, and whoever asked (of an expiry: the master's term)."""
    if common.output in ("table", "wide", "name"):
        for row in rows:
            row["time"] = clock_time(row["time_ms"]) if "time_ms" in row else ""
            row["by"] = row.get("principal") or (f"master of term {row['term']}" if row.get("term") else "")
    show(rows, columns, common, ("previous", "index", "client", "writer", "correlation"), "key")
