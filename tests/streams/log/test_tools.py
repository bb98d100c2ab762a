"""verify, copy, move, void and trim, on memory and on segments."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streams import snapshots, voids
from streams.events import encode, say
from streams.events import kv as kv_says
from streams.events import log as says
from streams.log import tools, tools_move
from streams.log.founding import found, identity
from streams.log.memory import MemoryLog
from streams.log.port import ForeignLog, Log
from streams.log.segments import SegmentsLog
from streams.log.tools_read import speak, stretch
from streams.records import CHAIN_START, Entry, Record, chained
from streams.replay import Replica
from tests.folds import Counting
from tests.streams.log.folders import forget_the_end
from tests.streams.log.test_segments_damage import frames_of

KEY = "11" * 32
PUBLIC = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(KEY)).public_key().public_bytes_raw().hex()
LOG_ID = "ab" * 16


class Teller:
    """A writer of ours: opens an incarnation, then puts keys."""

    def __init__(self, log: Log, writer: str = "kv@m1") -> None:
        self.log = log
        self.writer = writer
        self.seq = 0

    async def say(self, *events: object) -> int:
        self.seq += 1
        stream = events[0].data.STREAM  # type: ignore[attr-defined]
        payload = encode(list(events))  # type: ignore[arg-type]
        record = Record(LOG_ID, stream, self.writer, 1, self.seq, 1_700_000_000_000 + self.seq, payload)
        (offset,) = await self.log.append([record])
        return offset

    async def open(self) -> None:
        await self.say(say(says.ActorOpened("n")))

    async def put(self, count: int) -> None:
        for number in range(count):
            await self.say(say(kv_says.Set(key=f"/k/{number}", value="x" * 50)))


@pytest.fixture(params=["memory", "segments"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    made: Log = MemoryLog()
    if request.param == "segments":
        made = await SegmentsLog.open(tmp_path / "source", {"segment_bytes": "4096"})
    await found(made, PUBLIC, LOG_ID)
    yield made
    await made.close()


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[SegmentsLog]:
    made = await SegmentsLog.open(tmp_path / "target", {"segment_bytes": "4096"})
    yield made
    await made.close()


async def everything(log: Log) -> list[Entry]:
    return [entry async for batch in stretch(log, await log.first(), await log.end()) for entry in batch]


async def replayed(log: Log, end: int | None = None) -> Replica:
    replica = Replica(Counting())
    for entry in await everything(log):
        if end is None or entry.offset < end:
            replica.apply(entry)
    return replica


async def hole(log: Log, count: int) -> None:
    if isinstance(log, MemoryLog):
        log.skip(count)
    else:
        assert isinstance(log, SegmentsLog)
        await log.leave_hole(count)


# --- verify


async def test_verify_counts_and_folds_what_a_replica_folds(log: Log) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(30)
    await hole(log, 3)
    await teller.put(10)
    replica = await replayed(log)
    chain = replica.log.chain.hex()
    await teller.say(say(says.Checkpoint("counting", f"{replica.offset}.0", chain, "")))
    report = await tools.verify(log)
    assert report.whole
    assert report.exit_code == 0
    assert (report.log_id, report.operator_key) == (LOG_ID, PUBLIC)
    assert (report.records, report.holes, report.foreign, report.checkpoints) == (43, 3, 0, 1)
    assert report.streams == {"log": 3, "kv": 40}
    assert (report.first, report.end) == (0, await log.end())
    assert report.chain == (await replayed(log)).log.chain.hex()
    assert report.text().endswith("whole")
    if isinstance(log, SegmentsLog):
        by_files = await tools.verify(log.folder)
        assert (by_files.chain, by_files.records, by_files.holes) == (report.chain, 43, 3)
        assert by_files.segments > 1


async def test_verify_finds_a_checkpoint_that_differs(log: Log) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(5)
    await teller.say(say(says.Checkpoint("counting", "4.0", "00" * 32, "")))
    report = await tools.verify(log)
    assert [(trouble.kind, trouble.offset) for trouble in report.troubles] == [("checkpoint", 7)]
    assert report.exit_code == 1


async def test_verify_finds_what_replicas_would_halt_at(log: Log) -> None:
    teller = Teller(log)
    await teller.open()
    bad = Record(LOG_ID, "kv", "kv@m1", 1, 99, 1, b'[{"type":"kv.nonsense.v9","data":{}}]')
    (offset,) = await log.append([bad])
    report = await tools.verify(log)
    assert [(trouble.kind, trouble.offset) for trouble in report.troubles] == [("undecodable", offset)]
    assert "kv.nonsense.v9" in report.text()
    await tools.void(log, offset, "written by a broken tool", KEY)
    healed = await tools.verify(log)
    assert healed.whole
    assert healed.voided == 1


async def test_verify_names_a_torn_tail(tmp_path: Path) -> None:
    log = await SegmentsLog.open(tmp_path / "log")
    await found(log, PUBLIC, LOG_ID)
    teller = Teller(log)
    await teller.open()
    await teller.put(3)
    await log.close()
    folder = log.folder
    (segment,) = folder.glob("*.seg")
    last = frames_of(segment)[-1]
    raw = segment.read_bytes()
    for size in (last.byte + 3, last.byte + last.size_bytes - 1):
        segment.write_bytes(raw[:size])
        known = await tools.verify(folder)
        assert [(each.kind, each.byte, each.offset) for each in known.troubles] == [("damaged", last.byte, last.first)]
    forget_the_end(folder)
    report = await tools.verify(folder)
    (trouble,) = report.troubles
    assert (trouble.kind, trouble.byte, trouble.offset) == ("torn", last.byte, last.first)
    assert trouble.segment == str(segment)
    assert f"byte {last.byte}" in report.text()
    assert report.records == 4


async def test_verify_names_every_flipped_bit_of_a_header(tmp_path: Path) -> None:
    log = await SegmentsLog.open(tmp_path / "log")
    await found(log, PUBLIC, LOG_ID)
    teller = Teller(log)
    await teller.open()
    await teller.put(2)
    await log.close()
    forget_the_end(log.folder)
    (segment,) = log.folder.glob("*.seg")
    last = frames_of(segment)[-1]
    raw = segment.read_bytes()[: last.byte + last.size_bytes + 100]
    segment.write_bytes(raw)
    for frame, kind in ((frames_of(segment)[1], "damaged"), (frames_of(segment)[-1], "torn")):
        for bit in range(32 * 8):
            hit = bytearray(raw)
            hit[frame.byte + bit // 8] ^= 1 << bit % 8
            segment.write_bytes(hit)
            (trouble,) = (await tools.verify(log.folder)).troubles
            assert (trouble.kind, trouble.byte, trouble.offset) == (kind, frame.byte, frame.first)


async def test_verify_of_a_folder_runs_beside_writers(tmp_path: Path) -> None:
    log = await SegmentsLog.open(tmp_path / "log", {"segment_bytes": "4096"})
    await found(log, PUBLIC, LOG_ID)
    teller = Teller(log)
    await teller.open()
    writing = asyncio.ensure_future(teller.put(150))
    while not writing.done():
        report = await tools.verify(log.folder)
        assert report.whole, report.text()
        await asyncio.sleep(0.05)
    await writing
    assert (await tools.verify(log.folder)).records == 152
    await log.close()


async def test_verify_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await tools.verify(tmp_path / "nowhere")


async def test_verify_finds_a_record_that_was_put_in_the_place_of_another(tmp_path: Path) -> None:
    """Checksums hold, the chain doesn't."""
    log = await SegmentsLog.open(tmp_path / "log")
    await found(log, PUBLIC, LOG_ID)
    teller = Teller(log)
    await teller.open()
    await teller.put(5)
    replica = await replayed(log)
    await teller.say(say(says.Checkpoint("counting", f"{replica.offset}.0", replica.log.chain.hex(), "")))
    forged = MemoryLog()
    for entry in await everything(log):
        forged.put(entry.raw.replace(b"/k/3", b"/k/9"))
    assert (await tools.verify(log)).whole
    assert [trouble.kind for trouble in (await tools.verify(forged)).troubles] == ["checkpoint"]
    await log.close()


