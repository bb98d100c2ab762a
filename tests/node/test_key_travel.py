"""v3's keys in the past, on a real node: by etcd's port with users, by ``corelog kv`` and over HTTP."""

import contextlib
import io
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from actors.kv.proto import etcd_pb2 as pb
from node.cli.main import main
from tests.actors.kv.test_serving import Grpc
from tests.node.test_up import RealNode, answering


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    with answering(tmp_path_factory.mktemp("travel") / "data") as made:
        yield made


def run(*words: str) -> tuple[int, bytes, str]:
    """``corelog`` in this process (a new one for each takes longer than all that it does): code, output, errors."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.buffer.getvalue(), err.getvalue()  # type: ignore[attr-defined]


def corelog(node: RealNode, *words: str, code: int = 0) -> str:
    """What it printed: data, or what it said when it failed."""
    ended, out, err = run(*words, "--data", str(node.data))
    assert ended == code, (ended, out, err)
    return out.decode() if code in (0, 1) else err


def told(node: RealNode, *words: str, code: int = 0) -> Any:
    return json.loads(corelog(node, *words, "-o", "json", code=code))


@pytest.fixture(scope="module")
def written(node: RealNode) -> RealNode:
    """Revisions 2 to 6: app/port twice, app/host, by a lease app/tmp, then app/host goes; 1 to 4 are compacted. 7 has
    bytes that aren't text, and v2 has /both as v3 has both (8)."""
    etcd = Grpc(f"127.0.0.1:{node.etcd}")
    etcd.put(b"app/port", b"80")
    etcd.put(b"app/host", b"a")
    etcd.put(b"app/port", b"8080")
    etcd.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=3600), pb.LeaseGrantResponse)
    etcd.ask("KV/Put", pb.PutRequest(key=b"app/tmp", value=b"x", lease=7), pb.PutResponse)
    etcd.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"app/host"), pb.DeleteRangeResponse)
    etcd.put(b"\xff\x00", b"\xfe\n")
    etcd.put(b"both", b"third")
    etcd.ask("KV/Compact", pb.CompactionRequest(revision=4, physical=True), pb.CompactionResponse)
    node.keys("/both", "second")
    node.keys("/only", "v2's")
    etcd.channel.close()
    return node


def test_a_value_at_a_revision_a_position_and_a_time(written: RealNode) -> None:
    first, second = told(written, "kv", "history", "app/port")
    assert corelog(written, "kv", "get", "app/port") == "8080\n"
    for at in ("r2", "rev:3", first["position"], f"@{first['time_ms'] / 1000:.3f}"):
        assert corelog(written, "kv", "get", "app/port", "--at", at) == "80\n", at
    assert corelog(written, "kv", "get", "app/port", "--at", second["position"]) == "8080\n"
    assert "no key app/port of v3 then" in corelog(written, "kv", "get", "app/port", "--at", "r1", code=3)


def test_ranges_as_etcdctl_asks_for_them(written: RealNode) -> None:
    def keys(*words: str) -> list[Any]:
        return [row["key"] for row in told(written, "kv", "get", *words)]

    assert keys("app/", "--prefix", "--at", "r5") == ["app/host", "app/port", "app/tmp"]
    assert keys("app/", "--prefix") == ["app/port", "app/tmp"]
    assert keys("app/i", "app/q", "--at", "r5") == ["app/port"]
    assert keys("b", "--from-key", "--at", "r8") == ["both", {"base64": "/wA="}]
    assert keys("", "--prefix", "--limit", "1") == ["app/port"]
    assert corelog(written, "kv", "get", "", "--prefix", "--count-only", "--at", "r5") == "3\n"
    assert corelog(written, "kv", "get", "app", "--prefix", "--keys-only", "-o", "name") == "app/port\napp/tmp\n"
    (row,) = told(written, "kv", "get", "app/tmp", "--at", "r5")
    assert row == {"key": "app/tmp", "value": "x", "create_revision": 5, "mod_revision": 5, "version": 1,
                   "lease": "0000000000000007"}  # fmt: skip


