"""What copies need of every driver (``Copyable`` in streams/log/port.py): bytes as they are, holes, a beginning."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.log.port import Copyable, LogTruncated
from streams.log.tools_read import stretch
from tests.contract.drivers import Factory, parameters, record


@pytest.fixture(params=parameters())
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Copyable]:
    factory: Factory = request.param
    async with factory(tmp_path) as made:
        opened = await made.open()
        assert isinstance(opened, Copyable)
        yield opened
        await opened.close()


#: Records of ours, damaged and newer ones, and what others wrote on Kafka, with nulls and empty parts.
RAWS = [
    record(1).canonical(),
    b"CORELOG 1 nonsense kv",
    b"CORELOG 1 0 kv writer@m x y z -\n[]",
    b"CORELOG 7 0 kv writer@m x y z -\n[]",
    b"FOREIGN kafka - 5\nhello",
    b"FOREIGN kafka 0 -\n",
    b"FOREIGN kafka - 0\n",
    b"FOREIGN kafka 1 2 1 - 7 0\nkvvxcorelog",
]


async def test_bytes_holes_and_the_beginning_are_as_they_were(log: Copyable) -> None:
    await log.begin_at(7)
    assert (await log.first(), await log.end()) == (7, 7)
    raws = []
    for raw in RAWS:
        with contextlib.suppress(ValueError):
            log.check_raw(raw)
            raws.append(raw)
    assert len(raws) >= 7
    assert await log.append_raw(raws[:2]) == [7, 8]
    await log.leave_hole(3)
    assert await log.append_raw(raws[2:]) == list(range(12, 12 + len(raws) - 2))
    found = [entry async for batch in stretch(log, 7, await log.end()) for entry in batch]
    assert [entry.offset for entry in found] == [7, 8, *range(12, 12 + len(raws) - 2)]
    assert [entry.raw for entry in found] == raws
    with pytest.raises(LogTruncated):
        await anext(log.tail(3))
    assert await log.append([record(2)]) == [12 + len(raws) - 2]
