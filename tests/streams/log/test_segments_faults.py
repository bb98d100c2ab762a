"""kill -9 and failing disks at every step of a commit, one step after another."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.log.port import LogError, LogUnavailable, OutcomeUnknown
from streams.log.segments import SegmentsLog, commits, files
from streams.log.segments.driver import _opened
from streams.log.segments.shared import FAILED, WRITING, SharedEnd
from streams.log.segments.writer import Writer
from streams.records import Entry
from tests.contract.drivers import record
from tests.streams.log.faults import Killed, Steps
from tests.streams.log.folders import opened, read, write

COMMITS = 14
SEGMENT_BYTES = 700


def raw(number: int) -> bytes:
    return record(number, text="x" * 150).canonical()


def committed(writer: Writer, number: int) -> list[Entry]:
    return [Entry(writer.commit([raw(number)]), raw(number))]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_step_nothing_acknowledged_is_lost(tmp_path: Path, after: bool) -> None:
    """Rotations, their steps and every word of shared memory are among the steps."""
    at, killed = 0, True
    while killed:
        at += 1
        folder = tmp_path / f"log-{at}"
        shared, writer = _opened(folder, SEGMENT_BYTES)
        acknowledged: list[Entry] = []

        def kill(step: int, name: str, at: int = at) -> None:
            if step == at:
                raise Killed

        killed = False
        with pytest.MonkeyPatch.context() as patch:
            Steps(kill, after=after).install(patch, shared)
            try:
                for number in range(COMMITS):
                    acknowledged += committed(writer, number)
            except Killed:
                killed = True
        shared.close()
        seen = read(folder)
        assert seen[: len(acknowledged)] == acknowledged
        assert len(seen) <= len(acknowledged) + 1, "what was under way is there or not"
        assert [entry.offset for entry in seen] == list(range(len(seen)))
        later = write(folder, 5, segment_bytes=SEGMENT_BYTES)
        assert read(folder) == seen + later
        assert not list(folder.glob("*.new"))
    assert at > 60, "the walk has met rotations"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_step_another_running_process_goes_on(tmp_path: Path, after: bool) -> None:
    at, killed = 0, True
    while killed:
        at += 1
        folder = tmp_path / f"log-{at}"
        shared, writer = _opened(folder, SEGMENT_BYTES)
        other_shared, other = _opened(folder, SEGMENT_BYTES)
        acknowledged = [Entry(other.commit([raw(100)]), raw(100))]

        def kill(step: int, name: str, at: int = at) -> None:
            if step == at:
                raise Killed

        killed = False
        with pytest.MonkeyPatch.context() as patch:
            Steps(kill, after=after).install(patch, shared)
            try:
                for number in range(COMMITS):
                    acknowledged += committed(writer, number)
            except Killed:
                killed = True
        shared.close()
        for number in range(200, 205):
            acknowledged += committed(other, number)
        seen = read(folder)
        by_offset = dict(seen)
        assert all(by_offset[entry.offset] == entry.raw for entry in acknowledged)
        assert len(seen) <= len(acknowledged) + 1
        assert [entry.offset for entry in seen] == list(range(len(seen)))
        other_shared.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "from-then-on"])
def test_a_step_that_fails_is_told_truly_and_writing_goes_on(tmp_path: Path, number: int, again: bool) -> None:
    """LogUnavailable: it is never seen. OutcomeUnknown: it may be. Either way the next commits land."""
    at, failed = 0, True
    while failed:
        at += 1
        folder = tmp_path / f"log-{at}"
        shared, writer = _opened(folder, SEGMENT_BYTES)
        acknowledged, refused, unknown = [], [], []

        def fail(step: int, name: str, at: int = at) -> None:
            if step == at or (again and step > at):
                raise OSError(number, os.strerror(number))

        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(fail)
            steps.install(patch)
            for index in range(COMMITS):
                try:
                    acknowledged += committed(writer, index)
                except LogUnavailable:
                    refused.append(raw(index))
                except OutcomeUnknown:
                    unknown.append(raw(index))
        failed = steps.count >= at
        for index in range(100, 105):
            acknowledged += committed(writer, index)
        assert shared.state not in (WRITING, FAILED)
        shared.close()
        seen = read(folder)
        by_offset = dict(seen)
        assert all(by_offset[entry.offset] == entry.raw for entry in acknowledged)
        assert not {entry.raw for entry in seen} & set(refused)
        assert len(seen) <= len(acknowledged) + len(unknown)
    assert at > 15


def test_a_failed_sync_seals_the_segment_and_the_machine_may_crash_then(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    entries = write(folder, 3)
    shared, writer = _opened(folder, 1 << 20)
    with pytest.MonkeyPatch.context() as patch:

        def fail(step: int, name: str) -> None:
            if name in ("fdatasync", "ftruncate"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        Steps(fail).install(patch)
        with pytest.raises(OutcomeUnknown, match="cutting it away failed too"):
            writer.commit([raw(50)])
    offset = writer.commit([raw(51)])
    assert offset == 3
    assert len(list(folder.glob("*.seg"))) == 2
    shared.close()
    (folder / "end").unlink()
    assert read(folder) == [*entries, Entry(3, raw(51))], "what stood in the sealed file's tail is void"


async def test_a_slow_disk_stops_neither_the_loop_nor_shows_what_is_not_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, reached = threading.Event(), threading.Event()
    real = files.sync_data

    def slow(fd: int) -> None:
        reached.set()
        assert may_go_on.wait(60)
        real(fd)

    monkeypatch.setattr(files, "sync_data", slow)
    log, other = await opened(tmp_path / "log"), await opened(tmp_path / "log")
    tail = other.tail(0)
    seen = asyncio.ensure_future(anext(tail))
    appending = asyncio.ensure_future(log.append([record(1)]))
    while not reached.is_set():
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert (await other.end(), await log.end()) == (0, 0)
    assert not seen.done()
    assert not appending.done()
    may_go_on.set()
    assert await appending == [0]
    assert await seen == [Entry(0, record(1).canonical())]
    await tail.aclose()
    await log.close()
    await other.close()


async def test_what_is_appended_while_a_sync_is_under_way_shares_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    real = files.sync_data

    def counting(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        real(fd)

    monkeypatch.setattr(files, "sync_data", counting)
    log = await opened(tmp_path / "log")
    await asyncio.gather(*(log.append([record(seq)]) for seq in range(1, 301)))
    assert syncs == 1
    await log.close()


async def test_one_refused_commit_is_told_to_all_that_shared_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await opened(tmp_path / "log")
    await log.append([record(1)])

    def full(fd: int, data: bytes, at: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        results = await asyncio.gather(*(log.append([record(seq)]) for seq in (2, 3, 4)), return_exceptions=True)
    assert all(isinstance(result, LogUnavailable) for result in results)
    assert await log.append([record(5)]) == [1]
    await log.close()


async def test_a_bug_in_a_commit_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened(tmp_path / "log")
    monkeypatch.setattr(files, "write_all", lambda fd, data, at: 1 // 0)
    with pytest.raises(OutcomeUnknown, match="ZeroDivisionError"):
        await log.append([record(1)])
    await log.close()


def test_an_end_file_removed_under_a_running_process_is_noticed(tmp_path: Path) -> None:
    shared, writer = _opened(tmp_path / "log", 1 << 20)
    writer.commit([raw(1)])
    (tmp_path / "log" / "end").unlink()
    with pytest.raises(LogError, match="was removed under a running process"):
        writer.commit([raw(2)])
    shared.close()


def test_a_lock_of_one_handle_excludes_another_of_the_same_process(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder, 1)
    one, two = SharedEnd(folder / "end"), SharedEnd(folder / "end")
    order: list[str] = []

    def second() -> None:
        with two.locked():
            order.append("second")

    with one.locked():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    one.close()
    two.close()


async def handed(log: SegmentsLog, number: int) -> int:
    """Hand over a record for which the loop may stand still; returns its offset."""
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def landed(result: Sequence[Entry] | LogError) -> None:
        if isinstance(result, LogError):
            done.set_exception(result)
        else:
            done.set_result(result[0].offset)

    log.hand([record(number, text="x" * 150)], landed, still=True)
    return await done


async def test_the_loop_stands_still_for_quick_disks_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a slow sync the next one is the thread's, and when that was quick the loop's again."""
    slow_s, threads, real = 0.0, [], files.sync_data

    def sync(fd: int) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        time.sleep(slow_s)
        real(fd)

    log = await opened(tmp_path / "log")
    monkeypatch.setattr(commits, "SLOW_S", 0.5)
    monkeypatch.setattr(files, "sync_data", sync)
    assert [await handed(log, number) for number in (0, 1)] == [0, 1]
    slow_s = 0.6
    assert [await handed(log, number) for number in (2, 3)] == [2, 3]
    slow_s = 0.0
    assert [await handed(log, number) for number in (4, 5)] == [4, 5]
    assert threads == [True, True, True, False, False, True]
    await log.close()
    assert read(tmp_path / "log") == [Entry(number, raw(number)) for number in range(6)]


async def test_the_loop_never_waits_for_another_writer(tmp_path: Path) -> None:
    log = await opened(tmp_path / "log")
    await handed(log, 0)
    other = SharedEnd(tmp_path / "log" / "end")
    with other.locked():
        waiting = asyncio.ensure_future(handed(log, 1))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not waiting.done()
    assert await waiting == 1
    other.close()
    await log.close()


async def test_a_disk_that_fails_under_the_loop_is_told_as_in_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await opened(tmp_path / "log")
    await handed(log, 0)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_data", broken)
        with pytest.raises(LogUnavailable, match="that file is sealed"):
            await handed(log, 1)
    assert await handed(log, 2) == 1
    await log.close()
    assert read(tmp_path / "log") == [Entry(0, raw(0)), Entry(1, raw(2))]