def test_bytes_that_are_no_text(written: RealNode) -> None:
    _, out, _ = run("kv", "get", "ff00", "--key-as", "hex", "--data", str(written.data))
    assert out == b"\xfe\n\n"
    assert corelog(written, "kv", "get", "/wA=", "--key-as", "base64", "--hex") == "\\xfe\\x0a\n"
    (row,) = told(written, "kv", "history", "ff00", "--key-as", "hex")
    assert (row["key"], row["value"]) == ({"base64": "/wA="}, {"base64": "/go="})
    assert "\\xff\\x00  \\xfe\\n" in corelog(written, "kv", "blame", "ff", "--key-as", "hex")


def test_history_tells_versions_leases_and_what_was_before(written: RealNode) -> None:
    first, second = told(written, "kv", "history", "app/port")
    assert [(row["revision"], row["version"], row["previous"]) for row in (first, second)] == [
        (2, 1, None),
        (4, 2, "80"),
    ]
    assert first["principal"].startswith("addr:127.0.0.1")
    rows = told(written, "kv", "history", "app/", "--prefix")
    assert [(row["key"], row["action"]) for row in rows][-2:] == [("app/tmp", "put"), ("app/host", "delete")]
    assert (rows[-2]["lease"], rows[-2]["lease_by"]) == ("0000000000000007", first["principal"])
    assert told(written, "kv", "history", "app/port", "--from", "r2") == [second]
    assert told(written, "kv", "history", "app/port", "--to", "r3") == [first]
    assert told(written, "kv", "history", "app/", "--prefix", "-n", "1") == rows[-1:]


def test_blame_names_who_made_what_is_there_and_what_is_gone(written: RealNode) -> None:
    rows = told(written, "kv", "blame", "app/")
    assert [(row["key"], row["revision"]) for row in rows] == [("app/port", 4), ("app/tmp", 5)]
    gone = told(written, "kv", "blame", "app/", "--deleted")
    assert [(row["key"], row["action"]) for row in gone] == [
        ("app/host", "delete"),
        ("app/port", "put"),
        ("app/tmp", "put"),
    ]
    assert [row["revision"] for row in told(written, "kv", "blame", "app/port", "--exact", "--at", "r3")] == [2]
    table = corelog(written, "kv", "blame", "app/")
    assert table.splitlines()[0].split() == ["KEY", "VALUE", "REVISION", "ACTION", "BY", "TIME", "POSITION"]


def test_diff_between_revisions_positions_and_both(written: RealNode) -> None:
    changes = told(written, "kv", "diff", "r2..r5", code=1)
    assert [(one["op"], one["key"], one.get("before"), one.get("after")) for one in changes] == [
        ("add", "app/host", None, "a"),
        ("change", "app/port", "80", "8080"),
        ("add", "app/tmp", None, "x"),
    ]
    assert corelog(written, "kv", "diff", "r2..r3", "app/port") == ""
    assert '~ v3 app/port: "80" (r2) -> "8080" (r4)' in corelog(written, "kv", "diff", "r3..r4", code=1)
    start = told(written, "kv", "history", "ff00", "--key-as", "hex")[0]["position"]
    paths = [one.get("path") or one["key"] for one in told(written, "kv", "diff", f"{start}..", code=1)]
    assert paths == ["both", "kv//both", "kv//only"]
    assert [one["op"] for one in told(written, "kv", "diff", f"{start}..", "both", "--api", "v3", code=1)] == ["add"]


def test_a_key_of_both_spaces_is_not_guessed(written: RealNode) -> None:
    assert "say --api v2 or --api v3" in corelog(written, "kv", "get", "both", code=2)
    assert corelog(written, "kv", "get", "both", "--api", "v2") == "second\n"
    assert corelog(written, "kv", "get", "both", "--api", "v3") == "third\n"
    assert corelog(written, "kv", "get", "only") == "v2's\n"
    assert {row["api"] for row in told(written, "kv", "history", "both")} == {"v2", "v3"}
    table = corelog(written, "kv", "blame")
    assert table.splitlines()[0].split()[:3] == ["API", "KEY", "VALUE"]
    assert {line.split()[0] for line in table.splitlines()[1:]} == {"v2", "v3"}