# --- copy


async def test_a_copy_keeps_positions_times_holes_foreign_records_and_chain(log: Log, target: SegmentsLog) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(20)
    await hole(log, 7)
    if isinstance(log, MemoryLog):
        log.put(b"hello from elsewhere")
    await teller.put(20)
    copied = await tools.copy(log, target)
    assert await everything(target) == await everything(log)
    assert (await target.first(), await target.end()) == (0, await log.end())
    assert (await replayed(target)).state_hash() == (await replayed(log)).state_hash()
    chain = CHAIN_START
    for entry in await everything(log):
        chain = chained(chain, entry.raw)
    assert copied.chain == chain.hex()
    assert (await tools.verify(target.folder)).whole


async def test_a_copy_goes_on_where_it_ended(log: Log, target: SegmentsLog) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(5)
    assert (await tools.copy(log, target)).records == 7
    await teller.put(5)
    assert (await tools.copy(log, target)).records == 5
    assert (await tools.copy(log, target)).records == 0
    assert await everything(target) == await everything(log)


async def test_a_copy_of_a_trimmed_log_begins_where_it_begins(log: Log, target: SegmentsLog) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(60)
    await log.trim(40)
    assert await log.first() > 0
    await tools.copy(log, target)
    assert await target.first() == await log.first()
    assert await everything(target) == await everything(log)
    assert (await tools.verify(target.folder)).whole
    again = MemoryLog()
    await tools.copy(target, again)
    assert await everything(again) == await everything(log)


