"""The past of v3's keys on a real broker: the same as on any log, also where the topic was trimmed."""

from pathlib import Path

import pytest

from actors.kv.travel import AtRevision, Traveller
from actors.kv.v3.past import Made
from streams.events import kv3 as says
from streams.log.open import open_log
from streams.log.port import LogTruncated
from streams.records import parse
from tests.actors.kv.test_travel import ALL, LOG, History, shown
from tests.cluster.parts import address

pytestmark = pytest.mark.kafka


async def test_a_topic_tells_what_memory_tells(kafka1, tmp_path: Path) -> None:
    puts = [[says.Put(f"k{number % 5}", str(number)), says.Put("k", str(number))] for number in range(40)]
    history = History([*puts[:20], [says.Compact(30), says.Delete("k1")], *puts[20:]])
    log = await open_log(address(kafka1.bootstrap), {})
    try:
        for entry in history.log.entries:
            await log.append([parse(entry)])
        traveller = Traveller(log, tmp_path, LOG)
        for revision in (1, 2, 17, 30, 41, 42, 70, history.twin.revision):
            view = await traveller.view(AtRevision(revision))
            assert shown(view.alive(ALL)) == history.revisions[revision], revision
        for position in [*history.at][::17]:
            assert shown((await traveller.view(position)).alive(ALL)) == history.at[position]
        seen: list[Made] = []
        await traveller.told(None, 0, seen.append)
        assert [(one.rev.mod, one.rev.key) for one in seen] == [row[:2] for row in history.twin.made]
        await history.snapshots(tmp_path, {30})
        await log.trim(31)
        with pytest.raises(LogTruncated, match=r"revision 12 was compacted.*revisions from 30 on are known"):
            await traveller.view(AtRevision(12))
        for revision in (30, 45, 70):
            assert shown((await traveller.view(AtRevision(revision))).alive(ALL)) == history.revisions[revision]
    finally:
        await log.close()