def test_restore_is_planned_done_and_refused_when_it_is_outdated(written: RealNode) -> None:
    etcd = Grpc(f"127.0.0.1:{written.etcd}")
    plan = told(written, "kv", "restore", "app/", "--at", "r5", "--dry-run")
    assert [(one["op"], one["key"]) for one in plan["changes"]] == [("add", "app/host")]
    etcd.put(b"app/new", b"n")
    refused = corelog(written, "kv", "restore", "app/", "--at", "r5", "--if-revision", str(plan["base"]), code=4)
    assert "app/new was changed in revision" in refused
    assert corelog(written, "kv", "get", "app/new") == "n\n"
    base = etcd.get(b"app/new").header.revision
    done = corelog(written, "kv", "restore", "app/", "--at", "r5")
    assert done == f"1 keys put, 1 deleted: as they were at revision 5, in revision {base + 1}\n"
    assert [row["key"] for row in told(written, "kv", "get", "app/", "--prefix")] == ["app/host", "app/port", "app/tmp"]
    (row,) = [row for row in told(written, "kv", "blame", "app/") if row["key"] == "app/host"]
    assert (row["action"], row["principal"], row["revision"]) == ("restore put", "uid:0", base + 1)
    # what was right already kept its lease, history stays, and it can be taken back
    assert etcd.get(b"app/tmp").kvs[0].lease == 7
    assert [one["value"] for one in told(written, "kv", "history", "app/host")] == ["a", None, "a"]
    assert "nothing to do" in corelog(written, "kv", "restore", "app/", "--at", "r5")
    back = told(written, "kv", "restore", "app/", "--at", f"r{base}", "--force")
    assert (back["puts"], back["deletes"]) == (1, 1)
    assert corelog(written, "kv", "get", "app/new") == "n\n"
    etcd.channel.close()


def test_a_restore_of_many_parts_is_one_revision_for_a_watcher(written: RealNode) -> None:
    etcd = Grpc(f"127.0.0.1:{written.etcd}")
    for number in range(12):
        etcd.put(b"big/%d" % number, b"x" * 100_000)
    before = etcd.get(b"big/0").header.revision
    etcd.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"big/", range_end=b"big0"), pb.DeleteRangeResponse)
    done = told(written, "kv", "restore", "big/", "--at", f"r{before}")
    assert (done["puts"], done["revision"]) == (12, before + 2)
    found = etcd.ask("KV/Range", pb.RangeRequest(key=b"big/", range_end=b"big0"), pb.RangeResponse)
    assert {kv.mod_revision for kv in found.kvs} == {before + 2}
    assert all(kv.value == b"x" * 100_000 for kv in found.kvs)
    assert found.count == 12
    etcd.channel.close()


