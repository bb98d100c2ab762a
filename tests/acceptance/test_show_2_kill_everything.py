"""Show 2: publish and switch a version, kill -9 the whole process group, start again: all is there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.harness import Node, free_port, until

pytestmark = pytest.mark.acceptance

UNIT = """[Unit]
Description=A web server
[Service]
ExecStart=/usr/bin/env python3 -m http.server --bind 127.0.0.1 {port}
"""


def tree(folder: Path, text: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "hello").write_text(f"#!/bin/sh\necho {text}\n")
    (folder / "bin" / "hello").chmod(0o755)
    return folder


def test_key_unit_and_version_survive_kill_9_of_everything(make_node: Callable[..., Node], tmp_path: Path) -> None:
    node = make_node().start()
    assert node.kv("PUT", "/v2/keys/greeting", b"value=hello")[0] == 201
    unit = tmp_path / "web.service"
    unit.write_text(UNIT.format(port=free_port()))
    node.run("unit", "start", str(unit))
    pid = node.unit("web.service")["placements"][0]["pid"]
    node.run("update", "publish", str(tree(tmp_path / "v1", "one")), "--version", "1.0", "--health", "bin/hello")
    node.run("update", "publish", str(tree(tmp_path / "v2", "two")), "--version", "2.0", "--health", "bin/hello")
    node.run("update", "switch", "1.0")
    node.run("update", "switch", "2.0")
    before = node.run("log", "-o", "json", "-n", "100000").out.count("\n")

    node.kill()
    node.start()

    assert node.run("kv", "get", "greeting").out == "hello\n"
    row = until(lambda: (r := node.unit("web.service"))["state"] == "ready" and r)
    assert row["placements"][0]["pid"] == pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes().count(b"http.server") == 1
    assert node.run("update", "status", "-o", "json").json[0]["running"] == "2.0"
    verified = node.run("log", "verify")
    assert "whole" in verified.out + verified.err
    engine = [
        line
        for line in node.run("log", "-o", "json", "-n", "100000", "--stream", "engine").out.splitlines()
        if "engine.started" in line or "engine.adopted" in line
    ]
    assert len(engine) == 1, "adoption says no duplicate fact"
    assert before > 0
    node.run("update", "rollback")
    assert node.run("update", "status", "-o", "json").json[0]["running"] == "1.0"
