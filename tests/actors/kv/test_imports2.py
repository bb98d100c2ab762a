"""v2's whole stores: data folders of real etcd 3.4 taken in, and out again, on which it starts."""

import base64
import json
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.kv.bolt import exported2
from actors.kv.bolt.imported import PAIR_BYTES_MAX
from actors.kv.bolt.imported2 import store_of
from actors.kv.bolt.messages import fields, raw
from actors.kv.state import KvFold
from actors.kv.v2.auth import Auth, Role, User
from actors.kv.v2.get import get_json
from actors.kv.v2.imports import lines
from actors.kv.v2.store import Store
from node.cli import transfer
from node.cli.client import Common, Failure
from streams.events import kv as says
from streams.events import kv2 as users_say
from streams.events import kv3 as import_says
from streams.events.base import Data, say
from streams.outcomes import Accepted, Outcome, Rejected
from streams.records import Position, Record
from streams.replay import Context, LogState
from tests.actors.kv.bolt.real import Served, run
from tests.actors.kv.bolt.test_v2 import Log, ask, change, field
from tests.actors.kv.bolt.test_v2 import put as request
from tests.actors.kv.server import Client, Running

V2 = ("--enable-v2",)


def tree(node: dict[str, Any]) -> dict[str, Any]:
    """What there is by key: value, indices, whether there is a TTL."""
    found: dict[str, Any] = {}
    pending = [node]
    while pending:
        one = pending.pop()
        pending += one.get("nodes", [])
        if one.get("key"):
            kept = ("value", "dir", "modifiedIndex", "createdIndex")
            found[one["key"]] = [*(one.get(name) for name in kept), "expiration" in one]
    return found


def shown(store: Store) -> dict[str, Any]:
    return tree(json.loads(get_json(store, "", True, True, 0))["node"])


