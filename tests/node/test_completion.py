"""The completion scripts, asked by the shells that they are for."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]

#: What is on the line when Tab is pressed, what must be offered and what must not.
CASES = [
    ("corelog u", {"up", "unit", "update"}, {"kv", "log"}),
    ("corelog unit s", {"submit", "start", "stop", "status"}, {"list", "drain"}),
    ("corelog unit list --wa", {"--watch"}, {"--at"}),
    ("corelog completion ", {"bash", "zsh", "fish"}, {"up"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        made = subprocess.run(
            [sys.executable, "-m", "node.cli.main", "completion", shell], capture_output=True, cwd=ROOT, check=True
        )
        (folder / shell).write_bytes(made.stdout)
    return folder


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    return done.stdout


@pytest.mark.parametrize(("line", "offered", "others"), CASES)
def test_bash_offers(scripts: Path, line: str, offered: set[str], others: set[str]) -> None:
    # as readline does it: the words so far, and the function that `complete` has for the command
    asked = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        function=$(complete -p corelog | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        "$function" corelog "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    found = set(run(needs.program("bash"), "--norc", "-c", asked, "-", str(scripts / "bash"), *line.split(" ")).split())
    assert offered <= found
    assert not others & found


@pytest.mark.parametrize(("line", "offered", "others"), CASES)
def test_fish_offers(scripts: Path, line: str, offered: set[str], others: set[str], tmp_path: Path) -> None:
    asked = f"cd {tmp_path}; source {scripts / 'fish'}; complete -C '{line}'"
    found = {one.partition("\t")[0] for one in run(needs.program("fish"), "--no-config", "-c", asked).splitlines()}
    assert offered <= found
    assert not others & found


class Zsh:
    """A zsh on a terminal; its menus are read from there, as a person does."""

    def __init__(self, home: Path) -> None:
        zsh, setsid = needs.program("zsh"), needs.program("setsid")
        environ = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(home), "PS1": "> ", "LC_ALL": "C.UTF-8"}
        self.fd, end = pty.openpty()
        try:
            self.process = subprocess.Popen(
                [setsid, "--ctty", zsh, "-f", "-i"], stdin=end, stdout=end, stderr=end, cwd=home, env=environ
            )
        finally:
            os.close(end)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def until(self, *words: str) -> str:
        """What is shown until all ``words`` stand in it; from there on the next is read."""
        until_s = time.monotonic() + 60
        while not all(word in self.seen for word in words):
            assert time.monotonic() < until_s, f"{words} not in {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")
        shown, self.seen = self.seen, ""
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.mark.parametrize("way", ["sourced", "on fpath"])
def test_zsh_offers(scripts: Path, tmp_path: Path, way: str) -> None:
    assert run(needs.program("zsh"), "-n", str(scripts / "zsh")) == ""
    (tmp_path / "_corelog").write_bytes((scripts / "zsh").read_bytes())
    shell = Zsh(tmp_path)
    try:
        begin = "autoload -U compinit; LISTMAX=1000; zstyle ':completion:*' list-prompt ''; unsetopt menu_complete; "
        if way == "sourced":
            begin += f"compinit -D -u; source {scripts / 'zsh'}"
        else:
            begin += f"fpath=({tmp_path} $fpath); compinit -D -u"
        shell.type(begin + "; print rea''dy\n")
        shell.until("ready")
        for line, offered, others in CASES:
            # Tab completes what is common, the second one lists; with one answer it is on the line
            shell.type(line + "\t\t")
            shown = shell.until(*offered)
            assert not {word for word in others if f" {word} " in shown}, shown
            # Ctrl-U: the line is empty again
            shell.type("\x15print ne''xt\n")
            shell.until("next")
    finally:
        shell.close()
