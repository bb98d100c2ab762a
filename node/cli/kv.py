"""``corelog kv``: keys of etcd's two stores, now or at any instant. What changes single keys is v2's."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from cyclopts import App, Parameter

from . import kv3, policy, restoring, sync, transfer
from .client import COMMON, DOING, FALSE, NOT_FOUND, USAGE, At, Client, Common, Doing, Failure, note
from .history import changed, print_changed
from .kv3 import FORM, Form
from .output import show

app = App(name="kv", help="Read and write keys, also of the past.")
app.command(policy.app)
app.command(sync.sync)
app.command(sync.mount)
app.command(restoring.restore)
AtRevision = Annotated[
    str | None,
    Parameter(name="--at", help="As of a position (1234.7), a time ('2 minutes ago') or a revision of v3 (r123)."),
]


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
    end: str | None = None,
    *,
    at: AtRevision = None,
    recursive: Annotated[bool, Parameter(["-r", "--recursive"])] = False,
    serializable: bool = False,
    prefix: bool = False,
    from_key: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    limit: int = 0,
    form: Form = FORM,
    common: Common = COMMON,
) -> None:
    """Print the value of a key, now or as it was (a directory of v2: its keys).

    Parameters
    ----------
    end
        All keys of v3 from KEY up to, not including, this one.
    recursive
        Of v2: all below it, too.
    serializable
        Of v2: what this node has will do.
    prefix
        All keys of v3 that begin with KEY.
    from_key
        KEY and all keys of v3 behind it.
    keys_only
        Without values.
    count_only
        How many there are.
    limit
        So many at most.
    """
    several = {"END": end, "--prefix": prefix, "--from-key": from_key}
    of_v3 = {**several, "--keys-only": keys_only, "--count-only": count_only, "--limit": limit}
    meant = kv3.spaces(form, of_v3, {"-r": recursive, "--serializable": serializable}, at)

    def third() -> Any:
        name = kv3.key_bytes(key, form)
        ends = [] if end is None else [kv3.key_bytes(end, form)]
        ranges = kv3.query(**{"prefix" if prefix else "from_key" if from_key else "key": [name]}, end=ends)
        return kv3.asked(common, "keys", ranges, at=at, keys_only=keys_only, count_only=count_only, limit=limit)

    found = kv3.maybe(meant, third, {"kvs": []})
    if "v2" in meant:
        query = {"at": at, "recursive": "true" if recursive else None, "quorum": "false" if serializable else None}
        node = _node(key, query, common)
        if node is not None and found["kvs"]:
            raise Failure(f"both v2 and v3 have {key}: say --api v2 or --api v3", USAGE)
        if node is not None or not found["kvs"]:
            if node is None:
                raise Failure(f"no key {_named(key, meant)}{'' if at is None else ' then'}", NOT_FOUND)
            _print_node(node, common)
            return
        note(f"a key of v3, revision {found['revision']}")
    if count_only:
        print(found["count"])
    elif not any(several.values()) and not found["kvs"]:
        raise Failure(f"no key {key} of v3{'' if at is None else ' then'} (revision {found['revision']})", NOT_FOUND)
    elif any(several.values()) or keys_only or common.output != "table":
        kv3.print_keys(found["kvs"], common, form, keys_only)
        if found["more"]:
            note(f"{len(found['kvs'])} of {found['count']} keys")
    else:
        kv3.print_value(found["kvs"][0], form)


def _node(key: str, query: dict[str, Any], common: Common) -> dict[str, Any] | None:
    """A node of v2's; None where nothing is."""
    try:
        found: dict[str, Any] = Client(common).get(_path(key), query)["node"]
        return found
    except Failure as error:
        if error.kind == "no-such-key" or (error.body and error.body.get("errorCode") == 100):
            return None
        raise


def _named(key: str, meant: tuple[str, ...]) -> str:
    """A key that isn't there, as each key space would have it."""
    second = f"/{key.strip('/')}"
    if meant == ("v2",) or key == second:
        return second
    return key if meant == ("v3",) else f"{key} (v3) or {second} (v2)"


