"""Check and reload commands: however they end, and wherever they can't even begin, that is told."""

import asyncio
import tempfile

import pytest

from node.sync import commands
from node.sync.commands import CommandFailed


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo bad; exit 3", "exited with code 3: bad"),
        ("kill -9 $$", "was killed by SIGKILL"),
        ("kill -40 $$", "was killed by signal 40"),
        ("a\0b", "can't be run"),
    ],
)
def test_how_it_failed_is_told(line: str, words: str) -> None:
    with pytest.raises(CommandFailed, match=words):
        asyncio.run(commands.run(line))


def test_without_room_for_what_it_prints_it_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(CommandFailed, match=r"can't be run: .*No such file"):
        asyncio.run(commands.run("true"))
