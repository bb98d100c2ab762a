"""The master raises the feature level of an older log when all who write it announced that they know a higher one."""

import time
from pathlib import Path

import pytest

from streams.events import log as says
from streams.events.base import encode, say
from streams.log.memory import MemoryLog
from streams.log.port import Log
from streams.records import Record
from streams.replay import LEVEL
from tests.actors.kv.server import LOG, Client, Running


def record(writer: str, data: says.LogOpened | says.ActorOpened) -> Record:
    return Record(LOG, "log", writer, 1, 1, 1, encode([say(data)]))


@pytest.mark.parametrize("theirs", [LEVEL, LEVEL - 1], ids=["all know it", "one doesn't"])
def test_an_old_log_is_raised_when_all_who_write_it_know_the_level(tmp_path: Path, theirs: int) -> None:
    async def old() -> Log:
        log = MemoryLog()
        opened = says.ActorOpened(nonce="n", level=theirs)
        await log.append([record("node@founder", says.LogOpened(id=LOG, level=1)), record("kv@other", opened)])
        return log

    with Running(tmp_path, make_log=old) as server:

        def level() -> int:
            found: int = server.call(lambda: server.shell.host.replica.log.level)
            return found

        client, until_s = Client(server.port), time.monotonic() + 20
        client.ask("PUT", "/a", "value=1")
        if theirs == LEVEL:
            while level() != LEVEL:
                assert time.monotonic() < until_s
                time.sleep(0.01)
            assert client.ask("PUT", "/a", "value=2")[0] == 200, "it goes on"
        raised = sum(says.LevelRaised.TYPE.encode() in entry.raw for entry in server.log.entries)
        assert (level(), raised) == ((LEVEL, 1) if theirs == LEVEL else (1, 0))
        client.close()