@pytest.mark.parametrize("snapshots", [100_000, 50], ids=["log only", "snapshots"])
def test_what_etcd_leaves_is_what_it_would_go_on_with(snapshots: int, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "backup"
    with Served("3.4", data, "", *V2, f"--snapshot-count={snapshots}") as etcd:
        change(etcd, snapshots, 150)
        there = tree(ask(etcd, "GET", "/", recursive=True)["node"])
        index = int(urllib.request.urlopen(f"{etcd.url}/v2/keys/").headers["X-Etcd-Index"])
    store, users = store_of(data, time.time_ns() // 1_000_000)
    assert (shown(store), store.index) == (there, index)
    assert not isinstance(users, Auth)
    ends = [left for left in store.ttls.values() if left]
    assert ends
    assert all(0 < left < 501_000 for left in ends)
    # of a backup, which has lost what members did: as etcd itself reads it
    run("etcdctl", "backup", "--data-dir", data, "--backup-dir", copy, ETCDCTL_API="2")
    store, _ = store_of(copy, 0)
    with Served("3.4", copy, "", *V2, "--force-new-cluster") as etcd:
        assert tree(ask(etcd, "GET", "/", recursive=True)["node"]) == shown(store)


def asked(url: str, user: str, method: str = "GET", path: str = "/v2/keys/?recursive=true") -> Any:
    request = urllib.request.Request(url + path, method=method)
    request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_in_and_out_of_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Served("3.4", tmp_path / "data", "", *V2) as etcd:
        change(etcd, 7, 60)
        ask(etcd, "PUT", "/_hidden", value="h")
        for what, body in (
            ("users/root", {"user": "root", "password": "pw"}),
            ("roles/r", {"role": "r", "permissions": {"kv": {"read": ["/d*"]}}}),
            ("users/ann", {"user": "ann", "password": "pw", "roles": ["r"]}),
            ("enable", None),
        ):
            given = json.dumps(body).encode() if body else None
            urllib.request.urlopen(urllib.request.Request(f"{etcd.url}/v2/auth/{what}", given, method="PUT")).close()
        there = tree(asked(etcd.url, "root:pw")["node"])
    with Running(tmp_path / "node") as server:
        common = Common(data=tmp_path / "node")
        server.folder.joinpath("run", "corelog.sock").touch()
        transfer.import_folder(tmp_path / "data", common)
        url = f"http://127.0.0.1:{server.port}"
        assert tree(asked(url, "root:pw")["node"]) == there
        assert asked(url, "ann:pw", path="/v2/keys/d?recursive=true")["node"]["key"] == "/d"
        client = Client(server.port)
        assert client.ask("PUT", "/d/x", "value=1")[0] == 201  # the guest's role that etcd made
        assert client.ask("GET", "/?wait=true&waitIndex=1")[0] == 400  # that history isn't there
        client.close()
        with pytest.raises(Failure, match="isn't empty") as refused:
            transfer.import_folder(tmp_path / "data", common)
        assert refused.value.exit_code == 4
        transfer.export_folder(tmp_path / "out", common)
        there = tree(asked(url, "root:pw")["node"])
        with pytest.raises(Failure):
            transfer.export_folder(tmp_path / "out", common)
    assert "users (auth is on)" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with Served("3.4", tmp_path / "out", "", *V2, "--force-new-cluster") as etcd:
        assert tree(asked(etcd.url, "root:pw")["node"]) == there
        assert asked(etcd.url, "root:pw", path="/v2/keys/_hidden")["node"]["value"] == "h"
        assert asked(etcd.url, "root:pw", "PUT", "/v2/keys/new?value=1")["node"]["value"] == "1"
        assert asked(etcd.url, "ann:pw", path="/v2/keys/d?recursive=true")["node"]["key"] == "/d"


# -- without etcd ---------------------------------------------------------------------------------------------


def apply(fold: KvFold, *data: Data, time_ms: int = 1000, level: int = 3) -> list[Outcome]:
    record = Record("log", "kv", "w@m", 1, 1, time_ms, b"", offset=1)
    return [fold.evolve(say(one), Context(Position(1, 0), record, LogState(level=level))) for one in data]


def filled() -> KvFold:
    fold = KvFold()
    for at in range(200):
        apply(fold, says.Set(f"/d{at % 9}/k{at % 40}", f"value {at}", ttl_s=300 if at % 5 else None))
    apply(fold, says.Set("/empty", directory=True), says.Delete("/d3", recursive=True))
    apply(fold, users_say.UserAdd("root", "hash"), users_say.RoleAdd("r", users_say.Rights(["/a"], [])))
    return fold


def steps(fold: KvFold, size: int = 3000) -> list[Data]:
    whole = b"".join(lines(fold.store, fold.cluster.users2)).decode()
    rows = whole.splitlines(keepends=True)
    pieces = ["".join(rows[at : at + size // 100]) for at in range(0, len(rows), size // 100)]
    parts = [import_says.ImportPart("i", number, one) for number, one in enumerate(pieces)]
    return [import_says.ImportBegin("i", len(pieces), v2=True), *parts, import_says.ImportEnd("i")]


def encoded(fold: KvFold) -> bytes:
    return b"".join(fold.encode())


def test_parts_make_the_same_store_and_a_restart_between_loses_none() -> None:
    target = KvFold()
    for one in steps(filled()):
        [outcome] = apply(target, one)
        assert isinstance(outcome, Accepted), outcome
        again = KvFold()
        again.restore([encoded(target)])
        assert encoded(again) == encoded(target)
        target = again
    assert encoded(target) == encoded(filled())


def code(outcome: Outcome) -> str:
    assert isinstance(outcome, Rejected), outcome
    return outcome.code


def test_what_can_not_be_is_refused_and_changes_nothing() -> None:
    begin, *middle, end = steps(filled())
    target = KvFold()
    nothing = encoded(target)
    apply(target, begin, *middle[1:])
    assert code(apply(target, end)[0]) == "v3-import.incomplete"
    damaged = import_says.ImportPart("i", 1, '{"dir":["/nowhere/x",1,1]}\n')
    assert code(apply(target, begin, middle[0], damaged, *middle[2:], end)[-1]) == "v2-import.damaged"
    assert encoded(target) == nothing
    apply(target, begin, *middle, says.Put("/a", "b"))
    assert code(apply(target, end)[0]) == "v3-import.not-empty"
    assert target.store.index == 1
    # v3 needn't be empty, and stays as it is
    target = KvFold()
    apply(target, import_says.Put("k", "v"))
    assert all(isinstance(outcome, Accepted) for outcome in apply(target, begin, *middle, end))
    assert target.v3.revs.revision == 2


def test_a_folder_that_was_written_is_read_alike(tmp_path: Path) -> None:
    fold = filled()
    users = Auth(True, True, 4, {"root": User("h", None)}, {"r": Role(None, ["/x*"])})
    folder = tmp_path / "not" / "there"
    exported2.write(folder, fold.store, users)
    store, read = store_of(folder, 1000)
    assert shown(store) == shown(fold.store)
    assert (store.index, store.files) == (fold.store.index, fold.store.files)
    assert isinstance(read, Auth)
    assert (read.enabled, read.users, read.roles) == (True, users.users, users.roles)
    with pytest.raises(FileExistsError):
        exported2.write(folder, fold.store, users)


def test_each_node_of_a_written_folder_has_the_last_part_of_its_path_for_its_name(tmp_path: Path) -> None:
    """etcd finds a node by the names on its way, and tells its path."""
    exported2.write(tmp_path / "f", filled().store, Auth(True, True, 4, {"root": User("h", None)}, {}))
    [snap] = (tmp_path / "f" / "member" / "snap").glob("*.snap")
    whole = dict(fields(snap.read_bytes()))
    root = json.loads(raw(dict(fields(raw(whole[2])))[1]))["Root"]
    assert list(root["Children"]) == ["0", "1", "2"]
    pending, seen = [root], 0
    while pending:
        node = pending.pop()
        for name, child in (node["Children"] or {}).items():
            assert child["Path"] == f"{node['Path'].rstrip('/')}/{name}"
            pending.append(child)
            seen += 1
    assert seen > 100


def test_a_delete_that_compares_indices_is_refused_again_or_done_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.entry(1, request("/1/kept", "v"))
    log.entry(2, request("/1/gone", "v"))
    for at, path, index in ((3, b"/1/kept", 2), (4, b"/1/gone", 2)):
        log.entry(at, field(1, 7) + field(2, b"DELETE") + field(3, path) + field(7, index))
    log.commit(4)
    store, _ = store_of(tmp_path, 0)
    assert (list(store.files), store.index) == (["/kept"], 3)


def test_of_a_ttl_that_has_run_out_nothing_is_left(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.entry(1, request("/1/k", "v", n9=10**18 + 5_000_000_000))
    log.commit(1)
    for now_ms, left_ms in ((4999, 1), (5000, 0), (9000, 0)):
        store, _ = store_of(tmp_path, 10**12 + now_ms)
        assert store.ttls == {"/k": left_ms}


NODE = {"CreatedIndex": 1, "ModifiedIndex": 1}


def named(children: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["Path"].rpartition("/")[2]: one for one in children}


def folder_of(folder: Path, *children: dict[str, Any]) -> Path:
    """A data folder whose tree has these below ``/1``, whatever their paths are."""
    exported2.write(folder, filled().store, msgspec.UNSET)
    [snap] = (folder / "member" / "snap").glob("*.snap")
    of_users = {**NODE, "Path": "/1", "Children": named(children)}
    root = {**NODE, "Path": "/", "Children": {"0": {**NODE, "Path": "/0", "Children": {}}, "1": of_users}}
    snap.write_bytes(exported2._snapshot(json.dumps({"Root": root, "CurrentIndex": 5}).encode()))
    return folder


def file(path: str, value: str = "v") -> dict[str, Any]:
    return {**NODE, "Path": path, "Value": value}


def directory(path: str, *children: dict[str, Any]) -> dict[str, Any]:
    return {**NODE, "Path": path, "Children": named(children)}


@pytest.mark.parametrize(
    ("children", "why"),
    [
        ([directory("/1/a", directory("/1"))], "the node at '/1/a/1' is said to be '/1'"),
        ([file("/1/a/x")], "the node at '/1/x' is said to be '/1/a/x'"),
        ([file("/1/a/")], "below '/1' is named ''"),
        ([file("/1/a/..")], "below '/1' is named '..'"),
        ([file("a")], "the node at '/1/a' is said to be 'a'"),
        ([file("/1/large", "x" * (PAIR_BYTES_MAX + 1))], "/large has 2621441 bytes"),
    ],
)
def test_a_tree_that_is_none_is_refused(children: list[dict[str, Any]], why: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=why):
        transfer.import_folder(folder_of(tmp_path / "f", *children), Common(data=tmp_path))


def test_a_file_in_the_place_of_all_keys_is_refused(tmp_path: Path) -> None:
    exported2.write(tmp_path / "f", filled().store, msgspec.UNSET)
    [snap] = (tmp_path / "f" / "member" / "snap").glob("*.snap")
    root = {**NODE, "Path": "/", "Children": {"1": file("/1")}}
    snap.write_bytes(exported2._snapshot(json.dumps({"Root": root, "CurrentIndex": 5}).encode()))
    with pytest.raises(Failure, match="'/1' is a file where etcd has a directory"):
        transfer.import_folder(tmp_path / "f", Common(data=tmp_path))


def test_large_values_whose_escapes_are_escaped_again_are_taken(tmp_path: Path) -> None:
    values = ['"\\' * 780_000, "\1" * 1_570_000, "\1" * 60_000, "é" * 700_000]
    folder = folder_of(tmp_path / "f", *(file(f"/1/{at}", value) for at, value in enumerate(values)))
    with Running(tmp_path / "n") as server:
        server.folder.joinpath("run", "corelog.sock").touch()
        transfer.import_folder(folder, Common(data=tmp_path / "n"))
        assert [server.fold.store.files[f"/{at}"].value for at in range(4)] == values


@pytest.mark.parametrize(
    "rows",
    [
        ['{"dir":["/a",1,1]}', '{"files":[["x","v",1,1]]}', '{"dir":["",1,1]}', '{"files":[["a","v",1,1]]}'],
        ['{"dir":["/a",1,1]}', '{"files":[["x","v",1,1]]}', '{"dir":["/a",1,1]}'],
        ['{"dir":["/a",1,1]}', '{"files":[["x/y","v",1,1]]}'],
        ['{"files":[["a","v",4611686018427387905,1]]}'],
        ['{"files":[["a","v","1",1]]}'],
        ['{"files":[["a","v",1,1,-5,5]]}'],
    ],
)
def test_lines_that_make_no_tree_are_refused_from_level_3_on(rows: list[str]) -> None:
    text = "".join(f"{row}\n" for row in ["{}", '{"index":5}', *rows])
    said = import_says.ImportBegin("i", 1, v2=True), import_says.ImportPart("i", 0, text), import_says.ImportEnd("i")
    target = KvFold()
    nothing = encoded(target)
    assert code(apply(target, *said)[-1]) == "v2-import.damaged"
    assert encoded(target) == nothing
    assert isinstance(apply(KvFold(), *said, level=2)[-1], Accepted), "as older nodes take it"


def test_lines_that_raised_are_refused_at_every_level() -> None:
    for row in ('{"files":[["a","v",1,1,5]]}', '{"files":[[' + "[" * 100_000):
        text = f'{{}}\n{{"index":5}}\n{row}\n'
        said = import_says.ImportBegin("i", 1, v2=True), import_says.ImportPart("i", 0, text)
        assert code(apply(KvFold(), *said, import_says.ImportEnd("i"), level=1)[-1]) == "v2-import.damaged"
