import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from actors.updater import objects, stage, switch
from actors.updater.fetch import Fetcher, FetchFailed
from actors.updater.publish import CannotPublish, publish, publish_folder
from actors.updater.stage import check
from actors.updater.store import NoSpace, Store, UpdaterError
from tests.actors.updater.trees import V1, V2, make, read


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data" / "updater")


def nowhere(store: Store) -> Fetcher:
    return Fetcher(store, [])


def files_of(store: Store) -> dict[str, int]:
    """Every object: path → inode."""
    return {str(path): path.stat().st_ino for path in store.objects.rglob("*") if path.is_file()}


def test_a_published_folder_is_staged_as_it_was(tmp_path: Path, store: Store) -> None:
    said = publish_folder(tmp_path / "data", make(tmp_path / "v1", V1), "1.0", health="true", machine="m")
    assert (said.files, said.health, said.machine) == (7, "true", "m")
    assert said.size_bytes == sum(len(content) for content in V1.values() if isinstance(content, bytes))
    stage.stage(store, "1.0", said.tree, nowhere(store))
    assert read(store.versions / "1.0") == V1
    assert stat.S_IMODE((store.versions / "1.0/bin/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((store.versions / "1.0/lib/same.txt").stat().st_mode) == 0o644


def test_equal_contents_share_one_object_and_unchanged_files_cost_nothing(tmp_path: Path, store: Store) -> None:
    one = publish(store, make(tmp_path / "v1", V1))
    before = files_of(store)
    two = publish(store, make(tmp_path / "v2", V2))
    after = files_of(store)
    assert len(before) == 6  # seven files; bin/tool and bin/again are one, lib/same.txt has another mode
    assert set(after) - set(before) == {
        store.object_path(file.hash, file.mode) for file in store.tree(two).files if file.path in ("VERSION", "lib/new")
    }
    stage.stage(store, "1", one, nowhere(store))
    stage.stage(store, "2", two, nowhere(store))
    for name in ("lib/large", "bin/tool"):
        assert os.path.samefile(store.versions / "1" / name, store.versions / "2" / name)
    assert os.path.samefile(store.versions / "1/bin/tool", store.versions / "1/bin/again")
    assert files_of(store) == after


def test_publishing_again_changes_nothing(tmp_path: Path, store: Store) -> None:
    source = make(tmp_path / "v1", V1)
    tree = publish(store, source)
    before = files_of(store)
    assert publish(store, source) == tree
    assert files_of(store) == before
    assert publish(store, make(tmp_path / "copy", V1)) == tree


def test_nothing_is_left_behind_by_a_publishing_that_failed(tmp_path: Path, store: Store) -> None:
    source = make(tmp_path / "v1", V1)
    os.mkfifo(source / "zz")
    with pytest.raises(CannotPublish, match=r"zz.*pipe"):
        publish(store, source)
    assert files_of(store) == {}
    assert list(store.trees.iterdir()) == []
    assert list(store.objects.glob(".*")) == []


def test_what_can_not_be_a_version_is_refused_by_name(tmp_path: Path, store: Store) -> None:
    data = tmp_path / "data"
    with pytest.raises(CannotPublish, match="missing: there is no such folder"):
        publish_folder(data, tmp_path / "missing", "1")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotPublish, match="file: not a folder"):
        publish_folder(data, tmp_path / "file", "1")
    with pytest.raises(CannotPublish, match="data folder"):
        publish_folder(data, tmp_path, "1")
    source = make(tmp_path / "v", {"a": b"1"})
    with pytest.raises(CannotPublish, match=r"'../1' is not a version"):
        publish_folder(data, source, "../1")
    with pytest.raises(CannotPublish, match="no time for the check"):
        publish_folder(data, source, "1", health_timeout_ms=0)
    for name, why in ((b"new\nline", "control character"), (b"latin-\xe9", "UTF-8")):
        bad = make(tmp_path / f"bad-{len(name)}", {"ok": b"1"})
        Path(os.fsdecode(os.fsencode(bad) + b"/" + name)).write_bytes(b"")
        with pytest.raises(CannotPublish, match=why):
            publish(store, bad)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(source / "s"))
        with pytest.raises(CannotPublish, match=r"/s': a device, socket or pipe"):
            publish(store, source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_set_id_files_are_taken_only_from_root(tmp_path: Path, store: Store) -> None:
    source = make(tmp_path / "v", {"bin/su": b"su"})
    (source / "bin/su").chmod(0o4755)
    tree = publish(store, source)
    stage.stage(store, "1", tree, nowhere(store))
    assert stat.S_IMODE((store.versions / "1/bin/su").stat().st_mode) == 0o4755
    os.chown(source / "bin/su", 1234, 1234)
    (source / "bin/su").chmod(0o4755)
    with pytest.raises(CannotPublish, match=r"bin/su' is set-id of another owner"):
        publish(store, source)


def test_a_missing_object_fails_with_its_name_and_leaves_nothing_half_done(tmp_path: Path, store: Store) -> None:
    tree = publish(store, make(tmp_path / "v1", V1))
    file = next(file for file in store.tree(tree).files if file.path == "lib/large")
    os.unlink(store.object_path(file.hash, file.mode))
    with pytest.raises(FetchFailed, match=f"object {file.hash} of 'lib/large' is not here, and no other gateway"):
        stage.stage(store, "1", tree, nowhere(store))
    assert list(store.versions.iterdir()) == []


@pytest.mark.parametrize("harm", ["flip", "cut", "mode", "kind"])
def test_a_damaged_object_is_found_named_and_dropped(tmp_path: Path, store: Store, harm: str) -> None:
    tree = publish(store, make(tmp_path / "v1", V1))
    file = next(file for file in store.tree(tree).files if file.path == "lib/large")
    path = Path(store.object_path(file.hash, file.mode))
    if harm == "flip":
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        os.truncate(path, 10)
    elif harm == "mode":
        path.chmod(0o600)
    else:
        path.unlink()
        path.symlink_to("/etc/hostname")
    with pytest.raises(FetchFailed, match=rf"object {file.hash} of 'lib/large'.*"):
        stage.stage(store, "1", tree, nowhere(store))
    assert list(store.versions.iterdir()) == []
    assert not os.path.lexists(path)
    publish(store, tmp_path / "v1")
    stage.stage(store, "1", tree, nowhere(store))
    assert read(store.versions / "1") == V1


def test_an_object_of_another_mode_is_copied_and_not_fetched(tmp_path: Path, store: Store) -> None:
    tree = publish(store, make(tmp_path / "v1", V1))
    file = next(file for file in store.tree(tree).files if file.path == "lib/same.txt")
    os.unlink(store.object_path(file.hash, file.mode))
    stage.stage(store, "1", tree, nowhere(store))
    assert read(store.versions / "1") == V1


def test_a_staged_tree_that_was_changed_is_found_and_laid_anew(tmp_path: Path, store: Store) -> None:
    tree = publish(store, make(tmp_path / "v1", V1))
    stage.stage(store, "1", tree, nowhere(store))
    assert stage.stage(store, "1", tree, nowhere(store)).already
    root = store.versions / "1"
    (root / "lib/empty").unlink()
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to("elsewhere")
    (root / "bin/tool").unlink()
    (root / "bin/tool").write_bytes(b"#!/bin/sh\nexit 1\n")
    (root / "extra").write_text("what a service wrote is no fault")
    assert set(check(store, "1", store.tree(tree))) == {"lib/empty", "etc/link", "bin/tool"}
    assert not stage.stage(store, "1", tree, nowhere(store)).already
    assert read(root) == V1


def test_switching_is_one_link_and_goes_to_any_version(tmp_path: Path, store: Store) -> None:
    for version, files in (("1", V1), ("2", V2)):
        stage.stage(store, version, publish(store, make(tmp_path / version, files)), nowhere(store))
    assert store.running() == ""
    for version in ("1", "2", "1", "1"):
        switch.switch(store, version)
        assert store.running() == version
        assert (store.current / "VERSION").read_bytes() == version.encode() + b"\n"
    with pytest.raises(switch.CannotSwitch, match="version 3 is not staged"):
        switch.switch(store, "3")
    assert store.running() == "1"


def test_the_running_version_is_not_replaced_by_another_tree(tmp_path: Path, store: Store) -> None:
    stage.stage(store, "1", publish(store, make(tmp_path / "1", V1)), nowhere(store))
    switch.switch(store, "1")
    two = publish(store, make(tmp_path / "2", V2))
    with pytest.raises(UpdaterError, match="runs with another tree"):
        stage.stage(store, "1", two, nowhere(store))
    assert read(store.versions / "1") == V1


def test_space_is_asked_for_before_anything_is_written(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "v1", V1)
    tree = publish(store, source)
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 3, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(NoSpace, match=r"staging needs \d+ bytes, 0 are free"):
        stage.stage(store, "1", tree, nowhere(store))
    assert list(store.versions.iterdir()) == []
    make(source, {"more": os.urandom(5000)})
    with pytest.raises(NoSpace, match=r"publishing .*more"):
        publish(store, source)


def test_a_full_disk_gives_no_space_and_leaves_nothing(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = publish(store, make(tmp_path / "v1", V1))

    def full(_source: str, path: str, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(NoSpace, match="the disk is full"):
        stage.stage(store, "1", tree, nowhere(store))
    assert list(store.versions.iterdir()) == []


def test_an_object_with_too_many_names_gets_a_fresh_inode(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = publish(store, make(tmp_path / "v1", V1))
    real = os.link

    def limited(source: str, path: str, **options: bool) -> None:
        if os.stat(source).st_nlink > 2:
            raise OSError(errno.EMLINK, "Too many links", source)
        real(source, path, **options)

    monkeypatch.setattr(os, "link", limited)
    for version in ("1", "2", "3"):
        stage.stage(store, version, tree, nowhere(store))
        assert read(store.versions / version) == V1


def test_gc_keeps_what_runs_and_what_is_kept_and_frees_the_rest(tmp_path: Path, store: Store) -> None:
    trees = {}
    for version in ("1", "2", "3"):
        source = make(tmp_path / version, {**V1, "VERSION": version.encode(), "big": version.encode() * 50_000})
        trees[version] = publish(store, source)
        stage.stage(store, version, trees[version], nowhere(store))
    young = publish(store, make(tmp_path / "4", V2))
    switch.switch(store, "1")
    freed = switch.collect(store, {"3"}, {trees["3"]}, set(trees.values()))
    assert freed.versions == ["2"]
    assert freed.freed_bytes >= 50_000
    assert sorted(store.staged()) == ["1", "3"]
    for version in ("1", "3"):
        assert check(store, version, store.tree(trees[version])) == {}
    # not on the log yet, but young: somebody may be publishing it
    assert stage.stage(store, "4", young, nowhere(store)).fetched_bytes == 0
    assert objects.manifest_path(tmp_path / "data", trees["2"]) is None


def test_a_gateway_finds_objects_by_hash_only(tmp_path: Path, store: Store) -> None:
    data = tmp_path / "data"
    tree = publish(store, make(tmp_path / "v1", V1))
    for file in store.tree(tree).files:
        path = objects.open_object(data, file.hash)
        assert path is not None
        assert path.read_bytes() == V1[file.path]
    assert objects.manifest_path(data, tree) == store.trees / tree
    for bad in ("", "..", "../objects", tree[:-1], tree.upper(), "0" * 64, tree + "\n", "*" * 64):
        assert objects.open_object(data, bad) is None
        assert objects.manifest_path(data, bad) is None
    (store.trees / tree).write_bytes(b"junk")
    assert objects.open_object(tmp_path / "nothing", tree) is None
