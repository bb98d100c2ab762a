"""Snapshots: whole or refused, and the same state as a replay from the start."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import snapshots
from streams.events import log as says
from streams.events import say
from streams.log.memory import MemoryLog
from streams.log.port import ForeignLog
from streams.replay import LEVEL, Halt, Replica
from tests.folds import LOG, Counting, Writer, opened, put


def filled(count: int = 5) -> tuple[Replica, Writer, list]:
    log = Writer()
    entries = [log.entry(say(says.LogOpened(id=LOG)), writer="node@m"), log.entry(opened())]
    entries += [log.entry(put(f"/{i}", client=f"c{i % 3}", sequence=i + 1)) for i in range(count)]
    replica = Replica(Counting())
    for entry in entries:
        replica.apply(entry)
    return replica, log, entries


def test_a_restored_replica_goes_on_to_the_same_state_byte_for_byte(tmp_path: Path) -> None:
    replica, log, _ = filled()
    path = snapshots.write(tmp_path, replica)
    restored = snapshots.load(path, Counting)
    assert snapshots.head_of(path).state_hash == restored.state_hash() == replica.state_hash()
    assert replica.last is not None
    restored.confirm(replica.last)
    for entry in [log.entry(put("/2", client="c2", sequence=3)), log.entry(put("/new"))]:
        left, right = replica.apply(entry), restored.apply(entry)
        assert [one.outcome for one in left] == [one.outcome for one in right]
    assert restored.state_hash() == replica.state_hash()


def test_a_log_that_differs_at_the_snapshots_last_record_halts(tmp_path: Path) -> None:
    replica, _, entries = filled()
    restored = snapshots.load(snapshots.write(tmp_path, replica), Counting)
    other = entries[-1]._replace(raw=entries[-1].raw + b" ")
    with pytest.raises(Halt, match="differs"):
        restored.confirm(other)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        replica, _, _ = filled()
        path = snapshots.write(Path(folder), replica)
        raw = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        with pytest.raises(snapshots.DamagedSnapshot, match=path.name):
            snapshots.load(path, Counting)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    replica, _, _ = filled(2)
    path = snapshots.write(tmp_path, replica)
    raw = path.read_bytes()
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(snapshots.DamagedSnapshot):
            snapshots.load(path, Counting)


def test_a_damaged_snapshot_is_told_and_an_older_one_serves(tmp_path: Path) -> None:
    replica, log, _ = filled()
    older = snapshots.write(tmp_path, replica)
    replica.apply(log.entry(put("/more")))
    newer = snapshots.write(tmp_path, replica)
    newer.write_bytes(newer.read_bytes()[:-1] + b"x")
    told: list[Exception] = []
    restored = snapshots.restore(tmp_path, Counting, LOG, damaged=told.append)
    assert restored.offset == int(older.stem)
    assert newer.name in str(told[0])


def test_a_snapshot_of_another_log_is_refused(tmp_path: Path) -> None:
    replica, _, _ = filled()
    snapshots.write(tmp_path, replica)
    with pytest.raises(ForeignLog, match="cd" * 16):
        snapshots.restore(tmp_path, Counting, "cd" * 16)


def test_prune_keeps_the_newest_two_and_one_per_many_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "EVENTS_APART", 10)
    replica, log, _ = filled(0)
    for count in range(1, 46):
        replica.apply(log.entry(put(f"/{count}")))
        if count % 5 == 0:
            snapshots.write(tmp_path, replica)
            snapshots.prune(tmp_path)
    assert [snapshots.head_of(path).events for path in snapshots.files(tmp_path)] == [10, 20, 30, 40, 45]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, _, _ = filled()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        snapshots.write(tmp_path, replica)
    assert list(tmp_path.iterdir()) == []


async def test_an_operators_void_further_on_lets_a_fresh_replica_pass() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from streams import voids

    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    log, memory = Writer(), MemoryLog()
    memory.put(log.entry(say(says.LogOpened(id=LOG, operator_key=public)), writer="node@m").raw)
    memory.put(log.entry(opened()).raw)
    memory.put(log.entry(put("boom")).raw)
    forged = say(says.LogVoided(2, "no", "00" * 64))
    memory.put(log.entry(forged).raw)
    assert await voids.foreseen(memory, 0, LOG, public) == {}
    signature = voids.sign(key.private_bytes_raw(), LOG, 2, "it booms")
    memory.put(log.entry(say(says.LogVoided(2, "it booms", signature))).raw)
    replica = Replica(Counting())
    replica.foreseen = await voids.foreseen(memory, 0, LOG, public)
    for entry in memory.entries:
        replica.apply(entry)
    assert replica.log.voided == {2: "it booms"}


def test_what_fails_in_the_middle_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, _, _ = filled()

    def encode(self: Counting) -> Iterator[bytes]:
        yield b"/0,"
        raise ZeroDivisionError

    monkeypatch.setattr(Counting, "encode", encode)
    with pytest.raises(ZeroDivisionError):
        snapshots.write(tmp_path, replica)
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_come_back_otherwise_than_they_were_written_are_not_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, _, _ = filled()
    written = snapshots._write_state

    def spoilt(file: BinaryIO, state: Replica) -> tuple[str, int]:
        at = file.tell()
        told = written(file, state)
        file.seek(at + 20)
        file.write(b"?")
        return told

    monkeypatch.setattr(snapshots, "_write_state", spoilt)
    with pytest.raises(OSError, match="gives back other bytes than were written"):
        snapshots.write(tmp_path, replica)
    assert list(tmp_path.iterdir()) == []


def test_half_written_files_of_the_dead_are_pruned_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    name = f".{7:020d}.snap"
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"{name}.{pid}").write_bytes(b"half")
    (tmp_path / ".other").touch()
    assert snapshots.prune(tmp_path) == [tmp_path / f"{name}.{ended.pid}"]
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{os.getpid()}", ".other"}
    assert snapshots.prune(tmp_path / "none") == []


def test_one_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, log, _ = filled()
    older = replica.state_hash()
    snapshots.write(tmp_path, replica)
    replica.apply(log.entry(put("/later")))
    newest = snapshots.write(tmp_path, replica)
    load, told = snapshots.load, list[str]()

    def bad_sector(path: Path, make: type[Counting]) -> Replica:
        if path == newest:
            raise OSError(5, "Input/output error")
        return load(path, make)

    monkeypatch.setattr(snapshots, "load", bad_sector)
    found = snapshots.restore(tmp_path, Counting, LOG, damaged=lambda error: told.append(str(error)))
    assert found.state_hash() == older
    assert told == [f"{newest} can't be read: [Errno 5] Input/output error"]
    oldest = snapshots.oldest(tmp_path, Counting, LOG, 0)
    assert oldest is not None
    assert oldest.state_hash() == older


def test_one_of_a_newer_feature_level_halts_who_reads_it(tmp_path: Path) -> None:
    replica, _, _ = filled()
    replica.log.level = LEVEL + 1
    path = snapshots.write(tmp_path, replica)
    with pytest.raises(Halt, match=f"feature level {LEVEL + 1}, newer than {LEVEL}; upgrade corelog"):
        snapshots.restore(tmp_path, Counting, LOG)
    assert path.exists()


def test_a_log_founded_at_a_newer_feature_level_halts_who_reads_it() -> None:
    replica = Replica(Counting())
    with pytest.raises(Halt, match=f"feature level {LEVEL + 1} is newer than {LEVEL}; upgrade corelog"):
        replica.apply(Writer().entry(say(says.LogOpened(id=LOG, level=LEVEL + 1)), writer="node@m"))