async def test_a_copy_that_ends_with_a_hole(log: Log, target: SegmentsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.tools_read.HOLE_AFTER_S", 0.05)
    await hole(log, 4)
    await tools.copy(log, target)
    assert await target.end() == await log.end() == 5


async def test_looking_at_a_log_that_ends_with_a_hole_waits_for_nobody(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.log.tools_read.HOLE_AFTER_S", 0.05)
    await hole(log, 4)
    async with asyncio.timeout(60):
        assert await voids.foreseen(log, 0, LOG_ID, PUBLIC) == {}
        assert (await tools.verify(log)).whole


async def test_a_target_with_other_records_is_refused_and_left_as_it_is(log: Log, target: SegmentsLog) -> None:
    await found(target, PUBLIC, "cd" * 16)
    before = await everything(target)
    with pytest.raises(ForeignLog, match="holds other records"):
        await tools.copy(log, target)
    assert await everything(target) == before


class Picky(MemoryLog):
    """A driver that can't hold all bytes, as Kafka's."""

    def check_raw(self, raw: bytes) -> None:
        if not raw.startswith(b"CORELOG"):
            raise ValueError("not on this driver")


async def test_bytes_that_the_target_cant_hold_are_refused_before_it_is_touched() -> None:
    source, target = MemoryLog(), Picky()
    await found(source, PUBLIC, LOG_ID)
    source.put(b"hello")
    with pytest.raises(ForeignLog, match="record 1 can't be written"):
        await tools.copy(source, target)
    assert await target.end() == 0


async def test_a_copy_goes_on_in_the_middle_of_a_hole_and_of_the_holes_before_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.log.tools_read.HOLE_AFTER_S", 0.01)
    source = MemoryLog()
    await found(source, PUBLIC, LOG_ID)
    teller = Teller(source)
    await teller.open()
    await teller.put(5)
    source.skip(9)
    await teller.put(5)
    whole = MemoryLog()
    await tools.copy(source, whole)
    for cut in range(7, 17):
        part = MemoryLog()
        await tools.copy(source, part, until=cut)
        await tools.copy(source, part)
        assert part.entries == source.entries
    await source.trim(6)
    for done in range(7):
        part = MemoryLog()
        part.skip(done)
        await tools.copy(source, part)
        assert (await part.first(), part.entries) == (6, source.entries)


async def test_records_alike_at_other_places_are_not_a_copy() -> None:
    source, target = MemoryLog(), MemoryLog()
    await found(source, PUBLIC, LOG_ID)
    target.put(source.entries[0].raw)
    for log, skipped in ((source, 1), (target, 2)):
        log.skip(skipped)
        log.put(b"hello")
    source.put(b"more")
    with pytest.raises(ForeignLog, match="holds other records"):
        await tools.copy(source, target)


# --- move


async def test_a_log_is_moved_while_it_is_written_and_the_state_at_the_seal_is_kept(
    log: Log, target: SegmentsLog
) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(50)
    writing = asyncio.ensure_future(teller.put(100))
    moved = await tools.move(log, target, {"counting": Counting})
    await writing
    entries = await everything(log)
    assert b"log.sealed" in entries[moved.sealed_at].raw
    at_the_seal = [entry for entry in entries if entry.offset < moved.sealed_at]
    copied = await everything(target)
    assert copied[:-1] == at_the_seal
    assert copied[-1].offset == moved.sealed_at, "positions go on"
    old, new = await replayed(log, moved.sealed_at), await replayed(target, moved.sealed_at)
    assert old.state_hash() == new.state_hash() == moved.state_hashes["counting"]
    # what came after the seal is void in the old log
    before = len(old.fold.keys)  # type: ignore[attr-defined]
    assert (await replayed(log)).fold.keys == old.fold.keys  # type: ignore[attr-defined]
    # the new one is founded as the same log and takes records
    assert (await identity(target)).id == LOG_ID  # type: ignore[union-attr]
    onward = Teller(target, "kv@m2")
    await onward.open()
    await onward.put(1)
    grown = await replayed(target)
    assert len(grown.fold.keys) == before + 1  # type: ignore[attr-defined]
    assert (await tools.verify(target.folder)).whole
    report = await tools.verify(log)
    assert (report.sealed_at, report.sealed_next) == (moved.sealed_at, target.address)


@pytest.mark.parametrize("step", ["begin", "carry", "_compare", "speak", "open_anew", "check_opened"])
async def test_a_move_that_was_interrupted_is_finished_by_the_next(
    log: Log, target: SegmentsLog, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(10)

    async def killed(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tools_move, step, killed)
        task = tools.move(log, target, {"counting": Counting})
        with pytest.raises(KeyboardInterrupt):
            await task
    await teller.put(3)
    moved = await tools.move(log, target, {"counting": Counting})
    again = await tools.move(log, target, {"counting": Counting})
    assert again == moved
    assert len(await everything(target)) == moved.sealed_at + 1
    assert sum(b"log.sealed" in entry.raw for entry in await everything(log)) == 1


async def test_a_log_sealed_for_another_is_not_moved_elsewhere(log: Log, target: SegmentsLog) -> None:
    await speak(log, LOG_ID, says.LogSealed("kafka://elsewhere"))
    with pytest.raises(ForeignLog, match="goes on at kafka://elsewhere"):
        await tools.move(log, target)
    assert await target.end() == 0


async def test_a_log_that_was_never_founded_is_not_moved(target: SegmentsLog) -> None:
    with pytest.raises(ForeignLog, match="never founded"):
        await tools.move(MemoryLog(), target)


# --- void


async def test_an_operators_void_lets_replicas_pass(log: Log) -> None:
    teller = Teller(log)
    await teller.open()
    offset = await teller.say(say(kv_says.Set(key="boom")))
    await teller.put(1)
    said_at = await tools.void(log, offset, "it kills the fold", KEY)
    replica = Replica(Counting())
    replica.foreseen = {offset: "it kills the fold"}
    for entry in await everything(log):
        replica.apply(entry)
    assert replica.log.voided == {offset: "it kills the fold"}
    assert replica.offset == said_at


@pytest.mark.parametrize(
    ("offset", "reason", "key", "words"),
    [
        (1, "why", "22" * 32, "not the key"),
        (1, "why", "xyz", "64 hex digits"),
        (1, "why", "11", "64 hex digits"),
        (1, " ", KEY, "needs a reason"),
        (99, "why", KEY, "no record 99"),
        (-1, "why", KEY, "no record -1"),
    ],
)
async def test_a_void_that_cannot_be_writes_nothing(log: Log, offset: int, reason: str, key: str, words: str) -> None:
    await Teller(log).open()
    end = await log.end()
    with pytest.raises(tools.NotAllowed, match=words):
        await tools.void(log, offset, reason, key)
    assert await log.end() == end


# --- trim


async def snapshot(log: Log, folder: Path, fold: str = "counting") -> int:
    replica = await replayed(log)
    snapshots.write(folder / fold, replica)
    return replica.offset


async def test_trim_needs_two_snapshots_and_leaves_an_archive_that_is_whole(log: Log, tmp_path: Path) -> None:
    folder, archive = tmp_path / "snapshots", tmp_path / "archive"
    teller = Teller(log)
    await teller.open()
    await teller.put(60)
    everything_before = await everything(log)
    one = await snapshot(log, folder)
    with pytest.raises(tools.NotAllowed, match=r"two snapshots of counting.*there are 1"):
        await tools.trim(log, 50, archive, folds=("counting",), snapshots=folder)
    await teller.put(5)
    two = await snapshot(log, folder)
    with pytest.raises(tools.NotAllowed, match="nothing to trim"):
        await tools.trim(log, 0, archive, folds=("counting",), snapshots=folder)
    with pytest.raises(tools.NotAllowed, match="there are 1"):
        await tools.trim(log, two, archive, folds=("counting",), snapshots=folder)
    assert await log.first() == 0
    assert not archive.exists()
    done = await tools.trim(log, one, archive, folds=("counting",), snapshots=folder)
    assert (done.first_before, done.archived) == (0, one)
    assert 0 < done.first == await log.first() <= one
    kept = await SegmentsLog.open(archive)
    assert await everything(kept) == everything_before[:one]
    await kept.close()
    opened = await identity(log)
    assert opened is not None
    assert (opened.id, opened.operator_key) == (LOG_ID, PUBLIC), "it still tells whose log it is"
    assert (await tools.verify(log)).whole
    # a restart: the snapshot, the record that it ends with, and what follows
    replica = snapshots.restore(folder / "counting", Counting, LOG_ID)
    rest = [entry for entry in await everything(log) if entry.offset >= replica.offset]
    replica.confirm(rest[0])
    for entry in rest[1:]:
        replica.apply(entry)
    assert replica.offset == await log.end() - 1
    # and once more, later: the archive goes on
    await teller.put(40)
    await snapshot(log, folder)
    await teller.put(1)
    await snapshot(log, folder)
    again = await tools.trim(log, one + 30, archive, folds=("counting",), snapshots=folder)
    assert again.archived == 30
    assert (await tools.verify(archive)).end == one + 30


async def test_a_damaged_snapshot_counts_for_nothing(log: Log, tmp_path: Path) -> None:
    teller = Teller(log)
    await teller.open()
    await teller.put(20)
    await snapshot(log, tmp_path / "snapshots")
    await teller.put(1)
    offset = await snapshot(log, tmp_path / "snapshots")
    file = tmp_path / "snapshots" / "counting" / f"{offset:020d}.snap"
    raw = bytearray(file.read_bytes())
    raw[-40] ^= 1
    file.write_bytes(raw)
    with pytest.raises(tools.NotAllowed, match="there are 1"):
        await tools.trim(log, 10, tmp_path / "archive", folds=("counting",), snapshots=tmp_path / "snapshots")


async def test_in_a_cluster_two_machines_must_have_announced_a_snapshot(tmp_path: Path) -> None:
    class Cluster(MemoryLog):
        end_is_linearizable = False  # type: ignore[assignment]

    log = Cluster()
    await found(log, PUBLIC, LOG_ID)
    one, two = Teller(log, "gateway@m1"), Teller(log, "gateway@m2")
    await one.open()
    await two.open()
    await one.put(10)
    await one.say(say(says.SnapshotTaken("kv", "9.0", "")))
    await one.say(say(says.SnapshotTaken("kv", "11.0", "")))
    with pytest.raises(tools.NotAllowed, match="a snapshot on two machines of kv"):
        await tools.trim(log, 9, tmp_path / "archive", folds=("kv",))
    await two.say(say(says.SnapshotTaken("kv", "10.0", "")))
    done = await tools.trim(log, 9, tmp_path / "archive", folds=("kv",))
    assert done.first == 9


async def test_an_archive_of_another_log_is_refused_and_nothing_trimmed(log: Log, tmp_path: Path) -> None:
    other = await SegmentsLog.open(tmp_path / "archive")
    await found(other, PUBLIC, "cd" * 16)
    await other.close()
    teller = Teller(log)
    await teller.open()
    await teller.put(20)
    await snapshot(log, tmp_path / "snapshots")
    await teller.put(1)
    await snapshot(log, tmp_path / "snapshots")
    with pytest.raises(ForeignLog, match="other records"):
        await tools.trim(log, 10, tmp_path / "archive", folds=("counting",), snapshots=tmp_path / "snapshots")
    assert await log.first() == 0


async def test_who_is_cancelled_while_a_stretch_waits_is_cancelled_and_nothing_else() -> None:
    """The tail was closed while it still ran, which is a RuntimeError."""
    log = MemoryLog()
    log.put(b"one")
    log.skip(5)

    async def read() -> None:
        async for _ in stretch(log, 0, await log.end()):
            pass

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