def test_keys_of_v2_go_back_too_with_what_is_below_them(written: RealNode) -> None:
    corelog(written, "kv", "set", "/conf/a", "1")
    corelog(written, "kv", "set", "/conf/tmp", "t", "--ttl", "3600")
    corelog(written, "kv", "mkdir", "/conf/empty")
    then = told(written, "kv", "history", "/conf", "-r")[-1]["position"]
    corelog(written, "kv", "set", "/conf/a", "2")
    corelog(written, "kv", "rm", "/conf/tmp")
    corelog(written, "kv", "rm", "/conf/empty", "--dir")
    corelog(written, "kv", "set", "/conf/new/x", "n")
    plan = told(written, "kv", "restore", "conf", "--at", then, "--dry-run")
    assert (plan["api"], plan["puts"], plan["deletes"], plan["without_ttl"]) == ("v2", 3, 1, 1)
    assert [(one["op"], one["path"], one.get("before"), one.get("after")) for one in plan["changes"]] == [
        ("change", "kv//conf/a", "2", "1"),
        ("add", "kv//conf/empty/", None, {}),
        ("remove", "kv//conf/new/", {}, None),
        ("add", "kv//conf/tmp", None, "t"),
    ]
    shown = corelog(written, "kv", "restore", "conf", "--at", then, "--dry-run")
    assert '~ kv//conf/a: "2" -> "1"' in shown
    assert f"with --if-index {plan['base']} only if nothing changes before" in shown
    corelog(written, "kv", "set", "/conf/late", "l")
    refused = corelog(written, "kv", "restore", "conf", "--at", then, "--if-index", str(plan["base"]), code=4)
    assert f"/conf/late was changed at index {plan['base'] + 1}, after this restore was made" in refused
    assert corelog(written, "kv", "get", "/conf/a") == "2\n"
    done = told(written, "kv", "restore", "/conf/", "--at", then)
    assert (done["puts"], done["deletes"], done["index"]) == (3, 2, plan["base"] + 1 + 5)
    keys = {row["key"]: (row["value"], row["ttl"]) for row in told(written, "kv", "ls", "/conf", "-r")}
    assert keys == {"/conf/a": ("1", None), "/conf/empty": (None, None), "/conf/tmp": ("t", None)}
    (row,) = told(written, "kv", "blame", "/conf/a")
    assert (row["action"], row["principal"], row["position"]) == ("restore set", "uid:0", done["position"])
    assert [one["value"] for one in told(written, "kv", "history", "/conf/a")] == ["1", "2", "1"]
    assert "nothing to do: all is as it was at index" in corelog(written, "kv", "restore", "conf", "--at", then)
    # bytes that are no text, and a file elsewhere that stands in the way
    written.keys("/conf/%FF", "%FE")
    shown = corelog(written, "kv", "restore", "conf", "--at", "5 minutes ago", "--dry-run")
    assert "- kv//conf/" in shown
    done = corelog(written, "kv", "restore", os.fsdecode(b"conf/\xff"), "--at", then)
    assert done.startswith("0 keys put, 1 deleted")
    corelog(written, "kv", "rm", "/conf", "-r")
    corelog(written, "kv", "set", "/conf", "precious")
    refused = corelog(written, "kv", "restore", "/conf/a", "--at", then, code=4)
    assert "/conf: a file now, and a directory then" in refused
    assert corelog(written, "kv", "get", "/conf", "--api", "v2") == "precious\n"
    # where keys of both differ it isn't guessed which are meant
    start = told(written, "kv", "history", "ff00", "--key-as", "hex")[0]["position"]
    assert "say --api v2 or --api v3" in corelog(written, "kv", "restore", "--at", start, code=2)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["get", "app/port", "--at", "r999"], 2, "revision 999 lies ahead: the store is at revision"),
        (["get", "app/port", "--at", "r0"], 2, "the first revision is 1"),
        (["get", "app/port", "--at", "soon"], 2, "neither a position (1234.7), a revision (r123) nor a time"),
        (["get", "never"], 3, "no key never"),
        (["get", "app", "--prefix", "-r"], 2, "-r is for v2's keys, --prefix for v3's"),
        (["get", "app", "--prefix", "--api", "v2"], 2, "--prefix is for v3's keys, not with --api v2"),
        (["get", "x", "--key-as", "hex"], 2, "'x' is no key in hex"),
        (["get", "a", "b", "--limit", "-1"], 2, "limit='-1' is not a whole number"),
        (["history", "never"], 3, "no such change of never"),
        (["blame", "never", "--api", "v3"], 3, "no key of v3 begins with never"),
        (["diff", "..r5"], 2, "from=POSITION|TIME|REVISION"),
        (["restore", "never", "--at", "r5"], 3, "none of these keys is there, nor was at revision 5"),
        (["restore", "--at", "now"], 2, "of the past"),
        (["restore", "--at", "r5", "--force", "--if-revision", "3"], 2, "contradict"),
        (["restore", "app/", "--at", "r5", "--if-revision", "99999"], 4, "never was at revision 99999"),
        (["restore", "--at", "r5", "--api", "v2"], 2, "the revision r5 is for v3's keys"),
        (["restore", "--at", "now", "--api", "v2"], 2, "of the past"),
        (["restore", "--at", "2.0", "--if-index", "3", "--force"], 2, "contradict"),
        (["restore", "--at", "2.0", "--if-index", "3", "--if-revision", "3"], 2, "not both"),
        (["restore", "only", "--at", "2.0", "--if-index", "99999"], 4, "never was at index 99999"),
        (["restore", "never", "--at", "2.0"], 3, "none of these keys is there, nor was then, of v3 or of v2"),
        (["restore", "never", "--at", "2.0", "--api", "v2"], 3, "none of these keys is there, nor was at index 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said(written: RealNode, words: list[str], code: int, says: str) -> None:
    assert says in corelog(written, "kv", *words, code=code)


def http(node: RealNode, path: str, token: str = "", body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.gateway}{path}", None if body is None else json.dumps(body).encode()
    )
    if token:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_over_http_who_has_no_token_sees_none_of_it(written: RealNode) -> None:
    token = (Path(written.data) / "token").read_text().split()[0]
    for path in ("keys?key=both", "history?key=both", "blame", "diff?from=r2"):
        status, problem = http(written, f"/v1/kv3/{path}")
        assert (status, problem["type"]) == (401, "corelog:token-needed")
        assert http(written, f"/v1/kv3/{path}", token)[0] == 200
    for api in ("kv3", "kv2"):
        assert http(written, f"/v1/{api}/restore", "", {"at": "2.0"})[0] == 401
    status, answer = http(written, "/v1/kv3/keys?key=%FF%00&key=both&at=r8", token)
    assert (status, [kv["value"] for kv in answer["kvs"]]) == (200, ["third", {"base64": "/go="}])
    for wrong in ("keys", "keys?key=", "keys?key=a&key=b&end=c", "keys?prefix=a&limit=x", "keys?prefix=a&keys_only=1"):
        assert http(written, f"/v1/kv3/{wrong}", token)[0] == 400, wrong
    assert http(written, "/v1/kv3/restore", token, {"at": "r2", "prefix": ["a"]})[0] == 400
    assert http(written, "/v1/kv3/restore", token, {})[0] == 400
    # without a token the command line shows v2's, and says so
    _, out, err = run("kv", "get", "only", "--endpoint", f"127.0.0.1:{written.gateway}")
    assert out == b"v2's\n"
    assert "v2's alone" in err


