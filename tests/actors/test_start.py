"""Opening the log with patience."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from actors import start
from actors.setting import Setting
from streams.log.memory import MemoryLog
from streams.log.port import ForeignLog, Log, LogUnavailable
from streams.records import Record
from tests.folds import Counting


def setting(log: str) -> Setting:
    return Setting(
        machine="ab" * 16, nonce="n", boot_id="b", folder="nowhere", log=log, log_id="", log_options={"a": "b"}
    )


async def test_a_log_that_can_not_be_reached_is_asked_again_until_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, str]]] = []
    really = start.open_log

    async def late(address: str, options: Mapping[str, str] | None = None, checked: str = "") -> Log:
        asked.append((address, dict(options or {})))
        if len(asked) < 3:
            raise LogUnavailable("no broker answers")
        return await really(address)

    monkeypatch.setattr(start, "open_log", late)
    monkeypatch.setattr(start, "OPEN_RETRY_S", 0.001)
    address = f"segments://{tmp_path / 'log'}"
    with capture_logs() as said:
        log = await start.opened(setting(address), "kv")
    await log.close()
    assert asked == [(address, {"a": "b"})] * 3
    told = [(line["actor"], line["log_level"], line["error"]) for line in said]
    assert told == [("kv", "warning", "no broker answers")] * 2


async def test_a_log_that_can_not_be_used_is_not_asked_again() -> None:
    with pytest.raises(ForeignLog):
        await start.opened(setting("ftp://here/log"), "kv")


async def test_a_log_that_is_lost_while_an_actor_begins_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(MemoryLog):
        left = 2

        async def end(self) -> int:
            if self.left:
                self.left -= 1
                raise LogUnavailable("no broker says where the log ends")
            return await super().end()

    monkeypatch.setattr(start, "OPEN_RETRY_S", 0.001)
    log = Lost()
    await log.append([Record("ab" * 16, "log", "kv@w", 1, 1, 0, b"[]")])
    with pytest.raises(LogUnavailable):
        await start.restored(setting("memory://"), [Counting], log)
    log.left = 2
    with capture_logs() as said:
        replica = await start.resumed(setting("memory://"), Counting, log)
    assert replica.offset == -1
    assert [line["error"] for line in said] == ["no broker says where the log ends"] * 2
