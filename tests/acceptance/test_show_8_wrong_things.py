"""Show 8: each wrong thing gets a clear error, the right exit code or status, and changes nothing."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import CORELOG, ROOT, Node, Result, free_port

pytestmark = pytest.mark.acceptance


def up(folder: Path, *options: str, gateway: int = 0) -> Result:
    """``corelog up`` that is expected to refuse: it must end by itself."""
    command = [
        *CORELOG,
        *("up", "--data", str(folder), "--etcd-listen", f"127.0.0.1:{free_port()}"),
        *("--gateway-listen", f"127.0.0.1:{gateway or free_port()}", *options),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    return Result(done)


def one_message(result: Result) -> str:
    assert "Traceback" not in result.err, result
    return " ".join((result.out + result.err).split())


@pytest.fixture
def unchanged(node: Node) -> Iterator[None]:
    """The control state but for positions is as before."""

    def state() -> str:
        return json.dumps(json.loads(node.http("GET", "/v1/units")[1])) + json.dumps(
            json.loads(node.http("GET", "/v1/updates")[1])
        )

    before = state()
    yield
    assert state() == before


@pytest.mark.usefixtures("unchanged")
def test_a_unit_file_with_a_broken_line_names_the_line(node: Node, tmp_path: Path) -> None:
    unit = tmp_path / "broken.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nthis is no assignment\n")
    result = node.run("unit", "start", str(unit), code=2)
    assert "broken.service" in result.err
    assert "line 3" in result.err or ":3" in result.err


def test_a_cycle_of_machineof_is_refused_and_named(node: Node, tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "c")):
        (tmp_path / f"{one}.service").write_text(
            f"[Service]\nExecStart=/bin/sleep 9\n[X-Fleet]\nMachineOf={other}.service\n"
        )
        node.run("unit", "submit", str(tmp_path / f"{one}.service"))
    (tmp_path / "c.service").write_text("[Service]\nExecStart=/bin/sleep 9\n[X-Fleet]\nMachineOf=a.service\n")
    result = node.run("unit", "submit", str(tmp_path / "c.service"), code=None)
    assert result.code in (2, 4)
    assert "cycle" in result.err
    assert "a.service" in result.err
    assert [row["name"] for row in node.run("unit", "list", "-o", "json").json] == ["a.service", "b.service"]


@pytest.mark.usefixtures("unchanged")
def test_an_unknown_engine(node: Node, tmp_path: Path) -> None:
    unit = tmp_path / "x.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n[X-Corelog]\nEngine=rocket\n")
    result = node.run("unit", "submit", str(unit), code=2)
    assert "rocket" in result.err
    assert "process" in result.err


def test_a_kafka_address_where_nobody_listens(tmp_path: Path) -> None:
    result = up(tmp_path / "d", "--log", f"kafka://127.0.0.1:{free_port()}")
    assert result.code == 5, result
    assert "127.0.0.1" in one_message(result)


def test_a_port_in_use_is_named(node: Node, tmp_path: Path) -> None:
    result = up(tmp_path / "other", gateway=node.gateway)
    assert result.code not in (0, 1)
    assert str(node.gateway) in one_message(result)


def test_a_second_node_on_the_same_folder(node: Node) -> None:
    result = up(node.folder)
    assert result.code == 4, result
    assert str(node.process.pid) in one_message(result) or "pid" in one_message(result)  # type: ignore[union-attr]
    assert node.http("GET", "/health")[0] == 200


def test_a_data_folder_of_another_log(make_node: Callable[..., Node], tmp_path: Path) -> None:
    first, second = make_node("one").start(), make_node("two").start()
    first.stop()
    second.stop()
    log = next(path for path in first.folder.iterdir() if path.is_dir() and path.name == "log")
    shutil.rmtree(log)
    shutil.copytree(second.folder / "log", log)
    result = up(first.folder)
    assert result.code == 4, result
    assert "log" in one_message(result)
    first.process = second.process = None


def test_a_misspelt_key_names_file_line_and_the_right_one(tmp_path: Path) -> None:
    config = tmp_path / "corelog.toml"
    config.write_text('name = "a"\netcd_lisen = "127.0.0.1:2379"\n')
    result = up(tmp_path / "d", "--config", str(config), "--config-check")
    assert result.code == 2, result
    message = one_message(result)
    assert "corelog.toml" in message
    assert "2" in message
    assert "etcd_listen" in message
    assert not (tmp_path / "d").exists()


def test_10_mb_in_a_v2_put(node: Node) -> None:
    status, body = node.kv("PUT", "/v2/keys/big", b"value=" + b"x" * 10_000_000)
    assert status == 413, body
    assert json.loads(body)["message"]
    assert node.kv("GET", "/v2/keys/big")[0] == 404


def test_at_beyond_the_end(node: Node) -> None:
    result = node.run("cluster", "status", "--at", "123456789", code=2)
    assert "beyond the end" in result.err


@pytest.mark.usefixtures("unchanged")
def test_publish_of_a_missing_folder(node: Node, tmp_path: Path) -> None:
    result = node.run("update", "publish", str(tmp_path / "nowhere"), "--version", "1", code=3)
    assert "nowhere" in result.err


def test_a_version_staged_with_one_object_missing(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "v1"
    source.mkdir()
    (source / "file").write_text("content")
    node.run("update", "publish", str(source), "--version", "1.0")
    objects = [path for path in (node.folder / "updater" / "objects").rglob("*") if path.is_file()]
    assert len(objects) == 1
    objects[0].unlink()
    result = node.run("update", "stage", "1.0", code=4)
    assert objects[0].parent.name[:2] in result.err
    status = node.run("update", "status", "-o", "json").json[0]
    assert status["staged"] == []
    assert status["running"] == ""


def test_a_snapshot_with_a_flipped_byte_is_passed_over(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    node.run("kv", "set", "/x", "1")
    node.run("log", "snapshot")
    node.stop()
    snapshots = sorted((node.folder / "snapshots" / "kv").glob("*.snap"))
    raw = bytearray(snapshots[-1].read_bytes())
    raw[len(raw) // 2] ^= 1
    snapshots[-1].write_bytes(raw)
    node.start()
    assert node.run("kv", "get", "/x").out == "1\n"
    assert "damaged" in node.output.read_text()


def test_a_full_disk(make_node: Callable[..., Node], tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail("tmpfs can't be mounted")
        pytest.skip("needs root to mount a tmpfs")
    try:
        (mount / "fill").write_bytes(b"x" * 60_000)
        result = up(mount / "data")
        assert result.code in (4, 5), result
        assert "full disk" in one_message(result).lower()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
