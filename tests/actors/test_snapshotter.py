"""What the snapshotter writes: each fold as a replay from the start has it, though the log is read once for all."""

import shutil
from pathlib import Path

import pytest

from actors.folds import FOLDS
from actors.setting import Setting
from actors.snapshotter import take
from streams import snapshots
from streams.events import cluster, encode, kv3, say
from streams.events import log as log_says
from streams.events.base import Event
from streams.history.at import state_at
from streams.log.open import open_log
from streams.records import Record
from streams.replay import Halt
from tests.folds import LOG, opened

MACHINE = "ab" * 16


class Written:
    """A log of files and who writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address, self.seq = folder, f"segments://{folder / 'log'}", 0
        self.setting = Setting(
            machine=MACHINE, nonce="n", boot_id="b", folder=str(folder), log=self.address, log_id=LOG
        )

    async def begin(self) -> None:
        await self.append("log", say(log_says.LogOpened(id=LOG)))
        await self.append("log", opened())

    async def append(self, stream: str, *events: object) -> None:
        made: list[Event] = list(events)  # type: ignore[arg-type]
        await self.raw(stream, encode(made))

    async def raw(self, stream: str, payload: bytes) -> None:
        log = await open_log(self.address, {})
        self.seq += 1
        await log.append([Record(LOG, stream, f"kv@{MACHINE}", 1, self.seq, 1000 + self.seq, payload)])
        await log.close()

    async def change(self, number: int) -> None:
        await self.append("kv", say(kv3.Put(f"k{number}", "v")), say(kv3.Put("same", str(number))))
        joined = cluster.MachineJoined(nonce=f"n{number}", boot_id="b", name=f"m{number}")
        await self.append("cluster", say(joined, subject=f"{number:032x}"))

    async def by_replay(self, name: str) -> tuple[int, str]:
        log = await open_log(self.address, {})
        replica = await state_at(log, FOLDS[name])
        await log.close()
        return replica.offset, replica.state_hash()

    def newest(self, name: str) -> Path:
        return snapshots.files(self.folder / "snapshots" / name)[-1]


async def test_each_fold_comes_to_what_a_replay_from_the_start_comes_to(tmp_path: Path) -> None:
    written = Written(tmp_path)
    await written.begin()
    for number in range(4):
        await written.change(number)
        for taken in await take(written.setting):
            assert (taken.offset, taken.state_hash) == await written.by_replay(taken.fold)
            assert snapshots.head_of(written.newest(taken.fold)).state_hash == taken.state_hash
        if number == 1:
            # one goes on from an older snapshot than the other
            written.newest("kv").unlink()
        if number == 2:
            # and one has none at all any more
            for path in snapshots.files(tmp_path / "snapshots" / "control"):
                path.unlink()
    assert await take(written.setting) == [], "nothing came since"


async def test_an_operators_void_further_on_counts_for_all_folds(tmp_path: Path) -> None:
    written = Written(tmp_path)
    await written.begin()
    await written.change(1)
    await written.append("nobody-knows", say(kv3.Put("k", "v")))
    at = written.seq - 1
    await written.change(2)
    with pytest.raises(Halt, match="nobody-knows"):
        await take(written.setting)
    await written.append("log", say(log_says.LogVoided(at, "a program of tomorrow's")))
    assert [taken.fold for taken in await take(written.setting)] == ["control", "kv"]


async def test_a_fold_that_can_not_go_on_does_not_hold_back_others(tmp_path: Path) -> None:
    written = Written(tmp_path)
    await written.begin()
    await written.change(1)
    await written.raw("kv", b'[{"type":"kv.put.v1","data":{"of tomorrow":1}}]')
    await written.change(2)
    with pytest.raises(Halt, match="of tomorrow"):
        await take(written.setting)
    assert snapshots.files(tmp_path / "snapshots" / "kv") == []
    head = snapshots.head_of(written.newest("control"))
    assert (head.offset, head.state_hash) == await written.by_replay("control")


@pytest.mark.parametrize("name", ["control", "kv"])
async def test_a_log_that_differs_where_a_snapshot_ended_is_refused(tmp_path: Path, name: str) -> None:
    written = Written(tmp_path)
    await written.begin()
    await written.change(1)
    await take(written.setting)
    shutil.rmtree(tmp_path / "log")
    other = next(fold for fold in FOLDS if fold != name)
    written.newest(other).unlink()
    written.seq = 0
    await written.begin()
    await written.change(2)
    await written.change(3)
    with pytest.raises(Halt, match="differs from the one that the snapshot was taken of"):
        await take(written.setting)
