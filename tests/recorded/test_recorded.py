"""Logs of releases, replayed by this version: the same state, chain and outcomes, byte for byte."""

from pathlib import Path

import pytest

from tests.recorded.record import FOLDER, hashes, load

LOGS = sorted(FOLDER.glob("*.jsonl"))


def test_the_log_of_each_release_is_kept() -> None:
    assert [path.stem for path in LOGS] == ["0.1.0"]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_releases_log_replays_to_its_hashes(path: Path) -> None:
    log, expected = load(path)
    types = b"".join(entry.raw for entry in log)
    for kind in (b"kv.", b"unit.placed", b"engine.ready", b"update.healthy", b"machine.joined", b"master.claimed"):
        assert kind in types, f"the recorded log says nothing of {kind!r}"
    assert hashes(log) == expected
