"""``corelog kv policy`` on a real node, by the gateway and the kv replica's socket."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.node.test_key_history import corelog, told
from tests.node.test_up import RealNode, answering


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    with answering(tmp_path_factory.mktemp("policies") / "data") as made:
        yield made


def policies(node: RealNode, *words: str) -> dict[Any, dict[str, Any]]:
    return {str(row["prefix"]): row for row in told(node, "kv", "policy", "list", *words)}


def test_set_list_and_remove(node: RealNode) -> None:
    limits = [
        "--max-bytes",
        "10M",
        "--writes-per-s",
        "0.5",
        "--burst",
        "7",
        "--keep-age",
        "1h",
        "--keep-bytes",
        "50MiB",
    ]
    corelog(node, "kv", "policy", "set", "/registry/", *limits)
    row = policies(node)["/registry/"]
    assert (row["max_bytes"], row["keep_bytes"], row["keep_age_s"]) == (10_000_000, 50 * 2**20, 3600)
    assert (row["writes_per_s"], row["burst"], row["live_bytes"], row["compacted"]) == (0.5, 7, 0, 0)
    corelog(node, "kv", "policy", "set", "", "--max-bytes", "1GiB")
    corelog(node, "kv", "policy", "set", "/v8=", "--base64", "--keep-age", "30m")
    assert list(policies(node)) == ["", "/registry/", "{'base64': '/v8='}"]
    table = corelog(node, "kv", "policy", "list").splitlines()
    assert table[0].split() == ["PREFIX", "BYTES", "WRITES", "PER", "S", "HISTORY", "KEEP", "AGE", "COMPACTED"]
    assert table[2].split() == ["/registry/", "0/10000000", "(0%)", "0.5", "0/52428800", "(0%)", "3600s", "-"]
    assert table[3].split()[0] == "base64:/v8="
    for words in (("/registry/",), ("",), ("/v8=", "--base64")):
        corelog(node, "kv", "policy", "remove", *words)
    assert policies(node) == {}


def test_as_of_then_and_dry_runs(node: RealNode) -> None:
    said = json.loads(corelog(node, "kv", "policy", "set", "x", "--max-bytes", "1k", "--dry-run"))
    assert (said["type"], said["principal"], said["data"]["max_bytes"]) == ("kv.v3.policy_set.v1", "uid:0", 1000)
    assert policies(node) == {}
    corelog(node, "kv", "policy", "set", "x", "--max-bytes", "1k")
    at = json.loads(corelog(node, "cluster", "status", "-o", "json"))["position"]
    corelog(node, "kv", "policy", "remove", "x")
    assert policies(node, "--at", str(at))["x"]["max_bytes"] == 1000
    assert policies(node) == {}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("set", "a"), 2, "limits something"),
        (("set", "a", "--max-bytes", "x"), 2, "--max-bytes: 'x' is no size"),
        (("set", "a", "--keep-bytes=-1"), 2, "--keep-bytes: '-1' is no size"),
        (("set", "a", "--keep-age", "5"), 2, "--keep-age: '5' is no duration"),
        (("set", "a", "--keep-age", "1500ms"), 2, "no whole number of seconds"),
        (("set", "a", "--writes-per-s=-1"), 2, "writes_per_s is -1"),
        (("set", "a", "--burst", "5"), 2, "burst is given without writes_per_s"),
        (("set", "?", "--base64", "--max-bytes", "1"), 2, "is no base64"),
        (("remove", "a"), 3, "no policy is set for this prefix"),
    ],
)
def test_what_is_wrong_is_named(node: RealNode, words: tuple[str, ...], code: int, said: str) -> None:
    assert said in corelog(node, "kv", "policy", *words, code=code)
