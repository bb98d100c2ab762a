from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.audit.file import BadTrailFile, TrailFile
from streams.audit.lines import Line
from streams.audit.outcomes import MARK
from streams.audit.trail import Commands, Refusals, Wanted, joined
from streams.events import encode, kv, say
from streams.events import log as log_says
from streams.records import Entry, Record

LOG = "ab" * 16


def line(offset: int, outcome: str = "accepted", **more: object) -> Line:
    return Line(f"{offset}.0", str(more.pop("type", "kv.set.v1")), outcome, **more)  # type: ignore[arg-type]


async def _each(items: list) -> AsyncIterator:  # type: ignore[type-arg]
    for item in items:
        yield item


@given(
    kinds=st.lists(st.sampled_from(["kv", "control", "fact", "void"]), max_size=30),
    repeats=st.lists(st.integers(0, 29), max_size=6),
    told=st.integers(0, 30),
    ahead=st.booleans(),
)
async def test_each_command_is_told_once_in_order_with_the_outcome_that_is_there(
    kinds: list[str], repeats: list[int], told: int, ahead: bool
) -> None:
    """``told``: outcomes are there up to this position; ``repeats``: a new master begins again from there."""
    commands, topic, wanted = [], [], []
    for at, kind in enumerate(kinds):
        name = "kv.set.v1" if kind == "kv" else "unit.submitted.v1"
        fold = "kv" if kind == "kv" else "control"
        if kind != "fact":
            commands.append(line(at, "pending", type=name))
        if kind in ("kv", "control") and at < told:
            topic.append((fold, line(at, type=name)))
            wanted.append(topic[-1][1])
        elif kind == "fact" and at < told:
            topic.append(("control", line(at, "rejected", type=name)))
            wanted.append(topic[-1][1])
        elif kind != "fact":
            wanted.append(commands[-1])
    for back in repeats:
        topic += [item for item in topic if item[1].at.offset >= back][:5]
    if ahead:
        topic.sort(key=lambda item: item[0])
    topic.append(("kv", line(told, type=MARK)))
    got = [one async for one in joined(_each(commands), _each(topic))]
    assert got == wanted


def test_commands_are_read_from_the_log_by_a_bystander() -> None:
    commands = Commands()

    def entry(offset: int, stream: str, log_id: str, *data: object) -> Entry:
        events = [say(one, principal="uid:0") for one in data]  # type: ignore[arg-type]
        return Entry(offset, Record(log_id, stream, "kv@m", 1, 1, 5, encode(events)).canonical())

    assert list(commands.lines(entry(0, "log", LOG, log_says.LogOpened(id=LOG)))) == []
    found = list(commands.lines(entry(1, "kv", LOG, kv.Set("/a", "v"), kv.Expired("/a", 1, 1), kv.Delete("/a"))))
    assert [(one.position, one.type, one.outcome, one.subject) for one in found] == [
        ("1.0", "kv.set.v1", "pending", "/a"),
        ("1.2", "kv.delete.v1", "pending", "/a"),
    ]
    assert list(commands.lines(entry(2, "kv", "cd" * 16, kv.Set("/foreign")))) == []
    for raw in (b"", b"junk", b"CORELOG 9 x", b"CORELOG 1 broken\n[]", b"CORELOG 1 a kv kv@m 1 1 1 -\n[{]"):
        assert list(commands.lines(Entry(3, raw))) == []


def test_who_is_refused_often_is_told_once_until_it_stops() -> None:
    rule = Refusals(limit=3, window_ms=1000)

    def refuse(at: int, time_ms: int, principal: str = "token:x", code: str = "pinned") -> object:
        return rule.seen(line(at, "rejected", principal=principal, code=code, time_ms=time_ms, subject=f"s{at}"))

    assert refuse(1, 0) is None
    assert refuse(2, 10, code="v2.101") is None  # a failed compare is an answer
    assert refuse(3, 20, principal="token:y") is None
    assert refuse(4, 500) is None
    alert = refuse(5, 400)  # another writer's clock is behind
    assert alert is not None
    assert (alert.principal, alert.position, alert.refused, alert.subjects) == ("token:x", "5.0", 3, ["s1", "s4", "s5"])  # type: ignore[attr-defined]
    assert refuse(6, 600) is None
    assert refuse(7, 5000) is None
    assert refuse(8, 5001) is None
    assert refuse(9, 5002) is not None
    assert rule.seen(line(10, principal="token:x")) is None


def test_a_filter_takes_what_fits_all_its_fields() -> None:
    one = line(1, "rejected", principal="p", subject="s")
    assert Wanted().matches(one)
    assert Wanted("p", "s", refused=True).matches(one)
    assert not Wanted("q").matches(one)
    assert not Wanted(subject="t").matches(one)
    assert not Wanted(refused=True).matches(line(1, principal="p"))


def test_the_file_has_each_line_once_over_restarts_and_torn_writes(tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"

    def write(*lines: Line) -> None:
        file = TrailFile(path)
        for one in lines:
            file.add("kv" if one.type.startswith("kv.") else "control", one)
        file.close()

    unit = "unit.submitted.v1"
    write(line(1), line(2, type=unit), line(3), line(3))
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1]) + 1):
        path.write_bytes(whole[:-cut])
        write(line(1), line(2, type=unit), line(3), line(4, type=MARK))
        assert path.read_bytes() == whole
    write(line(2, type=unit), line(5, type=unit))
    assert [msgspec.json.decode(raw)["position"] for raw in path.read_bytes().splitlines()] == [
        "1.0",
        "2.0",
        "3.0",
        "5.0",
    ]


def test_a_file_that_is_no_trail_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text('{"position":"1.0","type":"kv.set.v1"}\nmy notes\n')
    with pytest.raises(BadTrailFile, match=r"notes\.txt, line 2: .*name another file"):
        TrailFile(path)
    assert path.read_text().endswith("my notes\n")