def _print_node(node: dict[str, Any], common: Common) -> None:
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
    recursive: Annotated[bool, Parameter(["-r", "--recursive"], help="Of v2: also of all below it.")] = False,
    prefix: Annotated[bool, Parameter(help="Of v3: of all keys that begin so.")] = False,
    from_: Annotated[str | None, Parameter(name="--from", help="After this position, time or revision.")] = None,
    to: Annotated[str | None, Parameter(help="Up to this position, time or revision.")] = None,
    limit: Annotated[int, Parameter(["-n", "--limit"], help="The newest so many.")] = 100,
    form: Form = FORM,
    common: Common = COMMON,
) -> None:
    """Print each change of a key: when, what, by whom, and where in the log; also what was compacted since."""
    meant = kv3.spaces(form, {"--prefix": prefix}, {"-r": recursive}, from_, to)

    def third() -> Any:
        ranges = kv3.query(**{"prefix" if prefix else "key": [kv3.key_bytes(key, form)]})
        return kv3.asked(common, "history", ranges, from_=from_, to=to, limit=limit)

    rows = kv3.maybe(meant, third, [])
    if "v2" in meant:
        query = {"recursive": "true" if recursive else None, "from": from_, "to": to, "limit": limit}
        rows += _of_v2(Client(common).get("/v1/history/" + quote(key.strip("/")), query))
    if not rows:
        raise Failure(f"the log tells of no such change of {_named(key, meant)}", NOT_FOUND)
    rows = sorted(rows, key=_place)[-limit:]
    columns = ("position", "time", "action", "key", "value", "revision", "version", "lease", "by")
    kv3.print_changes(rows, columns, common, form)


@app.command
def blame(
    prefix: str | None = None,
    *,
    at: AtRevision = None,
    exact: Annotated[bool, Parameter(help="Of v3: of this key alone, not of all that begin so.")] = False,
    deleted: Annotated[bool, Parameter(help="Of v3: also keys that are gone, and who took them away.")] = False,
    form: Form = FORM,
    common: Common = COMMON,
) -> None:
    """Print of each key that is there, at and below one, who set it last, when, and where in the log."""
    meant = kv3.spaces(form, {"--exact": exact, "--deleted": deleted}, {}, at)

    def third() -> Any:
        name = kv3.key_bytes(prefix or "", form)
        ranges = kv3.query(**{"key" if exact else "prefix": [name]})
        return kv3.asked(common, "blame", ranges, at=at, deleted=deleted)

    rows = kv3.maybe(meant, third, [])
    if "v2" in meant:
        try:
            rows += _of_v2(Client(common).get("/v1/blame/" + quote((prefix or "/").strip("/")), {"at": at}))
        except Failure as error:
            if error.kind != "no-such-key" or not rows:
                raise
    elif not rows and prefix:
        raise Failure(
            f"no key of v3 {'is' if exact else 'begins with'} {prefix}{'' if at is None else ' then'}", NOT_FOUND
        )
    columns: tuple[str, ...] = ("key", "value", "revision", "action", "by", "time", "position")
    if all(row["api"] == "v2" for row in rows):
        columns = ("key", "value", "by", "time", "position")
    kv3.print_changes(rows, columns, common, form)


@app.command
def diff(
    span: str,
    key: str | None = None,
    *,
    exact: Annotated[bool, Parameter(help="Of v3: this key alone, not all that begin so.")] = False,
    form: Form = FORM,
    common: Common = COMMON,
) -> None:
    """What differs at and below a key between two instants: A..B (positions, times, revisions), or A.. for until now.

    Exits with 1 when there is a difference, 0 when there is none.
    """
    start, dots, end = span.partition("..")
    meant = kv3.spaces(form, {"--exact": exact}, {}, start, end)

    def third() -> Any:
        ranges = kv3.query(**{"key" if exact else "prefix": [kv3.key_bytes(key or "", form)]})
        return kv3.asked(common, "diff", ranges, from_=start, to=end if dots else None)

    rows = kv3.maybe(meant, third, [])
    second = changed(span, key or "/", common) if "v2" in meant else []
    if common.output in ("json", "jsonl"):
        print(json.dumps([*kv3.differences_as_data(rows, form), *second], indent=2))
    else:
        kv3.print_differences(rows, common, form)
        print_changed(second, common)
    if rows or second:
        sys.exit(FALSE)


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


def _of_v2(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"api": "v2", **row} for row in rows]


def _place(row: dict[str, Any]) -> tuple[int, ...]:
    """What is older than the log comes first."""
    return tuple(int(part) for part in row["position"].split(".")) if row["position"] else ()
