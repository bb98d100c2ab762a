"""kill -9 at each step leaves the old version or the new one, whole, and the next try completes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.updater import stage, switch
from actors.updater.fetch import Fetcher
from actors.updater.publish import publish
from actors.updater.stage import check
from actors.updater.store import Store
from tests.actors.updater.trees import V1, V2, Serving, make, read


def child(folder: Path, limit: int, *words: str) -> tuple[bool, list[str]]:
    """Run child.py; whether it was killed, and the steps it took."""
    command = [sys.executable, "-m", "tests.actors.updater.child", str(folder), str(limit), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if ended.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(ended.stderr)
    return ended.returncode != 0, ended.stdout.split()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "updater")
    for version, files in (("1", V1), ("2", V2)):
        stage.stage(store, version, publish(store, make(tmp_path / version, files)), Fetcher(store, []))
    switch.switch(store, "1")
    return store


def whole(store: Store) -> dict[str, object]:
    """Every staged version and every object is as its name says; returns what is staged."""
    for version, tree in store.staged().items():
        assert check(store, version, store.tree(tree)) == {}
    for path in store.objects.glob("[0-9a-f][0-9a-f]/*"):
        hash_, _, mode = path.name.partition(".")
        assert store.object_fault((path.parent.name + hash_, int(mode, 8)), path.stat().st_size) == ""
    return {version: read(store.versions / version) for version in store.staged()}


def test_publishing(tmp_path: Path) -> None:
    source, folder = make(tmp_path / "source", V1), tmp_path / "updater"
    seen = set()
    for limit in range(1, 40):
        killed, steps = child(folder, limit, "publish", str(source))
        seen |= set(steps)
        store = Store(folder)
        whole(store)
        assert killed or list(store.trees.iterdir())
        if not killed:
            break
        assert not [path for path in store.trees.iterdir() if not path.name.startswith(".")]
    assert seen == {"object", "objects-sync", "objects-name", "tree"}
    stage.clean(store)
    assert list(store.objects.glob(".*")) == []
    stage.stage(store, "1", publish(store, source), Fetcher(store, []))
    assert read(store.versions / "1") == V1


def test_staging(tmp_path: Path, store: Store) -> None:
    tree = publish(store, make(tmp_path / "3", {**V2, "VERSION": b"3\n"}))
    seen = set()
    for limit in range(1, 40):
        killed, steps = child(store.folder, limit, "stage", "3", tree)
        seen |= set(steps)
        staged = whole(store)
        assert staged["1"] == V1
        assert store.running() == "1"
        if not killed:
            break
    assert seen >= {"stage", "stage-sync", "stage-note", "stage-name"}
    assert staged["3"] == {**V2, "VERSION": b"3\n"}
    assert list(store.versions.glob(".*")) == []


def test_staging_anew_over_a_damaged_tree(tmp_path: Path, store: Store) -> None:
    tree = store.staged()["2"]
    seen = set()
    for limit in range(1, 40):
        (store.versions / "2/VERSION").unlink(missing_ok=True)
        killed, steps = child(store.folder, limit, "stage", "2", tree)
        seen |= set(steps)
        assert (store.versions / "2/lib/large").exists()
        if not killed:
            break
    assert "staged" in seen
    assert whole(store)["2"] == V2


def test_fetching(tmp_path: Path) -> None:
    publisher = Store(tmp_path / "publisher" / "updater")
    tree = publish(publisher, make(tmp_path / "1", {**V1, "lib/larger": bytes(3_000_000)}))
    folder = tmp_path / "updater"
    seen = set()
    with Serving(tmp_path / "publisher") as gateway:
        for limit in range(1, 60):
            killed, steps = child(folder, limit, "stage", "1", tree, gateway.address)
            seen |= set(steps)
            staged = whole(Store(folder))
            if not killed:
                break
            assert "1" not in staged or steps[-1] == "staged"
    assert {"fetch-tree", "fetch-object", "fetch-part", "objects-sync", "objects-name", "stage-name"} <= seen
    assert staged["1"] == {**V1, "lib/larger": bytes(3_000_000)}
    assert gateway.ranges  # what was there already was not fetched twice


def test_switching(store: Store) -> None:
    for limit in (1, 2, 3):
        switch.switch(store, "1")
        killed, steps = child(store.folder, limit, "switch", "2")
        assert store.running() == ("1" if steps == ["link-made"] else "2")
        assert (store.current / "VERSION").read_bytes() == store.running().encode() + b"\n"
        whole(store)
    assert not killed
    stage.clean(store)
    assert not list(store.folder.glob(".*"))


def test_going_back(store: Store) -> None:
    for limit in range(1, 10):
        switch.switch(store, "2")
        switch.forget_leaving(store)
        killed, steps = child(store.folder, limit, "back", "2", "1")
        back = "link-renamed" in steps
        assert store.running() == ("1" if back else "2")
        if back:
            noted = switch.leaving(store)
            assert noted is not None
            assert (noted.version, noted.to, noted.reason) == ("2", "1", "unhealthy")
        if not killed:
            break
    assert steps == ["leaving", "leaving-noted", "link-made", "link-renamed", "left"]


def test_collecting(tmp_path: Path, store: Store) -> None:
    for limit in range(1, 10):
        killed, steps = child(store.folder, limit, "collect", "1", store.staged()["1"])
        assert whole(store)["1"] == V1
        assert store.running() == "1"
        if not killed:
            break
    assert steps[-1] == "collect-objects"
    stage.clean(store)
    assert sorted(path.name for path in store.versions.iterdir()) == ["1", "1.tree"]
