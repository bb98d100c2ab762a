"""The journal: written by shims, read backwards, followed across rotations."""

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine import journal
from actors.engine.journal import Line, NoJournal, follow, parse_line, read
from actors.engine.journal_file import LINE_BYTES_MAX, JournalFile
from tests.actors.engine.rig import place, rig, unit


@pytest.fixture
def home(tmp_path):
    journal.unit_folder(tmp_path, "u").mkdir(parents=True)
    return tmp_path


def written(home, size_max_bytes=1 << 20):
    return JournalFile(str(journal.unit_folder(home, "u")), size_max_bytes)


def texts(lines):
    return [line.text for line in lines]


def test_lines_are_whole_whatever_pieces_they_came_in(home):
    file = written(home)
    for piece in (b"on", b"e\ntwo\nthr", b"ee\n", b"rest"):
        file.feed("O", piece)
    file.feed("E", b"other\n")
    file.finish("O")
    assert [(line.stream, line.text) for line in read(home, "u")] == [
        ("stdout", "one"),
        ("stdout", "two"),
        ("stdout", "three"),
        ("stderr", "other"),
        ("stdout", "rest"),
    ]


def test_the_newest_lines_are_read_across_both_files(home):
    file = written(home, 2000)
    for number in range(100):
        file.feed("O", f"{number}\n".encode())
    folder = journal.unit_folder(home, "u")
    assert sorted(os.listdir(folder)) == ["journal", "journal.1"]
    assert all((folder / name).stat().st_size <= 2000 for name in os.listdir(folder))
    assert texts(read(home, "u", 5)) == ["95", "96", "97", "98", "99"]
    kept = texts(read(home, "u", 0))
    assert kept == [str(number) for number in range(100 - len(kept), 100)]
    assert len(kept) > 80


def test_a_line_without_end_is_split(home):
    file = written(home)
    file.feed("O", b"x" * (2 * LINE_BYTES_MAX + 5))
    file.feed("O", b"\n")
    assert [len(line.text) for line in read(home, "u")] == [LINE_BYTES_MAX, LINE_BYTES_MAX, 5]


def test_a_torn_last_line_does_not_swallow_the_next(home):
    path = journal.unit_folder(home, "u") / "journal"
    path.write_bytes(b"1 O whole\n2 O to")
    assert texts(read(home, "u")) == ["whole"]
    written(home).feed("O", b"next\n")
    assert texts(read(home, "u")) == ["whole", "to", "next"]


def test_a_unit_without_a_journal_is_named(tmp_path):
    with pytest.raises(NoJournal, match=r"x\.service has no journal"):
        read(tmp_path, "x.service")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "a\0b"])
def test_an_odd_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="not a unit's name"):
        read(tmp_path, name)


@given(st.binary(max_size=200))
def test_any_bytes_parse_to_a_line_or_to_nothing(raw):
    line = parse_line(raw)
    assert line is None or isinstance(line, Line)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_what_is_fed_is_read_back(tmp_path_factory, pieces):
    home = tmp_path_factory.mktemp("j")
    journal.unit_folder(home, "u").mkdir(parents=True)
    file = written(home)
    for piece in pieces:
        file.feed("O", piece)
    file.finish("O")
    file.close()
    fed = b"".join(pieces)
    lines = fed.removesuffix(b"\n").split(b"\n") if fed else []
    assert texts(read(home, "u", 0)) == [line.rstrip(b"\r").decode("utf-8", "replace") for line in lines]


async def test_follow_gives_every_line_once_across_rotations(home):
    file = written(home, 3000)
    file.feed("O", b"old\n")
    got = []

    async def reader():
        async for line in follow(home, "u", 1):
            got.append(line.text)
            if line.text == "299":
                return

    task = asyncio.create_task(reader())
    while not got:
        await asyncio.sleep(0)
    for number in range(300):
        file.feed("O", f"{number}\n".encode())
        if number % 20 == 0:
            await asyncio.sleep(0.005)
    async with asyncio.timeout(20):
        await task
    assert got == ["old", *map(str, range(300))]


async def test_follow_ends_when_the_unit_is_removed(home):
    written(home).feed("O", b"one\n")
    seen = [line.text async for line in _until_removed(home)]
    assert seen == ["one"]


async def _until_removed(home):
    async for line in follow(home, "u"):
        yield line
        folder = journal.unit_folder(home, "u")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


async def test_a_units_output_is_followed_while_it_runs_again(tmp_path):
    where = place(tmp_path)
    async with rig(where) as it:
        await it.engine.start(unit("f.service", "echo first"), 1, 1)
        await it.ended("f.service")
        lines = follow(tmp_path, "f.service", 10)
        assert (await anext(lines)).text == "first"
        await it.engine.collect("f.service", it.engine.inventory()["f.service"].run)
        await it.engine.start(unit("f.service", "echo second"), 1, 1)
        async with asyncio.timeout(20):
            while (line := await anext(lines)).text != "second":
                pass
        assert line.stream == "stdout"
        await lines.aclose()
        await it.ended("f.service")
