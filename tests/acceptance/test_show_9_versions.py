"""Show 9: versions on three machines: a publisher killed in mid-fetch, an unhealthy version, and back by choice."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.compose import NODES, Cluster
from tests.acceptance.harness import until

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

DATA = "/var/lib/corelog"
PUBLISHER, *FETCHERS = NODES
#: Enough that a fetch can be broken off in the middle.
LARGE_FILES, LARGE_BYTES = 4, 96 * 1024 * 1024
REJECTED = 4


def tree(cluster: Cluster, name: str, files: int = 0) -> str:
    """A folder on the volume that the nodes share; its path there."""
    folder = cluster.shared / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "hello").write_text(f"#!/bin/sh\necho {name}\n")
    (folder / "bin" / "hello").chmod(0o755)
    for number in range(files):
        (folder / f"large-{number}").write_bytes(os.urandom(LARGE_BYTES))
    return f"/shared/{name}"


def publish(cluster: Cluster, version: str, path: str, health: str) -> None:
    cluster.inside(
        PUBLISHER, "corelog", "update", "publish", path, "--version", version, "--health", health, "--data", DATA
    )


def status(cluster: Cluster, ask: str) -> dict[str, Any]:
    """What each machine's updater says, by the machine's name."""
    rows = cluster.seen(ask, "/v1/updates/status") or []
    return {row["name"]: row for row in rows}


def running(cluster: Cluster, node: str) -> str:
    """The version that the link on the node's disk names, by what its program prints."""
    return cluster.inside(node, f"{DATA}/updater/current/bin/hello")


def all_on(cluster: Cluster, ask: str, version: str) -> bool:
    found = status(cluster, ask)
    return {(row["running"], row["state"]) for row in found.values()} == {(version, "healthy")} and len(found) == 3


@pytest.mark.timeout(600)
def test_versions_go_out_come_back_and_survive_their_publisher(cluster: Cluster, tmp_path: Path) -> None:
    cluster.healthy()
    publish(cluster, "v1", tree(cluster, "one"), "bin/hello")
    publish(cluster, "v2", tree(cluster, "two", LARGE_FILES), "bin/hello")
    publish(cluster, "v3", tree(cluster, "three"), "echo the database is not there >&2; exit 1")

    cluster.run("node2", "update", "switch", "v1")
    assert {running(cluster, node) for node in NODES} == {"one"}

    _publisher_killed_in_mid_fetch(cluster)
    assert {running(cluster, node) for node in NODES} == {"two"}

    refused = cluster.run("node3", "update", "switch", "v3", code=REJECTED)
    after = status(cluster, "node3")
    for node in NODES:  # each by itself, and says why
        assert (after[node]["running"], after[node]["state"]) == ("v2", "rolledback"), after[node]
        assert "the database is not there" in after[node]["detail"]
        assert f"{node}: rolledback: " in refused.err
        assert running(cluster, node) == "two"

    cluster.run("node3", "update", "switch", "v1")
    assert {running(cluster, node) for node in NODES} == {"one"}
    why = cluster.run("node3", "why", "version", "v3").out
    assert "the database is not there" in why


def _publisher_killed_in_mid_fetch(cluster: Cluster) -> None:
    """docker kill while the others have parts of v2; nobody switches; back again, they fetch what is missing only."""
    parts = {node: cluster.data(node) / "updater" / "parts" for node in FETCHERS}
    start = cluster.position("node2")
    cluster.run("node2", "update", "switch", "v2", "--no-wait")
    have = until(
        lambda: _bytes(parts) if all(_bytes(parts).values()) else None, every_s=0.01, says="parts on both fetchers"
    )
    cluster.kill(PUBLISHER)
    had = _bytes(parts)
    print(f"\npublisher killed when the others had {had} bytes in parts (first seen {have})")
    assert all(size > 0 for size in had.values()), had
    assert {running(cluster, node) for node in FETCHERS} == {"one"}, "nobody is on half a version"
    cluster.start(PUBLISHER)
    until(lambda: all_on(cluster, "node2", "v2"), timeout_s=180, every_s=0.2, says="all healthy on v2")

    listed = cluster.run("node2", "log", "--from", start, "--stream", "update", "-n", "1000", "-o", "json").out
    events = [json.loads(line) for line in listed.splitlines()]
    ids = {row["id"]: row["name"] for row in cluster.get("node2", "/v1/machines")}
    fetched = {
        ids[event["data"]["machine"]]: event["data"].get("fetched_bytes", 0)
        for event in events
        if event["type"].startswith("update.staged")
    }
    size = next(row["size_bytes"] for row in cluster.get("node2", "/v1/updates") if row["version"] == "v2")
    print(f"v2 has {size} bytes; fetched {fetched}")
    for node in FETCHERS:
        # resumed, not begun again: the parts that were there were not fetched a second time
        assert size <= fetched[node] < size + LARGE_BYTES // 4, fetched


def _bytes(parts: dict[str, Path]) -> dict[str, int]:
    """Bytes in part files, by node."""
    found = {}
    for node, folder in parts.items():
        files = folder.glob("*.part") if folder.exists() else []
        found[node] = sum(file.stat().st_size for file in files if file.exists())
    return found
