"""``corelog kv history``, ``blame`` and ``diff`` on a real node, by its own commands and etcd's port."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.node.test_following import command
from tests.node.test_up import ROOT, RealNode, answering


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    with answering(tmp_path_factory.mktemp("history") / "data") as made:
        yield made


def corelog(node: RealNode, *words: str, code: int = 0) -> str:
    done = subprocess.run(command(node, *words), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if code in (0, 1) else done.stderr


def told(node: RealNode, *words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(corelog(node, *words, "-o", "json"))
    return rows


@pytest.fixture(scope="module")
def written(node: RealNode) -> RealNode:
    """/app/port set by hand, then by an address; /app/old set and taken away with its directory."""
    corelog(node, "kv", "set", "/app/port", "80")
    corelog(node, "kv", "set", "/app/port", "81", "--swap-with-value", "79", code=4)
    node.keys("/app/port", "8080")
    corelog(node, "kv", "set", "/gone/deep/key", "x")
    corelog(node, "kv", "rm", "-r", "/gone")
    return node


def test_history_tells_each_change_with_who_and_what_was_before(written: RealNode) -> None:
    by_hand, by_address = told(written, "kv", "history", "app/port")
    assert (by_hand["value"], by_hand["previous"], by_hand["principal"]) == ("80", None, "uid:0")
    assert (by_address["value"], by_address["previous"]) == ("8080", "80")
    assert by_address["principal"].startswith("addr:127.0.0.1")
    record = json.loads(corelog(written, "log", "show", by_address["position"], "-o", "json"))
    assert "/app/port" in json.dumps(record)


def test_history_of_a_key_that_went_with_its_directory(written: RealNode) -> None:
    assert [row["action"] for row in told(written, "kv", "history", "/gone/deep/key")] == ["set", "delete"]
    assert [row["key"] for row in told(written, "kv", "history", "/gone", "-r")] == ["/gone/deep/key", "/gone"]


def test_history_is_narrowed_by_instants_and_number(written: RealNode) -> None:
    by_hand, by_address = told(written, "kv", "history", "/app/port")
    assert told(written, "kv", "history", "/app/port", "--from", by_hand["position"]) == [by_address]
    assert told(written, "kv", "history", "/app/port", "--to", by_hand["position"]) == [by_hand]
    assert told(written, "kv", "history", "/app/port", "-n", "1") == [by_address]


def test_blame_tells_who_set_what_is_there(written: RealNode) -> None:
    by_hand, by_address = told(written, "kv", "history", "/app/port")
    assert told(written, "kv", "blame", "/app") == [by_address]
    assert told(written, "kv", "blame", "/app", "--at", by_hand["position"]) == [by_hand]
    assert {row["key"] for row in told(written, "kv", "blame")} == {"/app/port"}
    table = corelog(written, "kv", "blame", "/app")
    assert table.splitlines()[0].split() == ["KEY", "VALUE", "BY", "TIME", "POSITION"]
    assert by_address["principal"] in table


def test_diff_of_keys_alone(written: RealNode) -> None:
    by_hand, by_address = told(written, "kv", "history", "/app/port")
    span = f"{by_hand['position']}..{by_address['position']}"
    (changed,) = json.loads(corelog(written, "kv", "diff", span, "/app", "-o", "json", code=1))
    assert (changed["before"], changed["after"]) == ("80", "8080")
    assert corelog(written, "kv", "diff", span, "/ap") == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["history", "/never"], 3, "no such change of /never"),
        (["history", "/app/port", "--from", "soon"], 2, "'soon' is neither a position"),
        (["history", "/app/port", "--to", "99999999"], 2, "beyond the end of the log"),
        (["history", "/app/port", "-n", "-1"], 2, "limit"),
        (["blame", "/never"], 3, "/never is not there"),
        (["diff", "..5"], 2, "from=POSITION|TIME"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_told_is_said(written: RealNode, words: list[str], code: int, says: str) -> None:
    assert says in corelog(written, "kv", *words, code=code)
