"""Show 6: --at before a delete gives the old value; the old placement two minutes ago."""

import time

import pytest

from tests.acceptance.harness import Node

pytestmark = pytest.mark.acceptance


def test_a_value_of_before_its_delete(node: Node) -> None:
    node.run("kv", "set", "/x", "old")
    position = node.run("log", "-o", "json", "--stream", "kv", "-n", "1").json["position"]
    time.sleep(0.01)
    node.run("kv", "set", "/x", "new")
    node.run("kv", "rm", "/x")
    assert node.run("kv", "get", "/x", code=3).err
    assert node.run("kv", "get", "/x", "--at", position).out == "old\n"


def test_the_placement_of_before_a_stop(node: Node, tmp_path: object) -> None:
    unit = tmp_path / "nap.service"  # type: ignore[operator]
    unit.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    node.run("unit", "start", str(unit))
    running = node.run("cluster", "status", "-o", "json").json["position"]
    start = time.time()
    time.sleep(4)
    node.run("unit", "destroy", "nap")
    assert node.run("unit", "list", "-o", "json").json == []
    for at in (running, f"@{start:.3f}", "3 s ago"):
        rows = node.run("unit", "list", "--at", at, "-o", "json").json
        assert [row["name"] for row in rows] == ["nap.service"], at
        assert rows[0]["machine"]
    diff = node.run("diff", f"{running}..", "-o", "json", code=1).json
    assert any("nap.service" in change["path"] for change in diff)
    beyond = node.run("unit", "list", "--at", "999999", code=2)
    assert "beyond the end" in beyond.err