def test_users_are_named_with_their_address_and_root_of_the_machine_still_reads(written: RealNode) -> None:
    """The last one: users are on from here."""
    etcd = Grpc(f"127.0.0.1:{written.etcd}")
    for user in ("root", "ann"):
        etcd.ask("Auth/UserAdd", pb.AuthUserAddRequest(name=user, password="p"), pb.AuthUserAddResponse)
    for role in ("root", "all"):
        etcd.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name=role), pb.AuthRoleAddResponse)
    grant = pb.AuthRoleGrantPermissionRequest(name="all")
    grant.perm.permType, grant.perm.key, grant.perm.range_end = 2, b"\0", b"\0"
    etcd.ask("Auth/RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse)
    for user, role in (("root", "root"), ("ann", "all")):
        etcd.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role), pb.AuthUserGrantRoleResponse)
    etcd.ask("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)
    login = pb.AuthenticateRequest(name="ann", password="p")
    token = etcd.ask("Auth/Authenticate", login, pb.AuthenticateResponse).token
    etcd.put(b"app/port", b"9", token)
    etcd.channel.close()
    (row,) = told(written, "kv", "blame", "app/port")
    assert (row["principal"], row["source"], row["value"]) == ("user:ann", "addr:127.0.0.1", "9")
    assert "user:ann (127.0.0.1)" in corelog(written, "kv", "history", "app/port")
    assert corelog(written, "kv", "get", "app/port") == "9\n"
    assert told(written, "kv", "restore", "app/port", "--exact", "--at", "r2")["puts"] == 1
    assert corelog(written, "kv", "get", "app/port") == "80\n"
