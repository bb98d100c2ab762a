"""Segments with several processes: killed writers, wake-ups, forks, a full disk, what is refused."""

import asyncio
import contextlib
import gc
import hashlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.log.port import RECORD_BYTES_MAX, ForeignLog, LogUnavailable
from streams.log.segments import ForkedLog, SegmentsLog, driver, files
from streams.records import Entry, parse
from tests import needs
from tests.contract.drivers import record
from tests.contract.test_port import take
from tests.streams.log.folders import opened, read, write

ROOT = Path(__file__).parents[3]


# --- killed writers


async def kill_writers(tmp_path: Path, seconds: float, seed: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.streams.log.kill_writers", str(tmp_path), str(seconds), str(seed),
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    log = await SegmentsLog.open(tmp_path / "log")
    live = hashlib.blake2b()
    seen = 0

    async def follow() -> None:
        nonlocal seen
        async for batch in log.tail(0):
            for entry in batch:
                assert entry.offset == seen
                live.update(entry.raw)
                seen += 1

    following = asyncio.ensure_future(follow())
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert int(out) > seconds
    end = await log.end()
    async with asyncio.timeout(60):
        while seen < end:
            assert not following.done(), following.exception()
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await log.close()

    entries = read(tmp_path / "log")
    again = hashlib.blake2b()
    for entry in entries[:seen]:
        again.update(entry.raw)
    assert again.digest() == live.digest(), "order is one for all readers"
    by_offset = {entry.offset: parse(entry) for entry in entries}
    acknowledged = 0
    for acks in (tmp_path / "acks").iterdir():
        for line in acks.read_text().splitlines():
            offset, seq = map(int, line.split())
            found = by_offset[offset]
            assert (found.writer, found.seq) == (f"{acks.name}@m", seq), f"offset {offset}"
            acknowledged += 1
    assert acknowledged > 100
    written = [(each.writer, each.seq) for each in by_offset.values()]
    assert len(set(written)) == len(written), "no record is there twice"


async def test_nothing_acknowledged_is_lost_by_killed_writers(tmp_path: Path) -> None:
    await kill_writers(tmp_path, 10, seed=1)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_by_killed_writers_for_a_minute(tmp_path: Path) -> None:
    await kill_writers(tmp_path, 60, seed=2)


# --- wake-ups

READER = """
import asyncio, sys
from streams.log.segments import SegmentsLog
from streams.log.segments import driver

driver.SAFETY_S = 1000.0  # only the socket may wake it

async def main():
    log = await SegmentsLog.open(sys.argv[1])
    print("ready", flush=True)
    async for batch in log.tail(0):
        for entry in batch:
            print(entry.offset, flush=True)
        if entry.raw.startswith(b"end"):
            break
    await log.close()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def reader(folder: Path):  # type: ignore[no-untyped-def]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, str(folder), cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_reader_in_another_process_is_woken_by_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("a-folder-with-a-long-name-" * 4) / "log"
    log = await opened(folder)
    async with asyncio.timeout(60), reader(folder) as one, reader(folder) as two:
        for seq in range(1, 21):
            (offset,) = await log.append([record(seq)])
            for process in (one, two):
                assert await process.stdout.readline() == b"%d\n" % offset
        await log.append_raw([b"end"])
        for process in (one, two):
            assert await process.wait() == 0
    assert not list((folder / "wake").iterdir()), "sockets are removed at close"
    await log.close()


async def test_a_killed_readers_socket_is_removed_by_the_next_append(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = await opened(folder)
    async with asyncio.timeout(60), reader(folder) as process:
        await log.append([record(1)])
        assert await process.stdout.readline() == b"0\n"
        assert len(list((folder / "wake").iterdir())) == 1
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await log.append([record(2)])
        while list((folder / "wake").iterdir()):
            await asyncio.sleep(0.001)
    await log.close()


async def test_a_wake_up_that_nobody_sent_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer killed between publishing and waking."""
    monkeypatch.setattr(driver, "SAFETY_S", 0.05)
    log = await opened(tmp_path / "log")
    waiting = asyncio.ensure_future(take(log, 0, 1))
    await asyncio.sleep(0.01)
    await asyncio.to_thread(write, tmp_path / "log", 1)
    assert [entry.offset for entry in await waiting] == [0]
    await log.close()


# --- forks


def in_child(work: object) -> str:
    """Run in a forked child; returns what it says."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()  # type: ignore[operator]
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(send, said.encode())
        os._exit(0)
    os.close(send)
    os.waitpid(pid, 0)
    with os.fdopen(receive) as pipe:
        return pipe.read()


def run_now(coroutine: object) -> str:
    """Drives a coroutine that ends before it waits for anything."""
    try:
        coroutine.send(None)  # type: ignore[attr-defined]
    except StopIteration:
        return "it was done"
    return "it waits"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "verb",
    [
        lambda log: log.append([record(2)]),
        lambda log: log.append_raw([b"x"]),
        lambda log: log.end(),
        lambda log: log.first(),
        lambda log: log.trim(1),
        lambda log: anext(log.tail(0)),
    ],
    ids=["append", "append_raw", "end", "first", "trim", "tail"],
)
async def test_a_handle_from_before_a_fork_is_refused_in_the_child(tmp_path: Path, verb: object) -> None:
    log = await opened(tmp_path / "log")
    await log.append([record(1)])
    said = in_child(lambda: run_now(verb(log)))  # type: ignore[operator]
    assert said.startswith("ForkedLog: ")
    assert "open the log in the child" in said
    assert await log.append([record(2)]) == [1]
    await log.close()
    assert issubclass(ForkedLog, Exception)


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    needs.root()
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "corelog-test", str(mount)], capture_output=True, text=True
    )
    if done.returncode != 0:
        needs.missing(f"a tmpfs can't be mounted here: {done.stderr.strip()}")
    yield mount
    gc.collect()  # errors that a test caught refer to the frames, and those to the files, that raised them
    subprocess.run(["umount", str(mount)], check=True)


async def append_for_ever(log: SegmentsLog, size: int) -> None:
    for seq in itertools.count(1):
        await log.append([record(seq, text="x" * size)])


async def test_a_full_disk_refuses_and_writing_goes_on_after_space_returns(small_disk: Path) -> None:
    folder = small_disk / "log"
    log = await opened(folder, segment_bytes=str(1 << 20))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    with pytest.raises(LogUnavailable, match=r"full|space"):
        await append_for_ever(log, 10_000)
    end = await log.end()
    assert end > 20
    # a renewal still gets through: it uses what was set aside
    small = [(await log.append([record(seq, text="small")]))[0] for seq in range(2000, 2050)]
    assert small == list(range(end, end + 50))
    # the small ones end too when even that is used up, and nothing of them is half there
    with pytest.raises(LogUnavailable, match=r"full|space"):
        await append_for_ever(log, 3000)
    full = await log.end()
    reading = await opened(folder)
    assert len(await take(reading, 0, full)) == full
    await reading.close()
    ballast.unlink()
    (after,) = await log.append([record(9000, text="x" * 10_000)])
    assert after == full
    await log.close()
    entries = read(folder)
    assert [entry.offset for entry in entries] == list(range(full + 1))
    assert entries[-1] == Entry(after, record(9000, text="x" * 10_000).canonical())


async def test_a_log_can_not_be_made_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(4 * 1024 * 1024 - 4096))
    with pytest.raises(LogUnavailable, match="No space left"):
        await opened(small_disk / "log")
    (small_disk / "ballast").unlink()
    log = await opened(small_disk / "log")
    assert await log.append([record(1)]) == [0]
    await log.close()


# --- what is refused, and the edges


@pytest.mark.parametrize("kind", sorted(files.REMOTE_FILESYSTEMS))
async def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    monkeypatch.setattr(files, "filesystem_type", lambda path: kind)
    with pytest.raises(ForeignLog, match="local disk"):
        await opened(tmp_path / "log")


def test_the_file_systems_of_this_machine_are_told_apart() -> None:
    assert files.filesystem_type(Path("/proc")) == 0x9FA0
    assert files.filesystem_type(Path("/proc")) not in files.REMOTE_FILESYSTEMS


@pytest.mark.parametrize("options", [{"segment_byte": "1"}, {"segment_bytes": "12"}, {"segment_bytes": "many"}])
async def test_wrong_options_are_named(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ForeignLog, match="segment_bytes"):
        await SegmentsLog.open(tmp_path / "log", options)
    assert not (tmp_path / "log").exists()


async def test_a_path_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("mine")
    with pytest.raises(LogUnavailable, match="log: File exists"):
        await opened(tmp_path / "log")


async def test_segments_rotate_and_a_tail_runs_through_all_of_them(tmp_path: Path) -> None:
    log = await opened(tmp_path / "log", segment_bytes="4096")
    other = await opened(tmp_path / "log", segment_bytes="4096")
    following = asyncio.ensure_future(take(other, 0, 200))
    wanted = []
    for seq in range(1, 201):
        each = record(seq, text="x" * (seq * 7 % 900))
        (offset,) = await log.append([each])
        wanted.append(Entry(offset, each.canonical()))
    assert await following == wanted
    segments = sorted((tmp_path / "log").glob("*.seg"))
    assert len(segments) > 10
    for start in (0, 1, 57, 133, 199):
        assert await take(log, start, 200 - start) == wanted[start:]
    sealed = segments[:-1]
    assert all(path.stat().st_size < 4096 + 1200 for path in sealed), "sealed segments have no space ahead"
    await log.close()
    await other.close()


async def test_a_large_replay_comes_in_batches_and_in_order(tmp_path: Path) -> None:
    log = await opened(tmp_path / "log", segment_bytes=str(1 << 20))
    records = [record(seq, text="x" * (seq % 90)) for seq in range(1, 20_001)]
    await log.append(records)
    large = record(1, text="y" * (RECORD_BYTES_MAX - 1000))
    await log.append([large])
    entries = await take(log, 3, 19_998)
    assert [entry.offset for entry in entries] == list(range(3, 20_001))
    assert [entry.raw for entry in entries] == [each.canonical() for each in [*records[3:], large]]
    await log.close()


async def test_a_closed_log_says_so_and_its_tails_end(tmp_path: Path) -> None:
    log = await opened(tmp_path / "log")
    await log.append([record(1)])
    tail = log.tail(0)
    assert len(await anext(tail)) == 1
    waiting = asyncio.ensure_future(anext(tail, None))
    await asyncio.sleep(0)
    last = asyncio.ensure_future(log.append([record(2)]))
    await asyncio.sleep(0)
    await log.close()
    assert await last == [1], "what was under way lands"
    async with asyncio.timeout(60):
        await waiting
    with pytest.raises(LogUnavailable, match="closed"):
        await log.append([record(3)])
